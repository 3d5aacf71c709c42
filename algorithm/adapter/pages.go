package adapter

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/aglq/aglq/queue"
)

// Rollouts lists the rollouts that a query selects, page by page; its paging but
// for the order is ignored. An error is the last pair.
//
// In the order of their start, which is that of insertion, those that match from
// the first page to the last come exactly once, and of others some, whatever is
// enqueued, finishes or is deleted meanwhile. In other orders those that move while
// they are listed may be missed or come twice.
func (s Source) Rollouts(ctx context.Context, q queue.RolloutQuery) iter.Seq2[queue.AttemptedRollout, error] {
	return func(yield func(queue.AttemptedRollout, error) bool) {
		most := cmp.Or(s.Page, 500)
		l := listing{store: s.Store, q: q, most: most, page: min(most, firstPage), seen: map[string]bool{}}
		byStart := !q.Descending && (q.SortBy == "" || q.SortBy == "start_time")
		for {
			items, err := l.next(ctx, byStart)
			if err != nil {
				yield(queue.AttemptedRollout{}, fmt.Errorf("listing rollouts: %w", err))
				return
			}
			size := 1
			for _, r := range items {
				size += len(r.Input) + len(r.Metadata) + 500 // for the rest
				if l.pass(&r, byStart) && !yield(r, nil) {
					return
				}
			}
			l.page = min(l.most, max(leastPage, pageBytes/(size/max(1, len(items))+1)))
			if l.ended {
				return
			}
		}
	}
}

// A page holds about pageBytes of rollouts, which are known by the page before: the
// first one is short. Long pages are cheaper, for each is looked for from the beginning
// of the list.
const (
	firstPage = 100
	leastPage = 10
	pageBytes = 8 << 20
)

// listing goes through a list that changes meanwhile. What moves a place in it to
// another offset, as the deletion of an earlier rollout, is seen by the last rollout
// of a page not being where it was.
type listing struct {
	store queue.Store
	q     queue.RolloutQuery
	most  int // in a page
	page  int // rollouts in the next one
	ended bool

	passed int // the offset behind the last page
	lastID string
	start  float64         // of the last rollout
	seen   map[string]bool // those that have the same start
	behind bool            // what is read was passed already, until start is reached
}

// next reads a page. Where the list can be searched by start, it begins at the
// last rollout, which must be there.
func (l *listing) next(ctx context.Context, byStart bool) ([]queue.AttemptedRollout, error) {
	if !byStart || l.passed == 0 {
		return l.read(ctx, l.passed, l.page)
	}
	items, err := l.read(ctx, l.passed-1, l.page+1)
	if err != nil || len(items) > 0 && items[0].RolloutID == l.lastID {
		return items, err
	}
	return l.again(ctx)
}

// again reads a page that begins before the place that was reached, or at the
// beginning of the list.
func (l *listing) again(ctx context.Context) ([]queue.AttemptedRollout, error) {
	offset, err := l.find(ctx)
	if err != nil {
		return nil, err
	}
	for back := 1; ; back *= 2 { // what changed during the search may have moved the place
		offset = max(0, offset-back)
		items, err := l.read(ctx, offset, l.page)
		if err != nil {
			return nil, err
		}
		if offset == 0 || len(items) > 0 && items[0].StartTime < l.start {
			l.behind = true
			return items, nil
		}
	}
}

func (l *listing) read(ctx context.Context, offset, limit int) ([]queue.AttemptedRollout, error) {
	l.q.Offset, l.q.Limit = offset, limit
	page, err := l.store.Rollouts(ctx, l.q)
	if err != nil {
		return nil, err
	}
	l.ended = len(page.Items) < limit
	l.passed = offset + len(page.Items)
	return page.Items, nil
}

// find searches for the first rollout that did not start before the last one.
func (l *listing) find(ctx context.Context) (offset int, err error) {
	low, high := 0, l.passed+1
	for beyond := false; !beyond; { // until high is at the place or behind it
		items, err := l.read(ctx, high, 1)
		if err != nil {
			return 0, err
		}
		if beyond = len(items) == 0 || items[0].StartTime >= l.start; !beyond {
			low, high = high+1, 2*high
		}
	}
	for low < high {
		middle := low + (high-low)/2
		items, err := l.read(ctx, middle, 1)
		if err != nil {
			return 0, err
		}
		if len(items) == 0 || items[0].StartTime >= l.start {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, nil
}

// pass remembers a rollout, and reports whether it is new.
func (l *listing) pass(r *queue.AttemptedRollout, byStart bool) bool {
	if !byStart {
		return true
	}
	l.lastID = r.RolloutID
	if l.behind && r.StartTime < l.start {
		return false
	}
	l.behind = false
	if r.StartTime > l.start {
		l.start = r.StartTime
		clear(l.seen)
	}
	if l.seen[r.RolloutID] {
		return false
	}
	l.seen[r.RolloutID] = true
	return true
}
