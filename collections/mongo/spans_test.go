package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/collections"
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
	arrive := func(doc bson.Raw) {
		t.Helper()
		if _, err := b.Handle().Collection("spans").InsertOne(ctx, doc); err != nil {
			t.Fatal(err)
		}
	}
	breakOff := func(s queue.Span) (bson.Raw, queue.Span, bool) {
		t.Helper()
		doc, stored, err := b.BreakOff(ctx, &s)
		if err != nil {
			t.Fatal(err)
		}
		return doc, s, stored
	}
	span := func(rollout string, number int64) queue.Span {
		return queue.Span{RolloutID: rollout, AttemptID: "at-1", SpanID: "1", SequenceID: number}
	}
	insertAgain := func(s queue.Span) {
		t.Helper()
		again := []queue.Span{s, {RolloutID: s.RolloutID, AttemptID: "at-1", SpanID: "2", SequenceID: 20}}
		stored, err := b.InsertSpans(ctx, again)
		if err != nil || !stored[0] || !stored[1] || again[0].SequenceID != 7 || again[1].SequenceID != 20 {
			t.Fatalf("%s: stored %v under %d and %d, %v; want 7 and 20", s.RolloutID, stored, again[0].SequenceID, again[1].SequenceID, err)
		}
		if stored, err = b.InsertSpans(ctx, again[:1]); err != nil || stored[0] {
			t.Errorf("%s: a duplicate was stored: %v, %v", s.RolloutID, stored, err)
		}
	}

	doc, _, stored := breakOff(span("ro-once", 7))
	if stored {
		t.Error("stored before it arrived")
	}
	arrive(doc)
	insertAgain(span("ro-once", 8))

	doc, _, _ = breakOff(span("ro-twice", 7)) // and its second insert is broken off
	breakOff(span("ro-twice", 8))
	arrive(doc)
	insertAgain(span("ro-twice", 9))

	doc, _, _ = breakOff(span("ro-between", 7)) // and arrives before that
	arrive(doc)
	if _, s, stored := breakOff(span("ro-between", 8)); !stored || s.SequenceID != 7 {
		t.Errorf("stored %t, under %d; want 7", stored, s.SequenceID)
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
// those that do not fit into two answers are left to be read alone.
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
		{[]queue.AttemptRef{ref(4), ref(3), ref(2)}, []int{-1, -2, 4}}, // two answers: 2, and then too much of 3
		{[]queue.AttemptRef{ref(3)}, []int{-2}},
		{[]queue.AttemptRef{ref(4), ref(3)}, []int{5, -2}},
		{[]queue.AttemptRef{ref(6), ref(5), ref(4)}, []int{-1, -2, 5}},
		{[]queue.AttemptRef{ref(6), ref(5)}, []int{1, -2}},
		{[]queue.AttemptRef{{RolloutID: "ro-1", AttemptID: "at-2"}, ref(2)}, []int{0, 4}},
	} {
		got, err := b.ReadTogether(t.Context(), c.of...)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v have %v spans, %v; want %v", c.of, got, err, c.want)
		}
	}
	small := make([]queue.AttemptRef, 50)
	for i := range small {
		small[i] = ref(100 + i)
		attemptWith(t, b, small[i], 30, 1)
	}
	if got, err := b.ReadTogether(t.Context(), small...); err != nil || !slices.Equal(got, slices.Repeat([]int{30}, len(small))) {
		t.Errorf("50 attempts of 30 spans have %v, %v", got, err)
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

// TestWorkersReadTogether asks for several workers at once, one of them twice, one
// that is not there.
func TestWorkersReadTogether(t *testing.T) {
	b := mongotest.Open(t)
	for _, id := range []string{"w-1", "w-2"} {
		if err := b.Atomic(t.Context(), func(tx collections.Tx) error { return tx.PutWorker(queue.NewWorker(id)) }); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.ReadWorkers(t.Context(), "w-2", "w-3", "w-1", "w-2")
	if want := []string{"w-2", "", "w-1", "w-2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("found %q, %v; want %q", got, err, want)
	}
}

// TestReadsEndWithTheirCaller reads with a context that has ended.
func TestReadsEndWithTheirCaller(t *testing.T) {
	b := mongotest.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Worker(ctx, "w-1"); !errors.Is(err, context.Canceled) {
		t.Errorf("a worker was read: %v", err)
	}
	attempt := "at-1"
	q := queue.SpanQuery{RolloutID: "ro-1", AttemptID: &attempt, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}}
	if _, err := b.QuerySpans(ctx, q); !errors.Is(err, context.Canceled) {
		t.Errorf("spans were read: %v", err)
	}
}
