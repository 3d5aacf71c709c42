package collectionstest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

func testConcurrency(t *testing.T, open OpenFunc) {
	t.Run("NoLostUpdate", func(t *testing.T) { noLostUpdate(t, open(t)) })
	t.Run("OneClaimEach", func(t *testing.T) { oneClaimEach(t, open(t)) })
	t.Run("OneReceiptAKey", func(t *testing.T) { oneReceiptAKey(t, open(t)) })
	t.Run("NoWriteSkew", func(t *testing.T) { noWriteSkew(t, open(t)) })
}

// together runs fn(0), fn(1) … fn(n-1) at the same time and reports the errors.
func together(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		group.Go(func() { errs[i] = fn(i) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func noLostUpdate(t *testing.T, b collections.Backend) {
	const workers, rounds = 6, 8
	insert(t, b, queued("ro-1", 1))
	ctx := testContext(t)
	together(t, workers, func(int) error {
		for range rounds {
			err := b.Atomic(ctx, func(tx collections.Tx) error {
				r, err := tx.Rollout("ro-1")
				if err != nil {
					return err
				}
				r = r.Clone()
				r.Spans++
				return tx.PutRollout(r)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if got := record(t, b, "ro-1").Spans; got != workers*rounds {
		t.Errorf("%d sections counted to %d", workers*rounds, got)
	}
	same(t, "queue", head(t, b, 2), []string{"ro-1"})
}

// oneClaimEach has claimers and enqueuers at work at once.
func oneClaimEach(t *testing.T, b collections.Backend) {
	const claimers, enqueuers, each = 6, 2, 24
	ctx := testContext(t)
	var mu sync.Mutex
	taken := map[string]int{}
	together(t, claimers+enqueuers, func(i int) error {
		if i >= claimers {
			return enqueueBatches(b, t, fmt.Sprintf("ro-%d-", i), each, 4)
		}
		for {
			var got []string
			err := b.Atomic(ctx, func(tx collections.Tx) error {
				rs, err := tx.Head(3)
				if err != nil {
					return err
				}
				got = recordIDs(rs)
				return begin(tx, rs)
			})
			if err != nil {
				return err
			}
			mu.Lock()
			for _, id := range got {
				taken[id]++
			}
			done := len(taken) == enqueuers*each
			mu.Unlock()
			if done {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%d of %d rollouts were claimed: %w", len(taken), enqueuers*each, err)
			}
		}
	})
	for id, n := range taken {
		if r := record(t, b, id); n != 1 || len(r.Attempts) != 1 || r.Place != 0 {
			t.Errorf("%s was claimed %d times, has %d attempts and place %d", id, n, len(r.Attempts), r.Place)
		}
	}
}

func enqueueBatches(b collections.Backend, t *testing.T, prefix string, n, batch int) error {
	for from := 0; from < n; from += batch {
		rs := queuedNumbered(prefix, from, batch)
		err := b.Atomic(t.Context(), func(tx collections.Tx) error { return tx.InsertRollouts(clones(rs)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// oneReceiptAKey races sections of one idempotency key: one creates, the others
// find its receipt.
func oneReceiptAKey(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	const callers = 6
	answers := make([]string, callers)
	together(t, callers, func(i int) error {
		id := fmt.Sprintf("ro-%d", i)
		return b.Atomic(ctx, func(tx collections.Tx) error {
			r, err := tx.Receipt("key")
			if err != nil {
				return err
			}
			if r != nil {
				answers[i] = r.Refs[0].RolloutID
				return nil
			}
			answers[i] = id
			if err := tx.InsertRollouts([]*queue.Record{queued(id, 1)}); err != nil {
				return err
			}
			return tx.PutReceipt(&collections.Receipt{
				Key: "key", Operation: "enqueue", Time: 1e9, Refs: []queue.AttemptRef{{RolloutID: id}},
			})
		})
	})
	for _, id := range answers {
		if id != answers[0] {
			t.Errorf("callers of one key were answered %q", answers)
			break
		}
	}
	same(t, "queue", head(t, b, callers), answers[:1])
}

// noWriteSkew lets two sections each read both of two rollouts and start one
// when the other has not started: in any serial order only one starts.
func noWriteSkew(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	for round := range 10 {
		ids := []string{fmt.Sprintf("ro-%d-a", round), fmt.Sprintf("ro-%d-b", round)}
		insert(t, b, queued(ids[0], 1), queued(ids[1], 1))
		together(t, 2, func(i int) error {
			return b.Atomic(ctx, func(tx collections.Tx) error {
				other, err := tx.Rollout(ids[1-i])
				if err != nil {
					return err
				}
				own, err := tx.Rollout(ids[i])
				if err != nil || len(other.Attempts) > 0 {
					return err
				}
				return begin(tx, []*queue.Record{own})
			})
		})
		a, b := record(t, b, ids[0]), record(t, b, ids[1])
		if started := len(a.Attempts) + len(b.Attempts); started != 1 {
			t.Fatalf("%d of two exclusive rollouts were started", started)
		}
	}
}
