package mongo

import (
	"sync"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// A section's writes carry the revisions of what it read, so it may as well
// start from what this process wrote last: where another process has written
// since, the commit fails and the section runs again on fresh reads. That spares
// a read for nearly every change of a rollout or a worker. What the change stream
// says that others have written is dropped.

const (
	cacheLimit    = 4096    // documents in one generation
	cacheableSize = 4 << 10 // bytes; larger documents are read each time
)

// cache remembers documents by id, in two generations: when the young one is
// full the old one is dropped.
type cache[T any] struct {
	mu         sync.Mutex
	young, old map[string]cached[T]
}

type cached[T any] struct {
	value           *T
	revision, order int64
}

func (c *cache[T]) find(id string) (cached[T], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.young[id]; ok {
		return v, true
	}
	v, ok := c.old[id]
	return v, ok
}

func (c *cache[T]) keep(id string, v cached[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= cacheLimit {
		c.old, c.young = c.young, make(map[string]cached[T])
	}
	c.young[id] = v
}

func (c *cache[T]) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, id)
	delete(c.old, id)
}

// outdate drops a document that another process has written at a revision that
// is not the one remembered.
func (c *cache[T]) outdate(id string, r revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range []map[string]cached[T]{c.young, c.old} {
		if v, ok := g[id]; ok && v.revision != r {
			delete(g, id)
		}
	}
}

// guess puts cached documents on the shelf and returns the ids of the others.
func guess[T any](from *cache[T], to *shelf[T], ids []string) []string {
	left := ids[:0:0]
	for _, id := range ids {
		c, ok := from.find(id)
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
			s.b.knownRollouts.drop(it.id)
			s.b.ended.drop(it.id)
		case it.after == it.before:
		case it.after.Rollout.Status.Active() && recordSize(it.after) <= cacheableSize:
			s.b.knownRollouts.keep(it.id, cached[queue.Record]{it.after, s.revisionOf(it), it.order})
		default:
			s.b.knownRollouts.drop(it.id)
			if s.ends(it) {
				s.b.ended.settle(it.id, s.revisionOf(it), it.after)
			}
		}
	}
	for _, it := range s.workers.order {
		switch {
		case lost.Workers[it.id]:
			s.b.knownWorkers.drop(it.id)
		case it.put:
			s.b.knownWorkers.keep(it.id, cached[queue.Worker]{it.after, s.revision, it.order})
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
			s.b.ended.drop(it.id)
			if !it.after.Rollout.Status.Finished() { // its next end is another one
				s.b.recalled.drop(it.id)
			}
		}
	}
}

// forget drops what a failed section had to do with: of what it wrote the
// outcome may be unknown.
func (s *section) forget() {
	for _, it := range s.rollouts.order {
		s.b.knownRollouts.drop(it.id)
		if it.after != it.before {
			s.b.ended.drop(it.id)
		}
	}
	for _, it := range s.workers.order {
		s.b.knownWorkers.drop(it.id)
	}
}

// metLimit is how many ids one generation of a met holds.
const metLimit = 100_000

// met remembers ids, in two generations like a cache.
type met struct {
	mu         sync.Mutex
	young, old map[string]struct{}
}

func (m *met) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, young := m.young[id]
	_, old := m.old[id]
	return young || old
}

// add reports whether the id is new.
func (m *met) add(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.young[id]; ok {
		return false
	}
	_, ok := m.old[id]
	if m.young == nil || len(m.young) >= metLimit {
		m.old, m.young = m.young, make(map[string]struct{})
	}
	m.young[id] = struct{}{}
	return !ok
}
