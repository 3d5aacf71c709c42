package memory

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestOrderedIsASortedSet compares ordered with a sorted slice.
func TestOrderedIsASortedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o ordered[int64]
		var model []entry[int64]
		rows := make([]*row, 2000)
		for i := range rows {
			rows[i] = &row{serial: int64(i)}
		}
		add := func(key int64, r *row) {
			e := entry[int64]{key, r}
			at, found := slices.BinarySearchFunc(model, e, entry[int64].compare)
			if !found {
				model = slices.Insert(model, at, e)
			}
			o.add(key, r)
		}
		remove := func(key int64, r *row) {
			e := entry[int64]{key, r}
			if at, found := slices.BinarySearchFunc(model, e, entry[int64].compare); found {
				model = slices.Delete(model, at, at+1)
			}
			o.remove(key, r)
		}
		// Fill several blocks first: from the tail, or anywhere.
		n := rapid.IntRange(0, 1500).Draw(t, "fill")
		spread := rapid.Int64Range(1, 40).Draw(t, "spread")
		for i := range n {
			add(int64(i)*7%spread*int64(i%3)+int64(i), rows[i])
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				add(rapid.Int64Range(0, 3000).Draw(t, "key"), rapid.SampledFrom(rows).Draw(t, "row"))
			},
			"remove": func(t *rapid.T) {
				if len(model) > 0 {
					e := rapid.SampledFrom(model).Draw(t, "entry")
					remove(e.key, e.row)
				}
			},
			"remove absent": func(t *rapid.T) {
				remove(rapid.Int64Range(3001, 4000).Draw(t, "key"), rows[0])
			},
			"take": func(t *rapid.T) {
				for range rapid.IntRange(1, 300).Draw(t, "n") {
					if len(model) > 0 {
						remove(model[0].key, model[0].row)
					}
				}
			},
			"": func(t *rapid.T) {
				if o.size != len(model) {
					t.Fatalf("size %d, want %d", o.size, len(model))
				}
				var got []entry[int64]
				for p := (position{}); ; p = o.next(p) {
					e, ok := o.at(p)
					if !ok {
						break
					}
					got = append(got, e)
				}
				if !slices.Equal(got, model) {
					t.Fatalf("%d entries differ from the model's %d", len(got), len(model))
				}
				if !slices.IsSortedFunc(got, func(a, b entry[int64]) int { return cmp.Or(a.compare(b), -1) }) {
					t.Fatal("entries are not sorted")
				}
			},
		})
	})
}

func TestMemTotal(t *testing.T) {
	tests := []struct {
		line  string
		bytes int64
		ok    bool
	}{
		{"MemTotal:       16384256 kB", 16384256 << 10, true},
		{"MemTotal: 1 kB", 1024, true},
		{"MemFree:        16384256 kB", 0, false},
		{"MemTotal:       16384256", 0, false},
		{"MemTotal:       many kB", 0, false},
		{"MemTotal:       0 kB", 0, false},
		{"", 0, false},
	}
	for _, tt := range tests {
		bytes, ok := memTotal(tt.line)
		if ok != tt.ok || (ok && bytes != tt.bytes) {
			t.Errorf("memTotal(%q) = %d, %t; want %d, %t", tt.line, bytes, ok, tt.bytes, tt.ok)
		}
	}
	if n := physicalMemory(); n < 1<<20 {
		t.Errorf("physicalMemory() = %d", n)
	}
}
