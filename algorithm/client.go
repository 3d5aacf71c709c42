package algorithm

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// BatchPrefix begins the ids of batches.
const BatchPrefix queue.IDPrefix = "ba-"

// The members that a batch adds to the metadata of its rollouts.
const (
	BatchIDKey    = "batch_id"    // string
	BatchIndexKey = "batch_index" // integer: the place in the batch, from 0
	DataIDKey     = "data_id"     // string: the same for all repeats of a task
	GroupSizeKey  = "group_size"  // integer: how many repeats of the task there are, where there are several
)

// Options adjusts a Client. The zero Options is right for most.
type Options struct {
	// Poll is how long a finished rollout may go unnoticed while others of its
	// batch are unfinished: 50 ms when 0. It grows, up to a second, where asking
	// is so slow that the store would do little else.
	Poll time.Duration
	// LongWait is how long the store is asked to wait for the last rollout of a
	// batch before it is asked again: 30 s when 0.
	LongWait time.Duration
	// Concurrency is how many requests for spans run at a time: 8 when 0.
	Concurrency int
	// NewID makes the ids of batches: queue.RandomID when nil.
	NewID queue.IDFunc
	// Observer is told what happens: nil for nobody.
	Observer Observer
}

// Client runs batches on a store. It is safe for concurrent use; the batches it
// makes are not.
type Client struct {
	// Store is what the client works on, for all that batches do not cover.
	Store queue.Store
	opts  Options
}

// New makes a client of a store.
func New(store queue.Store, opts Options) *Client {
	opts.Poll = cmp.Or(opts.Poll, 50*time.Millisecond)
	opts.LongWait = cmp.Or(opts.LongWait, 30*time.Second)
	opts.Concurrency = cmp.Or(opts.Concurrency, 8)
	if opts.NewID == nil {
		opts.NewID = queue.RandomID
	}
	if opts.Observer == nil {
		opts.Observer = Unobserved{}
	}
	return &Client{Store: store, opts: opts}
}

// Task is one input for an agent.
type Task struct {
	Input rawjson.Value // any JSON; nil is null
	// Metadata is an object that goes into the rollout's metadata, over the
	// batch's; nil adds nothing.
	Metadata rawjson.Value
	// DataID names the task among the repeats of others; "" takes the data_id
	// in Metadata, else a name made of the batch's id and the task's place in it.
	DataID string
}

// BatchOptions says how the rollouts of a batch are enqueued.
type BatchOptions struct {
	// ID names the batch. "" makes a new one. Enqueueing the same tasks again
	// under the same id, soon after a failure, stores only what is missing;
	// later, see [Client.Resume].
	ID          string
	Mode        queue.Mode    // "" is null
	ResourcesID *string       // nil takes the latest resources
	Config      *queue.Config // nil is queue.DefaultConfig; see [Resilient]
	Metadata    rawjson.Value // an object for the metadata of each rollout, nil for none
	Repeat      int           // rollouts for each task, one after the other: 1 when 0
	// SkipSpans leaves the spans and the reward out of results, which saves a
	// request for each.
	SkipSpans bool
}

// repeatedMost bounds the rollouts that repeats make of the tasks of one call.
const repeatedMost = 1_000_000

// Validate reports whether the options are right for so many tasks at a time, as an
// Invalid error.
func (o BatchOptions) Validate(tasks int) error {
	switch {
	case o.Mode != "" && !o.Mode.Valid():
		return queue.Errorf(queue.Invalid, "mode is %q; it must be train, val or test", o.Mode)
	case o.Repeat < 0:
		return queue.Errorf(queue.Invalid, "repeat is %d; it must be 1 or more", o.Repeat)
	case o.Repeat > 1 && (o.Repeat > repeatedMost || tasks*o.Repeat > repeatedMost):
		return queue.Errorf(queue.Invalid, "%d tasks, each %d times, are more than %d rollouts; split the batch", tasks, o.Repeat, repeatedMost)
	case !o.Metadata.IsNull() && o.Metadata.Kind() != rawjson.KindObject:
		return queue.Errorf(queue.Invalid, "the batch's metadata is no JSON object: %.80s", o.Metadata)
	case o.Config != nil:
		return o.Config.Validate()
	}
	return nil
}

// Resilient is the config of rollouts that outlive their workers: an attempt
// that runs longer than timeout, or is silent for longer than unresponsive, is
// given up and made again, three times in all. An agent that fails by itself is
// not repeated.
func Resilient(timeout, unresponsive time.Duration) *queue.Config {
	t, u := timeout.Seconds(), unresponsive.Seconds()
	return &queue.Config{
		TimeoutSeconds:      &t,
		UnresponsiveSeconds: &u,
		MaxAttempts:         3,
		RetryCondition:      []queue.AttemptStatus{queue.AttemptUnresponsive, queue.AttemptTimeout},
	}
}

// EnqueueBatch stores the rollouts of a batch in the order of tasks. Large
// batches take several calls; when one of them fails, the batch comes back with
// the error and with what was stored, to be cancelled or enqueued again under
// the same id. Invalid tasks or options store nothing and give a nil batch.
func (c *Client) EnqueueBatch(ctx context.Context, tasks []Task, opts BatchOptions) (*Batch, error) {
	b, err := c.NewBatch(opts)
	if err != nil {
		return nil, err
	}
	if err := b.Add(ctx, tasks); err != nil {
		if queue.KindOf(err) == queue.Invalid && len(b.ids) == 0 {
			return nil, err
		}
		return b, err
	}
	return b, nil
}

// CompleteBatch is EnqueueBatch for a batch of which another process stored the
// first rollouts, in order, before it ended: it takes them up and stores the rest,
// if any. Stored ones of another input are a Conflict.
func (c *Client) CompleteBatch(ctx context.Context, tasks []Task, opts BatchOptions, stored []string) (*Batch, error) {
	b, err := c.NewBatch(opts)
	if err != nil {
		return nil, err
	}
	return b, b.complete(ctx, tasks, stored)
}

// NewBatch makes a batch without rollouts; [Batch.Add] fills it.
func (c *Client) NewBatch(opts BatchOptions) (*Batch, error) {
	if err := opts.Validate(0); err != nil {
		return nil, err
	}
	opts.Repeat = cmp.Or(opts.Repeat, 1)
	if opts.ID == "" {
		opts.ID = c.opts.NewID(BatchPrefix)
	}
	return &Batch{client: c, opts: opts, waiting: map[string]int{}}, nil
}

// resumePage is how many rollouts of a batch are looked up in one request.
const resumePage = 500

// Resume finds a batch that another process enqueued. All of its rollouts count
// as undelivered. It reads through every rollout of the store, once. The error is
// NotFound when none belongs to the batch.
//
// Rollouts added to a resumed batch take mode, resources and config of its
// first one.
func (c *Client) Resume(ctx context.Context, batchID string) (*Batch, error) {
	b := &Batch{client: c, opts: BatchOptions{ID: batchID, Repeat: 1}, waiting: map[string]int{}}
	want := rawjson.Value(rawjson.AppendString(nil, batchID))
	for item, err := range (adapter.Source{Store: c.Store}).Rollouts(ctx, queue.RolloutQuery{}) {
		if err != nil {
			return nil, fmt.Errorf("looking for the rollouts of batch %s: %w", batchID, err)
		}
		if r := &item.Rollout; string(r.Metadata.Get(BatchIDKey)) == string(want) {
			b.adopt(r)
		}
	}
	c.opts.Observer.Expected(len(b.ids))
	if len(b.ids) == 0 {
		return nil, queue.Errorf(queue.NotFound, "no rollout of batch %s in the store", batchID)
	}
	return b, nil
}
