package mongo

import (
	"math/rand/v2"
	"slices"

	"github.com/aglq/aglq/queue"
)

// A revision marks one version of a document, which a section's writes are
// conditional on. It is random, not counted, so that a version lost in a failover
// is never taken for the one written instead. A rollout's revision also says
// what its write did to the counts, and who wrote it, so that the change stream
// tells both without the documents:
//
//	bits  0-2   status before, 0 for a new rollout
//	bits  3-5   status after, 0 for a deleted one
//	bits  6-19  by how many more attempts, and 8192
//	bits 20-39  the writer
//	bits 40-62  random
//
// All documents that one section writes share the bits from 20.
type revision = int64

const (
	statusBits    = 3
	attemptBits   = 14
	writerBits    = 20
	attemptsShift = 2 * statusBits
	writerShift   = attemptsShift + attemptBits
	randomShift   = writerShift + writerBits

	noAttempts  = 1 << (attemptBits - 1)
	maxAttempts = noAttempts - 1
)

// newRevision is a number that no other section, bar or mark of counters has: the
// revision of a section's documents that are not rollouts, and part of theirs.
func (b *Backend) newRevision() revision {
	return rand.Int64()>>randomShift<<randomShift | b.writer<<writerShift
}

// newWriter is a number that two processes hardly ever share.
func newWriter() int64 { return rand.Int64N(1 << writerBits) }

// statusCode is 1 for the first of queue.RolloutStatuses, and 0 for none.
func statusCode(s queue.RolloutStatus) revision {
	return revision(slices.Index(queue.RolloutStatuses, s) + 1)
}

// transition is what the write of a rollout did to the counts.
type transition struct {
	before, after queue.RolloutStatus // "" for none
	attempts      int64               // more than before
}

func transitionOf(before, after *queue.Record) (t transition) {
	if before != nil {
		t.before, t.attempts = before.Rollout.Status, -int64(len(before.Attempts))
	}
	if after != nil {
		t.after = after.Rollout.Status
		t.attempts += int64(len(after.Attempts))
	}
	return t
}

// counts reports whether the transition changes a count.
func (t transition) counts() bool { return t.before != t.after || t.attempts != 0 }

func (t transition) enqueues() bool { return t.after.Queued() && !t.before.Queued() }

func (t transition) finishes() bool { return t.after.Finished() && !t.before.Finished() }

// mark puts a transition into a section's revision.
func mark(section revision, t transition) revision {
	attempts := min(max(t.attempts, -maxAttempts), maxAttempts) + noAttempts
	code := attempts<<attemptsShift | statusCode(t.after)<<statusBits | statusCode(t.before)
	return section | code
}

// read is the transition in a rollout's revision.
func read(r revision) (t transition, writer int64) {
	status := func(code revision) queue.RolloutStatus {
		if code &= 1<<statusBits - 1; code > 0 && int(code) <= len(queue.RolloutStatuses) {
			return queue.RolloutStatuses[code-1]
		}
		return ""
	}
	t.before, t.after = status(r), status(r>>statusBits)
	t.attempts = r>>attemptsShift&(1<<attemptBits-1) - noAttempts
	return t, writerOf(r)
}

func writerOf(r revision) int64 { return r >> writerShift & (1<<writerBits - 1) }

// sectionOf is what all revisions of a section share.
func sectionOf(r revision) revision { return r >> writerShift << writerShift }
