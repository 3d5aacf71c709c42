package store_test

import (
	"context"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// breaking is a backend whose insert is broken off once: the first span is
// stored, the others are not, and the counter has been lost and issued anew to
// somebody else.
type breaking struct {
	collections.Backend
	broken bool
}

func (b *breaking) InsertSpans(ctx context.Context, spans []queue.Span) ([]bool, error) {
	if b.broken {
		return b.Backend.InsertSpans(ctx, spans)
	}
	b.broken = true
	stored, err := b.Backend.InsertSpans(ctx, spans[:1])
	if err != nil {
		return nil, err
	}
	if _, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: spans[0].RolloutID, N: 5}}, true); err != nil {
		return nil, err
	}
	return append(stored, make([]bool, len(spans)-1)...), collections.ErrAgain
}

// TestBrokenInsertIsNumberedAnew keeps the number of what was stored before the
// connection broke, and gives the rest numbers that nobody else has.
func TestBrokenInsertIsNumberedAnew(t *testing.T) {
	s := start(t, &breaking{Backend: memory.New(memory.Options{})}, store.Options{})
	a := must[queue.AttemptedRollout](t)(s.Start(t.Context(), queue.Request{}, nil)).Attempt
	spans := []queue.Span{span(a, "1"), span(a, "2"), span(a, "3")}
	for i := range spans {
		spans[i].SequenceID = queue.NumberOnArrival
	}
	added := must[queue.SpansAdded](t)(s.AddSpans(t.Context(), spans))
	if len(added.Stored) != 3 {
		t.Fatalf("%d spans stored", len(added.Stored))
	}
	for i, want := range []int64{1, 9, 10} { // 4 to 8 are somebody else's
		if got := added.Stored[i].SequenceID; got != want {
			t.Errorf("span %d has number %d, want %d", i, got, want)
		}
	}
}
