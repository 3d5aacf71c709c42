package algorithm

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Batch is a list of rollouts that were enqueued together. It is used by one
// goroutine at a time.
type Batch struct {
	client *Client
	opts   BatchOptions
	ids    []string // by place in the batch
	open   []string // undelivered ones, and some that were delivered since the last look
	// waiting has the undelivered rollouts and their places.
	waiting map[string]int
	began   time.Time // when the first rollout came
	// cost is what the last question about all of them took beyond the wait.
	cost time.Duration
}

// ID names the batch; it is in the metadata of its rollouts.
func (b *Batch) ID() string { return b.opts.ID }

// RolloutIDs lists the rollouts in the order they were enqueued.
func (b *Batch) RolloutIDs() []string { return slices.Clone(b.ids) }

// Len counts the rollouts.
func (b *Batch) Len() int { return len(b.ids) }

// Undelivered counts the rollouts whose results have not been handed out.
func (b *Batch) Undelivered() int { return len(b.waiting) }

// Bounds of one enqueue call, far below what a server takes.
const (
	enqueueMost  = 1000
	enqueueBytes = 4 << 20
)

// Add enqueues more tasks. On an error, those of them that were stored belong
// to the batch.
func (b *Batch) Add(ctx context.Context, tasks []Task) error {
	reqs, err := b.requests(tasks)
	if err != nil {
		return err
	}
	return b.enqueue(ctx, reqs)
}

// enqueue stores requests, whose places in the batch follow those that are there.
func (b *Batch) enqueue(ctx context.Context, reqs []queue.Request) error {
	for len(reqs) > 0 {
		n, size := 0, 0
		for n < len(reqs) && n < enqueueMost && (n == 0 || size < enqueueBytes) {
			size += len(reqs[n].Input) + len(reqs[n].Metadata)
			n++
		}
		// The key makes a repeated call, even by a later process, find the
		// rollouts of the first one.
		key := b.opts.ID + "/" + strconv.Itoa(len(b.ids))
		asked := time.Now()
		rollouts, err := b.client.Store.Enqueue(queue.WithIdempotencyKey(ctx, key), reqs[:n])
		if err != nil {
			return fmt.Errorf("enqueueing rollouts %d to %d of batch %s: %w", len(b.ids), len(b.ids)+n-1, b.opts.ID, err)
		}
		b.client.opts.Observer.Enqueued(len(rollouts), time.Since(asked))
		for i := range rollouts {
			b.expect(rollouts[i].RolloutID, len(b.ids))
		}
		reqs = reqs[n:]
	}
	return nil
}

// complete takes up the rollouts of the batch that another process stored and
// enqueues the rest of tasks.
func (b *Batch) complete(ctx context.Context, tasks []Task, stored []string) error {
	reqs, err := b.requests(tasks)
	if err != nil {
		return err
	}
	if len(stored) > len(reqs) {
		return queue.Errorf(queue.Conflict, "batch %s has %d rollouts in the store, more than the %d that were asked for", b.opts.ID, len(stored), len(reqs))
	}
	for ids := range slices.Chunk(stored, resumePage) {
		page, err := b.client.Store.Rollouts(ctx, queue.RolloutQuery{IDs: ids, Paging: queue.All})
		if err != nil {
			return fmt.Errorf("looking at the rollouts of batch %s: %w", b.opts.ID, err)
		}
		inputs := make(map[string]rawjson.Value, len(ids))
		for i := range page.Items {
			inputs[page.Items[i].RolloutID] = page.Items[i].Input
		}
		for _, id := range ids {
			place := len(b.ids)
			switch input, ok := inputs[id]; {
			case !ok:
				return queue.Errorf(queue.NotFound, "rollout %s of batch %s is gone from the store", id, b.opts.ID)
			case !bytes.Equal(input, reqs[place].Input):
				return queue.Errorf(queue.Conflict, "batch %s exists with another input for its rollout %d: %.80s", b.opts.ID, place, input)
			}
			b.expect(id, place)
		}
	}
	b.client.opts.Observer.Expected(len(stored))
	return b.enqueue(ctx, reqs[len(stored):])
}

// expect counts a rollout as undelivered.
func (b *Batch) expect(id string, place int) {
	if len(b.waiting) == 0 {
		b.began = time.Now()
	}
	b.ids = append(b.ids, id)
	b.open = append(b.open, id)
	b.waiting[id] = place
}

// adopt takes a rollout of the batch that another process stored.
func (b *Batch) adopt(r *queue.Rollout) {
	if len(b.ids) == 0 {
		b.opts.Mode, b.opts.ResourcesID, b.opts.Config = r.Mode, r.ResourcesID, &r.Config
	}
	place, ok := r.Metadata.Get(BatchIndexKey).Int()
	if !ok {
		place = int64(len(b.ids))
	}
	b.expect(r.RolloutID, int(place))
}

func (b *Batch) requests(tasks []Task) ([]queue.Request, error) {
	if err := b.opts.Validate(len(tasks)); err != nil {
		return nil, err
	}
	reqs := make([]queue.Request, 0, len(tasks)*b.opts.Repeat)
	for i, t := range tasks {
		if !t.Metadata.IsNull() && t.Metadata.Kind() != rawjson.KindObject {
			return nil, queue.Errorf(queue.Invalid, "the metadata of task %d is no JSON object: %.80s", i, t.Metadata)
		}
		if t.Input == nil {
			t.Input = rawjson.Null
		}
		if t.DataID == "" {
			t.DataID = t.Metadata.Get(DataIDKey).Text()
		}
		if t.DataID == "" {
			t.DataID = b.opts.ID + "-" + strconv.Itoa(len(b.ids)+i*b.opts.Repeat)
		}
		for range b.opts.Repeat {
			metadata, err := b.metadata(t, len(b.ids)+len(reqs))
			if err != nil {
				return nil, err
			}
			reqs = append(reqs, queue.Request{
				Input: t.Input, Mode: b.opts.Mode, ResourcesID: b.opts.ResourcesID,
				Config: b.opts.Config, Metadata: metadata,
			})
		}
	}
	return reqs, nil
}

// metadata joins the batch's, the task's and the batch's marks; of two members
// with one name the later one stays.
func (b *Batch) metadata(t Task, place int) (rawjson.Value, error) {
	text := []byte{'{'}
	for _, object := range []rawjson.Value{b.opts.Metadata, t.Metadata} {
		for key, val := range object.Members() {
			text = append(text, '"')
			text = append(text, key...)
			text = append(text, '"', ':')
			text = append(text, val...)
			text = append(text, ',')
		}
	}
	text = append(text, `"`+BatchIDKey+`":`...)
	text = rawjson.AppendString(text, b.opts.ID)
	text = append(text, `,"`+BatchIndexKey+`":`...)
	text = rawjson.AppendInt(text, int64(place))
	text = append(text, `,"`+DataIDKey+`":`...)
	text = rawjson.AppendString(text, t.DataID)
	if b.opts.Repeat > 1 {
		text = append(text, `,"`+GroupSizeKey+`":`...)
		text = rawjson.AppendInt(text, int64(b.opts.Repeat))
	}
	metadata, err := rawjson.Parse(append(text, '}'))
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "joining the metadata of a task")
	}
	return metadata, nil
}

// Results hands out the results of the batch as its rollouts finish, and ends
// when all have been handed out. It may be left and taken up again later: what
// was not handed out comes then. It asks for nothing while the loop's body runs.
//
// An error of the store ends it, as the last pair. The rollouts stay in the batch,
// so a new call goes on. Rollouts that are gone from the store are a NotFound
// error after all others were handed out.
func (b *Batch) Results(ctx context.Context) iter.Seq2[Result, error] {
	return b.results(ctx, nil)
}

// results calls refill with the number of unfinished rollouts each time some
// have finished, before their results are fetched.
func (b *Batch) results(ctx context.Context, refill func(unfinished int) error) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		for {
			done, err := b.finished(ctx)
			if err == nil && refill != nil {
				err = refill(len(b.waiting) - len(done))
			}
			if err != nil {
				yield(Result{}, err)
				return
			}
			if len(done) == 0 && len(b.waiting) == 0 {
				return
			}
			for some := range slices.Chunk(done, harvestMost) {
				if !b.deliver(ctx, some, yield) {
					return
				}
			}
		}
	}
}

// deliver fetches and hands out the results of a few finished rollouts.
func (b *Batch) deliver(ctx context.Context, done []queue.Rollout, yield func(Result, error) bool) bool {
	asked := time.Now()
	results, err := b.harvest(ctx, done)
	if err != nil {
		yield(Result{}, fmt.Errorf("fetching results of batch %s: %w", b.opts.ID, err))
		return false
	}
	b.client.opts.Observer.Harvested(len(results), time.Since(asked))
	for _, r := range results {
		if err := ctx.Err(); err != nil { // by what was made of the last one
			yield(Result{}, err)
			return false
		}
		delete(b.waiting, r.Rollout.RolloutID)
		b.client.opts.Observer.Delivered(&r)
		if len(b.waiting) == 0 {
			b.client.opts.Observer.BatchEnded(time.Since(b.began))
		}
		if !yield(r, nil) {
			return false
		}
	}
	return true
}

// harvest makes results of finished rollouts of the batch: one request for their
// attempts and one for the spans of each.
func (b *Batch) harvest(ctx context.Context, done []queue.Rollout) ([]Result, error) {
	ids := make([]string, len(done))
	for i := range done {
		ids[i] = done[i].RolloutID
	}
	page, err := b.client.Store.Rollouts(ctx, queue.RolloutQuery{IDs: ids, Paging: queue.All})
	if err != nil {
		return nil, fmt.Errorf("fetching attempts: %w", err)
	}
	attempts := make(map[string]*queue.Attempt, len(page.Items))
	for i := range page.Items {
		attempts[page.Items[i].RolloutID] = page.Items[i].Attempt
	}
	attempted := make([]queue.AttemptedRollout, len(done))
	for i, r := range done {
		attempted[i] = queue.AttemptedRollout{Rollout: r, Attempt: attempts[r.RolloutID]}
	}
	results, err := b.client.harvest(ctx, attempted, b.opts.SkipSpans)
	for i := range results {
		results[i].Index = b.waiting[results[i].Rollout.RolloutID]
	}
	return results, err
}

// All waits for the whole batch and returns what has not been handed out, in
// the order of the batch. With an error come the results until then.
func (b *Batch) All(ctx context.Context) ([]Result, error) {
	results := make([]Result, 0, len(b.waiting))
	var failed error
	for r, err := range b.Results(ctx) {
		if err != nil {
			failed = err
			break
		}
		results = append(results, r)
	}
	slices.SortFunc(results, func(x, y Result) int { return x.Index - y.Index })
	return results, failed
}

// finished waits until some undelivered rollouts have finished. It returns none
// when none is left.
func (b *Batch) finished(ctx context.Context) ([]queue.Rollout, error) {
	b.open = slices.DeleteFunc(b.open, func(id string) bool { _, ok := b.waiting[id]; return !ok })
	for quiet := 0; len(b.open) > 0; quiet++ {
		done, unknown, err := b.ask(ctx, len(b.open) > askMost && quiet%quietMost < quietMost-1)
		if err == nil && len(done) == 0 {
			err = context.Cause(ctx)
		}
		if err == nil && unknown {
			err = b.checkLost(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("waiting for batch %s: %w", b.opts.ID, err)
		}
		if len(done) > 0 {
			return done, nil
		}
	}
	return nil, nil
}

const (
	// askMost is the number of rollouts up to which the store does the waiting,
	// so that the last ones of a batch are noticed at once. To watch thousands
	// costs the store more than to look them up now and then.
	askMost = 64
	// quietMost is after how many questions without a finished rollout the store
	// is made to wait all the same: only that shows that it knows none of them.
	quietMost = 20
)

// ask asks once which rollouts have finished: by a look after a pause, or by a
// wait. Unknown tells that the wait ended before its time without any, which
// happens when the store knows none of them.
func (b *Batch) ask(ctx context.Context, look bool) (done []queue.Rollout, unknown bool, err error) {
	pause := b.pause()
	wait := pause
	if look {
		wait = 0
		_ = sleep.For(ctx, pause)
	}
	asked := time.Now()
	done, err = b.client.Store.Wait(ctx, b.open, wait)
	took := time.Since(asked)
	b.cost = max(took-wait, 0)
	return done, took < wait && len(done) == 0, err
}

// pause is how long finished rollouts may gather before they are asked for: so
// long that asking takes a fifth of the time at most. A wait ends early only
// when nothing is left unfinished, so that the last rollout can have a long one.
func (b *Batch) pause() time.Duration {
	if len(b.open) == 1 {
		return b.client.opts.LongWait
	}
	return max(b.client.opts.Poll, min(4*b.cost, time.Second))
}

// checkLost is called when a wait ended early without a finished rollout. It
// returns nil, after a pause, when the store does know of some: it is shutting
// down.
func (b *Batch) checkLost(ctx context.Context) error {
	for some := range slices.Chunk(b.open, resumePage) {
		page, err := b.client.Store.Rollouts(ctx, queue.RolloutQuery{IDs: some, Paging: queue.Paging{Limit: 1}})
		if err != nil {
			return err
		}
		if page.Total > 0 {
			_ = sleep.For(ctx, b.client.opts.Poll)
			return nil
		}
	}
	return queue.Errorf(queue.NotFound,
		"%d rollouts are gone from the store, %s the first; enqueue their tasks again", len(b.open), b.open[0])
}

// Cancel cancels the rollouts of the batch that have not finished and returns
// how many. Their workers are told with their next heartbeat. Results then hands
// them out as cancelled. A rollout that finishes at the same moment may be counted
// and end as cancelled.
func (b *Batch) Cancel(ctx context.Context) (int, error) {
	ids := make([]string, 0, len(b.waiting))
	for _, id := range b.open {
		if _, ok := b.waiting[id]; ok {
			ids = append(ids, id)
		}
	}
	n, err := b.client.Cancel(ctx, ids)
	if err != nil {
		err = fmt.Errorf("cancelling batch %s: %w", b.opts.ID, err)
	}
	return n, err
}

// Cancel cancels those of some rollouts that have not finished and returns how
// many; unknown ones are passed over. See [Batch.Cancel].
func (c *Client) Cancel(ctx context.Context, ids []string) (int, error) {
	done, err := c.Store.Wait(ctx, ids, 0)
	if err != nil {
		return 0, err
	}
	over := make(map[string]bool, len(done))
	for i := range done {
		over[done[i].RolloutID] = true
	}
	var cancelled atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.opts.Concurrency)
	for _, id := range ids {
		if over[id] {
			continue
		}
		group.Go(func() error {
			_, err := c.Store.UpdateRollout(ctx, id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)})
			switch {
			case err == nil:
				cancelled.Add(1)
			case queue.KindOf(err) != queue.NotFound:
				return fmt.Errorf("cancelling rollout %s: %w", id, err)
			}
			return nil
		})
	}
	err = group.Wait()
	return int(cancelled.Load()), err
}
