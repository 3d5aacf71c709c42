package llmproxy

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// lookAgain is how often a call that waits looks by itself: limits may be
// changed, or freed by calls that began under an older table.
const lookAgain = 250 * time.Millisecond

// acquire takes an upstream of the model that is not among tried, unless all
// are. When all are at their limits it waits for one, at most patience.
func (m *model) acquire(ctx context.Context, tried []*upstream, patience time.Duration) (*upstream, error) {
	deadline := time.Now().Add(patience)
	var place chan struct{}
	defer func() { m.line.leave(place) }()
	for {
		now := time.Now()
		// Who comes first is served first: a newcomer does not overtake the line.
		if place != nil || m.line.empty() {
			u, again := m.take(now, tried)
			if u != nil {
				return u, nil
			}
			if left := deadline.Sub(now); left <= 0 || again > left {
				return nil, &refusal{
					status: http.StatusTooManyRequests, kind: "rate_limit_error", retryAfter: max(again, time.Second),
					msg: fmt.Sprintf("model %s is at its limit of calls: try again later, or raise max_parallel_requests or rpm in the model table", m.name),
				}
			}
		}
		if place == nil {
			place = m.line.join()
		}
		timer := time.NewTimer(min(lookAgain, max(deadline.Sub(now), time.Millisecond)))
		select {
		case <-place:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// take takes a free upstream; without one it says when to look again.
func (m *model) take(now time.Time, tried []*upstream) (_ *upstream, again time.Duration) {
	again = time.Duration(1<<63 - 1)
	untried := len(tried) < len(m.upstreams)
	for _, u := range m.candidates(now) {
		if untried && slices.Contains(tried, u) {
			continue
		}
		if u.Concurrency > 0 && u.running.Add(1) > int64(u.Concurrency) {
			u.running.Add(-1)
			again = 0
			continue
		}
		wait := u.minute.take(now)
		if wait == 0 {
			if u.Concurrency == 0 {
				u.running.Add(1)
			}
			return u, 0
		}
		if u.Concurrency > 0 {
			u.running.Add(-1)
		}
		again = min(again, wait)
	}
	return nil, again
}

// release gives an upstream back.
func (m *model) release(u *upstream) {
	u.running.Add(-1)
	m.line.callNext()
}

// line is a queue of waiting calls, woken one at a time.
type line struct {
	mu      sync.Mutex
	waiting []chan struct{}
}

func (l *line) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0
}

func (l *line) join() chan struct{} {
	place := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, place)
	return place
}

// leave gives up a place, nil for none, and lets the next one look.
func (l *line) leave(place chan struct{}) {
	if place == nil {
		return
	}
	l.mu.Lock()
	if i := slices.Index(l.waiting, place); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	l.mu.Unlock()
	l.callNext()
}

func (l *line) callNext() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		select {
		case l.waiting[0] <- struct{}{}:
		default:
		}
	}
}

// window counts the calls of the last minute.
type window struct {
	limit int // 0 is none

	mu     sync.Mutex
	starts []time.Time // a ring of the latest, limit long when full
	next   int
}

// take counts a call, or says how long until there is room for one.
func (w *window) take(now time.Time) time.Duration {
	if w.limit <= 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.starts) < w.limit {
		w.starts = append(w.starts, now)
		return 0
	}
	if wait := w.starts[w.next].Add(time.Minute).Sub(now); wait > 0 {
		return wait
	}
	w.starts[w.next] = now
	w.next = (w.next + 1) % w.limit
	return 0
}
