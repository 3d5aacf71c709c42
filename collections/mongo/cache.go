package mongo

import (
	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/recent"
	"github.com/aglq/aglq/queue"
)

// A section's writes carry the revisions of what it read, so it may as well
// start from what this process wrote last: where another process has written
// since, the commit fails and the section runs again on fresh reads. That spares
// a read for nearly every change of a rollout or a worker. What the change stream
// says that others have written is dropped.

const (
	cacheLimit    = 4096    // documents in one generation of a memory
	cacheableSize = 4 << 10 // bytes; larger documents are read each time
)

// cached is a document as it was written last.
type cached[T any] struct {
	value           *T
	revision, order int64
}

// outdated tells a document that is not of the revision r.
func outdated[T any](r revision) func(cached[T]) bool {
	return func(c cached[T]) bool { return c.revision != r }
}

// guess puts cached documents on the shelf and returns the ids of the others.
func guess[T any](from *recent.Memory[string, cached[T]], to *shelf[T], ids []string) []string {
	left := ids[:0:0]
	for _, id := range ids {
		c, ok := from.Get(id)
		if !ok {
			left = append(left, id)
			continue
		}
		to.guessed = true
		to.add(&item[T]{id: id, before: c.value, after: c.value, revision: c.revision, order: c.order, read: true, guessed: true})
	}
	return left
}

// guessed reports whether the section started from documents it has not read.
func (s *section) guessed() bool { return s.rollouts.guessed || s.workers.guessed }

// remember keeps what a section has just written, and drops what it has lost.
func (s *section) remember(lost collections.Lost) {
	for _, it := range s.rollouts.order {
		switch {
		case lost.Rollouts[it.id]:
			s.b.knownRollouts.Forget(it.id)
			s.b.ended.Forget(it.id)
		case it.after == it.before:
		case it.after.Rollout.Status.Active() && recordSize(it.after) <= cacheableSize:
			s.b.knownRollouts.Put(it.id, cached[queue.Record]{it.after, s.revisionOf(it), it.order})
		default:
			s.b.knownRollouts.Forget(it.id)
			if s.ends(it) {
				s.b.ended.settle(it.id, s.revisionOf(it), it.after)
			}
		}
	}
	for _, it := range s.workers.order {
		switch {
		case lost.Workers[it.id]:
			s.b.knownWorkers.Forget(it.id)
		case it.put:
			s.b.knownWorkers.Put(it.id, cached[queue.Worker]{it.after, s.revision, it.order})
		}
	}
}

// ends reports whether the section finishes a rollout, and it may be remembered.
func (s *section) ends(it *item[queue.Record]) bool {
	return it.before != nil && transitionOf(it.before, it.after).finishes() &&
		recordSize(it.after) <= cacheableSize && len(recordStubs(it.after)) == 0
}

// announceEnds prepares for what is about to be written of finished rollouts.
func (s *section) announceEnds() {
	for _, it := range s.rollouts.order {
		switch {
		case it.after == it.before:
		case s.ends(it):
			s.b.ended.expect(it.id, s.revisionOf(it))
		case it.before != nil && it.before.Rollout.Status.Finished() && !sameToWaiters(it.before, it.after):
			s.b.ended.Forget(it.id)
			if !it.after.Rollout.Status.Finished() { // its next end is another one
				s.b.recalled.Forget(it.id)
			}
		}
	}
}

// forget drops what a failed section had to do with: of what it wrote the
// outcome may be unknown.
func (s *section) forget() {
	for _, it := range s.rollouts.order {
		s.b.knownRollouts.Forget(it.id)
		if it.after != it.before {
			s.b.ended.Forget(it.id)
		}
	}
	for _, it := range s.workers.order {
		s.b.knownWorkers.Forget(it.id)
	}
}

// metLimit is how many ids one generation of what is met holds.
const metLimit = 100_000

// met remembers ids.
type met struct {
	recent.Memory[string, struct{}]
}

func (m *met) knows(id string) bool {
	_, ok := m.Get(id)
	return ok
}

func (m *met) add(id string) { m.Put(id, struct{}{}) }
