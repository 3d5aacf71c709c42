package algorithm

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// Result is what became of one rollout of a batch.
type Result struct {
	Index   int            // the place in the batch, from 0
	Rollout queue.Rollout  // finished
	Attempt *queue.Attempt // the latest one, nil when it was never claimed
	Spans   []queue.Span   // of the latest attempt, by sequence number
	Reward  *float64       // see [semconv.FinalReward]; nil when the spans hold none
}

// DataID is what the repeats of one task have in common.
func (r *Result) DataID() string { return r.Rollout.Metadata.Get(DataIDKey).Text() }

// Succeeded reports whether the rollout ended with success.
func (r *Result) Succeeded() bool { return r.Rollout.Status == queue.RolloutSucceeded }

// Attempts is how many attempts the rollout took.
func (r *Result) Attempts() int {
	if r.Attempt == nil {
		return 0
	}
	return int(r.Attempt.SequenceID)
}

// harvestMost is how many results are held at a time.
const harvestMost = 64

// latest is the attempt id that stands for a rollout's newest attempt.
var latest = "latest"

// harvest makes results of finished rollouts, at most harvestMost: one request
// for their attempts and one for the spans of each.
func (b *Batch) harvest(ctx context.Context, done []queue.Rollout) ([]Result, error) {
	results := make([]Result, len(done))
	ids := make([]string, len(done))
	for i, r := range done {
		results[i] = Result{Index: b.waiting[r.RolloutID], Rollout: r}
		ids[i] = r.RolloutID
	}
	page, err := b.client.Store.Rollouts(ctx, queue.RolloutQuery{IDs: ids, Paging: queue.All})
	if err != nil {
		return nil, fmt.Errorf("fetching attempts: %w", err)
	}
	attempts := make(map[string]*queue.Attempt, len(page.Items))
	for i := range page.Items {
		attempts[page.Items[i].RolloutID] = page.Items[i].Attempt
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.client.opts.Concurrency)
	for i := range results {
		r := &results[i]
		r.Attempt = attempts[r.Rollout.RolloutID]
		if r.Attempt != nil && !b.opts.SkipSpans {
			group.Go(func() error { return b.client.fetchSpans(ctx, r) })
		}
	}
	return results, group.Wait()
}

func (c *Client) fetchSpans(ctx context.Context, r *Result) error {
	page, err := c.Store.Spans(ctx, queue.SpanQuery{
		RolloutID: r.Rollout.RolloutID, AttemptID: &latest, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1},
	})
	if err != nil {
		return fmt.Errorf("fetching the spans of rollout %s: %w", r.Rollout.RolloutID, err)
	}
	r.Spans = page.Items
	if reward, ok := semconv.FinalReward(page.Items); ok {
		r.Reward = &reward
	}
	return nil
}
