package store

import (
	"sync"

	"github.com/aglq/aglq/queue"
)

// known remembers attempts that this process has seen, so that a span need not
// ask the backend whether its attempt exists. An attempt, once made, goes away
// only by [Store.Unclaim] in the process that claimed it. It forgets by
// generations: when the young one is full the old one is dropped.
type known struct {
	limit int // attempts in one generation

	mu         sync.Mutex
	young, old map[queue.AttemptRef]knownAttempt
}

type knownAttempt struct {
	place   int64 // where in the queue it was claimed from, 0 if it was not
	mayWait bool  // see queue.Record.SpanMayWait
}

func (k *known) look(ref queue.AttemptRef) (knownAttempt, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, ok := k.young[ref]; ok {
		return a, true
	}
	a, ok := k.old[ref]
	return a, ok
}

func (k *known) learn(ref queue.AttemptRef, a knownAttempt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.young == nil || len(k.young) >= k.limit {
		k.old, k.young = k.young, make(map[queue.AttemptRef]knownAttempt)
	}
	k.young[ref] = a
}

// review takes a record just written as the truth about its known attempts.
func (k *known) review(r *queue.Record) {
	for i := range r.Attempts {
		ref := attemptRef(&r.Attempts[i])
		if a, ok := k.look(ref); ok {
			if mayWait := r.SpanMayWait(ref.AttemptID); mayWait != a.mayWait {
				a.mayWait = mayWait
				k.learn(ref, a)
			}
		}
	}
}

func (k *known) forget(ref queue.AttemptRef) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.young, ref)
	delete(k.old, ref)
}

// issued remembers how far the counters of rollouts have come, so that a number
// this process has issued itself need not be raised again. Counters only grow,
// so what is remembered is never too high.
type issued struct {
	limit int // rollouts in one generation

	mu         sync.Mutex
	young, old map[string]int64
}

func (c *issued) atLeast(rolloutID string, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.young[rolloutID] >= n || c.old[rolloutID] >= n
}

func (c *issued) learn(rolloutID string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[string]int64)
	}
	c.young[rolloutID] = max(c.young[rolloutID], n)
}
