// Package tracetest runs traced tasks in tests without a store.
package tracetest

import (
	"context"
	"sync"
	"testing"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker/trace"
)

// keeper takes the place of a store. It numbers spans as they come.
type keeper struct {
	mu    sync.Mutex
	spans []queue.Span
}

func (k *keeper) AddSpans(_ context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range spans {
		s.SequenceID = int64(len(k.spans) + 1)
		k.spans = append(k.spans, s)
	}
	return queue.SpansAdded{Stored: spans}, nil
}

func (k *keeper) NextSequence(context.Context, string, int) (int64, error) { return 0, nil }

func (k *keeper) Rollout(context.Context, string) (*queue.AttemptedRollout, error) { return nil, nil }

// Spans runs a task as attempt at-1 of rollout ro-1 and returns its spans in the
// order in which they were sent, numbered from 1.
func Spans(t *testing.T, task func(ctx context.Context)) []queue.Span {
	t.Helper()
	var store keeper
	sender := trace.NewSender(&store, trace.Options{})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { sender.Run(ctx) })
	defer running.Wait()
	defer stop()
	sc := sender.Scope(queue.AttemptRef{RolloutID: "ro-1", AttemptID: "at-1"})
	task(trace.WithScope(t.Context(), sc))
	if missing := sc.Flush(t.Context()); missing > 0 {
		t.Fatalf("%d spans are missing", missing)
	}
	return store.spans
}
