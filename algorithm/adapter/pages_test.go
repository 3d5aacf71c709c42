package adapter_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
)

// shifting is a list of rollouts that changes between requests.
type shifting struct {
	queue.Store
	list   []queue.AttemptedRollout
	change func()
}

func (s *shifting) Rollouts(_ context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	s.change()
	from := min(q.Offset, len(s.list))
	to := min(from+q.Limit, len(s.list))
	return queue.Page[queue.AttemptedRollout]{Items: slices.Clone(s.list[from:to])}, nil
}

// While rollouts appear and disappear anywhere in the list, those that stay come
// once each, and no other comes twice.
func TestListingSurvivesChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := 0
		s := &shifting{}
		insert := func(at int, start float64) { // behind those of its time
			r := queue.Rollout{RolloutID: fmt.Sprintf("ro-%d", n), StartTime: start}
			n++
			s.list = slices.Insert(s.list, at, queue.AttemptedRollout{Rollout: r})
		}
		start := 1.0
		for range rapid.IntRange(0, 40).Draw(t, "rollouts") {
			start += float64(rapid.IntRange(0, 1).Draw(t, "step"))
			insert(len(s.list), start)
		}
		stays := map[string]bool{}
		for _, r := range s.list {
			stays[r.RolloutID] = true
		}
		s.change = func() {
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				if len(s.list) > 0 && rapid.Bool().Draw(t, "delete") {
					i := rapid.IntRange(0, len(s.list)-1).Draw(t, "at")
					delete(stays, s.list[i].RolloutID)
					s.list = slices.Delete(s.list, i, i+1)
					continue
				}
				i := rapid.IntRange(0, len(s.list)).Draw(t, "at")
				at := 1.0
				if i > 0 {
					at = s.list[i-1].StartTime
				}
				for i < len(s.list) && s.list[i].StartTime == at {
					i++
				}
				insert(i, at)
			}
		}
		came := map[string]int{}
		for r, err := range (adapter.Source{Store: s, Page: rapid.IntRange(1, 5).Draw(t, "page")}).Rollouts(context.Background(), queue.RolloutQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if came[r.RolloutID]++; came[r.RolloutID] > 1 {
				t.Fatalf("%s comes twice", r.RolloutID)
			}
			if n > 2000 {
				return // more comes than is read
			}
		}
		for id := range stays {
			if came[id] != 1 {
				t.Fatalf("%s was missed", id)
			}
		}
	})
}
