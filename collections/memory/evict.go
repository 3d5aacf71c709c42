package memory

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/queue"
)

// warnEvery is how often evictions are logged: they go on for as long as a job
// is larger than the limit.
const warnEvery = time.Minute

// eviction keeps spans below a limit by dropping those of finished rollouts,
// whole rollouts at a time, oldest start first.
type eviction struct {
	log                   *slog.Logger
	limit, safe, capacity int64
	spans                 atomic.Int64 // evicted since the start

	// mu is never held while another lock is taken.
	mu       sync.Mutex
	finished ordered[float64] // by start time

	// running is held by the one eviction that runs, and guards what follows.
	running sync.Mutex
	warned  time.Time
	dropped int64 // spans since the last warning
}

// offer says that a rollout has finished, so that its spans may go.
func (e *eviction) offer(at *row, r *queue.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.finished.add(r.Rollout.StartTime, at)
}

// withdraw says that a finished rollout runs again.
func (e *eviction) withdraw(at *row, r *queue.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.finished.remove(r.Rollout.StartTime, at)
}

// oldest takes the finished rollout with the earliest start.
func (e *eviction) oldest() (rolloutID string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first, ok := e.finished.at(position{})
	if !ok {
		return "", false
	}
	e.finished.remove(first.key, first.row)
	return first.row.id, true
}

// offerLate offers a rollout again whose first spans came after it had
// finished: its earlier offer may have been taken already.
func (b *Backend) offerLate(rolloutID string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if r := b.rollouts.find(rolloutID); r != nil && r.Rollout.Status.Finished() {
		b.eviction.offer(b.rollouts.rows[rolloutID], r)
	}
}

// evict drops spans until the safe mark is reached or only unfinished rollouts
// have any. It holds no lock that a section needs. When it runs already, the
// other run does the work.
func (b *Backend) evict() {
	e := &b.eviction
	if !e.running.TryLock() {
		return
	}
	defer e.running.Unlock()
	for b.spanBytes.Load() > e.safe {
		id, ok := e.oldest()
		if !ok {
			break
		}
		n := b.dropSpans(id)
		e.spans.Add(n)
		e.dropped += n
	}
	bytes := b.spanBytes.Load()
	if e.dropped == 0 && bytes <= e.limit {
		return // another run did the work
	}
	if now := time.Now(); e.warned.IsZero() || now.Sub(e.warned) >= warnEvery {
		e.warn(bytes)
		e.warned, e.dropped = now, 0
	}
}

func (e *eviction) warn(bytes int64) {
	if bytes > e.limit {
		e.log.Warn("spans of unfinished rollouts exceed the memory limit; they are kept, so raise --max-memory or run fewer rollouts at once",
			"span_bytes", bytes, "limit_bytes", e.limit, "evicted_spans", e.dropped)
		return
	}
	e.log.Warn("evicted spans of finished rollouts to stay within the memory limit; raise --max-memory to keep more",
		"span_bytes", bytes, "limit_bytes", e.limit, "evicted_spans", e.dropped)
}

func (b *Backend) dropSpans(rolloutID string) int64 {
	s := b.shard(rolloutID)
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.lists[rolloutID]
	if !ok {
		return 0
	}
	delete(s.lists, rolloutID)
	b.spans.Add(-int64(len(list.spans)))
	b.spanBytes.Add(-list.bytes)
	return int64(len(list.spans))
}
