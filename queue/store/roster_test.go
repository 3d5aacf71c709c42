package store_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
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

// choosy is a backend that holds no record of the worker "big".
type choosy struct{ collections.Backend }

type choosyTx struct{ collections.Tx }

func (c choosy) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	return c.Backend.Separately(ctx, func(tx collections.Tx) error { return fn(choosyTx{tx}) })
}

func (c choosyTx) PutWorker(w *queue.Worker) error {
	if w.WorkerID == "big" {
		return queue.Errorf(queue.TooLarge, "told to")
	}
	return c.Tx.PutWorker(w)
}

// TestRecordThatIsTooLargeHoldsNobodyUp has one worker's record refused: those of
// others are written, before and after.
func TestRecordThatIsTooLargeHoldsNobodyUp(t *testing.T) {
	b := choosy{memory.New(memory.Options{Logger: quiet})}
	s := start(t, b, store.Options{})
	for _, id := range []string{"a", "big", "c"} {
		must[queue.HeartbeatAnswer](t)(s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: id}))
	}
	for _, id := range []string{"a", "c"} {
		must[*queue.Worker](t)(s.Worker(t.Context(), id)) // has what waits written
		if w, err := b.Worker(t.Context(), id); err != nil || w == nil {
			t.Errorf("worker %s is stored as %v, %v", id, w, err)
		}
	}
	must[queue.HeartbeatAnswer](t)(s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: "d"}))
	if w := must[*queue.Worker](t)(s.Worker(t.Context(), "d")); w == nil {
		t.Error("a worker that came later is not stored")
	}
	if w := must[*queue.Worker](t)(s.Worker(t.Context(), "big")); w != nil {
		t.Errorf("the refused worker is stored as %v", w)
	}
}

// TestLongHeartbeatIsAnsweredWhenWritten refuses statistics that are too much for the
// backend, rather than to drop them later.
func TestLongHeartbeatIsAnsweredWhenWritten(t *testing.T) {
	s := start(t, choosy{memory.New(memory.Options{Logger: quiet})}, store.Options{})
	stats := rawjson.Value(`{"text":"` + strings.Repeat("x", 1<<20) + `"}`)
	_, err := s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: "big", Stats: stats})
	if queue.KindOf(err) != queue.TooLarge {
		t.Errorf("error is %v", err)
	}
	must[queue.HeartbeatAnswer](t)(s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: "small", Stats: stats}))
}
