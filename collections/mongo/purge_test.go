package mongo_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// insertOld inserts rollouts that have ended, each with a large input, spans, one
// of them large, and a counter.
func insertOld(t *testing.T, b *mongo.Backend, n int) {
	t.Helper()
	ctx := t.Context()
	for i := range n {
		id := fmt.Sprint("ro-", i)
		input := rawjson.Value(`"` + strings.Repeat("x", 100_000) + `"`)
		if err := b.Stage(ctx, 64<<10, &input); err != nil {
			t.Fatal(err)
		}
		r := queue.NewRecord(id, queue.Request{Input: input}, true, 1)
		r.Begin("at-1", nil, true, 0, 1)
		r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutSucceeded)}, 2)
		if err := b.Atomic(ctx, func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r.Clone()}) }); err != nil {
			t.Fatal(err)
		}
		big := queue.Span{RolloutID: id, AttemptID: "at-1", SpanID: "big", Attributes: rawjson.Value(`"` + strings.Repeat("y", 100_000) + `"`)}
		spans := []queue.Span{{RolloutID: id, AttemptID: "at-1", SpanID: "a", Attributes: rawjson.EmptyObject}}
		if i == 0 {
			if _, err := b.InsertBigSpan(ctx, big); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.InsertSpans(ctx, spans); err != nil {
			t.Fatal(err)
		}
		if _, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: id, N: 1}}, true); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBrokenPurge breaks purging off at each command that it sends. Whatever
// was done, going on comes to the same end: nothing is left over, and the counts
// are those of what is there.
func TestBrokenPurge(t *testing.T) {
	database := mongotest.Database(t)
	var left atomic.Int64 // commands until the process dies
	var die atomic.Pointer[context.CancelFunc]
	monitor := &event.CommandMonitor{Started: func(context.Context, *event.CommandStartedEvent) {
		if left.Add(-1) == 0 {
			(*die.Load())()
		}
	}}
	old := collections.Cutoffs{Now: 1000, Finished: 500}
	later := collections.Cutoffs{Now: 1000 + collections.PurgeGrace, Finished: 500}
	for stopAt := int64(1); ; stopAt++ {
		b, err := mongo.OpenWith(t.Context(), mongo.Options{
			URI: mongotest.URI(t), Database: database, Partition: fmt.Sprint("p", stopAt), Logger: slog.New(slog.DiscardHandler),
		}, options.Client().SetMonitor(monitor))
		if err != nil {
			t.Fatal(err)
		}
		empty := contents(t, b)
		insertOld(t, b, 3)
		ctx, cancel := context.WithCancel(t.Context())
		die.Store(&cancel)
		left.Store(stopAt)
		err = purgeTwice(ctx, b, old, later)
		ended := left.Swap(-1) > 0
		cancel()
		if err := purgeTwice(t.Context(), b, old, later); err != nil {
			t.Fatalf("going on after command %d: %v", stopAt, err)
		}
		for collection, n := range contents(t, b) {
			switch want := empty[collection]; collection {
			case "rollout_counts": // lanes stay
			case "schema": // so does the lease
			default:
				if n != want {
					t.Errorf("broken off at command %d: %d documents in %s, want %d", stopAt, n, collection, want)
				}
			}
		}
		byStatus, attempts, err2 := b.Counted(t.Context())
		if err2 != nil || byStatus[queue.RolloutSucceeded] != 0 || attempts != 0 {
			t.Errorf("broken off at command %d: counts %v and %d attempts, %v", stopAt, byStatus, attempts, err2)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if ended {
			if err != nil {
				t.Errorf("a purge that nothing broke off: %v", err)
			}
			t.Logf("broken off at %d commands", stopAt-1)
			return
		}
	}
}

func purgeTwice(ctx context.Context, b *mongo.Backend, rounds ...collections.Cutoffs) error {
	for _, old := range rounds {
		for more := true; more; {
			got, err := b.Purge(ctx, old)
			if err != nil {
				return err
			}
			more = got.More
		}
	}
	return nil
}

// TestPurgesDoNotMeet purges from several processes at a time: one of them does
// it, and what it deletes is counted once.
func TestPurgesDoNotMeet(t *testing.T) {
	database := mongotest.Database(t)
	a, b := openPartition(t, database, ""), openPartition(t, database, "")
	insertOld(t, a, 4)
	old := collections.Cutoffs{Now: 1000, Finished: 500}
	first, err := a.Purge(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Purge(t.Context(), collections.Cutoffs{Now: 2000, Finished: 500})
	if err != nil {
		t.Fatal(err)
	}
	if first.Rollouts != 4 || second.Rollouts != 0 || second.Spans != 0 || second.More {
		t.Errorf("purged %+v and, by the other one, %+v", first, second)
	}
}

// TestRevivedWhilePurged revives rollouts while they are purged: each is either
// gone or alive with all its spans.
func TestRevivedWhilePurged(t *testing.T) {
	database := mongotest.Database(t)
	a, b := openPartition(t, database, ""), openPartition(t, database, "")
	const n = 40
	var rs []*queue.Record
	var spans []queue.Span
	for i := range n {
		r := queue.NewRecord(fmt.Sprint("ro-", i), queue.Request{}, true, 1)
		r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutFailed)}, 2)
		rs = append(rs, r)
		spans = append(spans, queue.Span{RolloutID: fmt.Sprint("ro-", i), AttemptID: "at-1", SpanID: "a", Attributes: rawjson.EmptyObject})
	}
	if err := a.Atomic(t.Context(), func(tx collections.Tx) error { return tx.InsertRollouts(rs) }); err != nil {
		t.Fatal(err)
	}
	if _, err := a.InsertSpans(t.Context(), spans); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		done <- purgeTwice(t.Context(), b, collections.Cutoffs{Now: 1000, Finished: 500}, collections.Cutoffs{Now: 2000, Finished: 500})
	}()
	for i := range n {
		err := a.Atomic(t.Context(), func(tx collections.Tx) error {
			r, err := tx.Rollout(fmt.Sprint("ro-", i))
			if err != nil || r == nil {
				return err
			}
			r = r.Clone()
			r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutQueuing)}, 3)
			return tx.PutRollout(r)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	alive := int64(0)
	for i := range n {
		id := fmt.Sprint("ro-", i)
		got, err := a.Records(t.Context(), []string{id})
		if err != nil {
			t.Fatal(err)
		}
		page, err := a.QuerySpans(t.Context(), queue.SpanQuery{RolloutID: id, Paging: queue.All})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(page.Items) {
			t.Errorf("%d rollouts %s, and %d spans", len(got), id, len(page.Items))
		}
		alive += int64(len(got))
	}
	byStatus, _, err := a.Counted(t.Context())
	if err != nil || byStatus[queue.RolloutQueuing] != alive || byStatus[queue.RolloutFailed] != 0 {
		t.Errorf("counts %v with %d alive, %v", byStatus, alive, err)
	}
	t.Logf("%d of %d were revived", alive, n)
}

// TestPurgeThatFindsNothingAgain revives the only old rollout while it is being
// purged: the transaction runs again and finds nothing. Nothing is awaited then.
func TestPurgeThatFindsNothingAgain(t *testing.T) {
	var other *mongo.Backend
	var meddle atomic.Bool
	watch := &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if name, _ := e.Command.Lookup("update").StringValueOK(); name == "rollouts" && meddle.CompareAndSwap(true, false) {
			_, err := other.Handle().Collection("rollouts").UpdateOne(t.Context(), bson.D{},
				bson.D{{Key: "$set", Value: bson.D{{Key: "st", Value: "requeuing"}, {Key: "q", Value: int64(1)}}}})
			if err != nil {
				t.Error(err)
			}
		}
	}}
	other, b := two(t, 0, watch)
	ctx := t.Context()
	r := queue.NewRecord("ro-1", queue.Request{}, true, 1)
	r.Begin("at-1", nil, true, 0, 1)
	r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutSucceeded)}, 2)
	if err := other.Atomic(ctx, func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r}) }); err != nil {
		t.Fatal(err)
	}
	meddle.Store(true)
	out, err := b.Purge(ctx, collections.Cutoffs{Now: 1000, Finished: 500})
	if err != nil || out.Rollouts != 0 || meddle.Load() {
		t.Fatal(out, err, meddle.Load())
	}
	if n := b.Awaited(); n != 0 {
		t.Errorf("the writes of %d sections are waited for, for ever", n)
	}
}
