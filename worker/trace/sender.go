// Package trace carries spans from the tasks that a process runs to the store.
//
// A [Sender] serves any number of tasks at a time. Each has a [Scope], which files
// spans under the task's attempt; the scope travels in the task's context, so
// whatever makes spans (package emit, a client of a language model, OpenTelemetry
// through [NewProvider]) finds where they belong.
//
// A sender keeps spans until the store has them. Its memory is bounded: who has
// more to send waits. What is left when the process ends is written to a file and
// sent by the next one, where a directory for such files is given.
package trace

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/sleep"
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

	firstResend   = 100 * time.Millisecond
	slowestResend = 5 * time.Second
	// lastResends is how often a batch that the store fails over, without being
	// away, is sent again before it is taken apart.
	lastResends = 4
	// farewell bounds the last batches, when the sender ends.
	farewell = 2 * time.Second
)

// Why spans are dropped.
const (
	Refused = "refused" // by the store
	Stopped = "stopped" // the task or the process had no time left
)

// ErrClosed means that a span came after its task, or the sender, had ended.
var ErrClosed = errors.New("the task is over: its spans are no longer taken")

// Store is what a Sender needs of a queue.Store.
type Store interface {
	AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error)
	// NextSequence is asked only with Options.NumberAtStart.
	NextSequence(ctx context.Context, rolloutID string, n int) (int64, error)
	// Rollout is asked only for spans that a former process left.
	Rollout(ctx context.Context, id string) (*queue.AttemptedRollout, error)
}

// Options adjusts a Sender. The zero Options is right for most.
type Options struct {
	// Logger takes the log: slog.Default() when nil.
	Logger *slog.Logger
	// Now is the clock of spans: time.Now when nil.
	Now func() time.Time
	// Heard is called with the outcome of each request, if not nil.
	Heard func(err error)
	// Dropped is called with the number of spans that are not stored, and why:
	// Refused or Stopped. It may be nil.
	Dropped func(n int, reason string)
	// NumberAtStart asks the store for the number of each span when it begins, so
	// that spans are numbered before those below them. That costs a request a span;
	// otherwise, and where the store does not answer, spans are numbered as they
	// arrive, which is by their ends.
	NumberAtStart bool
	// SpillDir is the directory for spans that could not be sent when the sender
	// ended; "" gives them up. Senders may share it.
	SpillDir string
}

// Sender carries the spans of all tasks to the store in batches, one request at
// a time: what comes in meanwhile makes up the next. It keeps them until they
// are stored; only what the store refuses for good is given up, and counted.
// Its methods are safe for concurrent use.
type Sender struct {
	store Store
	opts  Options
	log   *slog.Logger
	wake  chan struct{} // has room for one: there may be something to send

	mu      sync.Mutex
	pending []parcel
	bytes   int
	first   time.Time     // when the oldest of pending came
	urgent  int           // flushes that wait
	room    chan struct{} // closed, and made anew, when pending shrinks
	ending  bool          // Run takes no more

	spill *spill // what could not be sent at the end; nil until then
}

// parcel is a span on its way.
type parcel struct {
	span queue.Span
	from *Scope
}

// NewSender makes a sender; nothing is sent before [Sender.Run].
func NewSender(store Store, opts Options) *Sender {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Sender{
		store: store, opts: opts, log: cmp.Or(opts.Logger, slog.Default()),
		wake: make(chan struct{}, 1), room: make(chan struct{}),
	}
}

// add queues a span; it waits while the buffer is full. A span that ctx does not
// leave the time for counts as missing.
func (s *Sender) add(ctx context.Context, from *Scope, span queue.Span) error {
	size := span.Size()
	s.mu.Lock()
	for len(s.pending) > 0 && !from.closed && !s.ending && (len(s.pending) >= bufferSpans || s.bytes+size > bufferBytes) {
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			s.mu.Lock()
			from.missing++
			s.mu.Unlock()
			s.dropped(1, Stopped)
			return context.Cause(ctx)
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if from.closed || s.ending {
		return ErrClosed
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

// flush waits until each span of a scope is stored, refused, or the time is
// up, and tells how many are not stored.
func (s *Sender) flush(ctx context.Context, from *Scope) (missing int) {
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

// drop forgets the spans of a scope that are not under way yet.
func (s *Sender) drop(from *Scope) (dropped int) {
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
func (s *Sender) makeRoom() {
	close(s.room)
	s.room = make(chan struct{})
}

// Run sends until ctx ends, and then what is left, once; what the store does not
// take then is spilled. Meanwhile it sends what former processes spilled. All it
// started has ended when it returns, and no scope takes spans any more. It is
// called once.
func (s *Sender) Run(ctx context.Context) {
	var helper sync.WaitGroup
	helper.Go(func() { s.resendSpilled(ctx) })
	defer helper.Wait()
	var left []parcel
	for left == nil {
		batch := s.next(ctx)
		if batch == nil {
			break
		}
		left = s.deliver(ctx, batch)
	}
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if left == nil {
		left = s.cut()
	}
	for ; len(left) > 0; left = s.cut() {
		if rest := s.deliver(last, left); len(rest) > 0 {
			s.putAside(rest)
			s.settle(rest, 1)
		}
	}
	s.finishSpill()
}

// next waits for a batch; nil when ctx ends.
func (s *Sender) next(ctx context.Context) []parcel {
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
func (s *Sender) cut() []parcel {
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

// deliver stores a batch, however long it takes, unless ctx ends: then it gives
// back what is not settled.
func (s *Sender) deliver(ctx context.Context, batch []parcel) (left []parcel) {
	spans := make([]queue.Span, len(batch))
	for i := range batch {
		spans[i] = batch[i].span
	}
	pause := firstResend
	for failed := 0; ; {
		added, err := s.store.AddSpans(ctx, spans)
		if ctx.Err() == nil {
			s.heard(err)
		}
		switch {
		case err == nil:
			if added.Rejected > 0 {
				s.log.Warn("the store rejected spans", "spans", added.Rejected, "reason", added.Reason)
				s.dropped(added.Rejected, Refused)
				s.blame(ctx, batch, added.Rejected)
			}
			s.settle(batch, 0)
			return nil
		case ctx.Err() != nil:
			return batch
		case queue.KindOf(err) != queue.Unavailable:
			failed++
		}
		if queue.Hopeless(err) || failed > lastResends {
			return s.divide(ctx, batch, err)
		}
		s.log.Warn("spans could not be stored yet", "spans", len(batch), "error", err, "again_in", pause)
		_ = sleep.For(ctx, jittered(pause))
		pause = min(2*pause, slowestResend)
	}
}

// heard tells the owner how a request ended.
func (s *Sender) heard(err error) {
	if s.opts.Heard != nil {
		s.opts.Heard(err)
	}
}

// dropped tells the owner of spans that are not stored.
func (s *Sender) dropped(n int, reason string) {
	if s.opts.Dropped != nil {
		s.opts.Dropped(n, reason)
	}
}

// jittered varies a pause by a tenth.
func jittered(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// notify puts a token into a channel that has room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// divide finds the spans that the store will not take by halves, and gives them
// up. It gives back what is not settled when ctx ends.
func (s *Sender) divide(ctx context.Context, batch []parcel, err error) (left []parcel) {
	if len(batch) == 1 {
		p := batch[0]
		s.log.Error("a span was refused", "rollout_id", p.span.RolloutID, "attempt_id", p.span.AttemptID,
			"name", p.span.Name, "error", err)
		s.dropped(1, Refused)
		s.settle(batch, 1)
		return nil
	}
	left = s.deliver(ctx, batch[:len(batch)/2])
	return append(left, s.deliver(ctx, batch[len(batch)/2:])...)
}

// blame finds whose spans were rejected: sent again by themselves, those that
// are stored are duplicates, which are not rejected.
func (s *Sender) blame(ctx context.Context, batch []parcel, rejected int) {
	byTask := map[*Scope][]queue.Span{}
	for _, p := range batch {
		byTask[p.from] = append(byTask[p.from], p.span)
	}
	for from, spans := range byTask {
		n := rejected
		if len(byTask) > 1 {
			added, err := s.store.AddSpans(ctx, spans)
			if err != nil {
				s.log.Warn("cannot tell whose spans were rejected", "error", err)
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
func (s *Sender) settle(batch []parcel, missing int) {
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
