// Package testagent makes stores and the simplest of workers for the tests of
// algorithms.
package testagent

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// Store opens a store in memory that lives as long as the test.
func Store(t testing.TB) *store.Store {
	t.Helper()
	s := store.New(memory.New(memory.Options{}), store.Options{})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

// Outcome is what an agent makes of a task.
type Outcome struct {
	Reward *float64 // sent as a span; nil sends none
	Failed bool
	Error  string // for the attempt's metadata
}

// Rewarded is the outcome of a success.
func Rewarded(v float64) Outcome { return Outcome{Reward: &v} }

// Serve runs n workers until the test ends. Handle is called concurrently.
func Serve(t testing.TB, s queue.Store, n int, handle func(queue.AttemptedRollout) Outcome) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	for i := range n {
		running.Go(func() {
			name := fmt.Sprintf("worker-%d", i)
			for ctx.Err() == nil {
				claimed, err := s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: &name, Wait: time.Second})
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("claiming: %v", err)
					}
					return
				}
				for _, c := range claimed {
					if err := Finish(ctx, s, c, handle(c)); err != nil && ctx.Err() == nil {
						t.Errorf("finishing: %v", err)
					}
				}
			}
		})
	}
}

// Finish reports an outcome the way a worker does.
func Finish(ctx context.Context, s queue.Store, c queue.AttemptedRollout, o Outcome) error {
	if o.Reward != nil {
		text := rawjson.AppendFloat([]byte(`{"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":`), *o.Reward)
		now := queue.Seconds(time.Now())
		_, err := s.AddSpan(ctx, queue.Span{
			RolloutID: c.RolloutID, AttemptID: c.Attempt.AttemptID, SequenceID: 1,
			TraceID: "01010101010101010101010101010101", SpanID: "0202020202020202",
			Name: "agentlightning.annotation", Status: rawjson.Value(`{"status_code":"OK","description":null}`),
			Attributes: append(text, '}'), Events: rawjson.EmptyArray, Links: rawjson.EmptyArray,
			StartTime: &now, EndTime: &now, Context: rawjson.Null, Parent: rawjson.Null,
			Resource: rawjson.Value(`{"attributes":{},"schema_url":""}`),
		})
		if err != nil {
			return err
		}
	}
	u := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
	if o.Failed {
		u.Status = queue.Set(queue.AttemptFailed)
	}
	if o.Error != "" {
		u.Metadata = queue.Set(rawjson.Value(append(rawjson.AppendString([]byte(`{"error":`), o.Error), '}')))
	}
	_, err := s.UpdateAttempt(ctx, c.RolloutID, c.Attempt.AttemptID, u)
	return err
}
