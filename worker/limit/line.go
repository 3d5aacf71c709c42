package limit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// lookAgain is how often those in a line look by themselves: what they wait for
// may have changed without a call to Next, or may not be what the first one needs.
const lookAgain = 250 * time.Millisecond

// Forever is the patience of who waits until the context ends.
const Forever = time.Duration(1<<63 - 1)

// Full is the error of who would have to wait longer than it has patience.
type Full struct {
	// Again is when to try again, as far as it is known.
	Again time.Duration
}

// Error implements error.
func (f *Full) Error() string { return fmt.Sprintf("the limit is reached; try again in %s", f.Again) }

// Line has callers wait for their turn. Who came first is let through first, but
// for what only those behind can use. The zero Line is empty. Its methods are safe for concurrent use.
type Line struct {
	mu      sync.Mutex
	waiting []chan struct{}
}

// Wait returns when try has succeeded, which also tells how long it cannot, 0 for
// not known. It is called by several goroutines. The error is a *Full when that takes
// longer than the patience, else the context's cause.
func (l *Line) Wait(ctx context.Context, patience time.Duration, try func(now time.Time) (again time.Duration, ok bool)) error {
	began := time.Now()
	var place chan struct{}
	defer func() { l.leave(place) }()
	for {
		now := time.Now()
		left := patience - now.Sub(began)
		pause := lookAgain
		// A newcomer does not overtake the line.
		if place != nil || l.empty() {
			again, ok := try(now)
			if ok {
				return nil
			}
			if left <= 0 || again > left {
				return &Full{Again: again}
			}
			if again > 0 && l.first(place) {
				pause = min(pause, again)
			}
		}
		if place == nil {
			place = l.join()
		}
		timer := time.NewTimer(max(min(pause, left), time.Millisecond))
		select {
		case <-place:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// Next lets the first in the line try.
func (l *Line) Next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		select {
		case l.waiting[0] <- struct{}{}:
		default:
		}
	}
}

func (l *Line) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0
}

// first reports whether a place is the one before all others; so is none in an
// empty line.
func (l *Line) first(place chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0 || l.waiting[0] == place
}

func (l *Line) join() chan struct{} {
	place := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, place)
	return place
}

// leave gives up a place, nil for none, and lets the next one try.
func (l *Line) leave(place chan struct{}) {
	if place == nil {
		return
	}
	l.mu.Lock()
	if i := slices.Index(l.waiting, place); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	l.mu.Unlock()
	l.Next()
}
