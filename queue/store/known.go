package store

import (
	"github.com/aglq/aglq/internal/recent"
	"github.com/aglq/aglq/queue"
)

// known remembers attempts that this process has seen, so that a span need not
// ask the backend whether its attempt exists. An attempt, once made, goes away
// only by [Store.Unclaim] in the process that claimed it, and when it is too old
// to keep; where another process deletes it, its late spans go with it.
type known struct {
	recent.Memory[queue.AttemptRef, knownAttempt]
}

type knownAttempt struct {
	place   int64 // where in the queue it was claimed from, 0 if it was not
	mayWait bool  // see queue.Record.SpanMayWait
}

// review takes a record just written as the truth about its known attempts.
func (k *known) review(r *queue.Record) {
	for i := range r.Attempts {
		ref := attemptRef(&r.Attempts[i])
		k.UpdateKnown(ref, func(a knownAttempt) knownAttempt {
			a.mayWait = r.SpanMayWait(ref.AttemptID)
			return a
		})
	}
}

// issued remembers how far the counters of rollouts have come, so that a number
// this process has issued itself need not be raised again. Counters only grow, but
// for those that were not durable when a server died, so a failed insert of spans
// clears it.
type issued struct {
	recent.Memory[string, int64]
}

func (c *issued) atLeast(rolloutID string, n int64) bool {
	last, _ := c.Get(rolloutID)
	return last >= n
}

// learn notes that the counter of a rollout stands at n or higher.
func (c *issued) learn(rolloutID string, n int64) {
	c.Update(rolloutID, func(last int64) int64 { return max(last, n) })
}
