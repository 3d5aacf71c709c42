package worker

import (
	"context"
	"sync"
	"time"
)

const (
	firstThrottle = 100 * time.Millisecond
	mostThrottle  = 10 * time.Second
)

// throttle spaces out what fails at once, so that an agent that cannot be started
// or reached does not use up the queue. Its pauses double from firstThrottle to
// mostThrottle. The zero throttle is ready.
type throttle struct {
	mu    sync.Mutex
	pause time.Duration // the last one; 0 after a success
	until time.Time
}

// wait returns when the pause after the last failure is over, or with the cause
// of ctx.
func (t *throttle) wait(ctx context.Context) error {
	t.mu.Lock()
	left := time.Until(t.until)
	t.mu.Unlock()
	if left > 0 {
		pauseFor(ctx, left)
	}
	return context.Cause(ctx)
}

func (t *throttle) failed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause = min(max(2*t.pause, firstThrottle), mostThrottle)
	t.until = time.Now().Add(t.pause)
}

func (t *throttle) worked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause, t.until = 0, time.Time{}
}
