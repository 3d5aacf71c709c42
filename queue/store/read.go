package store

import (
	"context"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// Rollout implements queue.Store.
func (s *Store) Rollout(ctx context.Context, id string) (*queue.AttemptedRollout, error) {
	r, err := s.record(ctx, id)
	if r == nil || err != nil {
		return nil, err
	}
	view := r.View()
	return &view, nil
}

// record reads one record, nil for none, as every call before has left it.
func (s *Store) record(ctx context.Context, id string) (*queue.Record, error) {
	s.scanBefore(ctx)
	s.settle(ctx)
	records, err := s.backend.Records(ctx, []string{id})
	if err != nil || len(records) == 0 {
		return nil, err
	}
	return records[0], nil
}

// Rollouts implements queue.Store.
func (s *Store) Rollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	s.scanBefore(ctx)
	s.settle(ctx)
	page, err := s.backend.QueryRollouts(ctx, q)
	return convert(page, (*queue.Record).View), err
}

func convert[From, To any](page queue.Page[From], to func(From) To) queue.Page[To] {
	out := queue.Page[To]{Limit: page.Limit, Offset: page.Offset, Total: page.Total, Items: make([]To, len(page.Items))}
	for i, item := range page.Items {
		out.Items[i] = to(item)
	}
	return out
}

func deref[T any](p *T) T { return *p }

// Attempts implements queue.Store.
func (s *Store) Attempts(ctx context.Context, q queue.AttemptQuery) (queue.Page[queue.Attempt], error) {
	r, err := s.record(ctx, q.RolloutID)
	if err != nil {
		return queue.Page[queue.Attempt]{}, err
	}
	var attempts []queue.Attempt
	if r != nil {
		attempts = r.Attempts
	}
	return collections.PageAttempts(attempts, q.Paging), nil
}

// LatestAttempt implements queue.Store.
func (s *Store) LatestAttempt(ctx context.Context, rolloutID string) (*queue.Attempt, error) {
	r, err := s.record(ctx, rolloutID)
	if err != nil || r == nil || r.Latest() == nil {
		return nil, err
	}
	latest := *r.Latest()
	return &latest, nil
}

// Spans implements queue.Store.
func (s *Store) Spans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	s.scanBefore(ctx)
	if q.AttemptID != nil && *q.AttemptID == "latest" {
		id, err := s.backend.LatestAttemptID(ctx, q.RolloutID)
		if err != nil {
			return queue.Page[queue.Span]{}, err
		}
		if id == "" {
			return queue.Page[queue.Span]{Items: []queue.Span{}, Limit: q.Limit, Offset: q.Offset}, nil
		}
		q.AttemptID = &id
	}
	return s.backend.QuerySpans(ctx, q)
}

// Workers implements queue.Store.
func (s *Store) Workers(ctx context.Context, q queue.WorkerQuery) (queue.Page[queue.Worker], error) {
	s.scanBefore(ctx)
	s.settleWorkers(ctx)
	page, err := s.backend.QueryWorkers(ctx, q)
	return convert(page, deref[queue.Worker]), err
}

// Worker implements queue.Store.
func (s *Store) Worker(ctx context.Context, id string) (*queue.Worker, error) {
	s.settleWorkers(ctx)
	return s.backend.Worker(ctx, id)
}

// Resources implements queue.Store.
func (s *Store) Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error) {
	return s.backend.Resources(ctx, id)
}

// LatestResources implements queue.Store.
func (s *Store) LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error) {
	return s.backend.LatestResources(ctx)
}

// QueryResources implements queue.Store.
func (s *Store) QueryResources(ctx context.Context, q queue.ResourcesQuery) (queue.Page[queue.ResourcesUpdate], error) {
	page, err := s.backend.QueryResources(ctx, q)
	return convert(page, deref[queue.ResourcesUpdate]), err
}

// Statistics implements queue.Store.
func (s *Store) Statistics(ctx context.Context) (queue.Statistics, error) {
	s.settle(ctx)
	s.settleWorkers(ctx)
	st, err := s.backend.Statistics(ctx)
	st.Uptime = s.now().Sub(s.started)
	st.WorkerTTL = time.Duration(s.lease * float64(time.Second))
	return st, err
}
