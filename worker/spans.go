package worker

import (
	"context"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
)

const (
	// Spans leave when so many are waiting, or the first of them for so long, or
	// a task ends.
	flushSpans = 64
	flushAfter = 200 * time.Millisecond
	// The most spans, and bytes, of one request.
	batchSpans = 512
	batchBytes = 8 << 20
	// The most that may wait; whoever has more to send waits himself.
	bufferSpans = 4096
	bufferBytes = 64 << 20

	slowestResend = 5 * time.Second
	// lastResends is how often a batch that the store fails over, without being
	// away, is sent again before it is taken apart.
	lastResends = 4
	// farewell bounds the last batch, when the worker ends.
	farewell = 2 * time.Second
)

// sender carries the spans of all tasks to the store in batches, one request at
// a time: what comes in meanwhile makes up the next. It keeps them until they
// are stored; only what the store refuses for good is given up, and counted.
type sender struct {
	w    *Worker
	wake chan struct{} // has room for one: there may be something to send

	mu      sync.Mutex
	pending []parcel
	bytes   int
	first   time.Time     // when the oldest of pending came
	urgent  int           // flushes that wait
	room    chan struct{} // closed, and made anew, when pending shrinks
}

// parcel is a span on its way.
type parcel struct {
	span queue.Span
	from *outbox
}

// outbox counts the spans of one task. The sender's lock guards it.
type outbox struct {
	pending int           // not settled yet
	missing int           // given up
	closed  bool          // takes no more
	idle    chan struct{} // closed when pending comes to 0, nil when nobody waits
}

func newSender(w *Worker) *sender {
	return &sender{w: w, wake: make(chan struct{}, 1), room: make(chan struct{})}
}

// add queues a span; it waits while the buffer is full. A span that ctx does not
// leave the time for counts as missing.
func (s *sender) add(ctx context.Context, from *outbox, span queue.Span) error {
	size := span.Size()
	s.mu.Lock()
	for len(s.pending) > 0 && !from.closed && (len(s.pending) >= bufferSpans || s.bytes+size > bufferBytes) {
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			s.mu.Lock()
			from.missing++
			s.mu.Unlock()
			s.w.opts.Observer.SpansDropped(1, Stopped)
			return context.Cause(ctx)
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if from.closed {
		return ErrNotHeld
	}
	if len(s.pending) == 0 {
		s.first = time.Now()
	}
	s.pending = append(s.pending, parcel{span, from})
	s.bytes += size
	from.pending++
	if len(s.pending) == 1 || len(s.pending) >= flushSpans {
		notify(s.wake)
	}
	return nil
}

// flush waits until each span of an outbox is stored, refused, or the time is
// up, and tells how many are not stored.
func (s *sender) flush(ctx context.Context, from *outbox) (missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from.pending > 0 {
		idle := make(chan struct{})
		from.idle = idle
		s.urgent++
		s.mu.Unlock()
		notify(s.wake)
		select {
		case <-idle:
		case <-ctx.Done():
		}
		s.mu.Lock()
		s.urgent--
	}
	from.closed = true
	return from.missing + from.pending
}

// drop forgets the spans of an outbox that are not under way yet.
func (s *sender) drop(from *outbox) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from.closed = true
	kept := s.pending[:0]
	for _, p := range s.pending {
		if p.from == from {
			dropped++
			s.bytes -= p.span.Size()
			continue
		}
		kept = append(kept, p)
	}
	clear(s.pending[len(kept):])
	s.pending = kept
	from.pending -= dropped
	s.makeRoom()
	return dropped
}

// makeRoom wakes who waits for room; called with mu held.
func (s *sender) makeRoom() {
	close(s.room)
	s.room = make(chan struct{})
}

// run sends until ctx ends, and then what is left, once.
func (s *sender) run(ctx context.Context) {
	for {
		batch := s.next(ctx)
		if batch == nil {
			break
		}
		s.deliver(ctx, batch)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	for batch := s.cut(); len(batch) > 0; batch = s.cut() {
		s.deliver(last, batch)
	}
}

// next waits for a batch; nil when ctx ends.
func (s *sender) next(ctx context.Context) []parcel {
	timer := time.NewTimer(flushAfter)
	defer timer.Stop()
	for {
		s.mu.Lock()
		n, age := len(s.pending), time.Since(s.first)
		ready := n >= flushSpans || n > 0 && (s.urgent > 0 || age >= flushAfter)
		s.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if ready {
			return s.cut()
		}
		var due <-chan time.Time
		if n > 0 {
			timer.Reset(flushAfter - age)
			due = timer.C
		}
		select {
		case <-s.wake:
		case <-due:
		case <-ctx.Done():
		}
	}
}

// cut takes a batch off the head of what is pending.
func (s *sender) cut() []parcel {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(s.pending), batchSpans) && (n == 0 || bytes < batchBytes) {
		bytes += s.pending[n].span.Size()
		n++
	}
	batch := make([]parcel, n)
	copy(batch, s.pending)
	rest := copy(s.pending, s.pending[n:])
	clear(s.pending[rest:])
	s.pending = s.pending[:rest]
	s.bytes -= bytes
	s.makeRoom()
	return batch
}

// deliver stores a batch, however long it takes, unless ctx ends.
func (s *sender) deliver(ctx context.Context, batch []parcel) {
	spans := make([]queue.Span, len(batch))
	for i := range batch {
		spans[i] = batch[i].span
	}
	pause := 2 * firstPoll
	for failed := 0; ; {
		added, err := s.w.store.AddSpans(ctx, spans)
		s.w.heard(err)
		if err != nil && ctx.Err() == nil {
			s.w.opts.Observer.StoreFailed(CallSpans)
		}
		switch {
		case err == nil:
			if added.Rejected > 0 {
				s.w.log.Warn("the store rejected spans", "spans", added.Rejected, "reason", added.Reason)
				s.w.opts.Observer.SpansDropped(added.Rejected, Refused)
				s.blame(ctx, batch, added.Rejected)
			}
			s.settle(batch, 0)
			return
		case ctx.Err() != nil:
			s.w.opts.Observer.SpansDropped(len(batch), Stopped)
			s.settle(batch, 1)
			return
		case queue.KindOf(err) != queue.Unavailable:
			failed++
		}
		if hopeless(err) || failed > lastResends {
			s.divide(ctx, batch, err)
			return
		}
		s.w.log.Warn("spans could not be stored yet", "spans", len(batch), "error", err, "again_in", pause)
		pauseFor(ctx, s.w.jittered(pause))
		pause = min(2*pause, slowestResend)
	}
}

// divide finds the spans that the store will not take by halves, and gives them
// up.
func (s *sender) divide(ctx context.Context, batch []parcel, err error) {
	if len(batch) == 1 {
		p := batch[0]
		s.w.log.Error("a span was refused", "rollout_id", p.span.RolloutID, "attempt_id", p.span.AttemptID,
			"name", p.span.Name, "error", err)
		s.w.opts.Observer.SpansDropped(1, Refused)
		s.settle(batch, 1)
		return
	}
	s.deliver(ctx, batch[:len(batch)/2])
	s.deliver(ctx, batch[len(batch)/2:])
}

// blame finds whose spans were rejected: sent again by themselves, those that
// are stored are duplicates, which are not rejected.
func (s *sender) blame(ctx context.Context, batch []parcel, rejected int) {
	byTask := map[*outbox][]queue.Span{}
	for _, p := range batch {
		byTask[p.from] = append(byTask[p.from], p.span)
	}
	for from, spans := range byTask {
		n := rejected
		if len(byTask) > 1 {
			added, err := s.w.store.AddSpans(ctx, spans)
			if err != nil {
				s.w.log.Warn("cannot tell whose spans were rejected", "error", err)
				continue
			}
			n = added.Rejected
		}
		s.mu.Lock()
		from.missing += n
		s.mu.Unlock()
	}
}

// settle ends the way of a batch; each span adds to its task's missing ones.
func (s *sender) settle(batch []parcel, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		p.from.missing += missing
		p.from.pending--
		if p.from.pending == 0 && p.from.idle != nil {
			close(p.from.idle)
			p.from.idle = nil
		}
	}
}
