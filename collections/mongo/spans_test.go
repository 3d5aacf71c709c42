package mongo_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
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

// attemptWith stores n spans of an attempt, numbered from 1, with an attribute of
// so many bytes each.
func attemptWith(t *testing.T, b *mongo.Backend, of queue.AttemptRef, n, bytes int) {
	t.Helper()
	spans := make([]queue.Span, n)
	for i := range spans {
		spans[i] = queue.Span{
			RolloutID: of.RolloutID, AttemptID: of.AttemptID, SpanID: fmt.Sprint(i), SequenceID: int64(i + 1),
			Attributes: rawjson.Value(`{"x":"` + strings.Repeat("x", bytes) + `"}`),
		}
	}
	if _, err := b.InsertSpans(t.Context(), spans); err != nil {
		t.Fatal(err)
	}
}

// TestSpansReadTogether asks for several attempts at once: each gets its own, and
// those that do not fit into the answer are left to be read alone.
func TestSpansReadTogether(t *testing.T) {
	b := mongotest.Open(t)
	ref := func(n int) queue.AttemptRef {
		return queue.AttemptRef{RolloutID: fmt.Sprintf("ro-%d", n), AttemptID: fmt.Sprintf("at-%d", n)}
	}
	again := queue.AttemptRef{RolloutID: "ro-1", AttemptID: "at-1b"}
	attemptWith(t, b, ref(1), 3, 1)
	attemptWith(t, b, again, 2, 1)
	attemptWith(t, b, ref(2), 4, 1)
	attemptWith(t, b, ref(3), 1200, 1)
	attemptWith(t, b, ref(4), 5, 1)
	attemptWith(t, b, ref(5), 18, 1<<20)
	attemptWith(t, b, ref(6), 1, 1)
	for _, c := range []struct {
		of   []queue.AttemptRef
		want []int
	}{
		{[]queue.AttemptRef{ref(2)}, []int{4}},
		{[]queue.AttemptRef{ref(2), ref(1), ref(9), again, ref(2)}, []int{4, 3, 0, 2, 4}},
		{[]queue.AttemptRef{ref(4), ref(3), ref(2)}, []int{-1, -1, 4}},
		{[]queue.AttemptRef{ref(3)}, []int{-1}},
		{[]queue.AttemptRef{ref(6), ref(5), ref(4)}, []int{-1, -1, 5}},
		{[]queue.AttemptRef{{RolloutID: "ro-1", AttemptID: "at-2"}, ref(2)}, []int{0, 4}},
	} {
		got, err := b.ReadTogether(t.Context(), c.of...)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v have %v spans, %v; want %v", c.of, got, err, c.want)
		}
	}
	var callers errgroup.Group
	for range 8 {
		for n, want := range map[int]int{1: 3, 2: 4, 3: 1200, 4: 5, 5: 18, 6: 1, 9: 0} {
			callers.Go(func() error {
				of := ref(n)
				page, err := b.QuerySpans(t.Context(), queue.SpanQuery{
					RolloutID: of.RolloutID, AttemptID: &of.AttemptID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1},
				})
				if err == nil && (page.Total != want || len(page.Items) != want || page.Items == nil) {
					err = fmt.Errorf("%v has a page of %d spans of %d, want %d", of, len(page.Items), page.Total, want)
				}
				return err
			})
		}
	}
	if err := callers.Wait(); err != nil {
		t.Error(err)
	}
}
