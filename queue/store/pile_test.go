package store

import (
	"context"
	"log/slog"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

type down struct{ collections.Backend }

func (down) Separately(context.Context, func(collections.Tx) error) (collections.Lost, error) {
	return collections.Lost{}, queue.Errorf(queue.Unavailable, "MongoDB cannot be reached")
}

// TestHeartbeatsDoNotPileUp has an idle worker send heartbeats while nothing can be
// written: they do not gather in memory.
func TestHeartbeatsDoNotPileUp(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	s := New(down{memory.New(memory.Options{Logger: quiet})}, Options{Logger: quiet})
	defer s.Close(context.Background())
	for range 1000 {
		if _, err := s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: "w", Stats: rawjson.Value(`{"cpu":1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	if n := len(s.roster.pending["w"]) + len(s.roster.going["w"]); n > 10 {
		t.Errorf("%d heartbeats of one worker wait in memory", n)
	}
}
