package mongo_test

import (
	"testing"

	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// TestInsertThatArrivesLate stores a span again whose first insert was broken off
// and is executed after all: it is stored once, under its first number, and its
// caller is told so. Whoever sends it after that sends a duplicate.
func TestInsertThatArrivesLate(t *testing.T) {
	b := mongotest.Open(t)
	ctx := t.Context()
	first := queue.Span{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "1", SequenceID: 7}
	doc, err := b.BreakOff(ctx, &first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Handle().Collection("spans").InsertOne(ctx, doc); err != nil {
		t.Fatal(err)
	}
	again := []queue.Span{first, {RolloutID: "ro-1", AttemptID: "at-1", SpanID: "2", SequenceID: 9}}
	again[0].SequenceID = 8
	stored, err := b.InsertSpans(ctx, again)
	if err != nil || !stored[0] || !stored[1] {
		t.Fatalf("stored %v, %v", stored, err)
	}
	if again[0].SequenceID != 7 || again[1].SequenceID != 9 {
		t.Errorf("the spans have numbers %d and %d, want 7 and 9", again[0].SequenceID, again[1].SequenceID)
	}
	if stored, err = b.InsertSpans(ctx, again[:1]); err != nil || stored[0] {
		t.Errorf("a duplicate was stored: %v, %v", stored, err)
	}
	page, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: "ro-1", Paging: queue.Paging{Limit: -1, SortBy: "sequence_id"}})
	if err != nil || len(page.Items) != 2 || page.Items[0].SequenceID != 7 {
		t.Errorf("the store holds %v, %v", page.Items, err)
	}
}
