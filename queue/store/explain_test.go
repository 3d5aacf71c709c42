package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/store"
)

// TestExplainReadsWhatIsStored follows a rollout through the queue, an attempt
// and its end; the rules themselves are tested in package queue.
func TestExplainReadsWhatIsStored(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{WorkerTTL: 30 * time.Second})
		explain := func(id string) queue.Explanation { return must[queue.Explanation](t)(s.Explain(ctx, id)) }
		if _, err := s.Explain(ctx, "ro-none"); queue.KindOf(err) != queue.NotFound {
			t.Errorf("an unknown rollout: %v", err)
		}

		queued := must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(3)))
		id := queued[2].RolloutID
		x := explain(id)
		if x.Queue == nil || x.Queue.Ahead != 2 || x.Queue.AheadOver || x.Reasons[0].Code != queue.ReasonNoWorker || x.AttemptsLeft != 1 {
			t.Errorf("the third in the queue: %+v", x)
		}
		if claimed := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 3, WorkerID: ptr("w1")})); len(claimed) != 3 {
			t.Fatalf("claimed %d", len(claimed))
		}
		x = explain(id)
		if x.Queue != nil || x.Holder == nil || *x.Holder.WorkerID != "w1" || x.Workers != (queue.WorkerCount{Known: 1, Alive: 1, Busy: 1}) ||
			x.Next[0].Event != "lease_end" || len(x.Attempts) != 1 || *x.Attempts[0].Spans != 0 {
			t.Errorf("held: %+v", x)
		}

		attempt := x.Holder.AttemptID
		const spans = 120 // more than an explanation reads
		batch := make([]queue.Span, spans)
		for i := range batch {
			batch[i] = queue.Span{RolloutID: id, AttemptID: attempt, SpanID: fmt.Sprintf("s%03d", i), Name: "step", SequenceID: queue.NumberOnArrival}
			batch[i].FillIn()
		}
		batch[spans-2].Name = semconv.ExceptionSpan
		batch[spans-2].Attributes = rawjson.Value(`{"exception.type":"ValueError","exception.message":"boom"}`)
		must[queue.SpansAdded](t)(s.AddSpans(ctx, batch))
		must[queue.Attempt](t)(s.UpdateAttempt(ctx, id, attempt, queue.AttemptUpdate{Status: queue.Set(queue.AttemptFailed)}))
		x = explain(id)
		a := x.Attempts[0]
		if x.Reasons[0].Code != queue.ReasonFinished || a.Error == nil || a.Error.Message != "boom" || *a.Spans != spans {
			t.Errorf("failed: %+v, attempt %+v", x, a)
		}
	})
}

// TestExplainLooksAtTheLastAttemptsOnly bounds what a rollout with very many
// attempts costs.
func TestExplainLooksAtTheLastAttemptsOnly(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		r := must[queue.AttemptedRollout](t)(s.Start(ctx, queue.Request{}, nil))
		for range 14 {
			must[queue.AttemptedRollout](t)(s.StartAttempt(ctx, r.RolloutID, nil))
		}
		x := must[queue.Explanation](t)(s.Explain(ctx, r.RolloutID))
		looked := 0
		for i, a := range x.Attempts {
			if a.Spans != nil {
				looked++
			} else if i >= 5 {
				t.Errorf("attempt %d of %d was not looked at", i+1, len(x.Attempts))
			}
		}
		if len(x.Attempts) != 15 || looked != 10 {
			t.Errorf("%d attempts, %d looked at", len(x.Attempts), looked)
		}
	})
}
