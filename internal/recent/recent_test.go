package recent

import (
	"testing"

	"pgregory.net/rapid"
)

// TestMemory compares a Memory with a map: what it knows is what was put last, and
// it knows at least the last Limit keys, at most twice as many.
func TestMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Memory[int, int]{Limit: rapid.IntRange(1, 5).Draw(t, "limit")}
		model := map[int]int{}
		var order []int // of the last put of each key, latest at the end
		put := func(key, v int) {
			model[key] = v
			for i, k := range order {
				if k == key {
					order = append(order[:i:i], order[i+1:]...)
					break
				}
			}
			order = append(order, key)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key, v := rapid.IntRange(0, 12).Draw(t, "key"), rapid.Int().Draw(t, "value")
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1:
				m.Put(key, v)
				put(key, v)
			case 2:
				was, _ := m.Get(key)
				m.Update(key, func(old int) int {
					if old != was {
						t.Fatalf("%d is told to be %d; it is %d", key, old, was)
					}
					return old ^ v
				})
				put(key, was^v)
			case 6, 7:
				was, known := m.Get(key)
				m.UpdateKnown(key, func(old int) int { return old ^ v })
				if known {
					put(key, was^v)
				}
			case 3:
				m.Forget(key)
				delete(model, key)
			case 4:
				m.ForgetIf(key, func(old int) bool { return old%2 == 0 })
				if old, ok := model[key]; ok && old%2 == 0 {
					if _, known := m.Get(key); known {
						t.Fatalf("%d is still known", key)
					}
					delete(model, key)
				}
			case 5:
				if v%20 == 0 {
					m.Clear()
					clear(model)
				}
			}
			known := 0
			for key := range 13 {
				got, ok := m.Get(key)
				if want, there := model[key]; ok && (!there || got != want) {
					t.Fatalf("%d is known as %d, put was %d, %v", key, got, want, there)
				}
				if ok {
					known++
				}
			}
			if known > 2*m.Limit {
				t.Fatalf("%d entries are known, with a limit of %d", known, m.Limit)
			}
			for i := len(order) - 1; i >= max(0, len(order)-m.Limit); i-- {
				if _, there := model[order[i]]; !there {
					break // what was forgotten leaves its place to nobody
				}
				if _, ok := m.Get(order[i]); !ok {
					t.Fatalf("%d, one of the last %d, is not known", order[i], m.Limit)
				}
			}
		}
	})
}
