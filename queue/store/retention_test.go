package store_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// until waits for something that happens in the background.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestRetention(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		t.Parallel()
		ctx := t.Context()
		clock := newClock()
		var rollouts, spans atomic.Int64
		s := start(t, open(), store.Options{
			Now: clock.now, RetainFinished: 10 * time.Second,
			Purged: func(r, s int64) { rollouts.Add(r); spans.Add(s) },
		})
		must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(3)))
		claimed := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 2}))
		for _, c := range claimed {
			must[*queue.Span](t)(s.AddSpan(ctx, span(c.Attempt, "a")))
			must[queue.Attempt](t)(s.UpdateAttempt(ctx, c.RolloutID, c.Attempt.AttemptID,
				queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}))
		}
		revived := claimed[1].RolloutID
		must[queue.Rollout](t)(s.UpdateRollout(ctx, revived, queue.RolloutUpdate{Status: queue.Set(queue.RolloutQueuing)}))

		clock.advance(11 * time.Second)
		until(t, "the finished rollout gone", func() bool { return rollouts.Load() == 1 })
		if got := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, claimed[0].RolloutID)); got != nil {
			t.Errorf("rollout %s is there still: %v", got.RolloutID, got)
		}
		if _, err := s.AddSpan(ctx, span(claimed[0].Attempt, "late")); queue.KindOf(err) != queue.NotFound {
			t.Errorf("a span of a deleted rollout: %v", err)
		}
		clock.advance((collections.PurgeGrace + 1) * time.Second)
		until(t, "its span gone", func() bool { return spans.Load() == 1 })
		st := must[queue.Statistics](t)(s.Statistics(ctx))
		if st.Rollouts != 2 || st.Spans != 1 || st.ByStatus[queue.RolloutQueuing] != 2 {
			t.Errorf("left are %d rollouts, %v, and %d spans; want 2 that are queued, and 1", st.Rollouts, st.ByStatus, st.Spans)
		}
	})
}

// TestRetentionOfSpans deletes spans by their age alone.
func TestRetentionOfSpans(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		t.Parallel()
		ctx := t.Context()
		var ahead atomic.Int64 // of the true clock, by which spans are stored
		var spans atomic.Int64
		s := start(t, open(), store.Options{
			Now:         func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
			RetainSpans: 10 * time.Second, Purged: func(_, s int64) { spans.Add(s) },
		})
		running := must[queue.AttemptedRollout](t)(s.Start(ctx, queue.Request{}, nil))
		for _, id := range []string{"a", "b"} {
			must[*queue.Span](t)(s.AddSpan(ctx, span(running.Attempt, id)))
		}
		ahead.Store(int64(2 * time.Hour))
		until(t, "the spans gone", func() bool { return spans.Load() == 2 })
		if got := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, running.RolloutID)); got == nil || got.Status != queue.RolloutRunning {
			t.Errorf("the rollout of deleted spans: %v", got)
		}
	})
}
