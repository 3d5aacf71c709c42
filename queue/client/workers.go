package client

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Workers implements queue.Store.
func (c *Client) Workers(ctx context.Context, q queue.WorkerQuery) (queue.Page[queue.Worker], error) {
	o := newObject()
	texts(o, "status_in", q.Statuses)
	o.condition("worker_id_contains", q.IDContains)
	o.logic(q.Logic)
	o.paging(q.Paging)
	v, err := c.post(ctx, route("workers", "search"), o.close())
	if err != nil {
		return queue.Page[queue.Worker]{}, err
	}
	return page(v, decodeWorker)
}

// Worker implements queue.Store.
func (c *Client) Worker(ctx context.Context, id string) (*queue.Worker, error) {
	v, err := c.get(ctx, route("workers", id))
	if err != nil {
		return nil, err
	}
	return maybe(v, decodeWorker)
}

// Heartbeat implements queue.Store. A store that says nothing about the held
// attempts is asked about each, and those that are really held are renewed by
// an update.
func (c *Client) Heartbeat(ctx context.Context, h queue.Heartbeat) (queue.HeartbeatAnswer, error) {
	v, err := c.post(ctx, route("workers", h.WorkerID), heartbeatBody(h))
	if err != nil {
		return queue.HeartbeatAnswer{}, err
	}
	var answer queue.HeartbeatAnswer
	if answer.Worker, err = decodeWorker(v); err != nil {
		return answer, err
	}
	if len(h.Held) == 0 {
		return answer, nil
	}
	if held := v.Get("attempts"); held.Kind() == rawjson.KindArray {
		if answer.Held, err = list(held, decodeHeld); err == nil && len(answer.Held) != len(h.Held) {
			err = unexpected("answer to a heartbeat", v)
		}
		return answer, err
	}
	answer.Held, err = c.renew(ctx, h.Held, answer.Worker.LastHeartbeatTime)
	return answer, err
}

func decodeHeld(v rawjson.Value) (queue.HeldAttempt, error) {
	h := queue.HeldAttempt{
		AttemptRef:    queue.AttemptRef{RolloutID: v.Get("rollout_id").Text(), AttemptID: v.Get("attempt_id").Text()},
		Held:          v.Get("held").Bool(),
		RolloutStatus: queue.RolloutStatus(v.Get("rollout_status").Text()),
	}
	if h.RolloutID == "" || h.AttemptID == "" {
		return h, unexpected("held attempt", v)
	}
	return h, nil
}

// renew asks about each attempt and moves the heartbeat of those held to now, a
// time of the store's own clock. The heartbeat of an attempt that is over is
// left alone: there the reference's server would take it up again.
func (c *Client) renew(ctx context.Context, refs []queue.AttemptRef, now *float64) ([]queue.HeldAttempt, error) {
	held := make([]queue.HeldAttempt, len(refs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, ref := range refs {
		group.Go(func() error {
			held[i].AttemptRef = ref
			r, err := c.Rollout(ctx, ref.RolloutID)
			if err != nil || r == nil {
				return err
			}
			held[i].RolloutStatus = r.Status
			a := r.Attempt
			held[i].Held = a != nil && a.AttemptID == ref.AttemptID && r.Status.Active() &&
				(a.Status == queue.AttemptPreparing || a.Status == queue.AttemptRunning)
			if !held[i].Held || now == nil {
				return nil
			}
			_, err = c.UpdateAttempt(ctx, ref.RolloutID, ref.AttemptID,
				queue.AttemptUpdate{LastHeartbeatTime: queue.Set(*now)})
			return err
		})
	}
	return held, group.Wait()
}
