package collectionstest

import (
	"fmt"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// queuedBefore counts what is ahead of each rollout, over several blocks of a
// backend's index, before and after some have left from the middle.
func queuedBefore(t *testing.T, b collections.Backend) {
	const many = 700
	count := func(place int64, limit int) int {
		t.Helper()
		n, err := b.QueuedBefore(testContext(t), place, limit)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	same(t, "ahead in an empty queue", count(1, 10), 0)
	insert(t, b, queuedNumbered("ro-", 0, many)...)
	place := func(i int) int64 { return record(t, b, fmt.Sprintf("ro-%03d", i)).Place }
	for _, i := range []int{0, 1, 255, 256, 257, many - 1} {
		same(t, fmt.Sprintf("ahead of number %d", i), count(place(i), many), i)
	}
	last := place(many - 1)
	same(t, "ahead of the last, at most 300", count(last, 300), 300)
	same(t, "ahead of the last, at most 0", count(last, 0), 0)
	same(t, "ahead of who comes next", count(last+1, 2*many), many)

	claim(t, b, 10)
	atomic(t, b, func(tx collections.Tx) error {
		r, err := tx.Rollout("ro-300")
		if err != nil {
			return err
		}
		r = r.Clone()
		r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}, 9)
		return tx.PutRollout(r)
	})
	same(t, "ahead of the head", count(place(10), many), 0)
	same(t, "ahead of the last without those that left", count(last, many), many-12)
}
