// Package operator looks at a running store on behalf of those who run it.
// [Top] shows what it does now, [Doctor] what is wrong with it. Both read
// through the same interface as workers and algorithms, a bounded amount each
// time, and change nothing.
package operator

import (
	"context"

	"github.com/aglq/aglq/queue"
)

// Store is what this package reads of a store.
type Store interface {
	Statistics(ctx context.Context) (queue.Statistics, error)
	Workers(ctx context.Context, q queue.WorkerQuery) (queue.Page[queue.Worker], error)
	Rollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error)
	Spans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error)
	Explain(ctx context.Context, id string) (queue.Explanation, error)
}

// newest reads the n newest rollouts of some statuses.
func newest(ctx context.Context, s Store, n int, statuses ...queue.RolloutStatus) ([]queue.AttemptedRollout, error) {
	// By start, which the backends have an index for.
	page, err := s.Rollouts(ctx, queue.RolloutQuery{
		Statuses: statuses, Paging: queue.Paging{SortBy: "start_time", Descending: true, Limit: n},
	})
	return page.Items, err
}

// lastSpans reads the n last spans of a rollout's latest attempt, and tells how
// many there are.
func lastSpans(ctx context.Context, s Store, rolloutID string, n int) ([]queue.Span, int, error) {
	latest := "latest"
	q := queue.SpanQuery{RolloutID: rolloutID, AttemptID: &latest, Paging: queue.Paging{SortBy: "sequence_id", Limit: n}}
	page, err := s.Spans(ctx, q)
	if err != nil || page.Total <= n {
		return page.Items, page.Total, err
	}
	q.Offset = page.Total - n
	page, err = s.Spans(ctx, q)
	return page.Items, page.Total, err
}
