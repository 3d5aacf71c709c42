package store

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/recent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// roster holds what attempts mean for the records of their workers, until it is
// written, within beatDelay, for many workers and attempts together. A worker's
// record decides nothing but a lease, and the attempts say who holds what, so
// nobody waits for it; a read of workers has it written first.
type roster struct {
	mu      sync.Mutex
	pending map[string][]duty // by worker
	order   []string          // of workers in pending, as they were first heard of
	wake    chan struct{}     // shared with beats

	going   map[string][]duty // what it writes
	written recent.Memory[string, queue.Worker]
}

// duty is one thing that a worker's record is to show.
type duty struct {
	kind  dutyKind
	event queue.WorkerEvent // the worker, and what happened to its attempt
	stats rawjson.Value     // that came with a heartbeat
	at    float64
}

type dutyKind int

const (
	attemptChanged dutyKind = iota
	foundNothing            // a claim met an empty queue
	heartbeat
)

func (d duty) apply(w *queue.Worker) {
	switch d.kind {
	case attemptChanged:
		w.Apply(d.event, d.at)
	case foundNothing:
		w.FoundNothing(d.at)
	case heartbeat:
		w.Beat(d.stats, d.at)
	}
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
		if _, ok := r.pending[d.event.WorkerID]; !ok {
			r.order = append(r.order, d.event.WorkerID)
		}
		r.pending[d.event.WorkerID] = then(r.pending[d.event.WorkerID], d)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// waiting reports whether anything is to be written, or is being written.
func (r *roster) waiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.going != nil || len(r.pending) > 0
}

// then adds a duty. Of heartbeats that follow each other the last one says all.
func then(list []duty, d duty) []duty {
	last := len(list) - 1
	if last < 0 || d.kind != heartbeat || list[last].kind != heartbeat {
		return append(list, d)
	}
	if d.stats == nil {
		d.stats = list[last].stats
	}
	list[last] = d
	return list
}

// take removes what waits for one worker, for a change that will write it.
func (r *roster) take(workerID string) []duty {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(workerID)
}

// giveBack returns what a failed change did not write, ahead of what came since.
func (r *roster) giveBack(workerID string, list []duty) {
	r.mu.Lock()
	later := r.remove(workerID)
	r.mu.Unlock()
	r.add(append(slices.Clip(list), later...))
}

// remove is called with mu held.
func (r *roster) remove(workerID string) []duty {
	list, ok := r.pending[workerID]
	if ok {
		delete(r.pending, workerID)
		at := slices.Index(r.order, workerID)
		r.order = slices.Delete(r.order, at, at+1)
	}
	return list
}

// rosterBatch is how many workers one section writes.
const rosterBatch = 500

// flush writes all that waits. What fails is kept for the next time.
func (r *roster) flush(s *Store) {
	r.mu.Lock()
	pending, order := r.pending, r.order
	r.pending, r.order, r.going = nil, nil, pending
	r.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.going = nil
	}()
	ctx, cancel := s.commitContext(s.asCaller(context.Background(), beatCaller))
	defer cancel()
	for ids := range slices.Chunk(order, rosterBatch) {
		r.writeSome(ctx, s, ids, pending)
	}
}

// writeSome keeps what cannot be written now for the next time. A record that the
// backend cannot hold must not keep the others, so it is found and dropped.
func (r *roster) writeSome(ctx context.Context, s *Store, ids []string, pending map[string][]duty) {
	err := r.write(ctx, s, ids, pending)
	switch {
	case err == nil:
	case queue.KindOf(err) != queue.TooLarge:
		s.log.Warn("records of workers not written yet", "workers", len(ids), "error", err)
		for _, id := range ids {
			r.giveBack(id, pending[id])
		}
	case len(ids) == 1:
		r.written.Forget(ids[0])
		s.log.Error("a worker's record cannot be written and is dropped; its id or its heartbeat's statistics are too long", "error", err)
	default:
		r.writeSome(ctx, s, ids[:len(ids)/2], pending)
		r.writeSome(ctx, s, ids[len(ids)/2:], pending)
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
				err := sec.worker(id, func(w *queue.Worker) {
					applyAll(w, pending[id])
					r.written.Put(id, *w)
				})
				if err != nil {
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

// show is a worker's record with all that waits to be written. What another
// process wrote since this one did may be missing.
func (r *roster) show(ctx context.Context, s *Store, id string) (*queue.Worker, error) {
	w, ok := r.written.Get(id)
	if !ok {
		stored, err := s.backend.Worker(ctx, id)
		if err != nil {
			return nil, err
		}
		if stored == nil {
			stored = queue.NewWorker(id)
		}
		w = *stored
		r.written.Put(id, w)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	applyAll(&w, r.going[id])
	applyAll(&w, r.pending[id])
	return &w, nil
}

func applyAll(w *queue.Worker, duties []duty) {
	for _, d := range duties {
		d.apply(w)
	}
}
