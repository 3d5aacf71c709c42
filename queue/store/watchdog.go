package store

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// scanBatch is how many overdue rollouts one section judges.
const scanBatch = 200

// watchdog keeps scans apart: one at a time, and before calls not more often
// than debounce.
type watchdog struct {
	debounce time.Duration
	turn     chan struct{} // holds one token while a scan runs

	mu   sync.Mutex
	last time.Time // when the last scan began
}

// begin takes the turn for a scan, and reports whether the caller is to scan.
// Whoever may not rely on a scan that began before it waits for its turn.
func (w *watchdog) begin(ctx context.Context, now time.Time, wait bool) bool {
	select {
	case w.turn <- struct{}{}:
	default:
		if !wait {
			return false
		}
		select {
		case w.turn <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = now
	return true
}

func (w *watchdog) end() { <-w.turn }

// fresh reports whether the last scan is recent enough for calls.
func (w *watchdog) fresh(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.debounce > 0 && !w.last.IsZero() && now.Sub(w.last) < w.debounce
}

// scanBefore scans on behalf of a call, which then sees the outcome. The call
// does not fail with it. Without a debounce each call has a scan of its own,
// begun after it.
func (s *Store) scanBefore(ctx context.Context) {
	now := s.now()
	if s.watch.fresh(now) || !s.watch.begin(ctx, now, s.watch.debounce == 0) {
		return
	}
	defer s.watch.end()
	s.scan(ctx)
}

// scanEvery scans in the background, so that an idle store makes progress. The
// interval is jittered to keep several stores apart.
func (s *Store) scanEvery(interval time.Duration) {
	for sleep.For(s.closing, time.Duration(float64(interval)*(0.9+0.2*rand.Float64()))) == nil {
		if s.watch.begin(s.closing, s.now(), false) {
			s.scan(s.closing)
			s.watch.end()
		}
	}
}

// scan judges every overdue rollout once.
func (s *Store) scan(ctx context.Context) {
	ctx = s.asCaller(ctx, scanCaller)
	now := s.seconds()
	seen := make(map[string]bool)
	for {
		ids, err := s.backend.Overdue(ctx, now, scanBatch)
		if err == nil {
			ids = unseen(ids, seen)
			if len(ids) == 0 {
				return
			}
			err = s.judge(ctx, ids)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("watchdog scan failed", "error", err)
			}
			return
		}
	}
}

// unseen keeps a rollout whose limit is not exceeded strictly from being judged
// again and again by one scan.
func unseen(ids []string, seen map[string]bool) []string {
	out := ids[:0]
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

func (s *Store) judge(ctx context.Context, ids []string) error {
	s.settle(ctx)
	s.settleWorkers(ctx)
	var expired []*queue.Record
	err := s.doTogether(ctx, &change{rollouts: ids, run: func(sec *section) error {
		expired = nil
		for _, id := range ids {
			ended := false
			r, err := sec.edit(id, func(r *queue.Record) (events []queue.WorkerEvent, write bool, err error) {
				worker, err := sec.workerOf(r)
				if err == nil {
					events, ended = r.Expire(worker, sec.now)
				}
				return events, true, err
			})
			if err != nil {
				return err
			}
			if ended {
				expired = append(expired, r)
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	for _, r := range expired {
		s.known.review(r)
		a := r.Latest()
		s.log.Info("attempt ended by the watchdog", "rollout_id", a.RolloutID, "attempt_id", a.AttemptID,
			"status", a.Status, "worker_lost", a.Lost, "rollout_status", r.Rollout.Status)
	}
	return nil
}

// workerOf is the worker of the latest attempt where its lease matters.
func (sec *section) workerOf(r *queue.Record) (*queue.Worker, error) {
	a := r.Latest()
	if r.Lease == 0 || a == nil || a.WorkerID == nil || *a.WorkerID == "" {
		return nil, nil
	}
	return sec.Worker(*a.WorkerID)
}

// adoptLeases puts attempts that began under a store without leases, or with
// others, under this store's.
func (s *Store) adoptLeases() {
	for {
		err := s.adoptOnce()
		if err == nil || s.closing.Err() != nil {
			return
		}
		s.log.Warn("attempts begun without a lease have none yet", "error", err)
		if sleep.For(s.closing, adoptPause) != nil {
			return
		}
	}
}

const adoptPause = time.Second

func (s *Store) adoptOnce() error {
	query := queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutPreparing, queue.RolloutRunning}, Paging: queue.All}
	page, err := s.backend.QueryRollouts(s.closing, query)
	if err != nil {
		return err
	}
	var ids []string
	for _, r := range page.Items {
		if r.Lease != s.lease {
			ids = append(ids, r.Rollout.RolloutID)
		}
	}
	for ids := range slices.Chunk(ids, scanBatch) {
		err := s.doTogether(s.closing, &change{rollouts: ids, run: func(sec *section) error { return sec.adopt(ids, s.lease) }})
		if err != nil {
			return err
		}
	}
	return nil
}

func (sec *section) adopt(ids []string, lease float64) error {
	for _, id := range ids {
		_, err := sec.edit(id, func(r *queue.Record) ([]queue.WorkerEvent, bool, error) {
			return nil, r.Adopt(lease), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
