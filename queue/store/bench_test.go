package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// BenchmarkLife is one rollout from enqueue to finish with eight spans, on the
// memory backend.
func BenchmarkLife(b *testing.B) {
	ctx := context.Background()
	s := start(b, memory.New(memory.Options{Logger: quiet}), store.Options{ScanDebounce: time.Hour})
	worker := "w"
	done := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
	b.ReportAllocs()
	for b.Loop() {
		must[[]queue.Rollout](b)(s.Enqueue(ctx, requests(1)))
		got := must[[]queue.AttemptedRollout](b)(s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: &worker}))
		a := got[0].Attempt
		for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			must[*queue.Span](b)(s.AddSpan(ctx, span(a, id)))
		}
		must[queue.Attempt](b)(s.UpdateAttempt(ctx, a.RolloutID, a.AttemptID, done))
		must[[]queue.Rollout](b)(s.Wait(ctx, []string{a.RolloutID}, 0))
		must[queue.Page[queue.Span]](b)(s.Spans(ctx, queue.SpanQuery{RolloutID: a.RolloutID, Paging: queue.All}))
	}
}
