package store

import (
	"context"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// Observer is told what happens in a store. Its methods are called by many
// goroutines, after what they tell of has been written, and must not block or
// change what they are given.
type Observer interface {
	// As gives the observer of what the backend does for a caller.
	As(caller string) collections.Observer

	// Claimed tells of an attempt that a claim began.
	Claimed(r *queue.Rollout, a *queue.Attempt)
	// AttemptEnded tells that an attempt has ended or gone silent, by whatever
	// it is its status now, and how long it took.
	AttemptEnded(r *queue.Rollout, a *queue.Attempt, took time.Duration)
	// Requeued tells of a rollout that is in the queue once more.
	Requeued(r *queue.Rollout, reason RequeueReason)
	// RolloutFinished tells of a rollout that has just ended.
	RolloutFinished(r *queue.Rollout)
	// Committed tells of a group commit, where the backend makes it worth while:
	// in which lane, of how many calls, and how long it took.
	Committed(lane string, calls int, took time.Duration)
}

// RequeueReason is why a rollout went back to the queue.
type RequeueReason string

// The reasons.
const (
	RequeuedFailed       RequeueReason = "failed"       // its attempt failed and is repeated
	RequeuedTimeout      RequeueReason = "timeout"      // its attempt took too long and is repeated
	RequeuedUnresponsive RequeueReason = "unresponsive" // its attempt went silent and is repeated
	RequeuedWorkerLost   RequeueReason = "worker_lost"  // its worker died
	RequeuedUnclaimed    RequeueReason = "unclaimed"    // the claim never reached its worker
	RequeuedByRequest    RequeueReason = "request"      // a caller put it there
)

// RequeueReasons lists them all.
var RequeueReasons = []RequeueReason{
	RequeuedFailed, RequeuedTimeout, RequeuedUnresponsive, RequeuedWorkerLost, RequeuedUnclaimed, RequeuedByRequest,
}

// The lanes of group commit.
const (
	laneChanges  = "changes"
	laneSections = "sections"
	laneSpans    = "spans"
	laneCounters = "counters"
)

// Lanes lists them all.
var Lanes = []string{laneChanges, laneSections, laneSpans, laneCounters}

// Whom the store's own work is done for, in the reference's words.
const (
	scanCaller = "_scan_for_unhealthy_rollouts"
	beatCaller = "_on_attempt_heartbeat"
)

// observe has the observer told of the backend, and of the lanes where calls
// gather in them.
func (s *Store) observe(o Observer) {
	s.observer = o
	if o == nil {
		return
	}
	s.backend = collections.Observe(s.backend, o.As("unknown"))
	if !s.backend.Shared() {
		return // every call is a commit of its own
	}
	s.changes.Committed = func(calls int, took time.Duration) { o.Committed(laneChanges, calls, took) }
	s.sections.Committed = func(calls int, took time.Duration) { o.Committed(laneSections, calls, took) }
	s.spans.Committed = func(calls int, took time.Duration) { o.Committed(laneSpans, calls, took) }
	s.counters.Committed = func(calls int, took time.Duration) { o.Committed(laneCounters, calls, took) }
}

// asCaller names what the store does under ctx by itself.
func (s *Store) asCaller(ctx context.Context, name string) context.Context {
	if s.observer == nil {
		return ctx
	}
	return collections.WithObserver(ctx, s.observer.As(name))
}

// transition is a record before and after a section.
type transition struct{ before, after *queue.Record }

func (t transition) tell(o Observer, now float64) {
	r := &t.after.Rollout
	if t.claimed() {
		o.Claimed(r, t.after.Latest())
	}
	for i := range min(len(t.before.Attempts), len(t.after.Attempts)) {
		was, is := &t.before.Attempts[i], &t.after.Attempts[i]
		if over(is.Status) && !over(was.Status) {
			o.AttemptEnded(r, is, seconds(now-is.StartTime))
		}
	}
	if t.before.Place == 0 && t.after.Place != 0 {
		o.Requeued(r, t.reason())
	}
	if t.finished() {
		o.RolloutFinished(r)
	}
}

func (t transition) claimed() bool {
	return t.before.Place != 0 && t.after.Place == 0 && len(t.after.Attempts) > len(t.before.Attempts)
}

func (t transition) finished() bool {
	status := t.after.Rollout.Status
	return status.Finished() && (status != t.before.Rollout.Status || t.after.Rollout.EndTime != t.before.Rollout.EndTime)
}

func (t transition) reason() RequeueReason {
	if len(t.after.Attempts) < len(t.before.Attempts) {
		return RequeuedUnclaimed
	}
	a := t.after.Latest()
	if a == nil || !over(a.Status) || a.Status == t.before.Latest().Status {
		return RequeuedByRequest
	}
	switch {
	case a.Lost:
		return RequeuedWorkerLost
	case a.Status == queue.AttemptTimeout:
		return RequeuedTimeout
	case a.Status == queue.AttemptUnresponsive:
		return RequeuedUnresponsive
	}
	return RequeuedFailed
}

// over reports whether nothing more is expected of an attempt.
func over(s queue.AttemptStatus) bool { return s.Terminal() || s == queue.AttemptUnresponsive }

func seconds(s float64) time.Duration { return time.Duration(max(0, s) * float64(time.Second)) }
