package collections_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
)

// counts counts operations, and those that failed.
type counts struct {
	mu     sync.Mutex
	done   map[collections.Operation]int
	failed int
	again  int
}

func newCounts() *counts { return &counts{done: map[collections.Operation]int{}} }

func (c *counts) Operation(op collections.Operation, _ time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[op]++
	if err != nil {
		c.failed++
	}
}

func (c *counts) SectionRan(times int) { c.again += times }

// TestObserved does everything that a backend can, once, and is told of each.
func TestObserved(t *testing.T) {
	ctx, c := t.Context(), newCounts()
	b := collections.Observe(memory.New(memory.Options{}), c)
	record := queue.NewRecord("ro-1", queue.Request{}, true, 1)
	insert := func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{record}) }
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	note(b.Atomic(ctx, insert))
	_, err := b.Separately(ctx, func(collections.Tx) error { return nil })
	note(err)
	records, err := b.Records(ctx, []string{"ro-1"})
	note(err)
	if len(records) != 1 || records[0].Rollout.RolloutID != "ro-1" {
		t.Errorf("records are %v", records)
	}
	_, pending, err := b.Finished(ctx, []string{"ro-1"})
	note(err)
	page, err := b.QueryRollouts(ctx, queue.RolloutQuery{Paging: queue.All})
	note(err)
	has, err := b.HasQueued(ctx)
	note(err)
	if pending != 1 || page.Total != 1 || !has {
		t.Errorf("%d pending, %d in all, queued %t", pending, page.Total, has)
	}
	_, err = b.Overdue(ctx, 1, 1)
	note(err)
	_, err = b.Answered(ctx, []string{"k"})
	note(err)
	_, err = b.Worker(ctx, "w")
	note(err)
	_, err = b.QueryWorkers(ctx, queue.WorkerQuery{Paging: queue.All})
	note(err)
	_, err = b.Resources(ctx, "r")
	note(err)
	_, err = b.LatestResources(ctx)
	note(err)
	_, err = b.QueryResources(ctx, queue.ResourcesQuery{Paging: queue.All})
	note(err)
	stored, err := b.InsertSpans(ctx, []queue.Span{{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "s"}})
	note(err)
	if diff := cmp.Diff([]bool{true}, stored); diff != "" {
		t.Error(diff)
	}
	_, err = b.QuerySpans(ctx, queue.SpanQuery{RolloutID: "ro-1", Paging: queue.All})
	note(err)
	first, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: 1}}, true)
	note(err)
	if diff := cmp.Diff([]int64{1}, first); diff != "" {
		t.Error(diff)
	}
	note(b.RaiseSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: 5}}))
	_, err = b.Statistics(ctx)
	note(err)
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	for op, o := range collections.Operations {
		if n := c.done[collections.Operation(op)]; n != 1 {
			t.Errorf("told of %d times %s of %s, want 1", n, o.Name, o.Collection)
		}
	}

	// What is done for a caller is told to its observer, errors included.
	own := newCounts()
	fault := errors.New("fault")
	err = b.Atomic(collections.WithObserver(ctx, own), func(collections.Tx) error { return fault })
	if err != fault || own.failed != 1 || c.failed != 0 {
		t.Errorf("%v; %d failures told to the caller, %d to the backend's observer", err, own.failed, c.failed)
	}
	if _, err = b.Worker(collections.Detached(collections.WithObserver(ctx, own)), "w"); err != nil || own.done[collections.OpWorker] != 1 {
		t.Errorf("%v; told of %v", err, own.done)
	}
}

// twice is a backend of which each section runs twice.
type twice struct{ collections.Backend }

func (twice) Shared() bool { return true }

func (b twice) Atomic(ctx context.Context, fn func(tx collections.Tx) error) error {
	_ = b.Backend.Atomic(ctx, func(tx collections.Tx) error {
		_ = fn(tx)
		return errors.New("somebody else was faster")
	})
	return b.Backend.Atomic(ctx, fn)
}

func TestObservedSectionsThatRunAgain(t *testing.T) {
	c := newCounts()
	b := collections.Observe(twice{memory.New(memory.Options{})}, c)
	if err := b.Atomic(t.Context(), func(collections.Tx) error { return nil }); err != nil || c.again != 2 {
		t.Errorf("%v, ran %d times", err, c.again)
	}
}
