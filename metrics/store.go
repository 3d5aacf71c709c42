package metrics

import (
	"context"
	"time"

	"github.com/aglq/aglq/collections"
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
	queue *Queue
}

var _ queue.Store = (*Store)(nil)

// Store wraps a store so that its calls are recorded.
func (r *Recorder) Store(s Backing) *Store { return &Store{s, r.Queue()} }

// calling is a call that has begun.
type calling struct {
	caller *caller
	began  time.Duration
}

// begin has the backend's part of the call recorded as its own.
func (s *Store) begin(ctx *context.Context, m method) calling {
	c := s.queue.methods[m]
	*ctx = collections.WithObserver(*ctx, c)
	return calling{c, time.Since(epoch)}
}

func (c calling) took() time.Duration { return time.Since(epoch) - c.began }

func (c calling) end(err *error) { c.caller.called(c.took(), *err) }

// Enqueue implements queue.Store.
func (s *Store) Enqueue(ctx context.Context, reqs []queue.Request) (_ []queue.Rollout, err error) {
	m := enqueueMany
	if len(reqs) == 1 {
		m = enqueueOne
	}
	defer s.begin(&ctx, m).end(&err)
	rollouts, err := s.Backing.Enqueue(ctx, reqs)
	s.queue.enqueued.Add(float64(len(rollouts)))
	return rollouts, err
}

// Claim implements queue.Store.
func (s *Store) Claim(ctx context.Context, c queue.Claim) (_ []queue.AttemptedRollout, err error) {
	m := claimMany
	if c.Limit == 1 {
		m = claimOne
	}
	call := s.begin(&ctx, m)
	defer call.end(&err)
	got, err := s.Backing.Claim(ctx, c)
	s.queue.claimed(c, call.took(), got, err)
	return got, err
}

// Unclaim implements queue.Store.
func (s *Store) Unclaim(ctx context.Context, claims []queue.AttemptRef) (err error) {
	defer s.begin(&ctx, unclaim).end(&err)
	return s.Backing.Unclaim(ctx, claims)
}

// Start implements queue.Store.
func (s *Store) Start(ctx context.Context, req queue.Request, workerID *string) (_ queue.AttemptedRollout, err error) {
	defer s.begin(&ctx, startRollout).end(&err)
	return s.Backing.Start(ctx, req, workerID)
}

// StartAttempt implements queue.Store.
func (s *Store) StartAttempt(ctx context.Context, id string, workerID *string) (_ queue.AttemptedRollout, err error) {
	defer s.begin(&ctx, startAttempt).end(&err)
	return s.Backing.StartAttempt(ctx, id, workerID)
}

// Rollout implements queue.Store.
func (s *Store) Rollout(ctx context.Context, id string) (_ *queue.AttemptedRollout, err error) {
	defer s.begin(&ctx, getRollout).end(&err)
	return s.Backing.Rollout(ctx, id)
}

// Rollouts implements queue.Store.
func (s *Store) Rollouts(ctx context.Context, q queue.RolloutQuery) (_ queue.Page[queue.AttemptedRollout], err error) {
	defer s.begin(&ctx, queryRollouts).end(&err)
	return s.Backing.Rollouts(ctx, q)
}

// Explain implements queue.Store.
func (s *Store) Explain(ctx context.Context, id string) (_ queue.Explanation, err error) {
	defer s.begin(&ctx, explainRollout).end(&err)
	return s.Backing.Explain(ctx, id)
}

// UpdateRollout implements queue.Store.
func (s *Store) UpdateRollout(ctx context.Context, id string, u queue.RolloutUpdate) (_ queue.Rollout, err error) {
	defer s.begin(&ctx, updateRollout).end(&err)
	return s.Backing.UpdateRollout(ctx, id, u)
}

// Wait implements queue.Store.
func (s *Store) Wait(ctx context.Context, ids []string, timeout time.Duration) (_ []queue.Rollout, err error) {
	call := s.begin(&ctx, waitForRollouts)
	defer call.end(&err)
	done, err := s.Backing.Wait(ctx, ids, timeout)
	s.queue.waited(len(ids), call.took(), done)
	return done, err
}

// Attempts implements queue.Store.
func (s *Store) Attempts(ctx context.Context, q queue.AttemptQuery) (_ queue.Page[queue.Attempt], err error) {
	defer s.begin(&ctx, queryAttempts).end(&err)
	return s.Backing.Attempts(ctx, q)
}

// LatestAttempt implements queue.Store.
func (s *Store) LatestAttempt(ctx context.Context, rolloutID string) (_ *queue.Attempt, err error) {
	defer s.begin(&ctx, latestAttempt).end(&err)
	return s.Backing.LatestAttempt(ctx, rolloutID)
}

// UpdateAttempt implements queue.Store.
func (s *Store) UpdateAttempt(
	ctx context.Context, rolloutID, attemptID string, u queue.AttemptUpdate,
) (_ queue.Attempt, err error) {
	defer s.begin(&ctx, updateAttempt).end(&err)
	return s.Backing.UpdateAttempt(ctx, rolloutID, attemptID, u)
}

// Workers implements queue.Store.
func (s *Store) Workers(ctx context.Context, q queue.WorkerQuery) (_ queue.Page[queue.Worker], err error) {
	defer s.begin(&ctx, queryWorkers).end(&err)
	return s.Backing.Workers(ctx, q)
}

// Worker implements queue.Store.
func (s *Store) Worker(ctx context.Context, id string) (_ *queue.Worker, err error) {
	defer s.begin(&ctx, getWorker).end(&err)
	return s.Backing.Worker(ctx, id)
}

// Heartbeat implements queue.Store.
func (s *Store) Heartbeat(ctx context.Context, h queue.Heartbeat) (_ queue.HeartbeatAnswer, err error) {
	defer s.begin(&ctx, heartbeat).end(&err)
	return s.Backing.Heartbeat(ctx, h)
}

// AddResources implements queue.Store.
func (s *Store) AddResources(ctx context.Context, resources rawjson.Value) (_ queue.ResourcesUpdate, err error) {
	defer s.begin(&ctx, addResources).end(&err)
	return s.Backing.AddResources(ctx, resources)
}

// UpdateResources implements queue.Store.
func (s *Store) UpdateResources(
	ctx context.Context, id string, resources rawjson.Value,
) (_ queue.ResourcesUpdate, err error) {
	defer s.begin(&ctx, updateResources).end(&err)
	return s.Backing.UpdateResources(ctx, id, resources)
}

// Resources implements queue.Store.
func (s *Store) Resources(ctx context.Context, id string) (_ *queue.ResourcesUpdate, err error) {
	defer s.begin(&ctx, getResources).end(&err)
	return s.Backing.Resources(ctx, id)
}

// LatestResources implements queue.Store.
func (s *Store) LatestResources(ctx context.Context) (_ *queue.ResourcesUpdate, err error) {
	defer s.begin(&ctx, latestResources).end(&err)
	return s.Backing.LatestResources(ctx)
}

// QueryResources implements queue.Store.
func (s *Store) QueryResources(
	ctx context.Context, q queue.ResourcesQuery,
) (_ queue.Page[queue.ResourcesUpdate], err error) {
	defer s.begin(&ctx, queryResources).end(&err)
	return s.Backing.QueryResources(ctx, q)
}

// NextSequence implements queue.Store.
func (s *Store) NextSequence(ctx context.Context, rolloutID string, n int) (_ int64, err error) {
	m := nextSequences
	if n == 1 {
		m = nextSequence
	}
	defer s.begin(&ctx, m).end(&err)
	return s.Backing.NextSequence(ctx, rolloutID, n)
}

// AddSpan implements queue.Store.
func (s *Store) AddSpan(ctx context.Context, span queue.Span) (_ *queue.Span, err error) {
	defer s.begin(&ctx, addSpan).end(&err)
	added, err := s.Backing.AddSpan(ctx, span)
	switch {
	case added != nil:
		s.queue.ingested(1, 1, 0, err)
	case queue.KindOf(err) == queue.NotFound:
		s.queue.ingested(1, 0, 1, nil)
	default:
		s.queue.ingested(1, 0, 0, err)
	}
	return added, err
}

// AddSpans implements queue.Store.
func (s *Store) AddSpans(ctx context.Context, spans []queue.Span) (_ queue.SpansAdded, err error) {
	defer s.begin(&ctx, addSpans).end(&err)
	added, err := s.Backing.AddSpans(ctx, spans)
	s.queue.spanBatch.Observe(float64(len(spans)))
	s.queue.ingested(len(spans), len(added.Stored), added.Rejected, err)
	return added, err
}

// Spans implements queue.Store.
func (s *Store) Spans(ctx context.Context, q queue.SpanQuery) (_ queue.Page[queue.Span], err error) {
	defer s.begin(&ctx, querySpans).end(&err)
	return s.Backing.Spans(ctx, q)
}

// Statistics implements queue.Store.
func (s *Store) Statistics(ctx context.Context) (_ queue.Statistics, err error) {
	defer s.begin(&ctx, statistics).end(&err)
	return s.Backing.Statistics(ctx)
}
