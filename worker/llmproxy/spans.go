package llmproxy

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

const (
	// The most spans, and bytes, of one request.
	batchSpans = 512
	batchBytes = 8 << 20
	// A batch that the store cannot take now is sent again after a pause that
	// doubles from the first to the longest.
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
	// sendTimeout bounds one request.
	sendTimeout = 30 * time.Second
	// refusalsMost is how often a batch is sent that the store fails over without
	// being away, before it is taken apart.
	refusalsMost = 4
)

// spanQueue carries spans to the store, one request at a time: what comes in
// meanwhile makes up the next, and what comes to an idle queue leaves at once.
// It never blocks who adds.
type spanQueue struct {
	store      Store
	log        *slog.Logger
	maxSpans   int
	maxBytes   int
	onDropped  func(int)
	ctx        context.Context
	stop       context.CancelFunc
	ended      chan struct{}
	wake       chan struct{}
	warning    rarely
	dropReport rarely

	mu      sync.Mutex
	pending []queue.Span
	bytes   int
	added   int           // since the start
	settled int           // of these, in order: stored or dropped
	dropped int           // since the start, settled or never added
	moved   chan struct{} // closed, and made anew, when settled grows
	closing bool
}

func newSpanQueue(store Store, o Options) *spanQueue {
	q := &spanQueue{
		store: store, log: o.Logger, maxSpans: o.PendingSpans, maxBytes: o.PendingBytes, onDropped: o.Dropped,
		ended: make(chan struct{}), wake: make(chan struct{}, 1), moved: make(chan struct{}),
	}
	q.ctx, q.stop = context.WithCancel(context.Background())
	go q.run()
	return q
}

// add queues the spans of a call, all or none.
func (q *spanQueue) add(spans []queue.Span) {
	size := 0
	for i := range spans {
		size += spans[i].Size()
	}
	q.mu.Lock()
	full := len(q.pending)+len(spans) > q.maxSpans || q.bytes+size > q.maxBytes
	if !full {
		q.pending = append(q.pending, spans...)
		q.bytes += size
		q.added += len(spans)
	}
	q.mu.Unlock()
	if full {
		q.drop(len(spans), "the store does not keep up", nil)
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// drop counts spans that are given up, and says so now and then.
func (q *spanQueue) drop(n int, why string, err error) {
	q.mu.Lock()
	q.dropped += n
	total := q.dropped
	q.mu.Unlock()
	if q.onDropped != nil {
		q.onDropped(n)
	}
	if q.dropReport.now() {
		about := []any{"cause", why, "dropped_in_all", total}
		if err != nil {
			about = append(about, "error", err)
		}
		q.log.Error("spans were dropped", about...)
	}
}

// run sends until the queue is closed and empty, or its time is up.
func (q *spanQueue) run() {
	defer close(q.ended)
	for {
		batch := q.cut()
		if len(batch) > 0 {
			q.deliver(batch)
			q.settle(len(batch))
			continue
		}
		q.mu.Lock()
		done := q.closing
		q.mu.Unlock()
		if done || q.ctx.Err() != nil {
			return
		}
		select {
		case <-q.wake:
		case <-q.ctx.Done():
		}
	}
}

// settle counts spans that were stored or dropped, and tells who waits.
func (q *spanQueue) settle(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settled += n
	close(q.moved)
	q.moved = make(chan struct{})
}

// cut takes a batch off the head.
func (q *spanQueue) cut() []queue.Span {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(q.pending), batchSpans) && (n == 0 || bytes < batchBytes) {
		bytes += q.pending[n].Size()
		n++
	}
	batch := append([]queue.Span(nil), q.pending[:n]...)
	rest := copy(q.pending, q.pending[n:])
	clear(q.pending[rest:])
	q.pending = q.pending[:rest]
	q.bytes -= bytes
	return batch
}

// deliver stores a batch, however long it takes, unless the queue's time is up.
func (q *spanQueue) deliver(batch []queue.Span) {
	pause, refusals := firstPause, 0
	for {
		ctx, cancel := context.WithTimeout(q.ctx, sendTimeout)
		added, err := q.store.AddSpans(ctx, batch)
		cancel()
		switch kind := queue.KindOf(err); {
		case err == nil:
			if added.Rejected > 0 {
				q.drop(added.Rejected, "the store rejected them: "+added.Reason, nil)
			}
			return
		case q.ctx.Err() != nil:
			q.drop(len(batch), "the proxy has ended", err)
			return
		case kind == queue.Invalid || kind == queue.TooLarge || kind == queue.NotFound || kind == queue.Conflict:
			refusals = refusalsMost
		case kind != queue.Unavailable:
			refusals++
		}
		if refusals >= refusalsMost {
			if len(batch) == 1 {
				q.drop(1, "the store refused one", err)
				return
			}
			q.deliver(batch[:len(batch)/2])
			q.deliver(batch[len(batch)/2:])
			return
		}
		if q.warning.now() {
			q.log.Warn("spans could not be stored yet", "spans", len(batch), "error", err, "again_in", pause)
		}
		_ = sleep.For(q.ctx, pause/2+rand.N(pause))
		pause = min(2*pause, longestPause)
	}
}

// flush waits until what has been added so far is stored or dropped.
func (q *spanQueue) flush(ctx context.Context) error {
	q.mu.Lock()
	goal := q.added
	q.mu.Unlock()
	for {
		q.mu.Lock()
		left, moved := goal-q.settled, q.moved
		q.mu.Unlock()
		if left <= 0 {
			return nil
		}
		select {
		case <-moved:
		case <-q.ended:
			return fmt.Errorf("%d spans were not stored", left)
		case <-ctx.Done():
			return fmt.Errorf("%d spans are not stored yet: %w", left, context.Cause(ctx))
		}
	}
}

// close stores what is pending and ends; what is left when ctx ends is dropped.
func (q *spanQueue) close(ctx context.Context) error {
	q.mu.Lock()
	q.closing = true
	before := q.dropped
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	select {
	case <-q.ended:
	case <-ctx.Done():
		q.stop()
		<-q.ended
	}
	q.stop()
	q.mu.Lock()
	left := len(q.pending)
	q.pending = nil
	q.mu.Unlock()
	if left > 0 {
		q.drop(left, "the proxy has ended", ctx.Err())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if lost := q.dropped - before; lost > 0 {
		return fmt.Errorf("%d spans were not stored", lost)
	}
	return nil
}
