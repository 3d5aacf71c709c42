package store

import (
	"context"
	"errors"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
)

// change is one caller's part of a batch. Run may be called several times; it
// sets its results anew each time. One that fails after it has put something spoils
// the section, and runs in one of its own.
type change struct {
	rollouts []string // that run will read
	workers  []string
	claim    int // rollouts wanted from the head of the queue, kept in claimed
	claimed  []*queue.Record
	size     int // how much run writes, in records; 0 counts as 1
	run      func(sec *section) error
	// lost, if not nil, is told which of the records that run put have not been
	// written, and reports whether run has to be called again. Without it that is
	// so when any record that run has seen is lost.
	lost func(collections.Lost) (again bool)

	// What the last run saw and what it means for workers.
	seen    []string
	receipt string
	duties  []duty
}

func (c *change) weight() int { return max(1, c.size, c.claim, len(c.rollouts)) }

// runs calls run and notes what it does.
func (c *change) runs(sec *section) error {
	c.seen, c.receipt, c.duties = c.seen[:0], "", c.duties[:0]
	sec.of = c
	return c.run(sec)
}

// again reports whether the change has to run again.
func (c *change) again(lost collections.Lost) bool {
	if !lost.Some() {
		return false
	}
	if c.lost != nil {
		return c.lost(lost)
	}
	if lost.Receipts[c.receipt] {
		return true
	}
	for _, id := range c.seen {
		if lost.Rollouts[id] {
			return true
		}
	}
	for _, id := range c.workers {
		if lost.Workers[id] {
			return true
		}
	}
	return false
}

// section is a section of the backend with what the store makes of it.
type section struct {
	collections.Tx
	now float64
	of  *change // that is running
	// together holds for a section that is written as a whole.
	together bool
	puts     int // writes, so far
	// transitions are what has been put, in order.
	transitions []transition
	inserted    int // rollouts put into the queue that are new
}

// do makes one change, whose records need not change together.
func (s *Store) do(ctx context.Context, c *change) error {
	err := s.recalling(ctx, c, s.changes)
	if errors.Is(err, collections.ErrTogether) {
		return s.doTogether(ctx, c)
	}
	return err
}

// doTogether makes one change whole or not at all.
func (s *Store) doTogether(ctx context.Context, c *change) error {
	return s.recalling(ctx, c, s.sections)
}

// recalling makes a change in a lane, and recalls finished rollouts where it has
// to. Nobody else in the lane waits for that.
func (s *Store) recalling(ctx context.Context, c *change, lane *groupcommit.Group[*change]) error {
	for {
		err := lane.Do(ctx, c)
		if !errors.Is(err, collections.ErrRemembered) {
			return err
		}
		if err := s.backend.Recall(ctx, c.rollouts); err != nil {
			return err
		}
	}
}

// commitChanges writes a batch record by record. Calls whose records others have
// changed meanwhile run again.
func (s *Store) commitChanges(batch []*groupcommit.Call[*change]) {
	ctx, cancel := s.commitContext(batch[0].Ctx)
	defer cancel()
	for len(batch) > 0 {
		var sec *section
		lost, err := s.backend.Separately(ctx, func(tx collections.Tx) (err error) {
			sec, err = s.runAll(tx, batch, false)
			return err
		})
		if err != nil {
			if len(batch) > 1 && !passing(err) { // the fault of one member
				for i := range batch {
					s.commitChanges(batch[i : i+1])
				}
				return
			}
			for _, c := range batch {
				c.Err = err
			}
			s.look() // some may have been written all the same
			return
		}
		s.spread(sec, lost)
		batch = s.settled(batch, lost)
	}
}

// settled passes on what calls mean for workers, and returns those that run
// again.
func (s *Store) settled(batch []*groupcommit.Call[*change], lost collections.Lost) (again []*groupcommit.Call[*change]) {
	for _, c := range batch {
		if c.Item.again(lost) {
			again = append(again, c)
		} else if c.Err == nil {
			s.roster.add(c.Item.duties)
		}
	}
	return again
}

// commitSections writes a batch as one section.
func (s *Store) commitSections(batch []*groupcommit.Call[*change]) {
	ctx, cancel := s.commitContext(batch[0].Ctx)
	defer cancel()
	err := s.commitTogether(ctx, batch)
	if err == nil {
		return
	}
	// What the backend refuses at the commit may be the fault of one member.
	if len(batch) > 1 && !passing(err) {
		for i := range batch {
			if err := s.commitTogether(ctx, batch[i:i+1]); err != nil {
				batch[i].Err = err
			}
		}
		return
	}
	for _, c := range batch {
		c.Err = err
	}
	s.look()
}

// passing tells a fault of the backend, which ends a whole section, from one of
// a member.
func passing(err error) bool {
	k := queue.KindOf(err)
	ofMember := errors.Is(err, collections.ErrTogether) || errors.Is(err, collections.ErrRemembered)
	return k == queue.Unavailable || (k == queue.Internal && !ofMember) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// commitTogether writes a batch as one section and wakes those it concerns. It
// returns an error when nothing was written, or nobody knows.
func (s *Store) commitTogether(ctx context.Context, batch []*groupcommit.Call[*change]) error {
	var sec *section
	err := s.backend.Atomic(ctx, func(tx collections.Tx) (err error) {
		sec, err = s.runAll(tx, batch, true)
		return err
	})
	if err != nil {
		return err
	}
	s.spread(sec, collections.Lost{})
	s.settled(batch, collections.Lost{})
	return nil
}

func (s *Store) runAll(tx collections.Tx, batch []*groupcommit.Call[*change], together bool) (*section, error) {
	sec := &section{Tx: tx, now: s.seconds(), together: together}
	heard := s.claims.looks() // before anything is read
	if err := prefetch(tx, batch); err != nil {
		return nil, err
	}
	wanted := 0
	for _, c := range batch {
		wanted += c.Item.claim
	}
	if wanted > 0 {
		n, err := sec.shareHead(batch, wanted)
		if err != nil {
			return nil, err
		}
		s.claims.found(n, heard)
	}
	for _, c := range batch {
		before := sec.puts
		c.Err = c.Item.runs(sec)
		if c.Err != nil && (passing(c.Err) || sec.puts > before) {
			return nil, c.Err
		}
	}
	return sec, nil
}

func prefetch(tx collections.Tx, batch []*groupcommit.Call[*change]) error {
	if len(batch) == 1 {
		c := batch[0].Item
		if len(c.rollouts) == 0 && len(c.workers) == 0 {
			return nil
		}
		return tx.Prefetch(c.rollouts, c.workers)
	}
	var rollouts, workers []string
	for _, c := range batch {
		rollouts = append(rollouts, c.Item.rollouts...)
		workers = append(workers, c.Item.workers...)
	}
	if len(rollouts) == 0 && len(workers) == 0 {
		return nil
	}
	return tx.Prefetch(rollouts, workers)
}

// shareHead reads the head of the queue once for all claims of the batch and
// deals it out in their order of arrival. It returns how many there were.
func (sec *section) shareHead(batch []*groupcommit.Call[*change], wanted int) (int, error) {
	head, err := sec.Head(wanted)
	if err != nil {
		return 0, err
	}
	found := len(head)
	for _, c := range batch {
		n := min(c.Item.claim, len(head))
		c.Item.claimed = head[:n:n]
		head = head[n:]
	}
	return found, nil
}

// spread tells waiters, claimers and the observer what a section brought.
func (s *Store) spread(sec *section, lost collections.Lost) {
	queued := sec.inserted
	for _, t := range sec.transitions {
		if lost.Rollouts[t.after.Rollout.RolloutID] {
			continue
		}
		if t.after.Place != 0 && t.before.Place == 0 {
			queued++
		}
		if t.finished() {
			s.waits.finished(t.after.Rollout.RolloutID)
		}
		if s.observer != nil {
			t.tell(s.observer, sec.now)
		}
	}
	if queued > 0 {
		s.claims.wake(queued)
	}
}

// Rollout implements collections.Tx.
func (sec *section) Rollout(id string) (*queue.Record, error) {
	sec.of.seen = append(sec.of.seen, id)
	return sec.Tx.Rollout(id)
}

// did counts a write.
func (sec *section) did(err error) error {
	if err == nil {
		sec.puts++
	}
	return err
}

// InsertRollouts implements collections.Tx.
func (sec *section) InsertRollouts(rs []*queue.Record) error {
	return sec.did(sec.Tx.InsertRollouts(rs))
}

// PutRollout implements collections.Tx.
func (sec *section) PutRollout(r *queue.Record) error { return sec.did(sec.Tx.PutRollout(r)) }

// PutWorker implements collections.Tx.
func (sec *section) PutWorker(w *queue.Worker) error { return sec.did(sec.Tx.PutWorker(w)) }

// PutResources implements collections.Tx.
func (sec *section) PutResources(u *queue.ResourcesUpdate) error {
	return sec.did(sec.Tx.PutResources(u))
}

// PutReceipt implements collections.Tx.
func (sec *section) PutReceipt(r *collections.Receipt) error { return sec.did(sec.Tx.PutReceipt(r)) }

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
	sec.tell(events)
	return after, nil
}

// put writes a changed record and notes what news it is.
func (sec *section) put(before, after *queue.Record) error {
	if err := sec.PutRollout(after); err != nil {
		return err
	}
	sec.transitions = append(sec.transitions, transition{before, after})
	return nil
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

// tell notes what the running change means for workers.
func (sec *section) tell(events []queue.WorkerEvent) {
	for _, e := range events {
		sec.of.duties = append(sec.of.duties, duty{event: e, at: sec.now})
	}
}

// mutate changes one rollout: fn gets a record of its own, and what it leaves
// is written unless it fails. Heartbeats that wait for the rollout go first.
func (s *Store) mutate(ctx context.Context, id string, fn func(sec *section, r *queue.Record) ([]queue.WorkerEvent, error)) error {
	pending, landed := s.beats.take(id)
	defer landed()
	var written *queue.Record
	err := s.do(ctx, &change{rollouts: []string{id}, run: func(sec *section) (err error) {
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
