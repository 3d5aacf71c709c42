package worker

import (
	"context"
	"time"

	"github.com/aglq/aglq/queue"
)

// beat sends heartbeats until ctx ends: the first at once, then at intervals
// short enough for every task that runs, and a last one that says so.
func (w *Worker) beat(ctx context.Context) {
	snap := newSnapshot(w.opts.Version)
	failing := false
	defer func() {
		if !failing { // else the store sees by itself that the worker is gone
			w.lastBeat(context.WithoutCancel(ctx), snap)
		}
	}()
	for {
		sent := time.Now()
		err := w.heartbeat(ctx, snap)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			w.opts.Observer.HeartbeatAnswered(w.opts.ID)
		default:
			w.opts.Observer.StoreFailed(CallHeartbeat)
		}
		switch {
		case err != nil && !failing:
			w.log.Warn("heartbeats fail", "error", err)
		case err == nil && failing:
			w.log.Info("heartbeats are answered again")
		}
		failing = err != nil
		if !w.untilBeat(ctx, sent) {
			return
		}
	}
}

// untilBeat waits for the time of the next heartbeat, which a new task may bring
// forward; false when ctx ends.
func (w *Worker) untilBeat(ctx context.Context, sent time.Time) bool {
	for {
		timer := time.NewTimer(time.Until(sent.Add(w.jittered(w.interval()))))
		select {
		case <-timer.C:
			return true
		case <-w.taken:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// shortestInterval keeps a tiny unresponsive_seconds from flooding the store.
const shortestInterval = 20 * time.Millisecond

// interval is the pause between heartbeats that keeps every held task alive.
func (w *Worker) interval() time.Duration {
	d := w.opts.HeartbeatInterval
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.held {
		if limit := t.Rollout.Config.UnresponsiveSeconds; limit != nil {
			d = min(d, max(seconds(*limit)/3, shortestInterval))
		}
	}
	return d
}

// lastBeatTime is how long the end of a worker may wait for the store to know of
// it.
const lastBeatTime = 2 * time.Second

// lastBeat tells the store that the worker ends, so that it is not taken for alive
// until it has been silent for long. Without an answer it ends all the same.
func (w *Worker) lastBeat(ctx context.Context, snap *snapshot) {
	ctx, cancel := context.WithTimeout(ctx, lastBeatTime)
	defer cancel()
	stats := snap.take(time.Now(), w.inflight(), true)
	if _, err := w.store.Heartbeat(ctx, queue.Heartbeat{WorkerID: w.opts.ID, Stats: stats}); err != nil {
		w.log.Warn("the store was not told that the worker ends", "error", err)
	}
}

// heartbeat sends one, and ends the tasks that it shows to be lost.
func (w *Worker) heartbeat(ctx context.Context, snap *snapshot) error {
	w.mu.Lock()
	held := make([]queue.AttemptRef, 0, len(w.held))
	tasks := make([]*Task, 0, len(w.held))
	for ref, t := range w.held {
		held = append(held, ref)
		tasks = append(tasks, t)
	}
	w.mu.Unlock()
	// A heartbeat that took longer than this is not worth waiting for.
	ctx, cancel := context.WithTimeout(ctx, max(w.opts.HeartbeatInterval, 10*time.Second))
	defer cancel()
	answer, err := w.store.Heartbeat(ctx, queue.Heartbeat{
		WorkerID: w.opts.ID,
		Stats:    snap.take(time.Now(), len(held), false),
		Held:     held,
	})
	w.heard(err)
	if err != nil {
		return err
	}
	for i, a := range answer.Held {
		if i < len(tasks) && !a.Held {
			tasks[i].lose(a.RolloutStatus)
		}
	}
	return nil
}
