package dataset

import (
	"context"
	"io"
	"iter"
	"slices"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
)

// Query says what is read of a source.
type Query struct {
	Statuses []queue.RolloutStatus // of rollouts that are not named
	// RolloutIDs names rollouts, whatever their statuses, in this order where the
	// source can; nil is all.
	RolloutIDs  []string
	AllAttempts bool // not only the latest
	// Want is asked before the spans of a rollout are read.
	Want func(*queue.AttemptedRollout) bool
}

// Source is where rollouts come from. It can be read more than once.
type Source interface {
	// Traces reads the wanted rollouts with their spans, a few at a time. An error is
	// the last pair.
	Traces(ctx context.Context, q Query) iter.Seq2[adapter.Trace, error]
}

// StoreSource reads a store. Rollouts that finish or are deleted meanwhile may or may
// not come; the others come once.
type StoreSource struct {
	Store queue.Store
	// Ahead is how many rollouts' spans are read at a time: 8 when 0.
	Ahead int
}

// storePage is the most rollouts that are listed at a time.
const storePage = 2000

// Traces implements Source. An unknown one of the ids is a NotFound error.
func (s StoreSource) Traces(ctx context.Context, q Query) iter.Seq2[adapter.Trace, error] {
	from := adapter.Source{Store: s.Store, Ahead: s.Ahead, Page: storePage, AllAttempts: q.AllAttempts}
	rollouts := from.Rollouts(ctx, queue.RolloutQuery{Statuses: q.Statuses})
	if q.RolloutIDs != nil {
		rollouts = s.named(ctx, q)
	}
	return from.Traces(ctx, func(yield func(queue.AttemptedRollout, error) bool) {
		for r, err := range rollouts {
			if (err != nil || q.Want(&r)) && !yield(r, err) {
				return
			}
		}
	})
}

// namedPage is how many rollouts are asked for by their ids at a time.
const namedPage = 100

// named reads rollouts by their ids.
func (s StoreSource) named(ctx context.Context, q Query) iter.Seq2[queue.AttemptedRollout, error] {
	return func(yield func(queue.AttemptedRollout, error) bool) {
		for ids := range slices.Chunk(q.RolloutIDs, namedPage) {
			page, err := s.Store.Rollouts(ctx, queue.RolloutQuery{IDs: ids, Paging: queue.All})
			if err != nil {
				yield(queue.AttemptedRollout{}, err)
				return
			}
			byID := make(map[string]queue.AttemptedRollout, len(page.Items))
			for _, r := range page.Items {
				byID[r.RolloutID] = r
			}
			for _, id := range ids {
				r, ok := byID[id]
				if !ok {
					yield(queue.AttemptedRollout{}, queue.ErrNoRollout(id))
					return
				}
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// ArchiveSource reads the content of a partition in the order of an archive: an
// archive itself, or the database behind a store. All of it is read, wanted or not.
type ArchiveSource struct {
	// Open begins a reading, which is closed at its end.
	Open func(ctx context.Context) (archive.Items, io.Closer, error)
}

// Traces implements Source. An archive that was cut short or changed is an Invalid
// error, which may come after all else.
func (s ArchiveSource) Traces(ctx context.Context, q Query) iter.Seq2[adapter.Trace, error] {
	return func(yield func(adapter.Trace, error) bool) {
		items, closer, err := s.Open(ctx)
		if err != nil {
			yield(adapter.Trace{}, err)
			return
		}
		defer closer.Close()
		g := grouping{q: q, yield: yield, byID: map[string]*adapter.Trace{}, missing: map[string]bool{}}
		for _, id := range q.RolloutIDs {
			g.missing[id] = true
		}
		for item, err := range items {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(adapter.Trace{}, err)
				return
			}
			if !g.take(item) {
				return
			}
		}
		if !g.flush() {
			return
		}
		for _, id := range q.RolloutIDs {
			if g.missing[id] {
				yield(adapter.Trace{}, queue.ErrNoRollout(id))
				return
			}
		}
	}
}

// grouping puts the spans of a group of rollouts, which follow them in the order of
// their ids, to their rollouts.
type grouping struct {
	q       Query
	yield   func(adapter.Trace, error) bool
	group   []*adapter.Trace // rollouts that wait for their spans
	byID    map[string]*adapter.Trace
	current string          // the rollout whose spans come; "" before the first
	missing map[string]bool // ids that were asked for and have not come
}

// take takes the next item; false when no more is wanted.
func (g *grouping) take(item archive.Item) bool {
	switch {
	case item.Rollout != nil:
		if g.current != "" && !g.flush() {
			return false
		}
		r := queue.AttemptedRollout{Rollout: item.Rollout.Rollout, Attempt: item.Rollout.Latest()}
		if g.wants(&r) {
			t := &adapter.Trace{Rollout: r}
			g.group = append(g.group, t)
			g.byID[r.RolloutID] = t
		}
	case item.Span != nil:
		if g.current != "" && g.current != item.Span.RolloutID && !g.give(g.current) {
			return false
		}
		g.current = item.Span.RolloutID
		t := g.byID[g.current]
		if t != nil && (g.q.AllAttempts || t.Rollout.Attempt != nil && t.Rollout.Attempt.AttemptID == item.Span.AttemptID) {
			t.Spans = append(t.Spans, *item.Span)
		}
	}
	return true
}

func (g *grouping) wants(r *queue.AttemptedRollout) bool {
	if g.q.RolloutIDs != nil {
		if !g.missing[r.RolloutID] {
			return false
		}
		delete(g.missing, r.RolloutID)
		return g.q.Want(r)
	}
	return slices.Contains(g.q.Statuses, r.Status) && g.q.Want(r)
}

// give yields a rollout whose spans are complete.
func (g *grouping) give(id string) bool {
	t := g.byID[id]
	if t == nil {
		return true
	}
	delete(g.byID, id)
	return g.yield(*t, nil)
}

// flush yields what is left of a group: the last one that has spans, and those that
// have none.
func (g *grouping) flush() bool {
	if !g.give(g.current) {
		return false
	}
	for _, t := range g.group {
		if !g.give(t.Rollout.RolloutID) {
			return false
		}
	}
	g.group, g.current = g.group[:0], ""
	return true
}
