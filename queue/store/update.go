package store

import (
	"context"

	"github.com/aglq/aglq/queue"
)

// UpdateRollout implements queue.Store.
func (s *Store) UpdateRollout(ctx context.Context, id string, u queue.RolloutUpdate) (queue.Rollout, error) {
	s.scanBefore(ctx)
	if u.Config.Set {
		if err := u.Config.Value.Validate(); err != nil {
			return queue.Rollout{}, err
		}
	}
	if u.Status.Set && !u.Status.Value.Valid() {
		return queue.Rollout{}, queue.Errorf(queue.Invalid, "%q is no rollout status", u.Status.Value)
	}
	if u.Fence && (!u.Status.Set || u.Status.Value.Active()) {
		return queue.Rollout{}, queue.Errorf(queue.Invalid, "a fence ends the attempt, so give a status that ends the rollout or requeues it, too")
	}
	own, err := s.stage(ctx, stageOver, &u.Input.Value, &u.Metadata.Value)
	if err != nil {
		return queue.Rollout{}, err
	}
	var out queue.Rollout
	err = s.mutate(ctx, id, func(sec *section, r *queue.Record) ([]queue.WorkerEvent, error) {
		events := r.Update(u, sec.now)
		out = r.Rollout
		return events, nil
	})
	if err != nil {
		return out, err
	}
	return out, s.unstage(ctx, own, &out.Input, &out.Metadata)
}

// UpdateAttempt implements queue.Store.
func (s *Store) UpdateAttempt(ctx context.Context, rolloutID, attemptID string, u queue.AttemptUpdate) (queue.Attempt, error) {
	s.scanBefore(ctx)
	if u.Status.Set && !u.Status.Value.Valid() {
		return queue.Attempt{}, queue.Errorf(queue.Invalid, "%q is no attempt status", u.Status.Value)
	}
	own, err := s.stage(ctx, stageOver, &u.Metadata.Value)
	if err != nil {
		return queue.Attempt{}, err
	}
	var out queue.Attempt
	err = s.mutate(ctx, rolloutID, func(sec *section, r *queue.Record) ([]queue.WorkerEvent, error) {
		a, events, err := r.UpdateAttempt(attemptID, u, sec.now)
		if err != nil {
			return nil, err
		}
		out = *a
		return events, nil
	})
	if err != nil {
		return out, err
	}
	return out, s.unstage(ctx, own, &out.Metadata)
}

// maxBehind is how long a worker's id and statistics may be for a heartbeat to be
// answered before it is written: the backend holds that much.
const maxBehind = 64 << 10

// Heartbeat implements queue.Store.
func (s *Store) Heartbeat(ctx context.Context, h queue.Heartbeat) (queue.HeartbeatAnswer, error) {
	if len(h.Held) == 0 && len(h.WorkerID)+len(h.Stats) <= maxBehind {
		return s.idleHeartbeat(ctx, h)
	}
	s.settle(ctx)
	pending := s.roster.take(h.WorkerID)
	var out queue.HeartbeatAnswer
	c := &change{workers: []string{h.WorkerID}}
	for _, ref := range h.Held {
		c.rollouts = append(c.rollouts, ref.RolloutID)
	}
	c.run = func(sec *section) error {
		out.Held = make([]queue.HeldAttempt, len(h.Held))
		for i, ref := range h.Held {
			held, err := sec.renew(ref)
			if err != nil {
				return err
			}
			out.Held[i] = held
		}
		return sec.worker(h.WorkerID, func(w *queue.Worker) {
			applyAll(w, pending)
			w.Beat(h.Stats, sec.now)
			out.Worker = *w
		})
	}
	if err := s.do(ctx, c); err != nil {
		s.roster.giveBack(h.WorkerID, pending)
		return out, err
	}
	s.roster.written.Put(h.WorkerID, out.Worker)
	return out, nil
}

// idleHeartbeat is one that renews no attempt, so that it can be written behind.
func (s *Store) idleHeartbeat(ctx context.Context, h queue.Heartbeat) (out queue.HeartbeatAnswer, err error) {
	w, err := s.roster.show(ctx, s, h.WorkerID)
	if err != nil {
		return out, err
	}
	beat := duty{kind: heartbeat, event: queue.WorkerEvent{WorkerID: h.WorkerID}, stats: h.Stats, at: s.seconds()}
	s.roster.add([]duty{beat})
	beat.apply(w)
	return queue.HeartbeatAnswer{Worker: *w, Held: []queue.HeldAttempt{}}, nil
}

func (sec *section) renew(ref queue.AttemptRef) (queue.HeldAttempt, error) {
	out := queue.HeldAttempt{AttemptRef: ref}
	r, err := sec.edit(ref.RolloutID, func(r *queue.Record) ([]queue.WorkerEvent, bool, error) {
		out.Held = r.Renew(ref.AttemptID, sec.now)
		return nil, out.Held, nil
	})
	if r != nil {
		out.RolloutStatus = r.Rollout.Status
	}
	return out, err
}
