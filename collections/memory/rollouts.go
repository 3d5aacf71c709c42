package memory

import (
	"context"
	"iter"
	"slices"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// Records implements collections.Rollouts.
func (b *Backend) Records(_ context.Context, ids []string) ([]*queue.Record, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]*queue.Record, 0, len(ids))
	for _, id := range ids {
		if r := b.rollouts.find(id); r != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// LatestAttemptID implements collections.Rollouts.
func (b *Backend) LatestAttemptID(_ context.Context, id string) (string, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if r := b.rollouts.find(id); r != nil && r.Latest() != nil {
		return r.Latest().AttemptID, nil
	}
	return "", nil
}

// Recall implements collections.Rollouts: nobody else remembers anything.
func (b *Backend) Recall(context.Context, []string) error { return nil }

// Finished implements collections.Rollouts.
func (b *Backend) Finished(_ context.Context, ids []string) (done []*queue.Record, pending int, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, id := range ids {
		switch r := b.rollouts.find(id); {
		case r == nil:
		case r.Rollout.Status.Finished():
			done = append(done, r)
		default:
			pending++
		}
	}
	return done, pending, nil
}

// Overdue implements collections.Rollouts.
func (b *Backend) Overdue(_ context.Context, now float64, limit int) ([]string, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []string
	due := &b.rollouts.due
	for p := (position{}); len(out) < limit; p = due.next(p) {
		e, ok := due.at(p)
		if !ok || e.key >= now {
			break
		}
		out = append(out, e.row.id)
	}
	return out, nil
}

// HasQueued implements collections.Rollouts.
func (b *Backend) HasQueued(context.Context) (bool, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.rollouts.queue.size > 0, nil
}

// QueryRollouts implements collections.Rollouts. A page by start time that is
// filtered by nothing but status and mode costs a byte for each rollout that
// it passes; other lists look at every candidate, outside the lock.
func (b *Backend) QueryRollouts(_ context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	b.mu.RLock()
	if q.IDs == nil && q.IDContains == nil && (q.SortBy == "" || q.SortBy == "start_time") {
		defer b.mu.RUnlock()
		return b.rollouts.page(selectClasses(&q), q.Paging), nil
	}
	candidates := b.rollouts.candidates(&q)
	b.mu.RUnlock()
	return collections.PageRollouts(candidates.matches(&q), q.Paging), nil
}

// selection says which classes a query takes, a bit for each.
type selection uint64

func (s selection) has(c class) bool { return s>>c&1 != 0 }

func selectClasses(q *queue.RolloutQuery) (s selection) {
	r := &queue.Record{}
	byClass := queue.RolloutQuery{Statuses: q.Statuses, Modes: q.Modes, Logic: q.Logic}
	for status := range statusClasses {
		r.Rollout.Status = "?"
		if status < len(queue.RolloutStatuses) {
			r.Rollout.Status = queue.RolloutStatuses[status]
		}
		for mode := range modeClasses {
			switch {
			case mode == 0:
				r.Rollout.Mode = ""
			case mode <= len(queue.Modes):
				r.Rollout.Mode = queue.Modes[mode-1]
			default:
				r.Rollout.Mode = "?"
			}
			if collections.MatchRollout(r, &byClass) {
				s |= 1 << newClass(status, mode)
			}
		}
	}
	return s
}

// page cuts a page by start time out of the selected rollouts.
func (t *table) page(s selection, p queue.Paging) queue.Page[*queue.Record] {
	out := queue.Page[*queue.Record]{Limit: p.Limit, Offset: p.Offset}
	for c, n := range t.counts {
		if s.has(class(c)) {
			out.Total += n
		}
	}
	if out.Total == len(t.records) && !(p.Descending && p.SortBy != "") {
		from, to := bounds(p, len(t.records))
		out.Items = append([]*queue.Record{}, t.records[from:to]...)
		return out
	}
	from, to := bounds(p, out.Total)
	if from == to {
		out.Items = []*queue.Record{}
		return out
	}
	if p.Descending && p.SortBy != "" {
		out.Items = backwards(t.descending(s), startTogether, from, to)
		return out
	}
	out.Items = make([]*queue.Record, 0, to-from)
	seen := 0
	for r := range t.ascending(s) {
		if seen >= from {
			out.Items = append(out.Items, r)
		}
		if seen++; seen == to {
			break
		}
	}
	return out
}

func startTogether(a, b *queue.Record) bool { return a.Rollout.StartTime == b.Rollout.StartTime }

// ascending walks the selected rollouts in list order.
func (t *table) ascending(s selection) iter.Seq[*queue.Record] {
	return func(yield func(*queue.Record) bool) {
		for block, present := range t.present {
			if selection(present)&s == 0 {
				continue
			}
			from := block * blockRows
			for i, c := range t.class[from:min(from+blockRows, len(t.class))] {
				if s.has(c) && !yield(t.records[from+i]) {
					return
				}
			}
		}
	}
}

// descending is ascending from the end.
func (t *table) descending(s selection) iter.Seq[*queue.Record] {
	return func(yield func(*queue.Record) bool) {
		for block := len(t.present) - 1; block >= 0; block-- {
			if selection(t.present[block])&s == 0 {
				continue
			}
			from := block * blockRows
			for i := min(from+blockRows, len(t.class)) - 1; i >= from; i-- {
				if s.has(t.class[i]) && !yield(t.records[i]) {
					return
				}
			}
		}
	}
}

// bounds are the first and last index of a page of n items.
func bounds(p queue.Paging, n int) (from, to int) {
	from = min(max(p.Offset, 0), n)
	if p.Limit < 0 {
		return from, n
	}
	return from, from + min(p.Limit, n-from)
}

// backwards takes sorted items from the end and returns those from the from-th
// up to the to-th; ties stay in order.
func backwards[T any](fromEnd iter.Seq[T], tied func(a, b T) bool, from, to int) []T {
	out := make([]T, 0, to-from)
	var run []T // tied items, last first
	seen := 0
	flush := func() {
		for _, item := range slices.Backward(run) {
			if seen >= from && seen < to {
				out = append(out, item)
			}
			seen++
		}
		run = run[:0]
	}
	for item := range fromEnd {
		if len(run) > 0 && !tied(run[0], item) {
			flush()
			if seen >= to {
				return out
			}
		}
		run = append(run, item)
	}
	flush()
	return out
}

// candidates are the records that may match a query, in list order.
type candidates struct {
	records []*queue.Record
	// given are the records that the query's ids name; nil when it has none.
	given map[*queue.Record]bool
}

// candidates narrows by ids, or by class, as far as the query's logic allows.
func (t *table) candidates(q *queue.RolloutQuery) candidates {
	narrow := q.Logic == queue.And || (q.Statuses == nil && q.Modes == nil && q.IDContains == nil)
	if q.IDs != nil {
		given := t.given(q.IDs)
		c := candidates{records: t.records, given: make(map[*queue.Record]bool, len(given))}
		for _, r := range given {
			c.given[r] = true
		}
		if narrow {
			c.records = given
		} else {
			c.records = slices.Clone(t.records)
		}
		return c
	}
	classesOnly := q.Logic == queue.And || q.IDContains == nil
	s := selectClasses(q)
	if !classesOnly || (q.Statuses == nil && q.Modes == nil) {
		return candidates{records: slices.Clone(t.records)}
	}
	return candidates{records: slices.Collect(t.ascending(s))}
}

// given gets the records of ids, each once, in list order.
func (t *table) given(ids []string) []*queue.Record {
	rows := make([]*row, 0, len(ids))
	for _, id := range ids {
		if at, ok := t.rows[id]; ok {
			rows = append(rows, at)
		}
	}
	slices.SortFunc(rows, func(a, b *row) int { return a.pos - b.pos })
	rows = slices.Compact(rows)
	out := make([]*queue.Record, len(rows))
	for i, at := range rows {
		out[i] = t.records[at.pos]
	}
	return out
}

// matches are the candidates that meet the conditions. Ids are looked up
// rather than compared one by one.
func (c candidates) matches(q *queue.RolloutQuery) []*queue.Record {
	rest := *q
	rest.IDs = nil
	others := q.Statuses != nil || q.Modes != nil || q.IDContains != nil
	out := make([]*queue.Record, 0, min(len(c.records), 1024))
	for _, r := range c.records {
		met := collections.MatchRollout(r, &rest)
		if c.given != nil {
			switch {
			case !others:
				met = c.given[r]
			case q.Logic == queue.Or:
				met = met || c.given[r]
			default:
				met = met && c.given[r]
			}
		}
		if met {
			out = append(out, r)
		}
	}
	return out
}
