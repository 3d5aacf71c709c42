package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
)

// beatDelay is how long heartbeats of running attempts may gather. Nobody waits
// for it: a read that could show one has them written at once.
const beatDelay = 200 * time.Millisecond

// beats holds heartbeats by spans that can wait, until they are written
// together or with the next change of their rollout.
type beats struct {
	mu      sync.Mutex
	pending map[string][]beat          // by rollout
	writing bool                       // a flush is under way
	carried map[chan struct{}]struct{} // changes under way that write some; closed when they have
	wake    chan struct{}              // has room for one: there is something to write
}

// waiting reports whether anything is to be written, or is being written.
func (b *beats) waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writing || len(b.pending) > 0
}

type beat struct {
	attemptID string
	spans     int
	at        float64
}

func (b *beats) add(rolloutID string, n beat) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending == nil {
		b.pending = make(map[string][]beat)
	}
	b.pending[rolloutID] = merge(b.pending[rolloutID], n)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func merge(list []beat, n beat) []beat {
	for i := range list {
		if list[i].attemptID == n.attemptID {
			list[i].spans += n.spans
			list[i].at = max(list[i].at, n.at)
			return list
		}
	}
	return append(list, n)
}

// take removes what waits for one rollout, for a change that will write it and call
// landed when it has, or has given it back.
func (b *beats) take(rolloutID string) (list []beat, landed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list = b.pending[rolloutID]
	if len(list) == 0 {
		return nil, func() {}
	}
	delete(b.pending, rolloutID)
	c := make(chan struct{})
	if b.carried == nil {
		b.carried = make(map[chan struct{}]struct{})
	}
	b.carried[c] = struct{}{}
	return list, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.carried, c)
		close(c)
	}
}

// underWay are the changes that write some.
func (b *beats) underWay() []chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.carried) == 0 {
		return nil
	}
	return slices.Collect(maps.Keys(b.carried))
}

// giveBack returns what a failed change did not write.
func (b *beats) giveBack(rolloutID string, list []beat) {
	for _, n := range list {
		b.add(rolloutID, n)
	}
}

// flush writes all that waits. What fails is kept for the next time.
func (b *beats) flush(s *Store) {
	b.mu.Lock()
	pending := b.pending
	b.pending, b.writing = nil, true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.writing = false
	}()
	ids := slices.Collect(maps.Keys(pending))
	writes := make([]*change, len(ids))
	for i, id := range ids {
		writes[i] = writeBeats(id, pending[id])
	}
	for i, err := range s.changes.DoAll(s.asCaller(context.Background(), beatCaller), writes) {
		if err != nil {
			s.log.Warn("heartbeats not written yet", "rollout_id", ids[i], "error", err)
			b.giveBack(ids[i], pending[ids[i]])
		}
	}
}

func writeBeats(id string, list []beat) *change {
	return &change{rollouts: []string{id}, run: func(sec *section) error {
		_, err := sec.edit(id, func(r *queue.Record) ([]queue.WorkerEvent, bool, error) {
			apply(r, list)
			return nil, true, nil
		})
		return err
	}}
}

func apply(r *queue.Record, list []beat) {
	for _, b := range list {
		r.SpansStored(b.attemptID, b.spans, b.at)
	}
}

// writeBehind writes heartbeats and the records of workers soon after they
// change, and looks up the keys of claims that wait, until the store closes.
func (s *Store) writeBehind() {
	for {
		select {
		case <-s.beats.wake:
		case <-s.closing.Done():
			return
		}
		select {
		case <-time.After(beatDelay):
		case <-s.closing.Done():
			return
		}
		s.settle(s.closing)
		s.settleWorkers(s.closing)
		s.repeats.flush(s)
	}
}

// settle makes reads of rollouts and attempts see every heartbeat that this process
// has acknowledged: it has written what waits and what was being written before, or
// gives up with ctx. Of those who call it at one time one flushes for all.
func (s *Store) settle(ctx context.Context) {
	if s.beats.waiting() {
		_ = s.beatFlushes.Do(ctx, struct{}{}) // what fails then waits on; a read with an ended context fails by that
	}
	for _, landed := range s.beats.underWay() {
		select {
		case <-landed:
		case <-ctx.Done():
			return
		}
	}
}

// settleWorkers is settle for reads of workers.
func (s *Store) settleWorkers(ctx context.Context) {
	if s.roster.waiting() {
		_ = s.rosterFlushes.Do(ctx, struct{}{})
	}
}

// newFlushes makes a lane for flushes, of which one is under way at a time.
func newFlushes(flush func()) *groupcommit.Group[struct{}] {
	g := groupcommit.New(func([]*groupcommit.Call[struct{}]) { flush() }, func(struct{}) int { return 0 }, 1)
	g.Abandon = true
	return g
}

// heartbeat files n stored spans with their attempt, at once or soon.
func (s *Store) heartbeat(ctx context.Context, ref queue.AttemptRef, n int, at float64) error {
	if a, ok := s.known.Get(ref); ok && a.mayWait {
		s.beats.add(ref.RolloutID, beat{attemptID: ref.AttemptID, spans: n, at: at})
		return nil
	}
	return s.mutate(ctx, ref.RolloutID, func(_ *section, r *queue.Record) ([]queue.WorkerEvent, error) {
		if !r.SpansStored(ref.AttemptID, n, at) {
			return nil, queue.ErrNoAttempt(ref.RolloutID, ref.AttemptID)
		}
		return nil, nil
	})
}
