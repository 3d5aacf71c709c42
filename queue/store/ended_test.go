package store_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	monitor "go.mongodb.org/mongo-driver/v2/event"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// TestWhatIsRememberedOfTheEndIsNeverStale has one store finish rollouts, which it
// then remembers, and another one change them: as soon as the other has answered,
// the first says what is so now.
func TestWhatIsRememberedOfTheEndIsNeverStale(t *testing.T) {
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: quiet}
	open := func() *store.Store {
		return start(t, must[*mongo.Backend](t)(mongo.Open(t.Context(), o)), store.Options{ScanDebounce: time.Hour})
	}
	one, other := open(), open()
	const rounds = 12
	rollouts := must[[]queue.Rollout](t)(one.Enqueue(t.Context(), requests(rounds)))
	news(t, one)
	for i, r := range rollouts {
		claimed := must[[]queue.AttemptedRollout](t)(one.Claim(t.Context(), queue.Claim{Limit: 1, WorkerID: ptr("w")}))[0]
		finish := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
		must[queue.Attempt](t)(one.UpdateAttempt(t.Context(), claimed.RolloutID, claimed.Attempt.AttemptID, finish))
		finished(t, one, r.RolloutID, true)
		switch i % 3 {
		case 0: // and back into the queue
			must[queue.Rollout](t)(other.UpdateRollout(t.Context(), r.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}))
			finished(t, one, r.RolloutID, false)
			must[queue.Rollout](t)(other.UpdateRollout(t.Context(), r.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
			finished(t, one, r.RolloutID, true)
		case 1: // by hand
			again := must[queue.AttemptedRollout](t)(other.StartAttempt(t.Context(), r.RolloutID, nil))
			finished(t, one, r.RolloutID, false)
			must[*queue.Span](t)(other.AddSpan(t.Context(), span(again.Attempt, "s")))
			spans := must[queue.Page[queue.Span]](t)(one.Spans(t.Context(), queue.SpanQuery{
				RolloutID: r.RolloutID, AttemptID: ptr("latest"), Paging: queue.All,
			}))
			if len(spans.Items) != 1 || spans.Items[0].AttemptID != again.Attempt.AttemptID {
				t.Errorf("the spans of the latest attempt are %v", spans.Items)
			}
		case 2: // it stays finished, but not as it was
			mode := queue.ModeTest
			must[queue.Rollout](t)(other.UpdateRollout(t.Context(), r.RolloutID, queue.RolloutUpdate{Mode: queue.Set(mode)}))
			done := must[[]queue.Rollout](t)(one.Wait(t.Context(), []string{r.RolloutID}, 0))
			if len(done) != 1 || done[0].Mode != mode {
				t.Errorf("waited for %v", done)
			}
		}
	}
}

// TestEveryChangeWaitsForARecall makes several changes at once of a rollout that
// another store remembers: none of them is answered before that has forgotten it.
func TestEveryChangeWaitsForARecall(t *testing.T) {
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: quiet}
	open := func() *store.Store {
		return start(t, must[*mongo.Backend](t)(mongo.Open(t.Context(), o)), store.Options{ScanDebounce: time.Hour})
	}
	one, other := open(), open()
	rollouts := must[[]queue.Rollout](t)(one.Enqueue(t.Context(), requests(8)))
	news(t, one)
	for _, r := range rollouts {
		must[queue.Rollout](t)(one.UpdateRollout(t.Context(), r.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
		finished(t, one, r.RolloutID, true)
		var changes sync.WaitGroup
		for range 4 {
			changes.Go(func() {
				_, err := other.UpdateRollout(t.Context(), r.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)})
				if err != nil {
					t.Error(err)
					return
				}
				done, err := one.Wait(t.Context(), []string{r.RolloutID}, 0)
				if err != nil || len(done) > 0 {
					t.Errorf("waited for %v, %v", done, err)
				}
			})
		}
		changes.Wait()
	}
}

func finished(t *testing.T, s *store.Store, id string, want bool) {
	t.Helper()
	done := must[[]queue.Rollout](t)(s.Wait(t.Context(), []string{id}, 0))
	if got := slices.ContainsFunc(done, func(r queue.Rollout) bool { return r.RolloutID == id }); got != want {
		t.Errorf("%s is finished: %t", id, got)
	}
}

// TestWaitsAreAnsweredFromMemory has a store with news of the change stream answer
// for a rollout that it has just finished itself without reading it, and change it
// again without waiting until others have forgotten it.
func TestWaitsAreAnsweredFromMemory(t *testing.T) {
	var reads, updates atomic.Int64
	count := &monitor.CommandMonitor{Started: func(_ context.Context, e *monitor.CommandStartedEvent) {
		if name, _ := e.Command.Lookup(e.CommandName).StringValueOK(); name != "rollouts" {
			return
		}
		switch e.CommandName {
		case "find":
			reads.Add(1)
		case "update":
			updates.Add(1)
		}
	}}
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: quiet, Commands: count}
	s := start(t, must[*mongo.Backend](t)(mongo.Open(t.Context(), o)), store.Options{ScanDebounce: time.Hour})
	rollouts := must[[]queue.Rollout](t)(s.Enqueue(t.Context(), requests(1)))
	id := rollouts[0].RolloutID
	for { // until it is not too long ago that the stream told of something
		must[queue.Rollout](t)(s.UpdateRollout(t.Context(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
		before := reads.Load()
		finished(t, s, id, true)
		if reads.Load() == before {
			break
		}
		must[queue.Rollout](t)(s.UpdateRollout(t.Context(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutQueuing)}))
	}
	before := updates.Load()
	must[queue.Rollout](t)(s.UpdateRollout(t.Context(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutQueuing)}))
	if n := updates.Load() - before; n != 1 {
		t.Errorf("a rollout that this store has finished itself was changed with %d updates", n)
	}
	finished(t, s, id, false)
}

// news keeps a store's change stream busy until the test ends, so that it answers
// from memory.
func news(t *testing.T, s *store.Store) {
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.Enqueue(ctx, requests(1)); err != nil && ctx.Err() == nil {
				t.Errorf("enqueueing: %v", err)
				return
			}
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
}
