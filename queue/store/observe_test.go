package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// listener writes down what it is told.
type listener struct {
	mu         sync.Mutex
	events     []string
	operations map[string]map[collections.Operation]int // by caller
}

func (l *listener) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

// told gives the events since the last call, in order of text.
func (l *listener) told() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events = nil
	slices.Sort(events)
	return events
}

func (l *listener) count(caller string, op collections.Operation) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.operations[caller][op]
}

func (l *listener) As(caller string) collections.Observer { return listening{l, caller} }

func (l *listener) Claimed(r *queue.Rollout, a *queue.Attempt) {
	l.note("claimed, attempt %d after %g s", a.SequenceID, a.StartTime-r.StartTime)
}

func (l *listener) AttemptEnded(_ *queue.Rollout, a *queue.Attempt, took time.Duration) {
	l.note("attempt %d %s after %s", a.SequenceID, a.Status, took)
}

func (l *listener) Requeued(_ *queue.Rollout, reason store.RequeueReason) {
	l.note("requeued: %s", reason)
}

func (l *listener) RolloutFinished(r *queue.Rollout) { l.note("rollout %s", r.Status) }

func (l *listener) Committed(lane string, calls int, _ time.Duration) {
	l.note("committed %s: %d", lane, calls)
}

// listening is a listener for one caller.
type listening struct {
	*listener
	caller string
}

func (l listening) Operation(op collections.Operation, _ time.Duration, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.operations == nil {
		l.operations = map[string]map[collections.Operation]int{}
	}
	if l.operations[l.caller] == nil {
		l.operations[l.caller] = map[collections.Operation]int{}
	}
	l.operations[l.caller][op]++
}

func (l listening) SectionRan(times int) { l.note("%s ran %d times", l.caller, times) }

// TestObserver follows rollouts through everything that can happen to them.
func TestObserver(t *testing.T) {
	ctx := t.Context()
	c, l := newClock(), &listener{}
	s := start(t, memory.New(memory.Options{Logger: quiet}), store.Options{Now: c.now, WorkerTTL: 20 * time.Second, Observer: l})
	config := queue.DefaultConfig()
	config.MaxAttempts, config.TimeoutSeconds, config.UnresponsiveSeconds = 10, ptr(100.0), ptr(15.0)
	config.RetryCondition = []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout, queue.AttemptUnresponsive}
	expect := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, l.told()); diff != "" {
			t.Error(diff)
		}
	}
	claim := func() *queue.Attempt {
		t.Helper()
		return must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: ptr("w")}))[0].Attempt
	}
	end := func(a *queue.Attempt, status queue.AttemptStatus) {
		t.Helper()
		must[queue.Attempt](t)(s.UpdateAttempt(ctx, a.RolloutID, a.AttemptID, queue.AttemptUpdate{Status: queue.Set(status)}))
	}
	must[[]queue.Rollout](t)(s.Enqueue(ctx, []queue.Request{{Config: &config}}))
	c.advance(3 * time.Second)
	expect()
	a := claim()
	expect("claimed, attempt 1 after 3 s")
	c.advance(2 * time.Second)
	end(a, queue.AttemptFailed)
	expect("attempt 1 failed after 2s", "requeued: failed")

	a = claim()
	l.told()
	if err := s.Unclaim(ctx, []queue.AttemptRef{{RolloutID: a.RolloutID, AttemptID: a.AttemptID}}); err != nil {
		t.Fatal(err)
	}
	expect("requeued: unclaimed")

	claim()
	l.told()
	c.advance(16 * time.Second)
	must[queue.Page[queue.Worker]](t)(s.Workers(ctx, queue.WorkerQuery{Paging: queue.All})) // scans
	expect("attempt 2 unresponsive after 16s", "requeued: unresponsive")

	a = claim()
	l.told()
	for range 10 {
		c.advance(11 * time.Second)
		if _, err := s.AddSpan(ctx, span(a, fmt.Sprint(c.now()))); err != nil {
			t.Fatal(err)
		}
	}
	must[queue.Page[queue.Worker]](t)(s.Workers(ctx, queue.WorkerQuery{Paging: queue.All}))
	expect("attempt 3 timeout after 1m50s", "requeued: timeout")

	a = claim()
	l.told()
	end(a, queue.AttemptSucceeded)
	expect("attempt 4 succeeded after 0s", "rollout succeeded")
	must[queue.Rollout](t)(s.UpdateRollout(ctx, a.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}))
	expect("requeued: request")
	must[queue.Rollout](t)(s.UpdateRollout(ctx, a.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
	expect("rollout cancelled")

	must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
	claim()
	l.told()
	c.advance(21 * time.Second)
	must[queue.Page[queue.Worker]](t)(s.Workers(ctx, queue.WorkerQuery{Paging: queue.All}))
	expect("attempt 1 unresponsive after 21s", "requeued: worker_lost")
}

// TestObserverOfTheBackend attributes operations to who they are done for, and
// tells of group commits where there are some.
func TestObserverOfTheBackend(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		l := &listener{}
		backend := open()
		s := start(t, backend, store.Options{Observer: l, ScanDebounce: time.Hour})
		as := func(name string) context.Context { return collections.WithObserver(t.Context(), l.As(name)) }
		must[[]queue.Rollout](t)(s.Enqueue(as("enqueue"), requests(1)))
		got := must[[]queue.AttemptedRollout](t)(s.Claim(as("claim"), queue.Claim{Limit: 1}))
		must[*queue.Span](t)(s.AddSpan(as("span"), span(got[0].Attempt, "1")))
		must[queue.Page[queue.Span]](t)(s.Spans(as("spans"), queue.SpanQuery{RolloutID: got[0].RolloutID, Paging: queue.All}))
		for caller, ops := range map[string][]collections.Operation{
			"enqueue": {collections.OpAtomic, collections.OpSeparately}, "claim": {collections.OpAtomic, collections.OpSeparately},
			"span": {collections.OpInsertSpans}, "spans": {collections.OpQuerySpans},
		} {
			n := 0
			for _, op := range ops {
				n += l.count(caller, op)
			}
			if n != 1 {
				t.Errorf("%s: %d operations, want 1", caller, n)
			}
		}
		if n := l.count("_scan_for_unhealthy_rollouts", collections.OpOverdue); n != 1 {
			t.Errorf("%d scans", n)
		}
		commits := slices.Contains(l.told(), "committed spans: 1")
		if commits != backend.Shared() {
			t.Errorf("told of group commits: %t", commits)
		}
	})
}
