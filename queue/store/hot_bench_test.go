package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// stocked is a store on memory with rollouts in its queue, filled again when it
// is used up.
type stocked struct {
	*store.Store
	b    *testing.B
	left int
}

const stock = 1000

func newStocked(b *testing.B) *stocked {
	b.Helper()
	return &stocked{Store: start(b, memory.New(memory.Options{Logger: quiet}), store.Options{ScanDebounce: time.Hour}), b: b}
}

// one makes sure that there is a rollout to claim.
func (s *stocked) one() {
	if s.left == 0 {
		s.b.StopTimer()
		must[[]queue.Rollout](s.b)(s.Enqueue(context.Background(), requests(stock)))
		s.left = stock
		s.b.StartTimer()
	}
	s.left--
}

func BenchmarkClaim(b *testing.B) {
	s, worker := newStocked(b), "w"
	b.ReportAllocs()
	for b.Loop() {
		s.one()
		if got := must[[]queue.AttemptedRollout](b)(s.Claim(context.Background(), queue.Claim{Limit: 1, WorkerID: &worker})); len(got) != 1 {
			b.Fatal("nothing to claim")
		}
	}
}

func BenchmarkFinish(b *testing.B) {
	s, worker := newStocked(b), "w"
	done := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
	var held []queue.AttemptedRollout
	b.ReportAllocs()
	for b.Loop() {
		if len(held) == 0 {
			b.StopTimer()
			s.one()
			held = must[[]queue.AttemptedRollout](b)(s.Claim(context.Background(), queue.Claim{Limit: stock, WorkerID: &worker}))
			s.left = 0
			b.StartTimer()
		}
		a := held[0].Attempt
		held = held[1:]
		must[queue.Attempt](b)(s.UpdateAttempt(context.Background(), a.RolloutID, a.AttemptID, done))
	}
}

// BenchmarkAddSpans stores eight spans that want numbers.
func BenchmarkAddSpans(b *testing.B) {
	s := newStocked(b)
	a := must[queue.AttemptedRollout](b)(s.Start(context.Background(), queue.Request{}, nil)).Attempt
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		spans := make([]queue.Span, 8)
		for i := range spans {
			n++
			spans[i] = span(a, fmt.Sprintf("%016x", n))
			spans[i].SequenceID = queue.NumberOnArrival
		}
		if added := must[queue.SpansAdded](b)(s.AddSpans(context.Background(), spans)); len(added.Stored) != len(spans) {
			b.Fatal("spans were refused")
		}
	}
}
