package store

import (
	"sync"

	"github.com/aglq/aglq/queue"
)

// generations is a memory of bounded size, in two generations: when the young
// one is full the old one is dropped.
type generations[K comparable, V any] struct {
	limit int // entries in one generation

	mu         sync.Mutex
	young, old map[K]V
}

func (g *generations[K, V]) look(key K) (V, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.find(key)
}

// find is called with mu held.
func (g *generations[K, V]) find(key K) (V, bool) {
	if v, ok := g.young[key]; ok {
		return v, true
	}
	v, ok := g.old[key]
	return v, ok
}

func (g *generations[K, V]) learn(key K, v V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keep(key, v)
}

// keep is called with mu held.
func (g *generations[K, V]) keep(key K, v V) {
	if g.young == nil || len(g.young) >= g.limit {
		g.old, g.young = g.young, make(map[K]V)
	}
	g.young[key] = v
}

func (g *generations[K, V]) forget(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.young, key)
	delete(g.old, key)
}

// forgetAll drops everything.
func (g *generations[K, V]) forgetAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.young, g.old = nil, nil
}

// known remembers attempts that this process has seen, so that a span need not
// ask the backend whether its attempt exists. An attempt, once made, goes away
// only by [Store.Unclaim] in the process that claimed it, and when it is too old
// to keep; where another process deletes it, its late spans go with it.
type known struct {
	generations[queue.AttemptRef, knownAttempt]
}

type knownAttempt struct {
	place   int64 // where in the queue it was claimed from, 0 if it was not
	mayWait bool  // see queue.Record.SpanMayWait
}

// review takes a record just written as the truth about its known attempts.
func (k *known) review(r *queue.Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range r.Attempts {
		ref := attemptRef(&r.Attempts[i])
		if a, ok := k.find(ref); ok {
			if mayWait := r.SpanMayWait(ref.AttemptID); mayWait != a.mayWait {
				a.mayWait = mayWait
				k.keep(ref, a)
			}
		}
	}
}

// issued remembers how far the counters of rollouts have come, so that a number
// this process has issued itself need not be raised again. Counters only grow,
// so what is remembered is never too high.
type issued struct {
	generations[string, int64]
}

func (c *issued) atLeast(rolloutID string, n int64) bool {
	last, _ := c.look(rolloutID)
	return last >= n
}

// learn notes that the counter of a rollout stands at n or higher.
func (c *issued) learn(rolloutID string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, _ := c.find(rolloutID)
	c.keep(rolloutID, max(last, n))
}
