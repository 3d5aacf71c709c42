package client

import (
	"context"
	"net/http"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

const (
	// longestWait bounds what one request asks the store to wait; longer waits
	// take several. A store may cut a longer one to its own limit.
	longestWait = 30 * time.Second
	// A store that does not wait is asked again at intervals that grow from the
	// first of these to the second.
	shortestPoll = 50 * time.Millisecond
	longestPoll  = time.Second
)

// Wait implements queue.Store. The store does the waiting; one that refuses to,
// or that answers early, is asked at intervals.
func (c *Client) Wait(ctx context.Context, ids []string, timeout time.Duration) ([]queue.Rollout, error) {
	if len(ids) == 0 {
		return []queue.Rollout{}, nil
	}
	deadline := time.Now().Add(timeout)
	left := func() time.Duration {
		if timeout < 0 {
			return longestWait
		}
		return min(max(time.Until(deadline), 0), longestWait)
	}
	poll := time.Duration(0) // 0: the store waits
	for {
		ask := left()
		if poll > 0 {
			ask = 0
		}
		asked := time.Now()
		done, err := c.finished(ctx, ids, ask)
		switch {
		case err != nil && ask > 0 && queue.KindOf(err) == queue.Invalid:
			poll = shortestPoll // it does not want to wait: ask without
			continue
		case err != nil:
			return nil, err
		}
		late := timeout >= 0 && time.Until(deadline) <= 0
		if late || len(done) == len(ids) {
			return done, nil
		}
		if poll == 0 && time.Since(asked) >= ask*9/10 {
			continue
		}
		// It came back early: either the others are unknown to the store or it
		// does not wait.
		open, err := c.unfinished(ctx, ids, done)
		if err != nil || !open {
			return done, err
		}
		poll = min(max(2*poll, shortestPoll), longestPoll)
		pause := poll
		if timeout >= 0 {
			pause = min(pause, max(time.Until(deadline), 0))
		}
		if err := sleep.For(ctx, pause); err != nil {
			return nil, ended(ctx, nil)
		}
	}
}

// finished lists those of ids that have, after waiting for the others.
func (c *Client) finished(ctx context.Context, ids []string, wait time.Duration) ([]queue.Rollout, error) {
	o := newObject()
	texts(o, "rollout_ids", ids)
	o.float("timeout", wait.Seconds())
	v, err := c.json(ctx, call{method: http.MethodPost, path: route("waits", "rollouts"), body: o.close(), wait: wait})
	if err != nil {
		return nil, err
	}
	return list(v, decodeRollout)
}

// unfinished reports whether the store knows one of ids that is not done.
func (c *Client) unfinished(ctx context.Context, ids []string, done []queue.Rollout) (bool, error) {
	finished := make(map[string]bool, len(done))
	for i := range done {
		finished[done[i].RolloutID] = true
	}
	missing := []string{}
	for _, id := range ids {
		if !finished[id] {
			missing = append(missing, id)
		}
	}
	page, err := c.Rollouts(ctx, queue.RolloutQuery{IDs: missing, Paging: queue.Paging{Limit: 1}})
	return page.Total > 0, err
}
