package store

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func openStore(t *testing.T) *Store {
	s := New(memory.New(memory.Options{}), Options{})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// numbered makes a span of a rollout with that number.
func numbered(rollout, id string, n int64) queue.Span {
	return queue.Span{RolloutID: rollout, AttemptID: "at", SpanID: id, SequenceID: n, Attributes: rawjson.EmptyObject}
}

// TestSpansOfOneCommit commits the spans of several callers in one batch: numbers
// are dealt out in order of arrival, and those that callers bring do not push
// them up.
func TestSpansOfOneCommit(t *testing.T) {
	const ask = queue.NumberOnArrival
	s := openStore(t)
	callers := [][]queue.Span{
		{numbered("a", "1", ask), numbered("b", "1", ask), numbered("a", "2", ask)},
		{numbered("b", "2", 40), numbered("b", "3", ask)},
		{numbered("a", "4", ask), numbered("a", "1", 7)}, // the second is a duplicate
	}
	batch := calls(callers...)
	s.commitSpans(batch)

	want := []struct {
		numbers []int64
		stored  []bool
	}{
		{[]int64{1, 1, 2}, []bool{true, true, true}},
		{[]int64{40, 2}, []bool{true, true}},
		{[]int64{3, 7}, []bool{true, false}},
	}
	for i, c := range batch {
		var numbers []int64
		for _, span := range c.Item.spans {
			numbers = append(numbers, span.SequenceID)
		}
		if diff := cmp.Diff(want[i].numbers, numbers); diff != "" || c.Err != nil {
			t.Errorf("caller %d: error %v, numbers (-want +got):\n%s", i, c.Err, diff)
		}
		if diff := cmp.Diff(want[i].stored, c.Item.stored); diff != "" {
			t.Errorf("caller %d: stored (-want +got):\n%s", i, diff)
		}
	}
	for rollout, next := range map[string]int64{"a": 8, "b": 41} {
		if n, err := s.NextSequence(t.Context(), rollout, 1); err != nil || n != next {
			t.Errorf("the next number of %s is %d, error %v; want %d", rollout, n, err, next)
		}
	}
}

// TestUsedUpNumbersFailOneCaller commits the spans of one that asks for a number
// beyond the last together with those of others.
func TestUsedUpNumbersFailOneCaller(t *testing.T) {
	const ask = queue.NumberOnArrival
	s := openStore(t)
	if err := s.raise(t.Context(), []collections.Counter{{RolloutID: "full", N: math.MaxInt64}}); err != nil {
		t.Fatal(err)
	}
	batch := calls([]queue.Span{numbered("a", "1", ask)}, []queue.Span{numbered("full", "1", ask)}, []queue.Span{numbered("full", "2", 9)})
	s.commitSpans(batch)
	if queue.KindOf(batch[1].Err) != queue.Conflict || batch[1].Item.stored != nil {
		t.Errorf("the caller whose numbers are used up: %v, stored %v", batch[1].Err, batch[1].Item.stored)
	}
	for _, i := range []int{0, 2} {
		if c := batch[i]; c.Err != nil || !slices.Equal(c.Item.stored, []bool{true}) || c.Item.spans[0].SequenceID < 1 {
			t.Errorf("caller %d: error %v, stored %v, number %d", i, c.Err, c.Item.stored, c.Item.spans[0].SequenceID)
		}
	}
}

func calls(spans ...[]queue.Span) []*groupcommit.Call[*spanBatch] {
	batch := make([]*groupcommit.Call[*spanBatch], len(spans))
	for i := range spans {
		batch[i] = &groupcommit.Call[*spanBatch]{Ctx: context.Background(), Item: &spanBatch{spans: spans[i]}}
	}
	return batch
}

func TestRefusedSpanRaisesTheCounter(t *testing.T) {
	s := openStore(t)
	if _, err := s.AddSpan(t.Context(), numbered("nobody", "1", 5)); queue.KindOf(err) != queue.NotFound {
		t.Fatalf("a span of an unknown rollout: %v", err)
	}
	if n, err := s.NextSequence(t.Context(), "nobody", 1); err != nil || n != 6 {
		t.Errorf("the next number is %d, error %v; want 6", n, err)
	}
}
