package algorithm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// RunKey is the member of a rollout's metadata that names the run of an algorithm.
const RunKey = "run" // string

// Run is an algorithm's run over several batches, which survives the process: its
// rollouts carry its name in their metadata, and its batches have names within it.
// It is safe for concurrent use.
type Run struct {
	// Name is that of the run.
	Name string
	// Batches are the names of the batches that were there when the run was found, in
	// the order in which they were enqueued.
	Batches []string
	// Coverage counts the rollouts that were there, by status.
	Coverage map[queue.RolloutStatus]int
	// Began is a start time, in Unix seconds, before which no rollout of the run
	// started.
	Began float64
	// Seen is the latest time, in Unix seconds, that any rollout had.
	Seen float64

	client *Client
	mu     sync.Mutex
	stored map[string][]string // the rollouts of each batch, in order
	holes  map[string]bool     // batches of which the store has lost some
}

// FindRun looks for what the store has of a run; nothing is no error. It reads
// through every rollout of the store, once.
func (c *Client) FindRun(ctx context.Context, name string) (*Run, error) {
	r := &Run{
		Name: name, Coverage: map[queue.RolloutStatus]int{}, client: c,
		stored: map[string][]string{}, holes: map[string]bool{},
	}
	type place struct {
		id    string
		index int64
	}
	places := map[string][]place{}
	for item, err := range (adapter.Source{Store: c.Store}).Rollouts(ctx, queue.RolloutQuery{}) {
		if err != nil {
			return nil, fmt.Errorf("looking for the rollouts of run %s: %w", name, err)
		}
		rollout := &item.Rollout
		r.Seen = max(r.Seen, rollout.StartTime)
		if rollout.EndTime != nil {
			r.Seen = max(r.Seen, *rollout.EndTime)
		}
		if !r.Owns(rollout) {
			continue
		}
		if len(places) == 0 || rollout.StartTime < r.Began {
			r.Began = rollout.StartTime
		}
		r.Coverage[rollout.Status]++
		batch := r.BatchOf(rollout)
		if places[batch] == nil {
			r.Batches = append(r.Batches, batch)
		}
		index, _ := rollout.Metadata.Get(BatchIndexKey).Int()
		places[batch] = append(places[batch], place{rollout.RolloutID, index})
	}
	for batch, list := range places {
		slices.SortStableFunc(list, func(a, b place) int { return int(a.index - b.index) })
		for i, p := range list {
			r.stored[batch] = append(r.stored[batch], p.id)
			r.holes[batch] = r.holes[batch] || p.index != int64(i)
		}
	}
	if len(places) == 0 {
		r.Began = r.Seen - lateness
	}
	return r, nil
}

// Owns reports whether a rollout is of the run.
func (r *Run) Owns(rollout *queue.Rollout) bool {
	return rollout.Metadata.Get(RunKey).Text() == r.Name
}

// BatchOf is the name within the run of a rollout's batch.
func (r *Run) BatchOf(rollout *queue.Rollout) string {
	return strings.TrimPrefix(rollout.Metadata.Get(BatchIDKey).Text(), r.Name+"/")
}

// Names lists the batches, those enqueued since among them, in alphabetical order.
func (r *Run) Names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.stored))
}

// RolloutIDs lists the rollouts of a batch, in order; nil when there is no such
// batch.
func (r *Run) RolloutIDs(batch string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.stored[batch])
}

// Batch enqueues a batch of the run under a name, which must not be empty; opts.ID
// is not used. What is stored of it already is taken up and not stored again; stored
// counts it. Other inputs than the stored ones are a Conflict, and so is a batch of
// which the store has lost rollouts. Two calls under one name must not run at the
// same time.
func (r *Run) Batch(ctx context.Context, name string, tasks []Task, opts BatchOptions) (b *Batch, stored int, err error) {
	r.mu.Lock()
	known, hole := r.stored[name], r.holes[name]
	r.mu.Unlock()
	if hole {
		return nil, 0, queue.Errorf(queue.Conflict,
			"the store has lost rollouts of batch %q of run %s, by its retention perhaps; enqueue it under another name", name, r.Name)
	}
	opts.ID = r.Name + "/" + name
	if opts.Metadata, err = r.mark(opts.Metadata); err != nil {
		return nil, 0, err
	}
	if b, err = r.client.CompleteBatch(ctx, tasks, opts, known); b != nil && b.Len() > len(known) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.stored[name] = b.RolloutIDs()
	}
	return b, len(known), err
}

// mark puts the name of the run into metadata.
func (r *Run) mark(metadata rawjson.Value) (rawjson.Value, error) {
	if !metadata.IsNull() && metadata.Kind() != rawjson.KindObject {
		return nil, queue.Errorf(queue.Invalid, "the batch's metadata is no JSON object: %.80s", metadata)
	}
	dst := rawjson.AppendString(rawjson.AppendMember(nil, []byte(RunKey), nil), r.Name)
	for key, val := range metadata.Members() {
		if string(key) != RunKey {
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	return append(dst, '}'), nil
}

// Try is Batch and all of its results, in order; the rewards are those of the latest
// attempts. What has not finished after the timeout, which counts from now, is
// cancelled; what was cancelled is no result, and is counted.
func (r *Run) Try(ctx context.Context, name string, tasks []Task, opts BatchOptions, timeout time.Duration) (results []Result, cancelled int, err error) {
	b, _, err := r.Batch(ctx, name, tasks, opts)
	if err != nil {
		return nil, 0, err
	}
	timely, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := b.All(timely)
	if err != nil && timely.Err() != nil && ctx.Err() == nil {
		if _, err = b.Cancel(ctx); err == nil {
			var rest []Result
			rest, err = b.All(ctx)
			all = append(all, rest...)
		}
	}
	slices.SortFunc(all, func(x, y Result) int { return x.Index - y.Index })
	for _, result := range all {
		if result.Rollout.Status != queue.RolloutCancelled {
			results = append(results, result)
		}
	}
	return results, len(all) - len(results), err
}

// MeanReward is the mean reward of results, one without a finite reward earning 0;
// NaN without results.
func MeanReward(results []Result) float64 {
	sum := 0.0
	for i := range results {
		reward, _ := results[i].FiniteReward()
		sum += reward
	}
	return sum / float64(len(results))
}
