package store

import (
	"context"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Enqueue implements queue.Store.
func (s *Store) Enqueue(ctx context.Context, reqs []queue.Request) ([]queue.Rollout, error) {
	s.scanBefore(ctx)
	reqs, err := s.complete(ctx, reqs)
	if err != nil || len(reqs) == 0 {
		return []queue.Rollout{}, err
	}
	payloads := make([]*rawjson.Value, 0, 2*len(reqs))
	for i := range reqs {
		payloads = append(payloads, &reqs[i].Input, &reqs[i].Metadata)
	}
	own, err := s.stage(ctx, stageOver, payloads...)
	if err != nil {
		return nil, err
	}
	var out []queue.Rollout
	err = s.doTogether(ctx, &change{size: len(reqs), run: func(sec *section) error {
		out = make([]queue.Rollout, 0, len(reqs))
		return sec.once(ctx, "enqueue", func(refs []queue.AttemptRef) error {
			return sec.replay(refs, func(r *queue.Record, _ queue.AttemptRef) {
				out = append(out, asEnqueued(r))
			})
		}, func() ([]queue.AttemptRef, error) {
			return s.insertQueued(sec, reqs, &out)
		})
	}})
	if err != nil {
		return nil, err
	}
	payloads = payloads[:0]
	for i := range out {
		payloads = append(payloads, &out[i].Input, &out[i].Metadata)
	}
	if err := s.unstage(ctx, own, payloads...); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Store) insertQueued(sec *section, reqs []queue.Request, out *[]queue.Rollout) ([]queue.AttemptRef, error) {
	records := make([]*queue.Record, len(reqs))
	refs := make([]queue.AttemptRef, len(reqs))
	for i, req := range reqs {
		records[i] = queue.NewRecord(s.newID(queue.RolloutID), req, true, s.seconds())
		refs[i].RolloutID = records[i].Rollout.RolloutID
		*out = append(*out, records[i].Rollout)
	}
	if err := sec.InsertRollouts(records); err != nil {
		return nil, err
	}
	sec.inserted += len(records)
	return refs, nil
}

// asEnqueued is the rollout as the call that made it answered.
func asEnqueued(r *queue.Record) queue.Rollout {
	made := r.Rollout
	made.Status = queue.RolloutQueuing
	made.EndTime = nil
	return made
}

// complete checks requests and fills in the latest resources, read once for
// all.
func (s *Store) complete(ctx context.Context, reqs []queue.Request) ([]queue.Request, error) {
	var latest *queue.ResourcesUpdate
	looked := false
	out := make([]queue.Request, len(reqs))
	for i, req := range reqs {
		if req.Config != nil {
			if err := req.Config.Validate(); err != nil {
				return nil, err
			}
		}
		if req.ResourcesID == nil {
			if !looked {
				var err error
				if latest, err = s.backend.LatestResources(ctx); err != nil {
					return nil, err
				}
				looked = true
			}
			if latest != nil {
				req.ResourcesID = &latest.ResourcesID
			}
		}
		out[i] = req
	}
	return out, nil
}

// Start implements queue.Store.
func (s *Store) Start(ctx context.Context, req queue.Request, workerID *string) (queue.AttemptedRollout, error) {
	s.scanBefore(ctx)
	reqs, err := s.complete(ctx, []queue.Request{req})
	if err != nil {
		return queue.AttemptedRollout{}, err
	}
	own, err := s.stage(ctx, stageOver, &reqs[0].Input, &reqs[0].Metadata)
	if err != nil {
		return queue.AttemptedRollout{}, err
	}
	return s.attempt(ctx, &change{workers: nonEmpty(workerID)}, own, "start", func(sec *section) (*queue.Record, []queue.WorkerEvent, error) {
		r := queue.NewRecord(s.newID(queue.RolloutID), reqs[0], false, sec.now)
		events := r.Begin(s.newID(queue.AttemptID), workerID, false, s.lease, sec.now)
		return r, events, sec.InsertRollouts([]*queue.Record{r})
	})
}

// StartAttempt implements queue.Store.
func (s *Store) StartAttempt(ctx context.Context, rolloutID string, workerID *string) (queue.AttemptedRollout, error) {
	s.scanBefore(ctx)
	s.settle(ctx)
	c := &change{rollouts: []string{rolloutID}, workers: nonEmpty(workerID)}
	return s.attempt(ctx, c, nil, "start attempt of "+rolloutID, func(sec *section) (*queue.Record, []queue.WorkerEvent, error) {
		before, err := sec.Rollout(rolloutID)
		if err != nil {
			return nil, nil, err
		}
		if before == nil {
			return nil, nil, queue.ErrNoRollout(rolloutID)
		}
		r := before.Clone()
		events := r.Begin(s.newID(queue.AttemptID), workerID, false, s.lease, sec.now)
		return r, events, sec.put(before, r)
	})
}

// attempt runs a change that begins one attempt, once for each idempotency key.
func (s *Store) attempt(ctx context.Context, c *change, own staged, operation string,
	begin func(sec *section) (*queue.Record, []queue.WorkerEvent, error),
) (queue.AttemptedRollout, error) {
	var out queue.AttemptedRollout
	replayed := false
	c.run = func(sec *section) error {
		return sec.once(ctx, operation, func(refs []queue.AttemptRef) error {
			replayed = true
			return sec.replay(refs, func(r *queue.Record, ref queue.AttemptRef) { out = asBegun(r, ref.AttemptID) })
		}, func() ([]queue.AttemptRef, error) {
			r, events, err := begin(sec)
			if err != nil {
				return nil, err
			}
			out = r.View()
			sec.tell(events)
			return []queue.AttemptRef{attemptRef(out.Attempt)}, nil
		})
	}
	if err := s.doTogether(ctx, c); err != nil {
		return queue.AttemptedRollout{}, err
	}
	if !replayed {
		s.known.Put(attemptRef(out.Attempt), knownAttempt{mayWait: true})
	}
	return out, s.unstage(ctx, own, payloadsOf(&out)...)
}

// asBegun is the rollout as the call that began the attempt answered.
func asBegun(r *queue.Record, attemptID string) queue.AttemptedRollout {
	out := queue.AttemptedRollout{Rollout: r.Rollout}
	out.Status = queue.RolloutPreparing
	if a := r.Attempt(attemptID); a != nil {
		begun := *a
		begun.Status = queue.AttemptPreparing
		begun.EndTime, begun.LastHeartbeatTime, begun.Metadata = nil, nil, nil
		out.Attempt = &begun
	}
	return out
}

// once does what creates something unless the call's idempotency key has done
// so before; then it gives the first answer again.
func (sec *section) once(ctx context.Context, operation string,
	again func(refs []queue.AttemptRef) error, first func() ([]queue.AttemptRef, error),
) error {
	key := queue.IdempotencyKey(ctx)
	if key == "" {
		_, err := first()
		return err
	}
	receipt, err := sec.receipt(key, operation)
	if err != nil {
		return err
	}
	if receipt != nil {
		return again(receipt.Refs)
	}
	refs, err := first()
	if err != nil || len(refs) == 0 {
		return err
	}
	return sec.PutReceipt(&collections.Receipt{Key: key, Operation: operation, Time: sec.now, Refs: refs})
}

// receipt is what an earlier call of the operation left under the key.
func (sec *section) receipt(key, operation string) (*collections.Receipt, error) {
	sec.of.receipt = key
	r, err := sec.Receipt(key)
	if err == nil && r != nil && r.Operation != operation {
		return nil, queue.Errorf(queue.Conflict, "idempotency key %q was used for another operation (%s); use a new key for each call", key, r.Operation)
	}
	return r, err
}

// replay walks what an earlier call created.
func (sec *section) replay(refs []queue.AttemptRef, each func(r *queue.Record, ref queue.AttemptRef)) error {
	for _, ref := range refs {
		r, err := sec.Rollout(ref.RolloutID)
		if err != nil {
			return err
		}
		if r == nil || (ref.AttemptID != "" && r.Attempt(ref.AttemptID) == nil) {
			return queue.Errorf(queue.Conflict, "rollout %s, made by an earlier call with the same idempotency key, is gone", ref.RolloutID)
		}
		each(r, ref)
	}
	return nil
}

func attemptRef(a *queue.Attempt) queue.AttemptRef {
	return queue.AttemptRef{RolloutID: a.RolloutID, AttemptID: a.AttemptID}
}

func nonEmpty(id *string) []string {
	if id == nil || *id == "" {
		return nil
	}
	return []string{*id}
}

// AddResources implements queue.Store.
func (s *Store) AddResources(ctx context.Context, resources rawjson.Value) (queue.ResourcesUpdate, error) {
	var out queue.ResourcesUpdate
	given, replayed := resources, false
	if _, err := s.stage(ctx, stageResourcesOver, &resources); err != nil {
		return out, err
	}
	err := s.doTogether(ctx, &change{run: func(sec *section) error {
		return sec.once(ctx, "add resources", func(refs []queue.AttemptRef) error {
			out.ResourcesID, replayed = refs[0].RolloutID, true
			return nil
		}, func() ([]queue.AttemptRef, error) {
			out = queue.ResourcesUpdate{
				ResourcesID: s.newID(queue.ResourcesID), CreateTime: sec.now, UpdateTime: sec.now, Version: 1, Resources: resources,
			}
			made := out
			return []queue.AttemptRef{{RolloutID: out.ResourcesID}}, sec.PutResources(&made)
		})
	}})
	out.Resources = given
	if err != nil || !replayed {
		return out, err
	}
	stored, err := s.backend.Resources(ctx, out.ResourcesID)
	if err == nil && stored == nil {
		err = queue.Errorf(queue.Conflict, "resources %s, made by an earlier call with the same idempotency key, are gone", out.ResourcesID)
	}
	if err != nil {
		return out, err
	}
	return *stored, nil
}

// UpdateResources implements queue.Store.
func (s *Store) UpdateResources(ctx context.Context, id string, resources rawjson.Value) (queue.ResourcesUpdate, error) {
	s.scanBefore(ctx)
	var out queue.ResourcesUpdate
	given := resources
	if _, err := s.stage(ctx, stageResourcesOver, &resources); err != nil {
		return out, err
	}
	err := s.doTogether(ctx, &change{run: func(sec *section) error {
		out = queue.ResourcesUpdate{ResourcesID: id, CreateTime: sec.now, UpdateTime: sec.now, Version: 1, Resources: resources}
		before, err := sec.Resources(id)
		if err != nil {
			return err
		}
		if before != nil {
			out.CreateTime = before.CreateTime
			out.Version = before.Version + 1
		}
		made := out
		return sec.PutResources(&made)
	}})
	out.Resources = given
	return out, err
}
