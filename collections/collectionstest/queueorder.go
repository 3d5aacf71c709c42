package collectionstest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

func testQueue(t *testing.T, open OpenFunc) {
	t.Run("FirstInFirstOut", func(t *testing.T) { firstInFirstOut(t, open(t)) })
	t.Run("HeadLeavesOutWhatWasPut", func(t *testing.T) { headLeavesOutPut(t, open(t)) })
	t.Run("RequeueGoesToTheTail", func(t *testing.T) { requeueGoesToTail(t, open(t)) })
	t.Run("UnclaimReturnsToItsPlace", func(t *testing.T) { unclaimReturns(t, open(t)) })
	t.Run("LeavesFromTheMiddle", func(t *testing.T) { leavesFromMiddle(t, open(t)) })
	t.Run("PutKeepsThePlace", func(t *testing.T) { putKeepsPlace(t, open(t)) })
	t.Run("ManyInAndOut", func(t *testing.T) { manyInAndOut(t, open(t)) })
	t.Run("QueuedBefore", func(t *testing.T) { queuedBefore(t, open(t)) })
}

func hasQueued(t *testing.T, b collections.Backend, want bool) {
	t.Helper()
	if got, err := b.HasQueued(testContext(t)); err != nil || got != want {
		t.Errorf("HasQueued = %t, %v; want %t", got, err, want)
	}
}

func firstInFirstOut(t *testing.T, b collections.Backend) {
	hasQueued(t, b, false)
	// The queue is in order of enqueuing, whatever ids and times say.
	insert(t, b, queued("ro-z", 9), queued("ro-m", 3))
	insert(t, b, queued("ro-a", 1))
	insert(t, b, queue.NewRecord("ro-started", queue.Request{}, false, 1), queued("ro-k", 2))
	hasQueued(t, b, true)
	same(t, "head of 0", head(t, b, 0), []string{})
	same(t, "head of 2", head(t, b, 2), []string{"ro-z", "ro-m"})
	same(t, "head of 9", head(t, b, 9), []string{"ro-z", "ro-m", "ro-a", "ro-k"})
	var last int64
	for _, id := range head(t, b, 9) {
		place := record(t, b, id).Place
		if place <= last {
			t.Errorf("%s has place %d after %d", id, place, last)
		}
		last = place
	}
	same(t, "place of ro-started", record(t, b, "ro-started").Place, 0)
	same(t, "claimed", claim(t, b, 1), []string{"ro-z"})
	same(t, "claimed", claim(t, b, 2), []string{"ro-m", "ro-a"})
	same(t, "claimed", claim(t, b, 2), []string{"ro-k"})
	same(t, "claimed", claim(t, b, 2), []string{})
	hasQueued(t, b, false)
}

func headLeavesOutPut(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 6)...)
	atomic(t, b, func(tx collections.Tx) error {
		for _, want := range [][]string{{"ro-000", "ro-001"}, {"ro-002", "ro-003"}, {"ro-004", "ro-005"}, {}} {
			rs, err := tx.Head(2)
			if err != nil {
				return err
			}
			same(t, "head", recordIDs(rs), want)
			for _, r := range rs {
				if r.Place <= 0 || !r.Rollout.Status.Queued() {
					t.Errorf("head holds %s with place %d, %s", r.Rollout.RolloutID, r.Place, r.Rollout.Status)
				}
			}
			if err := begin(tx, rs); err != nil {
				return err
			}
		}
		return nil
	})
	hasQueued(t, b, false)
}

func requeueGoesToTail(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 3)...)
	claim(t, b, 2)
	requeue := queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}
	change(t, b, "ro-001", func(r *queue.Record) { r.Update(requeue, 200) })
	change(t, b, "ro-000", func(r *queue.Record) { r.Update(requeue, 200) })
	insert(t, b, queued("ro-003", 1))
	want := []string{"ro-002", "ro-001", "ro-000", "ro-003"}
	same(t, "queue", head(t, b, 9), want)
	// Back and forth within one section.
	atomic(t, b, func(tx collections.Tx) error {
		rs, err := tx.Head(1)
		if err != nil {
			return err
		}
		if err := begin(tx, rs); err != nil {
			return err
		}
		r, err := tx.Rollout("ro-002")
		if err != nil {
			return err
		}
		r = r.Clone()
		r.Update(requeue, 201)
		return tx.PutRollout(r)
	})
	same(t, "queue", head(t, b, 9), []string{"ro-001", "ro-000", "ro-003", "ro-002"})
}

func unclaimReturns(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 4)...)
	places := map[string]int64{}
	for _, id := range head(t, b, 4) {
		places[id] = record(t, b, id).Place
	}
	claim(t, b, 3)
	insert(t, b, queued("ro-004", 1))
	for _, id := range []string{"ro-002", "ro-000"} {
		change(t, b, id, func(r *queue.Record) {
			if _, ok := r.Unclaim("at-1", places[id]); !ok {
				t.Errorf("%s could not be given back", id)
			}
		})
	}
	same(t, "queue", head(t, b, 9), []string{"ro-000", "ro-002", "ro-003", "ro-004"})
	claim(t, b, 4)
	change(t, b, "ro-001", func(r *queue.Record) { r.Unclaim("at-1", places["ro-001"]) })
	same(t, "queue", head(t, b, 9), []string{"ro-001"})
}

func leavesFromMiddle(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 5)...)
	for _, id := range []string{"ro-002", "ro-004", "ro-000"} {
		change(t, b, id, func(r *queue.Record) {
			r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}, 200)
		})
	}
	same(t, "queue", head(t, b, 9), []string{"ro-001", "ro-003"})
	same(t, "claimed", claim(t, b, 9), []string{"ro-001", "ro-003"})
	hasQueued(t, b, false)
}

func putKeepsPlace(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 3)...)
	change(t, b, "ro-001", func(r *queue.Record) { r.Spans = 7 })
	change(t, b, "ro-000", func(r *queue.Record) {
		r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}, 200)
	})
	same(t, "queue", head(t, b, 9), []string{"ro-000", "ro-001", "ro-002"})
	same(t, "spans", record(t, b, "ro-001").Spans, 7)
}

// manyInAndOut drains a longer queue in uneven steps while rollouts return.
func manyInAndOut(t *testing.T, b collections.Backend) {
	const n = 240
	var model []string
	for from := 0; from < n; from += 60 {
		rs := queuedNumbered("ro-", from, 60)
		insert(t, b, rs...)
		model = append(model, recordIDs(rs)...)
	}
	for step := 0; len(model) > 0; step++ {
		take := min(1+step*7%29, len(model))
		got := claim(t, b, take)
		if !slices.Equal(got, model[:take]) {
			t.Fatalf("step %d claimed %q, want %q", step, got, model[:take])
		}
		model = model[take:]
		if step%3 == 0 && step < 12 {
			id := got[0]
			change(t, b, id, func(r *queue.Record) {
				r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}, 300)
			})
			model = append(model, id)
		}
	}
	hasQueued(t, b, false)
}

func testOverdue(t *testing.T, open OpenFunc) {
	b := open(t)
	ctx := testContext(t)
	list := func(what string, now float64, limit int, want ...string) {
		t.Helper()
		got, err := b.Overdue(ctx, now, limit)
		if err != nil {
			t.Fatal(err)
		}
		same(t, what, append([]string{}, got...), append([]string{}, want...))
	}
	list("nothing stored", 1e9, 10)
	dues := map[string]float64{"ro-never": 0, "ro-a": 30, "ro-b": 10, "ro-c": 20, "ro-d": 40, "ro-past": math.SmallestNonzeroFloat64}
	for id, due := range dues {
		r := queue.NewRecord(id, queue.Request{}, false, 1)
		r.Begin("at-1", nil, false, 0, 1)
		r.Due = due
		insert(t, b, r)
	}
	list("all", 100, 10, "ro-past", "ro-b", "ro-c", "ro-a", "ro-d")
	list("limit", 100, 2, "ro-past", "ro-b")
	list("due now is not overdue", 20, 10, "ro-past", "ro-b")
	change(t, b, "ro-past", func(r *queue.Record) { r.Due = 0 })
	change(t, b, "ro-b", func(r *queue.Record) { r.Due = 90 })
	change(t, b, "ro-never", func(r *queue.Record) { r.Due = 25 })
	list("after changes", 80, 10, "ro-c", "ro-never", "ro-a", "ro-d")
	list("before all", 5, 10)
	for _, id := range []string{"ro-z", "ro-y", "ro-x"} {
		r := queue.NewRecord(id, queue.Request{}, false, 1)
		r.Due = 7
		insert(t, b, r)
	}
	list("of equals the first inserted", 8, 2, "ro-z", "ro-y")
	for i := range 30 {
		r := queue.NewRecord(fmt.Sprintf("ro-%02d", i), queue.Request{}, false, 1)
		r.Due = 200 + float64(i*7%30)
		insert(t, b, r)
	}
	got, err := b.Overdue(ctx, 1e6, 100)
	if err != nil {
		t.Fatal(err)
	}
	last := 0.0
	for _, id := range got {
		due := record(t, b, id).Due
		if due < last {
			t.Errorf("%s with due %v comes after %v", id, due, last)
		}
		last = due
	}
	same(t, "number of overdue", len(got), 38)
}
