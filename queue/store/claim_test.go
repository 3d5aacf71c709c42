package store_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// failing is a backend that refuses the next change, if told so.
type failing struct {
	collections.Backend
	next atomic.Bool
}

func (f *failing) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	if f.next.CompareAndSwap(true, false) {
		return collections.Lost{}, queue.Errorf(queue.Unavailable, "told to")
	}
	return f.Backend.Separately(ctx, fn)
}

// TestFailedClaimWakesTheNext has the claim that is woken for a rollout fail:
// another one that waits gets it.
func TestFailedClaimWakesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &failing{Backend: memory.New(memory.Options{Logger: quiet})}
		s := store.New(b, store.Options{Logger: quiet})
		defer s.Close(context.Background())
		var claimed, failed atomic.Int32
		for range 2 {
			go func() {
				got, err := s.Claim(context.Background(), queue.Claim{Limit: 1, Wait: time.Minute})
				claimed.Add(int32(len(got)))
				if err != nil {
					failed.Add(1)
				}
			}()
		}
		synctest.Wait()
		b.next.Store(true)
		if _, err := s.Enqueue(context.Background(), requests(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if claimed.Load() != 1 || failed.Load() != 1 {
			t.Errorf("%d claimed and %d failed, want one of each", claimed.Load(), failed.Load())
		}
	})
}

// TestEmptyQueueIsLookedAtAgain queues a rollout without telling the store: it
// is found before long.
func TestEmptyQueueIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{Logger: quiet})
		s := store.New(b, store.Options{Logger: quiet})
		defer s.Close(context.Background())
		claim := func() int {
			return len(must[[]queue.AttemptedRollout](t)(s.Claim(context.Background(), queue.Claim{Limit: 1, Wait: 10 * time.Second})))
		}
		if claim() != 0 {
			t.Fatal("claimed of an empty queue")
		}
		err := b.Atomic(context.Background(), func(tx collections.Tx) error {
			return tx.InsertRollouts([]*queue.Record{queue.NewRecord("r", queue.Request{}, true, 1)})
		})
		if err != nil || claim() != 1 {
			t.Error("nothing was found", err)
		}
	})
}

// TestIdleHeartbeatShowsTheLastOne has a heartbeat write that its attempt has
// ended: the next one, which is written behind, answers so.
func TestIdleHeartbeatShowsTheLastOne(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		s, ctx := start(t, open(), store.Options{}), t.Context()
		must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
		got := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{WorkerID: ptr("w"), Limit: 1}))
		must[*queue.Worker](t)(s.Worker(ctx, "w"))
		a := got[0].Attempt
		done := queue.AttemptUpdate{Status: queue.Optional[queue.AttemptStatus]{Set: true, Value: queue.AttemptSucceeded}}
		must[queue.Attempt](t)(s.UpdateAttempt(ctx, a.RolloutID, a.AttemptID, done))
		held := []queue.AttemptRef{{RolloutID: a.RolloutID, AttemptID: a.AttemptID}}
		must[queue.HeartbeatAnswer](t)(s.Heartbeat(ctx, queue.Heartbeat{WorkerID: "w", Held: held}))
		if out := must[queue.HeartbeatAnswer](t)(s.Heartbeat(ctx, queue.Heartbeat{WorkerID: "w"})); out.Worker.Status != queue.WorkerIdle {
			t.Errorf("the worker is shown as %s", out.Worker.Status)
		}
	})
}
