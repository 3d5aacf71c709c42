package store_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// gone is a backend that, when down, takes a moment to refuse a change.
type gone struct {
	collections.Backend
	down    atomic.Bool
	refused atomic.Int32
}

func (g *gone) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	if g.down.Load() {
		g.refused.Add(1)
		time.Sleep(20 * time.Millisecond)
		return collections.Lost{}, queue.Errorf(queue.Unavailable, "down")
	}
	return g.Backend.Separately(ctx, fn)
}

// TestReadersFlushTogether has many read workers and rollouts while nothing can
// be written: they do not each wait for a vain try of their own.
func TestReadersFlushTogether(t *testing.T) {
	const readers = 20
	for name, read := range map[string]func(s *store.Store, a *queue.Attempt) error{
		"workers": func(s *store.Store, _ *queue.Attempt) error {
			_, err := s.Worker(context.Background(), "w")
			return err
		},
		"rollouts": func(s *store.Store, a *queue.Attempt) error {
			_, err := s.Rollout(context.Background(), a.RolloutID)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			b := &gone{Backend: memory.New(memory.Options{Logger: quiet})}
			s := store.New(b, store.Options{Logger: quiet})
			must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
			got := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{WorkerID: ptr("w"), Limit: 1}))
			must[queue.SpansAdded](t)(s.AddSpans(ctx, []queue.Span{span(got[0].Attempt, "1")}))
			b.down.Store(true)
			var all sync.WaitGroup
			for range readers {
				all.Go(func() {
					if err := read(s, got[0].Attempt); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if n := b.refused.Load(); n == 0 || n > readers/2 {
				t.Errorf("%d writes were tried for %d readers", n, readers)
			}
			b.down.Store(false)
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
