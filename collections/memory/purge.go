package memory

import (
	"context"
	"slices"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// purge holds what is left of deleted rollouts until its time has come.
type purge struct {
	left []remains // in order of time
}

// remains are the spans and counters of rollouts that were deleted together.
type remains struct {
	at       float64 // when they may go, Unix seconds
	rollouts []string
}

// Purge implements collections.Retention. A batch is all that is old: what it
// costs is one walk over the rollouts, which is short, and the same for one as
// for all.
func (b *Backend) Purge(_ context.Context, old collections.Cutoffs) (collections.Purged, error) {
	var out collections.Purged
	b.purging.Lock()
	defer b.purging.Unlock()
	for len(b.purge.left) > 0 && b.purge.left[0].at <= old.Now {
		for _, id := range b.purge.left[0].rollouts {
			out.Spans += b.dropRemains(id)
		}
		b.purge.left = slices.Delete(b.purge.left, 0, 1)
	}
	if old.Finished > 0 {
		if gone := b.dropFinished(old.Finished); len(gone) > 0 {
			ids := make([]string, len(gone))
			for i, r := range gone {
				ids[i] = r.Rollout.RolloutID
				out.Attempts = append(out.Attempts, r.AttemptRefs()...)
			}
			out.Rollouts = int64(len(gone))
			b.purge.left = append(b.purge.left, remains{old.Now + collections.PurgeGrace, ids})
		}
	}
	if old.Spans > 0 {
		for i := range b.shards {
			out.Spans += b.dropOldSpans(&b.shards[i], old.Spans)
		}
	}
	return out, nil
}

// dropFinished deletes the rollouts that ended before a time.
func (b *Backend) dropFinished(before float64) []*queue.Record {
	b.sections.Lock()
	defer b.sections.Unlock()
	old := func(r *queue.Record) bool {
		return r.Rollout.Status.Finished() && r.Rollout.EndTime != nil && *r.Rollout.EndTime < before
	}
	// Only a section's end writes, so this looks without keeping readers out.
	if !slices.ContainsFunc(b.rollouts.records, old) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []*queue.Record
	b.rollouts.remove(old, func(at *row, r *queue.Record) {
		gone = append(gone, r)
		b.eviction.withdraw(at, r)
	})
	return gone
}

// remove deletes the rollouts that go; they are neither queued nor due. It moves
// all that come after the first of them, whatever their number.
func (t *table) remove(goes func(r *queue.Record) bool, each func(at *row, r *queue.Record)) {
	kept := 0
	for pos, r := range t.records {
		at := t.byPos[pos]
		if goes(r) {
			t.counts[t.class[pos]]--
			t.attempts -= len(r.Attempts)
			delete(t.rows, at.id)
			each(at, r)
			continue
		}
		t.records[kept], t.byPos[kept], t.class[kept] = r, at, t.class[pos]
		at.pos = kept
		kept++
	}
	clear(t.records[kept:])
	clear(t.byPos[kept:])
	t.records, t.byPos, t.class = t.records[:kept], t.byPos[:kept], t.class[:kept]
	t.present = t.present[:(kept+blockRows-1)/blockRows]
	for block := range t.present {
		t.summarise(block)
	}
}

// dropRemains deletes what hung on a rollout.
func (b *Backend) dropRemains(rolloutID string) int64 {
	s := b.shard(rolloutID)
	s.mu.Lock()
	delete(s.counters, rolloutID)
	s.mu.Unlock()
	return b.dropSpans(rolloutID)
}

// dropOldSpans deletes the spans of a shard that were stored before a time.
func (b *Backend) dropOldSpans(s *shard, before float64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := int64(0)
	for id, list := range s.lists {
		n, bytes := list.dropBefore(before)
		b.spanBytes.Add(-bytes)
		dropped += int64(n)
		if len(list.spans) == 0 {
			delete(s.lists, id)
		}
	}
	b.spans.Add(-dropped)
	return dropped
}

// dropBefore deletes the spans that were stored before a time: the first ones.
// Readers keep the slice they have.
func (l *spanList) dropBefore(before float64) (n int, bytes int64) {
	n, _ = slices.BinarySearchFunc(l.stored, before, func(at uint32, before float64) int {
		if float64(at) < before {
			return -1
		}
		return 1
	})
	if n == 0 {
		return 0, 0
	}
	for _, s := range l.spans[:n] {
		bytes += int64(s.Size())
		delete(l.known, spanKey{s.AttemptID, s.SpanID})
	}
	l.spans, l.stored = slices.Clone(l.spans[n:]), slices.Clone(l.stored[n:])
	l.bytes -= bytes
	return n, bytes
}

func now() uint32 { return uint32(time.Now().Unix()) }
