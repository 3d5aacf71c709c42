// Package sleep waits for a time that may be cut short.
package sleep

import (
	"context"
	"time"
)

// For returns after d, or when ctx ends: then with the cause of that. A d of 0 and less
// does not wait.
func For(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}
