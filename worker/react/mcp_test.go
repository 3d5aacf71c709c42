package react

import (
	"context"
	"testing"
)

// A task does not wait beyond its end for a connection that another task makes.
func TestDropEndsWithItsTask(t *testing.T) {
	s := &mcpServer{mu: make(chan struct{}, 1)}
	s.mu <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	dropped := make(chan struct{})
	go func() {
		defer close(dropped)
		s.drop(ctx, nil)
	}()
	cancel()
	<-dropped
}
