package collections

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aglq/aglq/queue"
)

// The Match functions and the Page functions are what a list means: the rules
// of filtering, sorting and paging that every backend follows, for lists that
// are in the process's memory. A Page function takes the matches in order of
// insertion and leaves them as they are.

// PageAttempts sorts the attempts of one rollout and cuts a page out of them.
func PageAttempts(attempts []queue.Attempt, p queue.Paging) queue.Page[queue.Attempt] {
	refs := make([]*queue.Attempt, len(attempts))
	for i := range attempts {
		refs[i] = &attempts[i]
	}
	chosen := page(refs, p, attemptOrders[p.SortBy])
	out := queue.Page[queue.Attempt]{
		Items: make([]queue.Attempt, len(chosen.Items)), Limit: p.Limit, Offset: p.Offset, Total: chosen.Total,
	}
	for i, a := range chosen.Items {
		out.Items[i] = *a
	}
	return out
}

// PageRollouts sorts records and cuts a page out of them.
func PageRollouts(rs []*queue.Record, p queue.Paging) queue.Page[*queue.Record] {
	return page(rs, p, rolloutOrders[p.SortBy])
}

// PageWorkers sorts workers and cuts a page out of them.
func PageWorkers(ws []*queue.Worker, p queue.Paging) queue.Page[*queue.Worker] {
	return page(ws, p, workerOrders[p.SortBy])
}

// PageResources sorts sets of resources and cuts a page out of them.
func PageResources(us []*queue.ResourcesUpdate, p queue.Paging) queue.Page[*queue.ResourcesUpdate] {
	return page(us, p, resourcesOrders[p.SortBy])
}

// PageSpans sorts spans and cuts a page out of them.
func PageSpans(spans []*queue.Span, p queue.Paging) queue.Page[queue.Span] {
	chosen := page(spans, p, spanOrders[p.SortBy])
	out := queue.Page[queue.Span]{
		Items: make([]queue.Span, len(chosen.Items)), Limit: p.Limit, Offset: p.Offset, Total: chosen.Total,
	}
	for i, s := range chosen.Items {
		out.Items[i] = *s
	}
	return out
}

// page sorts by compare, where there is one, and cuts. Ties stay in the given
// order in both directions.
func page[T any](items []T, p queue.Paging, compare func(a, b T) int) queue.Page[T] {
	out := queue.Page[T]{Limit: p.Limit, Offset: p.Offset, Total: len(items)}
	from := min(max(p.Offset, 0), len(items))
	to := len(items)
	if p.Limit >= 0 {
		to = from + min(p.Limit, len(items)-from)
	}
	switch {
	case from == to:
		out.Items = []T{}
	case compare == nil:
		out.Items = slices.Clone(items[from:to])
	default:
		out.Items = smallest(items, to, func(a, b T) int {
			if p.Descending {
				return -compare(a, b)
			}
			return compare(a, b)
		})[from:]
	}
	return out
}

// ranked is an item with its place in the given order, which breaks ties.
type ranked[T any] struct {
	item T
	at   int
}

// smallest returns the first n items in sorted order. A small n costs one pass:
// a heap of the n best, the worst of them on top.
func smallest[T any](items []T, n int, compare func(a, b T) int) []T {
	order := func(a, b ranked[T]) int {
		return cmp.Or(compare(a.item, b.item), cmp.Compare(a.at, b.at))
	}
	best := make([]ranked[T], 0, n)
	for i, item := range items {
		r := ranked[T]{item, i}
		switch {
		case len(best) < n:
			best = append(best, r)
			if len(best) == n && n < len(items) {
				for j := n/2 - 1; j >= 0; j-- {
					siftDown(best, j, order)
				}
			}
		case order(r, best[0]) < 0:
			best[0] = r
			siftDown(best, 0, order)
		}
	}
	slices.SortFunc(best, order)
	out := make([]T, len(best))
	for i := range best {
		out[i] = best[i].item
	}
	return out
}

// siftDown restores the heap below i: no child is greater than its parent.
func siftDown[T any](heap []T, i int, compare func(a, b T) int) {
	for {
		child := 2*i + 1
		if child >= len(heap) {
			return
		}
		if child+1 < len(heap) && compare(heap[child+1], heap[child]) > 0 {
			child++
		}
		if compare(heap[child], heap[i]) <= 0 {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}

// MatchRollout reports whether r meets the conditions of q.
func MatchRollout(r *queue.Record, q *queue.RolloutQuery) bool {
	p := pool{logic: q.Logic}
	if q.Statuses != nil {
		p.add(slices.Contains(q.Statuses, r.Rollout.Status))
	}
	if q.IDs != nil {
		p.add(slices.Contains(q.IDs, r.Rollout.RolloutID))
	}
	if q.IDContains != nil {
		p.add(ContainsFold(r.Rollout.RolloutID, *q.IDContains))
	}
	if q.Modes != nil {
		p.add(r.Rollout.Mode != "" && slices.Contains(q.Modes, r.Rollout.Mode))
	}
	return p.holds()
}

// MatchWorker reports whether w meets the conditions of q.
func MatchWorker(w *queue.Worker, q *queue.WorkerQuery) bool {
	p := pool{logic: q.Logic}
	if q.Statuses != nil {
		p.add(slices.Contains(q.Statuses, w.Status))
	}
	if q.IDContains != nil {
		p.add(ContainsFold(w.WorkerID, *q.IDContains))
	}
	return p.holds()
}

// MatchResources reports whether u meets the conditions of q.
func MatchResources(u *queue.ResourcesUpdate, q *queue.ResourcesQuery) bool {
	return (q.ID == nil || u.ResourcesID == *q.ID) &&
		(q.IDContains == nil || ContainsFold(u.ResourcesID, *q.IDContains))
}

// MatchSpan reports whether s, a span of the rollout of q, meets the conditions
// of q. AttemptID is literal.
func MatchSpan(s *queue.Span, q *queue.SpanQuery) bool {
	if q.AttemptID != nil && s.AttemptID != *q.AttemptID {
		return false
	}
	p := pool{logic: q.Logic}
	p.text(&s.TraceID, q.TraceID)
	p.text(&s.SpanID, q.SpanID)
	p.text(s.ParentID, q.ParentID)
	p.text(&s.Name, q.Name)
	return p.holds()
}

// pool joins conditions by the logic of a query.
type pool struct {
	logic       queue.Logic
	given       bool // there is a condition
	met, failed bool // one has been met, one has not
}

func (p *pool) add(met bool) {
	p.given = true
	if met {
		p.met = true
	} else {
		p.failed = true
	}
}

func (p *pool) text(value *string, m queue.TextMatch) {
	if m.Equals != nil {
		p.add(value != nil && *value == *m.Equals)
	}
	if m.Contains != nil {
		p.add(value != nil && ContainsFold(*value, *m.Contains))
	}
}

func (p *pool) holds() bool {
	if p.logic == queue.Or {
		return !p.given || p.met
	}
	return !p.failed
}

// ContainsFold reports whether s contains sub, letter case ignored.
func ContainsFold(s, sub string) bool {
	if strings.Contains(s, sub) {
		return true
	}
	if strings.IndexFunc(sub, hasCase) < 0 {
		return false
	}
	for i := range s {
		if mayFold(s[i], sub[0]) && hasPrefixFold(s[i:], sub) {
			return true
		}
	}
	return false
}

func hasCase(r rune) bool { return unicode.SimpleFold(r) != r }

// mayFold rules out most positions by their first byte: ASCII letters that
// differ do so in any case.
func mayFold(a, b byte) bool {
	const caseBit = 'a' - 'A'
	return a|caseBit == b|caseBit || a >= utf8.RuneSelf || b >= utf8.RuneSelf
}

func hasPrefixFold(s, prefix string) bool {
	for len(prefix) > 0 {
		if len(s) == 0 {
			return false
		}
		a, n := utf8.DecodeRuneInString(s)
		b, m := utf8.DecodeRuneInString(prefix)
		if a != b && !equalFold(a, b) {
			return false
		}
		s, prefix = s[n:], prefix[m:]
	}
	return true
}

func equalFold(a, b rune) bool {
	for r := unicode.SimpleFold(a); r != a; r = unicode.SimpleFold(r) {
		if r == b {
			return true
		}
	}
	return false
}
