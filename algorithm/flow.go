package algorithm

import (
	"context"
	"iter"

	"github.com/aglq/aglq/queue"
)

// Waves enqueues tasks size at a time: it hands out the results of a wave, in
// the order of its tasks, when all of it has finished, and enqueues the next one
// when the loop's body is done with it. Each wave is a batch of its own, so
// opts.ID must be empty. An error is the last pair, with the results until then.
func (c *Client) Waves(ctx context.Context, tasks iter.Seq[Task], size int, opts BatchOptions) iter.Seq2[[]Result, error] {
	return func(yield func([]Result, error) bool) {
		if size < 1 || opts.ID != "" {
			yield(nil, queue.Errorf(queue.Invalid, "waves need a size of 1 or more and no batch id of their own"))
			return
		}
		next, stop := iter.Pull(tasks)
		defer stop()
		for {
			wave := take(next, size)
			if len(wave) == 0 {
				return
			}
			b, err := c.EnqueueBatch(ctx, wave, opts)
			if err != nil {
				yield(nil, err)
				return
			}
			results, err := b.All(ctx)
			if !yield(results, err) || err != nil {
				return
			}
		}
	}
}

// InFlight keeps about target rollouts unfinished until tasks run out, all in
// one batch, and hands out results as they finish. New ones are enqueued when
// finished ones are noticed, before their results are fetched; with
// opts.Repeat all repeats of a task are enqueued at once, so target may be
// exceeded. An error is the last pair.
//
// When the loop is left early, what is unfinished stays in the queue;
// [Client.Resume] with opts.ID gets hold of it.
func (c *Client) InFlight(ctx context.Context, tasks iter.Seq[Task], target int, opts BatchOptions) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		if target < 1 {
			yield(Result{}, queue.Errorf(queue.Invalid, "the target is %d rollouts in flight; it must be 1 or more", target))
			return
		}
		b, err := c.NewBatch(opts)
		if err != nil {
			yield(Result{}, err)
			return
		}
		next, stop := iter.Pull(tasks)
		defer stop()
		refill := func(unfinished int) error {
			more := target - unfinished
			if more <= 0 {
				return nil
			}
			return b.Add(ctx, take(next, (more+b.opts.Repeat-1)/b.opts.Repeat))
		}
		b.results(ctx, refill)(yield)
	}
}

// take pulls up to n tasks.
func take(next func() (Task, bool), n int) []Task {
	var tasks []Task
	for len(tasks) < n {
		t, ok := next()
		if !ok {
			break
		}
		tasks = append(tasks, t)
	}
	return tasks
}
