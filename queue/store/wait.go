package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// Wait implements queue.Store.
func (s *Store) Wait(ctx context.Context, ids []string, timeout time.Duration) ([]queue.Rollout, error) {
	s.scanBefore(ctx)
	distinct := slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(distinct) == 0 {
		return []queue.Rollout{}, nil
	}
	if timeout == 0 || !s.backend.Shared() { // a look costs less than to listen
		done, pending, err := s.backend.Finished(ctx, distinct)
		if err != nil || pending == 0 || timeout == 0 {
			return inOrder(ids, done), err
		}
	}
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	w := s.waits.listen(distinct)
	defer s.waits.leave(w)
	for {
		// Looked at after listening began, so nothing is missed.
		w.look()
		done, pending, err := s.backend.Finished(ctx, distinct)
		if err != nil {
			return nil, err
		}
		if pending == 0 {
			return inOrder(ids, done), nil
		}
		w.expect(done, pending)
		select {
		case <-w.complete:
			continue
		case <-expired:
		case <-ctx.Done():
		case <-s.closing.Done():
		}
		break
	}
	last, _, err := s.backend.Finished(context.WithoutCancel(ctx), distinct)
	if err != nil {
		return nil, err
	}
	return inOrder(ids, last), nil
}

func inOrder(ids []string, done []*queue.Record) []queue.Rollout {
	out := make([]queue.Rollout, 0, len(done))
	if len(done) == 0 {
		return out
	}
	byID := make(map[string]*queue.Record, len(done))
	for _, r := range done {
		byID[r.Rollout.RolloutID] = r
	}
	for _, id := range ids {
		if r := byID[id]; r != nil {
			out = append(out, r.Rollout)
		}
	}
	return out
}

// waits knows who waits for which rollout to finish.
type waits struct {
	mu   sync.Mutex
	byID map[string]map[*waiter]struct{}
}

// waiter waits for a number of rollouts. Between two looks at the backend it
// counts what it hears; a rollout that finished, was restarted and is waited for
// again therefore counts once for each time.
type waiter struct {
	ids      []string
	complete chan struct{} // has room for one: enough have finished to look again

	mu      sync.Mutex
	done    map[string]bool // as of the last look
	news    map[string]bool // finished since it began
	missing int             // how many more are needed, -1 while looking
}

func (w *waits) listen(ids []string) *waiter {
	n := &waiter{ids: ids, complete: make(chan struct{}, 1)}
	n.look() // it may hear of a rollout at once
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byID == nil {
		w.byID = make(map[string]map[*waiter]struct{})
	}
	for _, id := range ids {
		if w.byID[id] == nil {
			w.byID[id] = make(map[*waiter]struct{})
		}
		w.byID[id][n] = struct{}{}
	}
	return n
}

func (w *waits) leave(n *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range n.ids {
		delete(w.byID[id], n)
		if len(w.byID[id]) == 0 {
			delete(w.byID, id)
		}
	}
}

// finished tells the waiters of a rollout.
func (w *waits) finished(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.byID[id] {
		n.heard(id)
	}
}

// ids lists every rollout that somebody waits for and has not heard of.
func (w *waits) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	open := make(map[string]struct{})
	for id, waiters := range w.byID {
		for n := range waiters {
			if !n.knows(id) {
				open[id] = struct{}{}
			}
		}
	}
	return slices.Collect(maps.Keys(open))
}

func (n *waiter) heard(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.done[id] {
		n.news[id] = true
	}
	n.signal()
}

func (n *waiter) knows(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.done[id] || n.news[id]
}

// look begins a look at the backend.
func (n *waiter) look() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done, n.news, n.missing = nil, make(map[string]bool), -1
}

// expect ends it with what it found.
func (n *waiter) expect(done []*queue.Record, pending int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = make(map[string]bool, len(done))
	for _, r := range done {
		n.done[r.Rollout.RolloutID] = true
		delete(n.news, r.Rollout.RolloutID)
	}
	n.missing = pending
	n.signal()
}

// signal is called with mu held.
func (n *waiter) signal() {
	if n.missing < 0 || len(n.news) < n.missing {
		return
	}
	select {
	case n.complete <- struct{}{}:
	default:
	}
}

// hear wakes those whom it concerns what another process did.
func (s *Store) hear(n collections.News) {
	if n.Finished != "" {
		s.waits.finished(n.Finished)
	}
	if n.Queued {
		s.claims.wake(1)
	}
	if n.Missed {
		s.look()
	}
}

// look has lookAgain look once.
func (s *Store) look() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// lookAgain looks at the backend for what waiters may have missed, when there is
// reason to, until the store closes.
func (s *Store) lookAgain() {
	for {
		select {
		case <-s.again:
		case <-s.closing.Done():
			return
		}
		for !s.lookOnce(s.closing) {
			if sleep.For(s.closing, lookPause) != nil {
				return
			}
		}
	}
}

// lookPause is how long a look that failed waits for the next.
const lookPause = 200 * time.Millisecond

func (s *Store) lookOnce(ctx context.Context) bool {
	s.claims.wakeAll()
	ids := s.waits.ids()
	if len(ids) == 0 {
		return true
	}
	done, _, err := s.backend.Finished(ctx, ids)
	if err != nil {
		s.log.Debug("looking for finished rollouts failed", "error", err)
		return false
	}
	for _, r := range done {
		s.waits.finished(r.Rollout.RolloutID)
	}
	return true
}
