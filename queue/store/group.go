package store

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
)

// group is group commit: calls that arrive while as many commits are in flight
// as are useful gather, and are committed together by the next one. Nobody
// waits on a timer, and a caller alone commits at once, in its own goroutine.
type group[T any] struct {
	// commit writes a batch and settles every call in it.
	commit func(batch []*call[T])
	// weigh is the share of maxWeight that an item takes; nil is 1 each.
	weigh    func(T) int
	parallel int // commits in flight at a time
	// committed, if not nil, is told of each commit.
	committed func(calls int, took time.Duration)

	mu      sync.Mutex
	waiting []*call[T]
	flights int            // commits in flight
	drain   sync.WaitGroup // the goroutines that go on after a caller's commit
}

const (
	maxWeight = 512    // of one commit, unless a single call weighs more
	maxQueue  = 20_000 // calls waiting before new ones are turned away
)

func (g *group[T]) configure(commit func([]*call[T]), weigh func(T) int, parallel int) {
	g.commit, g.weigh, g.parallel = commit, weigh, parallel
}

// call is one caller's part of a batch.
type call[T any] struct {
	item  T
	ctx   context.Context // the caller's, for the values in it
	err   error
	taken bool          // it is in a commit and can no longer be withdrawn
	done  chan struct{} // closed once err is set
}

// errBusy is the answer when more calls wait than the backend can catch up with.
var errBusy = queue.Errorf(queue.Unavailable, "the store is overloaded: too many calls are waiting for the backend; retry later")

// do commits item, with whatever else is waiting, and returns its own error. A
// cancelled ctx withdraws an item that no commit has taken yet; after that the
// outcome is awaited, so that the caller knows what was written.
func (g *group[T]) do(ctx context.Context, item T) error {
	c := &call[T]{item: item, ctx: ctx}
	g.mu.Lock()
	if g.flights < g.parallel {
		g.flights++
		g.mu.Unlock()
		g.guarded([]*call[T]{c})
		g.next()
		return c.err
	}
	if len(g.waiting) >= maxQueue {
		g.mu.Unlock()
		return errBusy
	}
	c.done = make(chan struct{})
	g.waiting = append(g.waiting, c)
	g.mu.Unlock()

	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if g.withdraw(c) {
		return ctx.Err()
	}
	<-c.done
	return c.err
}

// doAll commits items, which wait for each other as those of different callers
// do, and returns their errors.
func (g *group[T]) doAll(ctx context.Context, items []T) []error {
	calls := make([]*call[T], len(items))
	for i, item := range items {
		calls[i] = &call[T]{item: item, ctx: ctx, done: make(chan struct{})}
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
		errs[i] = c.err
	}
	return errs
}

func (g *group[T]) withdraw(c *call[T]) bool {
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
func (g *group[T]) next() {
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
func (g *group[T]) guarded(batch []*call[T]) {
	defer func() {
		if fault := recover(); fault != nil {
			err := &queue.Error{Kind: queue.Internal, Msg: "a fault of the store", Err: fmt.Errorf("panic: %v\n%s", fault, debug.Stack())}
			for _, c := range batch {
				c.err = err
			}
		}
	}()
	if g.committed == nil {
		g.commit(batch)
		return
	}
	began := time.Now()
	g.commit(batch)
	g.committed(len(batch), time.Since(began))
}

// take removes the next batch from the queue; nil ends a flight.
func (g *group[T]) take() []*call[T] {
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
			w = g.weigh(g.waiting[n].item)
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

// wait returns once no commit is in flight. New calls must have ended.
func (g *group[T]) wait() { g.drain.Wait() }
