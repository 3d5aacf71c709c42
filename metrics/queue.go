package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// Queue records what happens in a store and in its backend.
type Queue struct {
	methods    [numMethods]*caller
	callers    series[string, *caller]
	calls      *timers[callLabels]
	operations *timers[operationLabels]
	ends       *timers[endLabels]
	database   string

	wait     *timers[noLabels]
	attempts *timers[endLabels]
	requeues *series[string, prometheus.Counter]
	commits  *series[string, prometheus.Observer]
	batches  *series[string, prometheus.Observer]
	retries  *series[string, prometheus.Counter]

	enqueued  prometheus.Counter
	taken     prometheus.Counter
	claims    *series[string, prometheus.Counter]
	wakeups   *series[string, prometheus.Observer]
	spans     [len(spanResults)]prometheus.Counter
	spanBatch prometheus.Observer
	purged    *series[string, prometheus.Counter]
}

var _ store.Observer = (*Queue)(nil)

func newQueue(r *Recorder) *Queue {
	spans := r.counter(spansIngested)
	q := &Queue{
		calls:      newEvents[callLabels](r, storeCalls),
		operations: newEvents[operationLabels](r, collectionOps),
		ends:       newEvents[endLabels](r, rolloutEnds),
		database:   r.database,
		wait:       newTimers[noLabels](r, queueWait),
		attempts:   newTimers[endLabels](r, attemptDuration),
		requeues:   r.counters(requeues),
		commits:    r.histograms(commitSeconds),
		batches:    r.histograms(commitCalls),
		retries:    r.counters(txnRetries),
		purged:     r.counters(purged),
		enqueued:   r.counter(enqueued).WithLabelValues(),
		taken:      r.counter(claimed).WithLabelValues(),
		claims:     r.counters(claims),
		wakeups:    r.histograms(wakeups),
		spanBatch:  r.histogram(spanBatch).WithLabelValues(),
	}
	q.callers.open = func(name string) *caller { return &caller{queue: q, name: name} }
	for m := range q.methods {
		q.methods[m] = q.callers.of(methodNames[m])
	}
	for i, result := range spanResults {
		q.spans[i] = spans.WithLabelValues(result)
	}
	// What is to be alarmed about is there, as 0, before it first happens.
	for _, reason := range store.RequeueReasons {
		q.requeues.of(string(reason))
	}
	for _, m := range []method{claimOne, updateAttempt, enqueueOne, heartbeat} {
		q.retries.of(methodNames[m])
	}
	for _, result := range claimResults {
		q.claims.of(result)
	}
	for _, call := range []string{wokenClaim, wokenWait} {
		q.wakeups.of(call)
	}
	return q
}

type callLabels struct{ method, status string }

func (l callLabels) values() []string { return []string{l.method, l.method, l.status} }

type operationLabels struct{ caller, operation, collection, status, database string }

// The private methods of the reference have no counterpart here, so both methods
// are the public one.
func (l operationLabels) values() []string {
	return []string{l.caller, l.operation, l.collection, l.caller, l.status, l.database}
}

type endLabels struct{ status, mode string }

func (l endLabels) values() []string { return []string{l.status, l.mode} }

func modeOf(r *queue.Rollout) string {
	if r.Mode == "" {
		return "unknown"
	}
	return string(r.Mode)
}

// caller is a method of the store, or work of its own, with the series of what
// goes well at hand.
type caller struct {
	queue      *Queue
	name       string
	call       atomic.Pointer[member]
	operations [len(collections.Operations)]atomic.Pointer[member]
}

// called counts a call of the method.
func (c *caller) called(took time.Duration, err error) {
	c.queue.calls.add(c.member(&c.call, err, func(status string) *member {
		return c.queue.calls.members.of(callLabels{c.name, status})
	}, errorClass), took)
}

// Operation implements collections.Observer.
func (c *caller) Operation(op collections.Operation, took time.Duration, err error) {
	c.queue.operations.add(c.member(&c.operations[op], err, func(status string) *member {
		o := collections.Operations[op]
		return c.queue.operations.members.of(operationLabels{c.name, o.Name, o.Collection, status, c.queue.database})
	}, backendErrorClass), took)
}

// member finds the series for the outcome; ok keeps that of no error.
func (c *caller) member(ok *atomic.Pointer[member], err error, of func(status string) *member, class func(error) string) *member {
	if err != nil {
		return of(class(err))
	}
	m := ok.Load()
	if m == nil {
		m = of(class(nil))
		ok.Store(m)
	}
	return m
}

// SectionRan implements collections.Observer.
func (c *caller) SectionRan(times int) { c.queue.retries.of(c.name).Add(float64(times - 1)) }

// As implements store.Observer.
func (q *Queue) As(name string) collections.Observer { return q.callers.of(name) }

// Claimed implements store.Observer.
func (q *Queue) Claimed(r *queue.Rollout, a *queue.Attempt) {
	if a.SequenceID == 1 { // a repeated one has waited since its last attempt
		q.wait.recordFor(noLabels{}, durationOf(a.StartTime-r.StartTime), r.RolloutID)
	}
}

// AttemptEnded implements store.Observer.
func (q *Queue) AttemptEnded(r *queue.Rollout, a *queue.Attempt, took time.Duration) {
	q.attempts.recordFor(endLabels{string(a.Status), modeOf(r)}, took, r.RolloutID)
}

// Requeued implements store.Observer.
func (q *Queue) Requeued(_ *queue.Rollout, reason store.RequeueReason) {
	q.requeues.of(string(reason)).Inc()
}

// RolloutFinished implements store.Observer; the time in the queue counts.
func (q *Queue) RolloutFinished(r *queue.Rollout) {
	took := time.Duration(0)
	if r.EndTime != nil {
		took = durationOf(*r.EndTime - r.StartTime)
	}
	q.ends.recordFor(endLabels{string(r.Status), modeOf(r)}, took, r.RolloutID)
}

// durationOf is a difference of two times, which clocks may make negative.
func durationOf(seconds float64) time.Duration {
	return time.Duration(min(max(0, seconds), 1e9) * float64(time.Second))
}

// Committed implements store.Observer.
func (q *Queue) Committed(lane string, calls int, took time.Duration) {
	q.batches.of(lane).Observe(float64(calls))
	q.commits.of(lane).Observe(took.Seconds())
}

// What becomes of claims and of spans.
var (
	claimResults = []string{"work", "empty", "error"}
	spanResults  = [...]string{"stored", "duplicate", "rejected"}
)

// The calls that are woken.
const (
	wokenClaim = "claim"
	wokenWait  = "wait"
)

// Purged counts what retention deleted.
func (q *Queue) Purged(rollouts, spans int64) {
	q.purged.of("rollouts").Add(float64(rollouts))
	q.purged.of("spans").Add(float64(spans))
}

// claimed counts the answer to a claim. One that had to wait for its rollout was
// woken by it.
func (q *Queue) claimed(c queue.Claim, took time.Duration, got []queue.AttemptedRollout, err error) {
	switch {
	case err != nil:
		q.claims.of("error").Inc()
	case len(got) == 0:
		q.claims.of("empty").Inc()
	default:
		q.claims.of("work").Inc()
		q.taken.Add(float64(len(got)))
		if c.Wait > 0 {
			q.woken(wokenClaim, took, got[0].StartTime)
		}
	}
}

// waited tells how long the end of the last rollout took to be answered.
func (q *Queue) waited(ids int, took time.Duration, done []queue.Rollout) {
	if ids == 0 || len(done) < ids {
		return
	}
	last := math.Inf(-1)
	for i := range done {
		if end := done[i].EndTime; end != nil {
			last = max(last, *end)
		}
	}
	q.woken(wokenWait, took, last)
}

// woken records how long ago an event was that came after its call had begun.
func (q *Queue) woken(call string, took time.Duration, event float64) {
	now := queue.Seconds(time.Now())
	if event >= now-took.Seconds() {
		q.wakeups.of(call).Observe(max(0, now-event))
	}
}

func (q *Queue) ingested(received, stored, rejected int, err error) {
	if err != nil {
		return
	}
	for i, n := range []int{stored, received - stored - rejected, rejected} {
		if n > 0 {
			q.spans[i].Add(float64(n))
		}
	}
}

// errorClass is the status label of a call: the class that dashboards know such
// an error by.
func errorClass(err error) string {
	switch {
	case err == nil:
		return "OK"
	case errors.Is(err, context.Canceled):
		return "CancelledError"
	case errors.Is(err, context.DeadlineExceeded):
		return "TimeoutError"
	}
	switch queue.KindOf(err) {
	case queue.Invalid, queue.NotFound, queue.Conflict:
		return "ValueError"
	case queue.TooLarge:
		return "DocumentTooLarge"
	case queue.Unavailable:
		return "ServerSelectionTimeoutError"
	}
	return "RuntimeError"
}

// backendErrorClass also says what the server of the database says. Its codes
// are few.
func backendErrorClass(err error) string {
	var server driver.ServerError
	if err == nil || !errors.As(err, &server) {
		return errorClass(err)
	}
	class := "OperationFailure"
	if codes := server.ErrorCodes(); len(codes) > 0 {
		class = fmt.Sprintf("%s-%d", class, slices.Min(codes))
	}
	if server.HasErrorLabel("TransientTransactionError") {
		class += "-Transient"
	}
	return class
}
