package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// held is a backend whose first look for overdue rollouts is held up.
type held struct {
	collections.Backend
	once    sync.Once
	looking chan struct{} // closed when it has been made
	release chan struct{}
}

func (h *held) Overdue(ctx context.Context, now float64, limit int) ([]string, error) {
	ids, err := h.Backend.Overdue(ctx, now, limit)
	h.once.Do(func() {
		close(h.looking)
		<-h.release
	})
	return ids, err
}

// Without a debounce a call sees what was overdue when it came, even if another
// scan that began earlier is still running.
func TestCallsDoNotRelyOnAnEarlierScan(t *testing.T) {
	ctx := context.Background()
	c := newClock()
	b := memory.New(memory.Options{Logger: quiet})
	first := store.New(kept{b}, store.Options{Now: c.now, ScanDebounce: time.Hour, Logger: quiet})
	config := queue.DefaultConfig()
	config.TimeoutSeconds = ptr(5.0)
	a := must[queue.AttemptedRollout](t)(first.Start(ctx, queue.Request{Input: requests(1)[0].Input, Config: &config}, nil))
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}

	h := &held{Backend: b, looking: make(chan struct{}), release: make(chan struct{})}
	s := start(t, h, store.Options{Now: c.now})
	early := make(chan error)
	go func() {
		_, err := s.Rollout(ctx, a.RolloutID)
		early <- err
	}()
	<-h.looking
	c.advance(6 * time.Second)
	late := make(chan *queue.Attempt)
	go func() {
		got, err := s.LatestAttempt(ctx, a.RolloutID)
		if err != nil {
			t.Error(err)
		}
		late <- got
	}()
	close(h.release)
	if err := <-early; err != nil {
		t.Fatal(err)
	}
	if got := <-late; got.Status != queue.AttemptTimeout {
		t.Errorf("the attempt is %s", got.Status)
	}
}
