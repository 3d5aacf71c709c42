package collectionstest

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

func testCounters(t *testing.T, open OpenFunc) {
	t.Run("Numbers", func(t *testing.T) { counterNumbers(t, open(t)) })
	t.Run("UsedUp", func(t *testing.T) { usedUp(t, open(t)) })
	t.Run("Concurrent", func(t *testing.T) { concurrentCounters(t, open(t)) })
}

func counterNumbers(t *testing.T, b collections.Backend) {
	next := func(entries ...collections.Counter) []int64 {
		t.Helper()
		first, err := b.NextSequence(testContext(t), entries, true)
		if err != nil {
			t.Fatalf("NextSequence: %v", err)
		}
		return append([]int64{}, first...)
	}
	raise := func(entries ...collections.Counter) {
		t.Helper()
		if err := b.RaiseSequence(testContext(t), entries); err != nil {
			t.Fatalf("RaiseSequence: %v", err)
		}
	}
	c := func(id string, n int64) collections.Counter { return collections.Counter{RolloutID: id, N: n} }
	same(t, "no entries", next(), []int64{})
	same(t, "first", next(c("ro-1", 1)), []int64{1})
	same(t, "three", next(c("ro-1", 3)), []int64{2})
	same(t, "several rollouts", next(c("ro-2", 2), c("ro-1", 1), c("x$.\x00é", 5)), []int64{1, 5, 1})
	same(t, "after them", next(c("x$.\x00é", 1), c("ro-2", 1), c("ro-1", 1)), []int64{6, 3, 6})
	raise()
	raise(c("ro-1", 3), c("ro-3", 10), c("ro-4", -5), c("ro-5", 0))
	same(t, "after raising", next(c("ro-1", 1), c("ro-3", 1), c("ro-4", 1), c("ro-5", 1)), []int64{7, 11, 1, 1})
	raise(c("ro-1", 7))
	same(t, "after raising to what it is", next(c("ro-1", 1)), []int64{8})
	raise(c("ro-1", 1<<40))
	same(t, "after raising far", next(c("ro-1", 1)), []int64{1<<40 + 1})
}

// usedUp raises a counter to the end of int64: it stays there, and others go on.
func usedUp(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	raise := func(n int64) {
		t.Helper()
		if err := b.RaiseSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: n}}); err != nil {
			t.Fatalf("RaiseSequence: %v", err)
		}
	}
	refused := func(n int64) {
		t.Helper()
		first, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: n}}, true)
		if queue.KindOf(err) != queue.Conflict {
			t.Fatalf("%d more numbers: %v, %v; want a conflict", n, first, err)
		}
	}
	raise(math.MaxInt64 - 2)
	refused(3)
	first, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: 2}}, true)
	if err != nil || first[0] != math.MaxInt64-1 {
		t.Fatalf("the last two numbers: %v, %v", first, err)
	}
	refused(1)
	raise(math.MaxInt64)
	refused(1)
	if first, err = b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-2", N: 1}}, false); err != nil || first[0] != 1 {
		t.Fatalf("another rollout: %v, %v", first, err)
	}
}

// concurrentCounters draws numbers of one rollout and of many at once: none is
// issued twice and none left out.
func concurrentCounters(t *testing.T, b collections.Backend) {
	const drawers, rounds = 6, 20
	ctx := testContext(t)
	var mu sync.Mutex
	issued := map[string][]int64{}
	together(t, drawers, func(i int) error {
		for round := range rounds {
			entries := []collections.Counter{
				{RolloutID: "shared", N: int64(1 + (i+round)%3)},
				{RolloutID: fmt.Sprint("ro-", (i+round)%4), N: 1},
			}
			first, err := b.NextSequence(ctx, entries, round%2 == 0)
			if err != nil {
				return err
			}
			mu.Lock()
			for k, e := range entries {
				for n := range e.N {
					issued[e.RolloutID] = append(issued[e.RolloutID], first[k]+n)
				}
			}
			mu.Unlock()
		}
		return nil
	})
	for id, numbers := range issued {
		slices.Sort(numbers)
		for i, n := range numbers {
			if n != int64(i+1) {
				t.Fatalf("%s: number %d of those issued is %d", id, i+1, n)
			}
		}
	}
}

func testStatistics(t *testing.T, open OpenFunc) {
	b := open(t)
	check := func(what string, want queue.Statistics) {
		t.Helper()
		got, err := b.Statistics(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for s, n := range got.ByStatus {
			if n == 0 {
				delete(got.ByStatus, s)
			}
		}
		if len(got.ByStatus) == 0 {
			got.ByStatus = nil
		}
		got.Name, got.Uptime, got.Memory = "", 0, nil
		same(t, what, got, want)
	}
	check("empty", queue.Statistics{})
	insert(t, b, queuedNumbered("ro-", 0, 5)...)
	claim(t, b, 3)
	finish := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
	change(t, b, "ro-000", func(r *queue.Record) {
		if _, _, err := r.UpdateAttempt("latest", finish, 500); err != nil {
			t.Error(err)
		}
	})
	change(t, b, "ro-001", func(r *queue.Record) { r.Begin("at-2", nil, false, 0, 500) })
	putWorker(t, b, queue.NewWorker("w-1"))
	putWorker(t, b, queue.NewWorker("w-2"))
	putWorker(t, b, queue.NewWorker("w-1"))
	putResources(t, b, resourceSet("rs-1", 1, 1, 1))
	putResources(t, b, resourceSet("rs-1", 1, 2, 2))
	insertSpans(t, b, span("ro-000", "at-1", "a", 1), span("ro-000", "at-1", "a", 2), span("ro-001", "at-1", "a", 1))
	check("counted", queue.Statistics{
		Rollouts: 5, Attempts: 4, Spans: 2, Resources: 1, Workers: 2,
		ByStatus: map[queue.RolloutStatus]int64{
			queue.RolloutQueuing: 2, queue.RolloutPreparing: 2, queue.RolloutSucceeded: 1,
		},
	})
	change(t, b, "ro-002", func(r *queue.Record) {
		if _, ok := r.Unclaim("at-1", r.Place+1); !ok {
			t.Error("could not be given back")
		}
	})
	check("after giving a claim back", queue.Statistics{
		Rollouts: 5, Attempts: 3, Spans: 2, Resources: 1, Workers: 2,
		ByStatus: map[queue.RolloutStatus]int64{
			queue.RolloutQueuing: 3, queue.RolloutPreparing: 1, queue.RolloutSucceeded: 1,
		},
	})
}
