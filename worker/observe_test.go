package worker_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
)

// witness counts what it is told.
type witness struct {
	mu     sync.Mutex
	counts map[string]int
}

func (w *witness) add(what string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = map[string]int{}
	}
	w.counts[what] += n
}

func (w *witness) of(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[what]
}

func (w *witness) WorkerStarted(_ string, slots int, beats bool) {
	w.add("slots", slots)
	if beats {
		w.add("beating", 1)
	}
}
func (w *witness) WorkerEnded(string)       { w.add("ended", 1) }
func (w *witness) HeartbeatAnswered(string) { w.add("beats", 1) }
func (w *witness) TaskStarted()             { w.add("tasks", 1) }
func (w *witness) TaskEnded(_, status string, _ time.Duration) {
	w.add(status, 1)
}
func (w *witness) SpansDropped(n int, reason string) { w.add("dropped "+reason, n) }
func (w *witness) StoreFailed(call string)           { w.add("failed "+call, 1) }

func TestObserver(t *testing.T) {
	s, seen := newStore(t), &witness{}
	ids := enqueue(t, s, nil, `"good"`, `"bad"`, `"slow"`, `"cancelled"`)
	running := make(chan struct{})
	handler := func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		switch task.Input.Text() {
		case "bad":
			return worker.Result{}, errors.New("bad")
		case "cancelled":
			close(running)
			<-ctx.Done()
			return worker.Result{}, ctx.Err()
		case "slow":
			<-ctx.Done()
			return worker.Result{}, ctx.Err()
		}
		return worker.Reward(1), nil
	}
	_, stop := start(t, s, handler, worker.Options{
		Concurrency: 4, HeartbeatInterval: 20 * time.Millisecond, TaskTimeout: 2 * time.Second, Observer: seen,
	})
	<-running
	if _, err := s.UpdateRollout(t.Context(), ids[3], queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		finished(t, s, id)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	beats := seen.of("beats")
	if beats == 0 {
		t.Error("no heartbeat was answered")
	}
	want := map[string]int{
		"slots": 4, "beating": 1, "ended": 1, "beats": beats, "tasks": 4,
		"succeeded": 1, "failed": 1, "timeout": 1, worker.NotHeld: 1,
	}
	if diff := cmp.Diff(want, seen.counts); diff != "" {
		t.Error(diff)
	}
}

// failing is a store that answers each kind of call with an error at first.
type failing struct {
	queue.Store
	mu     sync.Mutex
	failed map[string]bool
}

func (f *failing) once(call string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed[call] {
		return nil
	}
	f.failed[call] = true
	return queue.Errorf(queue.Unavailable, "away")
}

func (f *failing) Claim(ctx context.Context, c queue.Claim) ([]queue.AttemptedRollout, error) {
	if err := f.once(worker.CallClaim); err != nil {
		return nil, err
	}
	return f.Store.Claim(ctx, c)
}

func (f *failing) Heartbeat(ctx context.Context, h queue.Heartbeat) (queue.HeartbeatAnswer, error) {
	if err := f.once(worker.CallHeartbeat); err != nil {
		return queue.HeartbeatAnswer{}, err
	}
	return f.Store.Heartbeat(ctx, h)
}

func (f *failing) UpdateAttempt(ctx context.Context, rolloutID, attemptID string, u queue.AttemptUpdate) (queue.Attempt, error) {
	if err := f.once(worker.CallReport); err != nil {
		return queue.Attempt{}, err
	}
	return f.Store.UpdateAttempt(ctx, rolloutID, attemptID, u)
}

func (f *failing) AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	if err := f.once(worker.CallSpans); err != nil {
		return queue.SpansAdded{}, err
	}
	return f.Store.AddSpans(ctx, spans)
}

func TestObserverOfFailures(t *testing.T) {
	s, seen := newStore(t), &witness{}
	id := enqueue(t, s, nil, `1`)[0]
	handler := func(context.Context, *worker.Task) (worker.Result, error) { return worker.Reward(1), nil }
	start(t, &failing{Store: s, failed: map[string]bool{}}, handler, worker.Options{Observer: seen, HeartbeatInterval: time.Second})
	finished(t, s, id)
	for _, call := range []string{worker.CallClaim, worker.CallHeartbeat, worker.CallSpans, worker.CallReport} {
		if n := seen.of("failed " + call); n != 1 {
			t.Errorf("%d failures of %s were told, want 1", n, call)
		}
	}
}
