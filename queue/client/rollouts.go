package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aglq/aglq/queue"
)

// Enqueue implements queue.Store.
func (c *Client) Enqueue(ctx context.Context, reqs []queue.Request) ([]queue.Rollout, error) {
	if len(reqs) == 0 {
		return []queue.Rollout{}, nil
	}
	v, err := c.create(ctx, route("queues", "rollouts", "enqueue"), enqueueBody(reqs))
	if err != nil {
		return nil, err
	}
	out, err := list(v, decodeRollout)
	if err == nil && len(out) != len(reqs) {
		return nil, queue.Errorf(queue.Internal, "the store answered %d requests with %d rollouts", len(reqs), len(out))
	}
	return out, err
}

// Claim implements queue.Store. A wait longer than longestWait takes several
// requests. A store that does not wait answers at once; the claim then returns
// empty before its time.
func (c *Client) Claim(ctx context.Context, claim queue.Claim) ([]queue.AttemptedRollout, error) {
	if claim.Limit <= 0 {
		return []queue.AttemptedRollout{}, nil
	}
	key := keyOf(ctx)
	deadline := time.Now().Add(claim.Wait)
	for part := 0; ; part++ {
		wait := min(max(time.Until(deadline), 0), longestWait)
		asked := time.Now()
		rq := call{method: http.MethodPost, path: route("queues", "rollouts", "dequeue"),
			body: claimBody(claim, wait), key: key, wait: wait}
		if part > 0 {
			// An empty answer may be what the store remembers under the first key.
			rq.key = fmt.Sprintf("%s-%d", key, part)
		}
		v, err := c.json(ctx, rq)
		if err != nil {
			return nil, err
		}
		out, err := list(v, decodeBegun)
		early := time.Since(asked) < wait/2
		if err != nil || len(out) > 0 || early || time.Until(deadline) <= 0 {
			return out, err
		}
	}
}

func claimBody(claim queue.Claim, wait time.Duration) []byte {
	o := newObject()
	o.int("limit", claim.Limit)
	if claim.WorkerID != nil {
		o.text("worker_id", *claim.WorkerID)
	}
	if wait > 0 {
		o.float("wait_seconds", wait.Seconds())
	}
	return o.close()
}

// Unclaim implements queue.Store. The protocol has no way to take an attempt
// back, so the rollout returns to the end of the queue and the attempt counts as
// one; between the look and the change another caller may come. What only
// concerns a claim whose answer is lost needs no Unclaim: claim again under the
// same idempotency key.
func (c *Client) Unclaim(ctx context.Context, claims []queue.AttemptRef) error {
	for _, ref := range claims {
		r, err := c.Rollout(ctx, ref.RolloutID)
		if err != nil {
			return err
		}
		if r == nil || r.Status != queue.RolloutPreparing || r.Attempt == nil ||
			r.Attempt.AttemptID != ref.AttemptID || r.Attempt.LastHeartbeatTime != nil {
			continue
		}
		status := queue.RolloutRequeuing
		if r.Attempt.SequenceID == 1 {
			status = queue.RolloutQueuing
		}
		if _, err := c.UpdateRollout(ctx, ref.RolloutID, queue.RolloutUpdate{Status: queue.Set(status)}); err != nil {
			return err
		}
	}
	return nil
}

// Start implements queue.Store.
func (c *Client) Start(ctx context.Context, req queue.Request, workerID *string) (queue.AttemptedRollout, error) {
	o := newObject()
	o.request(&req)
	o.textOrNull("worker_id", workerID)
	v, err := c.create(ctx, route("rollouts"), o.close())
	if err != nil {
		return queue.AttemptedRollout{}, err
	}
	return decodeBegun(v)
}

// StartAttempt implements queue.Store.
func (c *Client) StartAttempt(ctx context.Context, rolloutID string, workerID *string) (queue.AttemptedRollout, error) {
	var body []byte
	if workerID != nil {
		o := newObject()
		o.text("worker_id", *workerID)
		body = o.close()
	}
	v, err := c.create(ctx, route("rollouts", rolloutID, "attempts"), body)
	if err != nil {
		return queue.AttemptedRollout{}, err
	}
	return decodeBegun(v)
}

// Rollout implements queue.Store.
func (c *Client) Rollout(ctx context.Context, id string) (*queue.AttemptedRollout, error) {
	v, err := c.get(ctx, route("rollouts", id))
	if errors.Is(err, errNull) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return maybe(v, decodeAttempted)
}

// Rollouts implements queue.Store. The reference's server does not know the
// condition on modes and leaves it out.
func (c *Client) Rollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	o := newObject()
	texts(o, "status_in", q.Statuses)
	texts(o, "rollout_id_in", q.IDs)
	o.condition("rollout_id_contains", q.IDContains)
	texts(o, "mode_in", q.Modes)
	o.logic(q.Logic)
	o.paging(q.Paging)
	v, err := c.post(ctx, route("rollouts", "search"), o.close())
	if err != nil {
		return queue.Page[queue.AttemptedRollout]{}, err
	}
	return page(v, decodeAttempted)
}

// UpdateRollout implements queue.Store.
func (c *Client) UpdateRollout(ctx context.Context, id string, u queue.RolloutUpdate) (queue.Rollout, error) {
	v, err := c.post(ctx, route("rollouts", id), rolloutUpdateBody(u))
	if err != nil {
		return queue.Rollout{}, err
	}
	return decodeRollout(v)
}

// Attempts implements queue.Store.
func (c *Client) Attempts(ctx context.Context, q queue.AttemptQuery) (queue.Page[queue.Attempt], error) {
	o := newObject()
	o.paging(q.Paging)
	v, err := c.post(ctx, route("rollouts", q.RolloutID, "attempts", "search"), o.close())
	if err != nil {
		return queue.Page[queue.Attempt]{}, err
	}
	return page(v, decodeAttempt)
}

// LatestAttempt implements queue.Store.
func (c *Client) LatestAttempt(ctx context.Context, rolloutID string) (*queue.Attempt, error) {
	v, err := c.get(ctx, route("rollouts", rolloutID, "attempts", "latest"))
	if err != nil {
		return nil, err
	}
	return maybe(v, decodeAttempt)
}

// UpdateAttempt implements queue.Store.
func (c *Client) UpdateAttempt(ctx context.Context, rolloutID, attemptID string, u queue.AttemptUpdate) (queue.Attempt, error) {
	v, err := c.post(ctx, route("rollouts", rolloutID, "attempts", attemptID), attemptUpdateBody(u))
	if err != nil {
		return queue.Attempt{}, err
	}
	return decodeAttempt(v)
}
