// Package groupcommit gathers concurrent calls and commits them together: while
// one commit is in flight the next batch collects, and nobody waits on a timer.
package groupcommit

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
)

// Group is one lane of calls: those that arrive while as many commits are in
// flight as are useful gather, and are committed together by the next one. A
// caller alone commits at once, in its own goroutine. Use New.
type Group[T any] struct {
	// Committed, if not nil, is told of each commit. It is set before the first
	// call.
	Committed func(calls int, took time.Duration)
	// Abandon lets a caller whose context ends go without its answer, though its
	// item is being committed: for calls that change nothing. The item is not the
	// caller's to look at then. It is set before the first call.
	Abandon bool

	commit   func(batch []*Call[T])
	weigh    func(T) int
	parallel int

	mu      sync.Mutex
	waiting []*Call[T]
	flights int            // commits in flight
	drain   sync.WaitGroup // the goroutines that go on after a caller's commit
}

const (
	maxWeight = 512 // of one commit, unless a single call weighs more

	// MaxWaiting is how many calls wait before new ones are turned away.
	MaxWaiting = 20_000
)

// New makes a lane. Commit writes a batch and settles every call in it, at most
// parallel batches at a time. Weigh is the share of a batch's 512 that an item
// takes; nil is 1 each.
func New[T any](commit func([]*Call[T]), weigh func(T) int, parallel int) *Group[T] {
	return &Group[T]{commit: commit, weigh: weigh, parallel: parallel}
}

// Call is one caller's part of a batch.
type Call[T any] struct {
	Item T
	Ctx  context.Context // the caller's, for the values in it
	Err  error           // set by the commit

	taken bool          // it is in a commit and can no longer be withdrawn
	done  chan struct{} // closed once Err is set
}

// ErrBusy is the answer when more calls wait than the backend can catch up with.
var ErrBusy = queue.Errorf(queue.Unavailable, "the store is overloaded: too many calls are waiting for the backend; retry later")

// Do commits item, with whatever else is waiting, and returns its own error. A
// cancelled ctx withdraws an item that no commit has taken yet; after that the
// outcome is awaited, so that the caller knows what was written, unless Abandon is
// set.
func (g *Group[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); g.Abandon && err != nil {
		return err
	}
	c := &Call[T]{Item: item, Ctx: ctx}
	g.mu.Lock()
	free := g.flights < g.parallel
	if free && !g.Abandon {
		g.flights++
		g.mu.Unlock()
		g.guarded([]*Call[T]{c})
		g.next()
		return c.Err
	}
	if len(g.waiting) >= MaxWaiting {
		g.mu.Unlock()
		return ErrBusy
	}
	c.done = make(chan struct{})
	g.waiting = append(g.waiting, c)
	if free {
		g.flights++
	}
	g.mu.Unlock()
	if free {
		g.next()
	}

	select {
	case <-c.done:
		return c.Err
	case <-ctx.Done():
	}
	if g.withdraw(c) || g.Abandon {
		return ctx.Err()
	}
	<-c.done
	return c.Err
}

// DoAll commits items, which wait for each other as those of different callers
// do, and returns their errors.
func (g *Group[T]) DoAll(ctx context.Context, items []T) []error {
	calls := make([]*Call[T], len(items))
	for i, item := range items {
		calls[i] = &Call[T]{Item: item, Ctx: ctx, done: make(chan struct{})}
	}
	g.mu.Lock()
	g.waiting = append(g.waiting, calls...)
	free := g.flights < g.parallel
	if free {
		g.flights++
	}
	g.mu.Unlock()
	if free {
		g.next()
	}
	errs := make([]error, len(calls))
	for i, c := range calls {
		<-c.done
		errs[i] = c.Err
	}
	return errs
}

func (g *Group[T]) withdraw(c *Call[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.taken {
		return false
	}
	for i, w := range g.waiting {
		if w == c {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			break
		}
	}
	return true
}

// next goes on with what gathered during a commit, in a goroutine of its own so
// that the caller who began is not kept.
func (g *Group[T]) next() {
	batch := g.take()
	if batch == nil {
		return
	}
	g.drain.Go(func() {
		for ; batch != nil; batch = g.take() {
			g.guarded(batch)
			for _, c := range batch {
				close(c.done)
			}
		}
	})
}

// guarded commits a batch. A panic in it is the error of its calls, so that the
// lane and whoever waits in it go on.
func (g *Group[T]) guarded(batch []*Call[T]) {
	defer func() {
		if fault := recover(); fault != nil {
			err := &queue.Error{Kind: queue.Internal, Msg: "a fault of the store", Err: fmt.Errorf("panic: %v\n%s", fault, debug.Stack())}
			for _, c := range batch {
				c.Err = err
			}
		}
	}()
	if g.Committed == nil {
		g.commit(batch)
		return
	}
	began := time.Now()
	g.commit(batch)
	g.Committed(len(batch), time.Since(began))
}

// take removes the next batch from the queue; nil ends a flight.
func (g *Group[T]) take() []*Call[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.flights--
		return nil
	}
	n, weight := 0, 0
	for n < len(g.waiting) {
		w := 1
		if g.weigh != nil {
			w = g.weigh(g.waiting[n].Item)
		}
		if n > 0 && weight+w > maxWeight {
			break
		}
		weight += w
		g.waiting[n].taken = true
		n++
	}
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil
	}
	return batch
}

// Wait returns once no commit is in flight. New calls must have ended.
func (g *Group[T]) Wait() { g.drain.Wait() }
