package memory

import (
	"context"
	"fmt"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// Atomic implements collections.Backend. Fn runs once.
func (b *Backend) Atomic(ctx context.Context, fn func(tx collections.Tx) error) error {
	b.sections.Lock()
	defer b.sections.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("nothing was done: %w", err)
	}
	defer b.tx.reset()
	if err := fn(&b.tx); err != nil {
		return err
	}
	b.tx.commit()
	return nil
}

// Separately implements collections.Backend. Nothing is lost, for nobody else
// writes.
func (b *Backend) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	return collections.Lost{}, b.Atomic(ctx, fn)
}

// Watch implements collections.Backend. There is no other process to tell of.
func (b *Backend) Watch(func(collections.News)) (stop func()) { return func() {} }

// section collects the writes of an atomic section. There is one, used again
// by every section.
type section struct {
	b         *Backend
	records   writes[*queue.Record]
	workers   writes[*queue.Worker]
	resources writes[*queue.ResourcesUpdate]
	receipts  writes[*collections.Receipt]
	// Entries of the queue before head have all been put by this section.
	head position
}

func newSection(b *Backend) section {
	return section{
		b:         b,
		records:   newWrites[*queue.Record](),
		workers:   newWrites[*queue.Worker](),
		resources: newWrites[*queue.ResourcesUpdate](),
		receipts:  newWrites[*collections.Receipt](),
	}
}

func (s *section) reset() {
	s.records.reset()
	s.workers.reset()
	s.resources.reset()
	s.receipts.reset()
	s.head = position{}
}

// commit makes the writes visible, all at once. It cannot fail.
func (s *section) commit() {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range s.records.list {
		before, row := b.rollouts.put(r)
		switch finished := r.Rollout.Status.Finished(); {
		case finished && (before == nil || !before.Rollout.Status.Finished()):
			b.eviction.offer(row, r)
		case !finished && before != nil && before.Rollout.Status.Finished():
			b.eviction.withdraw(row, r)
		}
	}
	for _, w := range s.workers.list {
		b.workers.put(w.WorkerID, w)
	}
	for _, u := range s.resources.list {
		b.putResources(u)
	}
	for _, r := range s.receipts.list {
		b.receipts.put(r)
	}
}

// Prefetch implements collections.Tx; nothing is far away.
func (s *section) Prefetch([]string, []string) error { return nil }

// Rollout implements collections.Tx.
func (s *section) Rollout(id string) (*queue.Record, error) {
	if r, ok := s.records.find(id); ok {
		return r, nil
	}
	return s.b.rollouts.find(id), nil
}

// Head implements collections.Tx.
func (s *section) Head(n int) ([]*queue.Record, error) {
	t := &s.b.rollouts
	var out []*queue.Record
	for p := s.head; len(out) < n; p = t.queue.next(p) {
		e, ok := t.queue.at(p)
		if !ok {
			break
		}
		if _, put := s.records.find(e.row.id); !put {
			out = append(out, t.records[e.row.pos])
		} else if p == s.head {
			s.head = t.queue.next(p)
		}
	}
	return out, nil
}

// InsertRollouts implements collections.Tx.
func (s *section) InsertRollouts(rs []*queue.Record) error {
	for _, r := range rs {
		id := r.Rollout.RolloutID
		if _, ok := s.records.find(id); ok || s.b.rollouts.find(id) != nil {
			return queue.Errorf(queue.Conflict, "Rollout %s exists already", id)
		}
		s.putRecord(r)
	}
	return nil
}

// PutRollout implements collections.Tx.
func (s *section) PutRollout(r *queue.Record) error {
	id := r.Rollout.RolloutID
	if _, ok := s.records.find(id); !ok && s.b.rollouts.find(id) == nil {
		return queue.ErrNoRollout(id)
	}
	s.putRecord(r)
	return nil
}

func (s *section) putRecord(r *queue.Record) {
	if r.Place == queue.Tail {
		r.Place = s.b.rollouts.nextPlace()
	}
	s.b.rollouts.placed(r.Place)
	s.records.put(r.Rollout.RolloutID, r)
}

// Worker implements collections.Tx.
func (s *section) Worker(id string) (*queue.Worker, error) {
	if w, ok := s.workers.find(id); ok {
		return w, nil
	}
	return s.b.workers.find(id), nil
}

// PutWorker implements collections.Tx.
func (s *section) PutWorker(w *queue.Worker) error {
	s.workers.put(w.WorkerID, w)
	return nil
}

// Resources implements collections.Tx.
func (s *section) Resources(id string) (*queue.ResourcesUpdate, error) {
	if u, ok := s.resources.find(id); ok {
		return u, nil
	}
	return s.b.resources.find(id), nil
}

// PutResources implements collections.Tx.
func (s *section) PutResources(u *queue.ResourcesUpdate) error {
	s.resources.put(u.ResourcesID, u)
	return nil
}

// Receipt implements collections.Tx.
func (s *section) Receipt(key string) (*collections.Receipt, error) {
	if r, ok := s.receipts.find(key); ok {
		return r, nil
	}
	return s.b.receipts.byKey[key], nil
}

// PutReceipt implements collections.Tx.
func (s *section) PutReceipt(r *collections.Receipt) error {
	s.receipts.put(r.Key, r)
	return nil
}

// writes are the values that a section wrote, in order, the last of each key.
type writes[T any] struct {
	list []T
	at   map[string]int
}

// keptWrites is the size up to which the memory of writes is used again.
const keptWrites = 1024

func newWrites[T any]() writes[T] { return writes[T]{at: map[string]int{}} }

func (w *writes[T]) find(key string) (value T, ok bool) {
	if len(w.list) == 0 {
		return value, false
	}
	at, ok := w.at[key]
	if ok {
		value = w.list[at]
	}
	return value, ok
}

func (w *writes[T]) put(key string, value T) {
	if at, ok := w.at[key]; ok {
		w.list[at] = value
		return
	}
	w.at[key] = len(w.list)
	w.list = append(w.list, value)
}

func (w *writes[T]) reset() {
	if len(w.list) > keptWrites {
		*w = newWrites[T]()
		return
	}
	clear(w.list)
	w.list = w.list[:0]
	clear(w.at)
}
