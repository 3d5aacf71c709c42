package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
)

// drainGrace is how long a claim that waits may go on after Drain, so that one
// that is just being answered is not cut off.
const drainGrace = 300 * time.Millisecond

// claims is the claim loop: it asks for as many rollouts as there are free
// slots, and starts them. It returns why the worker ends, nil for a good end.
func (w *Worker) claims(ctx, tasks context.Context, running *sync.WaitGroup) error {
	pause := firstPoll
	idleSince := time.Now()
	claimed := 0
	known := false // the store has answered a claim
	for {
		limit, err := w.slots(ctx, claimed)
		if err != nil || limit == 0 {
			return err
		}
		asked := time.Now()
		wait := w.wait(idleSince)
		got, err := w.claim(ctx, limit, wait)
		w.heard(err)
		if err != nil && ctx.Err() == nil {
			w.opts.Observer.StoreFailed(CallClaim)
		}
		for i := range got {
			t := w.newTask(got[i])
			w.take(t)
			running.Go(func() { w.runTask(tasks, t) })
		}
		claimed += len(got)
		if len(got) > 0 || w.inflight() > 0 {
			idleSince = time.Now()
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			if !known && queue.Hopeless(err) {
				return err
			}
			if w.storeGone() {
				return ErrStoreGone
			}
			w.log.Warn("claim failed", "error", err, "again_in", pause)
		case len(got) > 0:
			known, pause = true, firstPoll
			continue
		case w.idleTooLong(idleSince):
			return nil
		case wait > 0 && time.Since(asked) >= wait/2:
			known, pause = true, firstPoll
			continue
		default:
			known = true
		}
		// The store is away, or it does not wait.
		w.sleep(ctx, w.jittered(pause))
		pause = min(2*pause, w.opts.PollInterval)
	}
}

// slots waits until a task can be run and says how many; 0 when no more are to
// be claimed.
func (w *Worker) slots(ctx context.Context, claimed int) (int, error) {
	for {
		select {
		case <-w.draining:
			return 0, nil
		default:
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		free := w.opts.Concurrency - w.inflight()
		if w.opts.MaxRollouts > 0 {
			left := w.opts.MaxRollouts - claimed
			if left <= 0 {
				return 0, nil
			}
			free = min(free, left)
		}
		if free > 0 {
			return free, nil
		}
		if w.storeGone() {
			return 0, ErrStoreGone
		}
		if err := w.await(ctx); err != nil {
			return 0, err
		}
	}
}

// await blocks until a slot may have become free, and not for ever: the store
// may go away while all slots are taken.
func (w *Worker) await(ctx context.Context) error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-w.freed:
	case <-w.draining:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// wait is how long the next claim asks the store to wait.
func (w *Worker) wait(idleSince time.Time) time.Duration {
	wait := w.opts.LongPoll
	if idle := w.opts.ExitWhenIdle; idle > 0 {
		wait = min(wait, max(time.Until(idleSince.Add(idle)), 0))
	}
	return wait
}

func (w *Worker) idleTooLong(idleSince time.Time) bool {
	return w.opts.ExitWhenIdle > 0 && w.inflight() == 0 && time.Since(idleSince) >= w.opts.ExitWhenIdle
}

// sleep pauses the claim loop; Drain and the end of ctx cut it short.
func (w *Worker) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.draining:
	case <-ctx.Done():
	}
}

// claim asks for rollouts. A claim that waits is cut off by Drain and by the end
// of ctx; what the store may have given meanwhile is then fetched by asking once
// more under the same key, so that it is not left to time out.
func (w *Worker) claim(ctx context.Context, limit int, wait time.Duration) ([]queue.AttemptedRollout, error) {
	ask := queue.Claim{Limit: limit, WorkerID: &w.opts.ID, Wait: wait}
	key := randomHex(16)
	waiting, cancel := context.WithCancelCause(queue.WithIdempotencyKey(ctx, key))
	answered := make(chan struct{})
	var guard sync.WaitGroup
	guard.Go(func() {
		select {
		case <-answered:
			return
		case <-w.draining:
		}
		grace := time.NewTimer(drainGrace)
		defer grace.Stop()
		select {
		case <-answered:
		case <-grace.C:
			cancel(ErrDrained)
		}
	})
	got, err := w.store.Claim(waiting, ask)
	close(answered)
	guard.Wait()
	cutOff := waiting.Err() != nil
	cancel(nil)
	if !cutOff || len(got) > 0 {
		return got, err
	}
	return w.reclaim(ctx, key, ask)
}

// reclaim fetches the answer to a claim that was cut off. After Drain it is
// worked on; when the worker stops it is given back.
func (w *Worker) reclaim(ctx context.Context, key string, ask queue.Claim) ([]queue.AttemptedRollout, error) {
	again, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime/2)
	defer cancel()
	ask.Wait = 0
	got, err := w.store.Claim(queue.WithIdempotencyKey(again, key), ask)
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	if ctx.Err() == nil || len(got) == 0 {
		return got, nil
	}
	refs := make([]queue.AttemptRef, len(got))
	for i := range got {
		refs[i] = queue.AttemptRef{RolloutID: got[i].RolloutID, AttemptID: got[i].Attempt.AttemptID}
	}
	return nil, w.store.Unclaim(again, refs)
}
