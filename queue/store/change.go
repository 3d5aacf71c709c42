package store

import (
	"context"
	"errors"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// change is one caller's part of an atomic section. Run may be called several
// times; it sets its results anew each time and puts nothing when it fails.
type change struct {
	rollouts []string // that run will read
	workers  []string
	claim    int // rollouts wanted from the head of the queue, kept in claimed
	claimed  []*queue.Record
	size     int // how much run writes, in records; 0 counts as 1
	run      func(sec *section) error
}

func (c *change) weight() int { return max(1, c.size, c.claim, len(c.rollouts)) }

// section is an atomic section with what the store makes of it.
type section struct {
	collections.Tx
	now      float64
	finished []queue.Rollout // rollouts that finish by it
	queued   int             // rollouts that enter the queue by it
	observed bool
	// transitions are what the observer is told of, if there is one.
	transitions []transition
}

// do runs one change in the lane and spreads the news of it.
func (s *Store) do(ctx context.Context, c *change) error { return s.changes.do(ctx, c) }

func (s *Store) commitChanges(batch []*call[*change]) {
	ctx, cancel := s.commitContext(batch[0].ctx)
	defer cancel()
	err := s.commitTogether(ctx, batch)
	if err == nil {
		return
	}
	// What the backend refuses at the commit may be the fault of one member.
	if len(batch) > 1 && !passing(err) {
		for i := range batch {
			if err := s.commitTogether(ctx, batch[i:i+1]); err != nil {
				batch[i].err = err
			}
		}
		return
	}
	for _, c := range batch {
		c.err = err
	}
}

// passing tells a fault of the backend, which ends a whole section, from one of
// a member.
func passing(err error) bool {
	k := queue.KindOf(err)
	return k == queue.Unavailable || k == queue.Internal ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// commitTogether writes a batch as one section and wakes those it concerns. It
// returns an error only when nothing was written.
func (s *Store) commitTogether(ctx context.Context, batch []*call[*change]) error {
	var sec *section
	err := s.backend.Atomic(ctx, func(tx collections.Tx) error {
		sec = &section{Tx: tx, now: s.seconds(), observed: s.observer != nil}
		if err := prefetch(tx, batch); err != nil {
			return err
		}
		wanted := 0
		for _, c := range batch {
			wanted += c.item.claim
		}
		if wanted > 0 {
			if err := sec.shareHead(batch, wanted); err != nil {
				return err
			}
		}
		for _, c := range batch {
			c.err = c.item.run(sec)
			if c.err != nil && passing(c.err) {
				return c.err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.spread(sec)
	return nil
}

func prefetch(tx collections.Tx, batch []*call[*change]) error {
	if len(batch) == 1 {
		c := batch[0].item
		if len(c.rollouts) == 0 && len(c.workers) == 0 {
			return nil
		}
		return tx.Prefetch(c.rollouts, c.workers)
	}
	var rollouts, workers []string
	for _, c := range batch {
		rollouts = append(rollouts, c.item.rollouts...)
		workers = append(workers, c.item.workers...)
	}
	if len(rollouts) == 0 && len(workers) == 0 {
		return nil
	}
	return tx.Prefetch(rollouts, workers)
}

// shareHead reads the head of the queue once for all claims of the batch and
// deals it out in their order of arrival.
func (sec *section) shareHead(batch []*call[*change], wanted int) error {
	head, err := sec.Head(wanted)
	if err != nil {
		return err
	}
	for _, c := range batch {
		n := min(c.item.claim, len(head))
		c.item.claimed = head[:n:n]
		head = head[n:]
	}
	return nil
}

// spread tells waiters, claimers and the observer what a section brought.
func (s *Store) spread(sec *section) {
	for i := range sec.finished {
		s.waits.finished(sec.finished[i].RolloutID)
	}
	if sec.queued > 0 {
		s.claims.wake(sec.queued)
	}
	s.tell(sec)
}

// edit gives fn a record of its own and, if fn says so, writes what it leaves
// and tells the workers concerned. It returns the record as fn left it, nil when
// there is none of that id.
func (sec *section) edit(id string, fn func(r *queue.Record) (events []queue.WorkerEvent, write bool, err error)) (*queue.Record, error) {
	before, err := sec.Rollout(id)
	if err != nil || before == nil {
		return nil, err
	}
	after := before.Clone()
	events, write, err := fn(after)
	if err != nil || !write {
		return after, err
	}
	if err := sec.put(before, after); err != nil {
		return nil, err
	}
	return after, sec.tell(events)
}

// put writes a changed record and notes what news it is.
func (sec *section) put(before, after *queue.Record) error {
	if err := sec.PutRollout(after); err != nil {
		return err
	}
	sec.note(before, after)
	return nil
}

func (sec *section) note(before, after *queue.Record) {
	if sec.observed {
		sec.transitions = append(sec.transitions, transition{before, after})
	}
	if after.Place != 0 && before.Place == 0 {
		sec.queued++
	}
	if (transition{before, after}).finished() {
		sec.finished = append(sec.finished, after.Rollout)
	}
}

// worker changes a worker's record, making it first if there is none.
func (sec *section) worker(id string, apply func(w *queue.Worker)) error {
	w, err := sec.Worker(id)
	if err != nil {
		return err
	}
	if w == nil {
		w = queue.NewWorker(id)
	} else {
		clone := *w
		w = &clone
	}
	apply(w)
	return sec.PutWorker(w)
}

func (sec *section) tell(events []queue.WorkerEvent) error {
	for _, e := range events {
		if err := sec.worker(e.WorkerID, func(w *queue.Worker) { w.Apply(e, sec.now) }); err != nil {
			return err
		}
	}
	return nil
}

// mutate changes one rollout: fn gets a record of its own, and what it leaves
// is written unless it fails. Heartbeats that wait for the rollout go first.
func (s *Store) mutate(ctx context.Context, id string, workers []string, fn func(sec *section, r *queue.Record) ([]queue.WorkerEvent, error)) error {
	pending := s.beats.take(id)
	var written *queue.Record
	err := s.do(ctx, &change{rollouts: []string{id}, workers: workers, run: func(sec *section) (err error) {
		written, err = sec.edit(id, func(r *queue.Record) ([]queue.WorkerEvent, bool, error) {
			apply(r, pending)
			events, err := fn(sec, r)
			return events, true, err
		})
		if err == nil && written == nil {
			err = queue.ErrNoRollout(id)
		}
		return err
	}})
	if err != nil {
		s.beats.giveBack(id, pending)
		return err
	}
	s.known.review(written)
	return nil
}
