package algorithm

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
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

// harvest makes results of finished rollouts, at most harvestMost: one request for
// the spans of each.
func (c *Client) harvest(ctx context.Context, done []queue.AttemptedRollout, skipSpans bool) ([]Result, error) {
	results := make([]Result, len(done))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.opts.Concurrency)
	for i := range done {
		r := &results[i]
		r.Rollout, r.Attempt = done[i].Rollout, done[i].Attempt
		if r.Attempt != nil && !skipSpans {
			group.Go(func() error { return c.fetchSpans(ctx, r) })
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

// SourceKey is the member of the metadata of a rollout that was enqueued again as a
// new one: the id of the old one.
const SourceKey = "source_rollout_id" // string

// AgainMetadata is the metadata for a rollout that runs the task of another again: its
// own, but for its place in a run and a batch, and where it comes from.
func AgainMetadata(r *queue.Rollout) rawjson.Value {
	dst := rawjson.AppendString(rawjson.AppendMember(nil, []byte(SourceKey), nil), r.RolloutID)
	for key, val := range r.Metadata.Members() {
		switch string(key) {
		case SourceKey, RunKey, BatchIDKey, BatchIndexKey, GroupSizeKey:
		default:
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	return append(dst, '}')
}
