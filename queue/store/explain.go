package store

import (
	"context"
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// What an explanation looks at: the last spans of the last attempts.
const (
	explainedAttempts = 10
	explainedSpans    = 50
)

// Explain implements queue.Store. Its reads are bounded: none grows with the
// queue, the rollout's attempts or their spans.
func (s *Store) Explain(ctx context.Context, id string) (queue.Explanation, error) {
	r, err := s.record(ctx, id)
	if err != nil {
		return queue.Explanation{}, err
	}
	if r == nil {
		return queue.Explanation{}, queue.ErrNoRollout(id)
	}
	e := queue.Evidence{Record: r, Now: s.seconds(), WorkerTTL: s.lease}
	if r.Place > 0 {
		if e.Ahead, err = s.backend.QueuedBefore(ctx, r.Place, queue.MostAhead+1); err != nil {
			return queue.Explanation{}, err
		}
	}
	s.settleWorkers(ctx)
	workers, err := s.backend.QueryWorkers(ctx, queue.WorkerQuery{Paging: queue.All})
	if err != nil {
		return queue.Explanation{}, err
	}
	e.Workers = workers.Items
	if e.Traces, err = s.traces(ctx, r); err != nil {
		return queue.Explanation{}, err
	}
	return queue.Explain(e), nil
}

// traces reads the ends of the latest attempts.
func (s *Store) traces(ctx context.Context, r *queue.Record) (map[string]queue.Trace, error) {
	traces := map[string]queue.Trace{}
	for i := range slices.Backward(r.Attempts) {
		if len(traces) == explainedAttempts {
			break
		}
		id := r.Attempts[i].AttemptID
		q := queue.SpanQuery{RolloutID: r.Rollout.RolloutID, AttemptID: &id}
		// By number, which the backends read in order: first how many there are.
		q.Paging = queue.Paging{SortBy: "sequence_id", Limit: 1}
		page, err := s.backend.QuerySpans(ctx, q)
		if err != nil {
			return nil, err
		}
		n := page.Total
		if n > 1 {
			q.Limit, q.Offset = explainedSpans, max(0, n-explainedSpans)
			if page, err = s.backend.QuerySpans(ctx, q); err != nil {
				return nil, err
			}
		}
		traces[id] = semconv.NewTrace(n, page.Items)
	}
	return traces, nil
}
