package memory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// ScanRollouts implements collections.Scans. A cursor is the start time and the
// serial of the last rollout.
func (b *Backend) ScanRollouts(_ context.Context, after collections.Cursor, limit int) ([]*queue.Record, collections.Cursor, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := &b.rollouts
	from := 0
	if after != "" {
		start, serial, err := rolloutCursor(after)
		if err != nil {
			return nil, "", err
		}
		from = sort.Search(len(t.records), func(i int) bool {
			return cmp.Or(cmp.Compare(t.records[i].Rollout.StartTime, start), cmp.Compare(t.byPos[i].serial, serial)) > 0
		})
	}
	page := pageOf(t.records[from:], limit, payloadSize)
	if len(page) == 0 {
		return nil, after, nil
	}
	last := t.byPos[from+len(page)-1]
	next := fmt.Sprintf("%x %d", t.records[last.pos].Rollout.StartTime, last.serial)
	return slices.Clone(page), collections.Cursor(next), nil
}

func rolloutCursor(c collections.Cursor) (start float64, serial int64, err error) {
	text, rest, _ := strings.Cut(string(c), " ")
	start, err = strconv.ParseFloat(text, 64)
	if err == nil {
		serial, err = strconv.ParseInt(rest, 10, 64)
	}
	return start, serial, wrongCursor(c, err)
}

func wrongCursor(c collections.Cursor, err error) error {
	if err == nil {
		return nil
	}
	return queue.Wrap(queue.Invalid, err, fmt.Sprintf("%q is no cursor of this scan", c))
}

func payloadSize(r *queue.Record) int {
	n := len(r.Rollout.Input) + len(r.Rollout.Metadata)
	for i := range r.Attempts {
		n += len(r.Attempts[i].Metadata)
	}
	return n
}

// pageOf cuts a page off the beginning of items: at least one, where there is
// one.
func pageOf[T any](items []T, limit int, size func(T) int) []T {
	bytes := 0
	for i := range items[:min(limit, len(items))] {
		if bytes += size(items[i]); bytes >= collections.ScanBytes {
			return items[:i+1]
		}
	}
	return items[:min(limit, len(items))]
}

// ScanWorkers implements collections.Scans.
func (b *Backend) ScanWorkers(_ context.Context, after collections.Cursor, limit int) ([]*queue.Worker, collections.Cursor, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.workers.scan(after, limit, func(w *queue.Worker) int { return len(w.HeartbeatStats) })
}

// ScanResources implements collections.Scans.
func (b *Backend) ScanResources(_ context.Context, after collections.Cursor, limit int) ([]*queue.ResourcesUpdate, collections.Cursor, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.resources.scan(after, limit, func(u *queue.ResourcesUpdate) int { return len(u.Resources) })
}

// scan reads a page. A cursor is a number of items: none is ever removed.
func (k *keyed[T]) scan(after collections.Cursor, limit int, size func(T) int) ([]T, collections.Cursor, error) {
	from := 0
	if after != "" {
		n, err := strconv.Atoi(string(after))
		if err != nil {
			return nil, "", wrongCursor(after, err)
		}
		from = min(max(n, 0), len(k.items))
	}
	page := pageOf(k.items[from:], limit, func(i item[T]) int { return size(i.value) })
	out := make([]T, len(page))
	for i := range page {
		out[i] = page[i].value
	}
	return out, collections.Cursor(strconv.Itoa(from + len(page))), nil
}

// ScanSpans implements collections.Scans.
func (b *Backend) ScanSpans(_ context.Context, rolloutIDs []string, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
	last, err := readSpanCursor(after)
	if err != nil {
		return nil, "", err
	}
	rest, found := slices.BinarySearch(rolloutIDs, last.Rollout)
	var out []queue.Span
	bytes := 0
	for i, id := range rolloutIDs[rest:] {
		spans := b.byNumber(id)
		if i == 0 && found && after != "" {
			spans = last.behind(spans)
		}
		for _, s := range spans {
			if len(out) == limit || bytes >= collections.ScanBytes {
				return out, cursorOf(&out[len(out)-1]), nil
			}
			out = append(out, *s)
			bytes += s.Size()
		}
	}
	if len(out) == 0 {
		return nil, after, nil
	}
	return out, cursorOf(&out[len(out)-1]), nil
}

// spanCursor is the last span that was read.
type spanCursor struct {
	Rollout, Attempt, Span string
	Number                 int64
}

func cursorOf(s *queue.Span) collections.Cursor {
	text, _ := json.Marshal(spanCursor{s.RolloutID, s.AttemptID, s.SpanID, s.SequenceID}) // cannot fail
	return collections.Cursor(text)
}

func readSpanCursor(c collections.Cursor) (last spanCursor, err error) {
	if c != "" {
		err = wrongCursor(c, json.Unmarshal([]byte(c), &last))
	}
	return last, err
}

// behind are the spans of its rollout that come after it. Where it is gone, so
// are those of its number that were stored before it: the oldest go first.
func (c spanCursor) behind(spans []*queue.Span) []*queue.Span {
	from, _ := slices.BinarySearchFunc(spans, c.Number, func(s *queue.Span, n int64) int { return cmp.Compare(s.SequenceID, n) })
	for i := from; i < len(spans) && spans[i].SequenceID == c.Number; i++ {
		if spans[i].SpanID == c.Span && spans[i].AttemptID == c.Attempt {
			return spans[i+1:]
		}
	}
	return spans[from:]
}

// byNumber are the spans of a rollout by number, those of one number in order of
// insertion.
func (b *Backend) byNumber(rolloutID string) []*queue.Span {
	spans, unsorted := b.list(rolloutID)
	if unsorted {
		spans = slices.Clone(spans)
		slices.SortStableFunc(spans, func(x, y *queue.Span) int { return cmp.Compare(x.SequenceID, y.SequenceID) })
	}
	return spans
}

// Counters implements collections.Scans.
func (b *Backend) Counters(_ context.Context, rolloutIDs []string) ([]int64, error) {
	out := make([]int64, len(rolloutIDs))
	for i, id := range rolloutIDs {
		s := b.shard(id)
		s.mu.RLock()
		out[i] = s.counters[id]
		s.mu.RUnlock()
	}
	return out, nil
}
