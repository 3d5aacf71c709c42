package archive

import (
	"context"
	"slices"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// spansPage is how many spans are read at a time; of larger ones fewer are.
const spansPage = 500

// Scan reads the whole of a backend. See [collections.Scans] for what that means
// while others write: here also, spans of attempts that began after their
// rollout was read are left out.
func Scan(ctx context.Context, b collections.Backend) Items {
	return func(yield func(Item, error) bool) {
		s := scan{ctx: ctx, from: b, yield: yield}
		if err := s.all(); err != nil && !s.stopped {
			yield(Item{}, err)
		}
	}
}

type scan struct {
	ctx     context.Context
	from    collections.Backend
	yield   func(Item, error) bool
	stopped bool // by the consumer

	group []*queue.Record // rollouts without payloads, whose spans come next
}

func (s *scan) all() error {
	for _, step := range []func() error{s.resources, s.workers, s.rollouts} {
		if err := step(); err != nil || s.stopped {
			return err
		}
	}
	return nil
}

func (s *scan) give(i Item) bool {
	s.stopped = s.stopped || !s.yield(i, nil)
	return !s.stopped
}

// pages reads a scan to its end, or until the consumer stops.
func pages[T any](s *scan, limit int, read func(context.Context, collections.Cursor, int) ([]T, collections.Cursor, error), do func([]T) error) error {
	for cursor := collections.Cursor(""); !s.stopped; {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		items, next, err := retry(s.ctx, func() ([]T, collections.Cursor, error) { return read(s.ctx, cursor, limit) })
		if err != nil || len(items) == 0 {
			return err
		}
		if err := do(items); err != nil {
			return err
		}
		cursor = next
	}
	return nil
}

// pauses are those before a page is read again that could not be read: while a
// database changes its primary, and where a part of the page was just deleted.
var pauses = []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second, 3 * time.Second}

func retry[T any](ctx context.Context, read func() ([]T, collections.Cursor, error)) ([]T, collections.Cursor, error) {
	for _, pause := range pauses {
		items, next, err := read()
		if queue.KindOf(err) != queue.Unavailable {
			return items, next, err
		}
		if sleep.For(ctx, pause) != nil {
			return nil, "", err
		}
	}
	return read()
}

func (s *scan) resources() error {
	latest, err := s.from.LatestResources(s.ctx)
	if err != nil {
		return err
	}
	return pages(s, groupSize, s.from.ScanResources, func(us []*queue.ResourcesUpdate) error {
		for _, u := range us {
			if !s.give(Item{Resources: u, Latest: latest != nil && u.ResourcesID == latest.ResourcesID}) {
				break
			}
		}
		return nil
	})
}

func (s *scan) workers() error {
	return pages(s, groupSize, s.from.ScanWorkers, func(ws []*queue.Worker) error {
		for _, w := range ws {
			if !s.give(Item{Worker: w}) {
				break
			}
		}
		return nil
	})
}

func (s *scan) rollouts() error {
	err := pages(s, groupSize, s.from.ScanRollouts, func(rs []*queue.Record) error {
		ids := make([]string, len(rs))
		for i, r := range rs {
			ids[i] = r.Rollout.RolloutID
		}
		counters, err := s.from.Counters(s.ctx, ids)
		if err != nil {
			return err
		}
		for i, r := range rs {
			if !s.give(Item{Rollout: r, Counter: counters[i]}) {
				return nil
			}
			if s.group = append(s.group, withoutPayloads(r)); len(s.group) == groupSize {
				if err := s.spans(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil || s.stopped {
		return err
	}
	return s.spans()
}

// withoutPayloads is what has to be remembered of a rollout until its spans come.
func withoutPayloads(r *queue.Record) *queue.Record {
	out := &queue.Record{Rollout: queue.Rollout{RolloutID: r.Rollout.RolloutID}}
	for i := range r.Attempts {
		out.Attempts = append(out.Attempts, queue.Attempt{AttemptID: r.Attempts[i].AttemptID})
	}
	return out
}

// spans gives the spans of the group, and begins a new one.
func (s *scan) spans() error {
	ids := make([]string, len(s.group))
	byID := make(map[string]*queue.Record, len(s.group))
	for i, r := range s.group {
		ids[i], byID[r.Rollout.RolloutID] = r.Rollout.RolloutID, r
	}
	s.group = s.group[:0]
	slices.Sort(ids)
	read := func(ctx context.Context, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
		return s.from.ScanSpans(ctx, ids, after, limit)
	}
	if len(ids) == 0 {
		return nil
	}
	return pages(s, spansPage, read, func(spans []queue.Span) error {
		for i := range spans {
			if byID[spans[i].RolloutID].Attempt(spans[i].AttemptID) == nil {
				continue
			}
			if !s.give(Item{Span: &spans[i]}) {
				break
			}
		}
		return nil
	})
}
