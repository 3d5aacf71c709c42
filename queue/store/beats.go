package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
)

// beatDelay is how long heartbeats of running attempts may gather. Nobody waits
// for it: a read that could show one has them written at once.
const beatDelay = 200 * time.Millisecond

// beats holds heartbeats by spans that can wait, until they are written
// together or with the next change of their rollout.
type beats struct {
	mu      sync.Mutex
	pending map[string][]beat // by rollout
	wake    chan struct{}     // has room for one: there is something to write

	writing sync.Mutex // one flush at a time
	flushes int        // that have begun
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

// take removes what waits for one rollout, for a change that will write it.
func (b *beats) take(rolloutID string) []beat {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.pending[rolloutID]
	delete(b.pending, rolloutID)
	return list
}

// giveBack returns what a failed change did not write.
func (b *beats) giveBack(rolloutID string, list []beat) {
	for _, n := range list {
		b.add(rolloutID, n)
	}
}

// flush writes all that waits and returns when it, and all that was being
// written before, is there. What fails is kept for the next time. Of those who
// wait for their turn one flushes for all, so that a backend that cannot be
// reached keeps none of them for longer than two flushes.
func (b *beats) flush(s *Store) {
	b.mu.Lock()
	before := b.flushes
	b.mu.Unlock()
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	if b.flushes > before {
		b.mu.Unlock()
		return
	}
	b.flushes++
	pending := b.pending
	b.pending = nil
	b.mu.Unlock()
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
		s.beats.flush(s)
		s.roster.flush(s)
		s.repeats.flush(s)
	}
}

// settle makes reads of rollouts and attempts see every heartbeat that this
// process has acknowledged.
func (s *Store) settle() { s.beats.flush(s) }

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
