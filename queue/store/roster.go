package store

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// roster holds what attempts mean for the records of their workers, until it is
// written, within beatDelay, for many workers and attempts together. A worker's
// record decides nothing but a lease, and the attempts say who holds what, so
// nobody waits for it; a read of workers has it written first.
type roster struct {
	mu      sync.Mutex
	pending map[string][]duty // by worker
	wake    chan struct{}     // shared with beats

	writing sync.Mutex // one flush at a time
}

// duty is one thing that a worker's record is to show.
type duty struct {
	event queue.WorkerEvent
	at    float64
	idle  bool // a claim found nothing; event holds the worker only
}

func (d duty) apply(w *queue.Worker) {
	if d.idle {
		w.FoundNothing(d.at)
		return
	}
	w.Apply(d.event, d.at)
}

func (r *roster) add(duties []duty) {
	if len(duties) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = make(map[string][]duty)
	}
	for _, d := range duties {
		r.pending[d.event.WorkerID] = append(r.pending[d.event.WorkerID], d)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take removes what waits for one worker, for a change that will write it.
func (r *roster) take(workerID string) []duty {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.pending[workerID]
	delete(r.pending, workerID)
	return list
}

// giveBack returns what a failed change did not write, ahead of what came since.
func (r *roster) giveBack(workerID string, list []duty) {
	r.mu.Lock()
	later := r.pending[workerID]
	delete(r.pending, workerID)
	r.mu.Unlock()
	r.add(append(slices.Clip(list), later...))
}

// rosterBatch is how many workers one section writes.
const rosterBatch = 500

// flush writes all that waits and returns when it, and all that was being
// written before, is there. What fails is kept for the next time.
func (r *roster) flush(s *Store) {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	pending := r.pending
	r.pending = nil
	r.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	ctx, cancel := s.commitContext(s.asCaller(context.Background(), beatCaller))
	defer cancel()
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(pending)), rosterBatch) {
		if err := r.write(ctx, s, ids, pending); err != nil {
			s.log.Warn("records of workers not written yet", "workers", len(ids), "error", err)
			for _, id := range ids {
				r.giveBack(id, pending[id])
			}
		}
	}
}

// write repeats what other processes came in between of.
func (r *roster) write(ctx context.Context, s *Store, ids []string, pending map[string][]duty) error {
	for len(ids) > 0 {
		lost, err := s.backend.Separately(ctx, func(tx collections.Tx) error {
			if err := tx.Prefetch(nil, ids); err != nil {
				return err
			}
			sec := &section{Tx: tx}
			for _, id := range ids {
				if err := sec.worker(id, func(w *queue.Worker) { applyAll(w, pending[id]) }); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		ids = slices.Collect(maps.Keys(lost.Workers))
	}
	return nil
}

func applyAll(w *queue.Worker, duties []duty) {
	for _, d := range duties {
		d.apply(w)
	}
}
