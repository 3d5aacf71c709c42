package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// Queue records what happens in a store and in its backend.
type Queue struct {
	calls      *pair[callLabels]
	operations *pair[operationLabels]
	ends       *pair[endLabels]
	database   string

	wait     traced
	attempts series[endLabels, *traced]
	requeues *series[string, prometheus.Counter]
	commits  *series[string, prometheus.Observer]
	batches  *series[string, prometheus.Observer]
	retries  *series[string, prometheus.Counter]

	claims    *series[string, prometheus.Counter]
	wakeups   *series[string, prometheus.Observer]
	spans     *series[string, prometheus.Counter]
	spanBatch prometheus.Observer
}

var _ store.Observer = (*Queue)(nil)

func newQueue(r *Recorder) *Queue {
	attempts := r.histogram(attemptDuration)
	q := &Queue{
		calls:      newPair[callLabels](r, storeCalls),
		operations: newPair[operationLabels](r, collectionOps),
		ends:       newPair[endLabels](r, rolloutEnds),
		database:   r.database,
		wait:       traced{Observer: r.histogram(queueWait).WithLabelValues()},
		requeues:   r.counters(requeues),
		commits:    r.histograms(commitSeconds),
		batches:    r.histograms(commitCalls),
		retries:    r.counters(txnRetries),
		claims:     r.counters(claims),
		wakeups:    r.histograms(wakeups),
		spans:      r.counters(spansIngested),
		spanBatch:  r.histogram(spanBatch).WithLabelValues(),
	}
	q.attempts.open = func(l endLabels) *traced {
		return &traced{Observer: attempts.WithLabelValues(l.values()...)}
	}
	// What is to be alarmed about is there, as 0, before it first happens.
	for _, reason := range store.RequeueReasons {
		q.requeues.of(string(reason))
	}
	for _, method := range []string{"dequeue_rollout", "update_attempt", "enqueue_rollout", "update_worker"} {
		q.retries.of(method)
	}
	for _, result := range claimResults {
		q.claims.of(result)
	}
	for _, result := range spanResults {
		q.spans.of(result)
	}
	for _, call := range []string{wokenClaim, wokenWait} {
		q.wakeups.of(call)
	}
	return q
}

type callLabels struct{ method, status string }

func (l callLabels) values() []string { return []string{l.method, l.method, l.status} }

type operationLabels struct {
	caller    string
	operation collections.Operation
	status    string
	database  string
}

// The private methods of the reference have no counterpart here, so both methods
// are the public one.
func (l operationLabels) values() []string {
	op := collections.Operations[l.operation]
	return []string{l.caller, op.Name, op.Collection, l.caller, l.status, l.database}
}

type endLabels struct{ status, mode string }

func (l endLabels) values() []string { return []string{l.status, l.mode} }

func modeOf(r *queue.Rollout) string {
	if r.Mode == "" {
		return "unknown"
	}
	return string(r.Mode)
}

// Operation implements collections.Observer.
func (q *Queue) Operation(caller string, op collections.Operation, took time.Duration, err error) {
	q.operations.record(operationLabels{caller, op, backendErrorClass(err), q.database}, took.Seconds(), "")
}

// SectionRan implements collections.Observer.
func (q *Queue) SectionRan(caller string, times int) {
	if times > 1 {
		q.retries.of(caller).Add(float64(times - 1))
	}
}

// Claimed implements store.Observer.
func (q *Queue) Claimed(r *queue.Rollout, a *queue.Attempt) {
	if a.SequenceID == 1 { // a repeated one has waited since its last attempt
		q.wait.observe(max(0, a.StartTime-r.StartTime), r.RolloutID)
	}
}

// AttemptEnded implements store.Observer.
func (q *Queue) AttemptEnded(r *queue.Rollout, a *queue.Attempt, took time.Duration) {
	q.attempts.of(endLabels{string(a.Status), modeOf(r)}).observe(took.Seconds(), r.RolloutID)
}

// Requeued implements store.Observer.
func (q *Queue) Requeued(_ *queue.Rollout, reason store.RequeueReason) {
	q.requeues.of(string(reason)).Inc()
}

// RolloutFinished implements store.Observer; the time in the queue counts.
func (q *Queue) RolloutFinished(r *queue.Rollout) {
	seconds := 0.0
	if r.EndTime != nil {
		seconds = max(0, *r.EndTime-r.StartTime)
	}
	q.ends.record(endLabels{string(r.Status), modeOf(r)}, seconds, r.RolloutID)
}

// Committed implements store.Observer.
func (q *Queue) Committed(lane string, calls int, took time.Duration) {
	q.batches.of(lane).Observe(float64(calls))
	q.commits.of(lane).Observe(took.Seconds())
}

// What becomes of claims and of spans.
var (
	claimResults = []string{"work", "empty", "error"}
	spanResults  = []string{"stored", "duplicate", "rejected"}
)

// The calls that are woken.
const (
	wokenClaim = "claim"
	wokenWait  = "wait"
)

func (q *Queue) called(method string, began time.Time, err error) {
	q.calls.record(callLabels{method, errorClass(err)}, time.Since(began).Seconds(), "")
}

// claimed counts the answer to a claim. One that had to wait for its rollout was
// woken by it.
func (q *Queue) claimed(c queue.Claim, began time.Time, got []queue.AttemptedRollout, err error) {
	switch {
	case err != nil:
		q.claims.of("error").Inc()
	case len(got) == 0:
		q.claims.of("empty").Inc()
	default:
		q.claims.of("work").Inc()
		if c.Wait > 0 {
			q.woken(wokenClaim, began, got[0].StartTime)
		}
	}
}

// waited tells how long the end of the last rollout took to be answered.
func (q *Queue) waited(ids int, began time.Time, done []queue.Rollout) {
	if ids == 0 || len(done) < ids {
		return
	}
	last := math.Inf(-1)
	for i := range done {
		if end := done[i].EndTime; end != nil {
			last = max(last, *end)
		}
	}
	q.woken(wokenWait, began, last)
}

// woken records how long ago an event was that came after its call.
func (q *Queue) woken(call string, began time.Time, event float64) {
	if event >= queue.Seconds(began) {
		q.wakeups.of(call).Observe(max(0, queue.Seconds(time.Now())-event))
	}
}

func (q *Queue) ingested(received, stored, rejected int, err error) {
	q.spanBatch.Observe(float64(received))
	if err != nil {
		return
	}
	for i, n := range []int{stored, received - stored - rejected, rejected} {
		if n > 0 {
			q.spans.of(spanResults[i]).Add(float64(n))
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
