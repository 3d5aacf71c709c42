package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Backing is the store that a [Store] records the calls of.
type Backing interface {
	queue.Store
	Ready(ctx context.Context) error
}

// Store is a store whose calls are recorded under the names of the reference's
// public methods. Time spent waiting for work or for results counts.
type Store struct {
	Backing
	recorder *Recorder
}

var _ queue.Store = (*Store)(nil)

// Store wraps a store so that its calls are recorded.
func (r *Recorder) Store(s Backing) *Store { return &Store{s, r} }

func (s *Store) observe(method string, start time.Time, err *error) {
	s.recorder.record(storeCalls, time.Since(start).Seconds(), method, method, errorClass(*err))
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

// Enqueue implements queue.Store.
func (s *Store) Enqueue(ctx context.Context, reqs []queue.Request) (_ []queue.Rollout, err error) {
	method := "enqueue_many_rollouts"
	if len(reqs) == 1 {
		method = "enqueue_rollout"
	}
	defer s.observe(method, time.Now(), &err)
	return s.Backing.Enqueue(ctx, reqs)
}

// Claim implements queue.Store.
func (s *Store) Claim(ctx context.Context, c queue.Claim) (_ []queue.AttemptedRollout, err error) {
	method := "dequeue_many_rollouts"
	if c.Limit == 1 {
		method = "dequeue_rollout"
	}
	defer s.observe(method, time.Now(), &err)
	return s.Backing.Claim(ctx, c)
}

// Unclaim implements queue.Store.
func (s *Store) Unclaim(ctx context.Context, claims []queue.AttemptRef) (err error) {
	defer s.observe("unclaim_rollouts", time.Now(), &err)
	return s.Backing.Unclaim(ctx, claims)
}

// Start implements queue.Store.
func (s *Store) Start(ctx context.Context, req queue.Request, workerID *string) (_ queue.AttemptedRollout, err error) {
	defer s.observe("start_rollout", time.Now(), &err)
	return s.Backing.Start(ctx, req, workerID)
}

// StartAttempt implements queue.Store.
func (s *Store) StartAttempt(ctx context.Context, id string, workerID *string) (_ queue.AttemptedRollout, err error) {
	defer s.observe("start_attempt", time.Now(), &err)
	return s.Backing.StartAttempt(ctx, id, workerID)
}

// Rollout implements queue.Store.
func (s *Store) Rollout(ctx context.Context, id string) (_ *queue.AttemptedRollout, err error) {
	defer s.observe("get_rollout_by_id", time.Now(), &err)
	return s.Backing.Rollout(ctx, id)
}

// Rollouts implements queue.Store.
func (s *Store) Rollouts(ctx context.Context, q queue.RolloutQuery) (_ queue.Page[queue.AttemptedRollout], err error) {
	defer s.observe("query_rollouts", time.Now(), &err)
	return s.Backing.Rollouts(ctx, q)
}

// UpdateRollout implements queue.Store.
func (s *Store) UpdateRollout(ctx context.Context, id string, u queue.RolloutUpdate) (_ queue.Rollout, err error) {
	defer s.observe("update_rollout", time.Now(), &err)
	return s.Backing.UpdateRollout(ctx, id, u)
}

// Wait implements queue.Store.
func (s *Store) Wait(ctx context.Context, ids []string, timeout time.Duration) (_ []queue.Rollout, err error) {
	defer s.observe("wait_for_rollouts", time.Now(), &err)
	return s.Backing.Wait(ctx, ids, timeout)
}

// Attempts implements queue.Store.
func (s *Store) Attempts(ctx context.Context, q queue.AttemptQuery) (_ queue.Page[queue.Attempt], err error) {
	defer s.observe("query_attempts", time.Now(), &err)
	return s.Backing.Attempts(ctx, q)
}

// LatestAttempt implements queue.Store.
func (s *Store) LatestAttempt(ctx context.Context, rolloutID string) (_ *queue.Attempt, err error) {
	defer s.observe("get_latest_attempt", time.Now(), &err)
	return s.Backing.LatestAttempt(ctx, rolloutID)
}

// UpdateAttempt implements queue.Store.
func (s *Store) UpdateAttempt(
	ctx context.Context, rolloutID, attemptID string, u queue.AttemptUpdate,
) (_ queue.Attempt, err error) {
	defer s.observe("update_attempt", time.Now(), &err)
	return s.Backing.UpdateAttempt(ctx, rolloutID, attemptID, u)
}

// Workers implements queue.Store.
func (s *Store) Workers(ctx context.Context, q queue.WorkerQuery) (_ queue.Page[queue.Worker], err error) {
	defer s.observe("query_workers", time.Now(), &err)
	return s.Backing.Workers(ctx, q)
}

// Worker implements queue.Store.
func (s *Store) Worker(ctx context.Context, id string) (_ *queue.Worker, err error) {
	defer s.observe("get_worker_by_id", time.Now(), &err)
	return s.Backing.Worker(ctx, id)
}

// Heartbeat implements queue.Store.
func (s *Store) Heartbeat(ctx context.Context, h queue.Heartbeat) (_ queue.HeartbeatAnswer, err error) {
	defer s.observe("update_worker", time.Now(), &err)
	return s.Backing.Heartbeat(ctx, h)
}

// AddResources implements queue.Store.
func (s *Store) AddResources(ctx context.Context, resources rawjson.Value) (_ queue.ResourcesUpdate, err error) {
	defer s.observe("add_resources", time.Now(), &err)
	return s.Backing.AddResources(ctx, resources)
}

// UpdateResources implements queue.Store.
func (s *Store) UpdateResources(
	ctx context.Context, id string, resources rawjson.Value,
) (_ queue.ResourcesUpdate, err error) {
	defer s.observe("update_resources", time.Now(), &err)
	return s.Backing.UpdateResources(ctx, id, resources)
}

// Resources implements queue.Store.
func (s *Store) Resources(ctx context.Context, id string) (_ *queue.ResourcesUpdate, err error) {
	defer s.observe("get_resources_by_id", time.Now(), &err)
	return s.Backing.Resources(ctx, id)
}

// LatestResources implements queue.Store.
func (s *Store) LatestResources(ctx context.Context) (_ *queue.ResourcesUpdate, err error) {
	defer s.observe("get_latest_resources", time.Now(), &err)
	return s.Backing.LatestResources(ctx)
}

// QueryResources implements queue.Store.
func (s *Store) QueryResources(
	ctx context.Context, q queue.ResourcesQuery,
) (_ queue.Page[queue.ResourcesUpdate], err error) {
	defer s.observe("query_resources", time.Now(), &err)
	return s.Backing.QueryResources(ctx, q)
}

// NextSequence implements queue.Store.
func (s *Store) NextSequence(ctx context.Context, rolloutID string, n int) (_ int64, err error) {
	method := "get_many_span_sequence_ids"
	if n == 1 {
		method = "get_next_span_sequence_id"
	}
	defer s.observe(method, time.Now(), &err)
	return s.Backing.NextSequence(ctx, rolloutID, n)
}

// AddSpan implements queue.Store.
func (s *Store) AddSpan(ctx context.Context, span queue.Span) (_ *queue.Span, err error) {
	defer s.observe("add_span", time.Now(), &err)
	return s.Backing.AddSpan(ctx, span)
}

// AddSpans implements queue.Store.
func (s *Store) AddSpans(ctx context.Context, spans []queue.Span) (_ queue.SpansAdded, err error) {
	defer s.observe("add_many_spans", time.Now(), &err)
	return s.Backing.AddSpans(ctx, spans)
}

// Spans implements queue.Store.
func (s *Store) Spans(ctx context.Context, q queue.SpanQuery) (_ queue.Page[queue.Span], err error) {
	defer s.observe("query_spans", time.Now(), &err)
	return s.Backing.Spans(ctx, q)
}

// Statistics implements queue.Store.
func (s *Store) Statistics(ctx context.Context) (_ queue.Statistics, err error) {
	defer s.observe("statistics", time.Now(), &err)
	return s.Backing.Statistics(ctx)
}
