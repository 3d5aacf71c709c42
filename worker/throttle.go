package worker

import (
	"context"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/sleep"
)

const (
	firstThrottle = 100 * time.Millisecond
	mostThrottle  = 10 * time.Second
)

// throttle spaces out what fails at once, so that an agent that cannot be started
// or reached does not use up the queue. Its pauses double from firstThrottle to
// mostThrottle; what fails during one was begun before it, and does not make it
// longer. The zero throttle is ready.
type throttle struct {
	now func() time.Time // time.Now when nil

	mu    sync.Mutex
	pause time.Duration // the last one; 0 after a success
	until time.Time
}

// wait returns when the pause after the last failure is over, or with the cause
// of ctx.
func (t *throttle) wait(ctx context.Context) error {
	t.mu.Lock()
	left := t.until.Sub(t.clock())
	t.mu.Unlock()
	return sleep.For(ctx, left)
}

func (t *throttle) clock() time.Time {
	if t.now != nil {
		return t.now()
	}
	return time.Now()
}

func (t *throttle) failed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	if now.Before(t.until) {
		return
	}
	t.pause = min(max(2*t.pause, firstThrottle), mostThrottle)
	t.until = now.Add(t.pause)
}

func (t *throttle) worked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause, t.until = 0, time.Time{}
}
