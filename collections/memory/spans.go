package memory

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"sync"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// shardCount spreads rollouts over locks: far more than there are processors.
const shardCount = 64

// shard holds the spans and the counters of some of the rollouts.
type shard struct {
	mu       sync.RWMutex
	lists    map[string]*spanList
	counters map[string]int64
}

// spanList holds the spans of one rollout, in order of insertion. Stored spans
// are never changed, so a reader uses what it finds after letting the lock go.
type spanList struct {
	spans  []*queue.Span
	stored []uint32             // when each was stored, in Unix seconds
	known  map[spanKey]struct{} // nil while the list is short
	bytes  int64
	// unsorted tells that a span came with a lower number than one before it.
	unsorted bool
}

type spanKey struct{ attempt, span string }

// shortList is up to which length looking through a list is cheaper than
// keeping an index of it.
const shortList = 16

var shardSeed = maphash.MakeSeed()

func (b *Backend) shard(rolloutID string) *shard {
	return &b.shards[maphash.String(shardSeed, rolloutID)%shardCount]
}

// InsertSpans implements collections.Spans.
func (b *Backend) InsertSpans(_ context.Context, spans []queue.Span) ([]bool, error) {
	stored := make([]bool, len(spans))
	for from := 0; from < len(spans); {
		to := from + 1
		for to < len(spans) && spans[to].RolloutID == spans[from].RolloutID {
			to++
		}
		b.insertRun(spans[from:to], stored[from:to])
		from = to
	}
	if b.spanBytes.Load() > b.eviction.limit {
		b.evict()
	}
	return stored, nil
}

// insertRun stores spans of one rollout.
func (b *Backend) insertRun(spans []queue.Span, stored []bool) {
	id := spans[0].RolloutID
	s := b.shard(id)
	s.mu.Lock()
	list, ok := s.lists[id]
	if !ok {
		list = &spanList{}
		s.lists[id] = list
	}
	before := list.bytes
	n := list.insert(spans, stored)
	b.spans.Add(int64(n))
	b.spanBytes.Add(list.bytes - before)
	s.mu.Unlock()
	if !ok {
		b.offerLate(id)
	}
}

// insert adds what is new and returns how many that is.
func (l *spanList) insert(spans []queue.Span, stored []bool) int {
	own := make([]queue.Span, 0, len(spans))
	at := now()
	if n := len(l.stored); n > 0 {
		at = max(at, l.stored[n-1]) // were the clock set back
	}
	for i := range spans {
		if !l.add(spanKey{spans[i].AttemptID, spans[i].SpanID}) {
			continue
		}
		stored[i] = true
		own = append(own, spans[i])
		s := &own[len(own)-1]
		if n := len(l.spans); n > 0 {
			// One text for all spans lets go of what each was parsed from.
			last := l.spans[n-1]
			s.RolloutID = last.RolloutID
			if s.AttemptID == last.AttemptID {
				s.AttemptID = last.AttemptID
			}
			l.unsorted = l.unsorted || s.SequenceID < last.SequenceID
		}
		l.spans = append(l.spans, s)
		l.stored = append(l.stored, at)
		l.bytes += int64(s.Size())
	}
	return len(own)
}

// add notes a key; false when it is known.
func (l *spanList) add(key spanKey) bool {
	if l.known == nil {
		for _, s := range l.spans {
			if s.SpanID == key.span && s.AttemptID == key.attempt {
				return false
			}
		}
		if len(l.spans) < shortList {
			return true
		}
		l.known = make(map[spanKey]struct{}, 2*shortList)
		for _, s := range l.spans {
			l.known[spanKey{s.AttemptID, s.SpanID}] = struct{}{}
		}
	}
	if _, ok := l.known[key]; ok {
		return false
	}
	l.known[key] = struct{}{}
	return true
}

// QuerySpans implements collections.Spans. A page of an unfiltered list by
// number costs no more than the page as long as numbers rose.
func (b *Backend) QuerySpans(_ context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	spans, unsorted := b.list(q.RolloutID)
	if q.AttemptID == nil && q.TraceID.None() && q.SpanID.None() && q.ParentID.None() && q.Name.None() {
		if q.SortBy == "sequence_id" && !unsorted {
			return pageSorted(spans, q.Paging), nil
		}
		return collections.PageSpans(spans, q.Paging), nil
	}
	var matches []*queue.Span
	for _, s := range spans {
		if collections.MatchSpan(s, &q) {
			matches = append(matches, s)
		}
	}
	if q.SortBy == "sequence_id" && !unsorted {
		return pageSorted(matches, q.Paging), nil
	}
	return collections.PageSpans(matches, q.Paging), nil
}

func (b *Backend) list(rolloutID string) (spans []*queue.Span, unsorted bool) {
	s := b.shard(rolloutID)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if list, ok := s.lists[rolloutID]; ok {
		return list.spans, list.unsorted
	}
	return nil, false
}

// pageSorted pages spans that are sorted by number already.
func pageSorted(spans []*queue.Span, p queue.Paging) queue.Page[queue.Span] {
	from, to := bounds(p, len(spans))
	chosen := spans[from:to]
	if p.Descending {
		tied := func(a, b *queue.Span) bool { return a.SequenceID == b.SequenceID }
		fromEnd := func(yield func(*queue.Span) bool) {
			for _, s := range slices.Backward(spans) {
				if !yield(s) {
					return
				}
			}
		}
		chosen = backwards(fromEnd, tied, from, to)
	}
	out := queue.Page[queue.Span]{
		Items: make([]queue.Span, len(chosen)), Limit: p.Limit, Offset: p.Offset, Total: len(spans),
	}
	for i, s := range chosen {
		out.Items[i] = *s
	}
	return out
}

// NextSequence implements collections.Spans.
func (b *Backend) NextSequence(_ context.Context, entries []collections.Counter, _ bool) ([]int64, error) {
	first := make([]int64, len(entries))
	for i, e := range entries {
		s := b.shard(e.RolloutID)
		s.mu.Lock()
		last := s.counters[e.RolloutID]
		enough := e.N <= math.MaxInt64-last
		if enough {
			first[i] = last + 1
			s.counters[e.RolloutID] = last + e.N
		}
		s.mu.Unlock()
		if !enough {
			return nil, collections.ErrNumbersUsedUp(e.RolloutID)
		}
	}
	return first, nil
}

// RaiseSequence implements collections.Spans.
func (b *Backend) RaiseSequence(_ context.Context, entries []collections.Counter) error {
	for _, e := range entries {
		s := b.shard(e.RolloutID)
		s.mu.Lock()
		if e.N > s.counters[e.RolloutID] {
			s.counters[e.RolloutID] = e.N
		}
		s.mu.Unlock()
	}
	return nil
}
