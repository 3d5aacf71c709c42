package mongo_test

import (
	"context"
	"log/slog"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	monitor "go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// TestNumbersOfAnotherPrimary stores spans by another primary than issued their
// numbers, which may not have the counter: it is made again.
func TestNumbersOfAnotherPrimary(t *testing.T) {
	b := mongotest.Open(t)
	ctx := t.Context()
	first, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: 3}}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Handle().Collection("span_sequence_ids").DeleteMany(ctx, bson.D{}); err != nil { // as a failover does
		t.Fatal(err)
	}
	b.NumberedByAnother()
	spans := []queue.Span{
		{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "1", SequenceID: first[0]},
		{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "3", SequenceID: first[0] + 2},
	}
	if _, err := b.InsertSpans(ctx, spans); err != nil {
		t.Fatal(err)
	}
	next, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: 1}}, true)
	if err != nil || next[0] != first[0]+3 {
		t.Errorf("after number %d came %d, %v", first[0]+2, next[0], err)
	}
}

// TestReceiptsOfAnotherPrimary writes rollouts by another primary than the receipt
// that refers to them.
func TestReceiptsOfAnotherPrimary(t *testing.T) {
	ctx := t.Context()
	var b *mongo.Backend
	// The old primary's receipts are gone before the rollouts are written.
	forget := &monitor.CommandMonitor{Started: func(ctx context.Context, e *monitor.CommandStartedEvent) {
		if name, _ := e.Command.Lookup("update").StringValueOK(); name == "rollouts" {
			if _, err := b.Handle().Collection("receipts").DeleteMany(context.WithoutCancel(ctx), bson.D{}); err != nil {
				t.Error(err)
			}
		}
	}}
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: slog.New(slog.DiscardHandler)}
	b, err := mongo.OpenWith(ctx, o, options.Client().SetMonitor(forget))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	err = b.Atomic(ctx, func(tx collections.Tx) error {
		return tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro-1", queue.Request{}, true, 1)})
	})
	if err != nil {
		t.Fatal(err)
	}
	lost, err := b.SeparatelyByAnother(ctx, func(tx collections.Tx) error {
		rs, err := tx.Head(1)
		if err != nil {
			return err
		}
		if err := claimFor(tx, rs[0], "w"); err != nil {
			return err
		}
		return tx.PutReceipt(&collections.Receipt{Key: "k", Operation: "claim", Refs: []queue.AttemptRef{{RolloutID: "ro-1", AttemptID: "at-1"}}})
	})
	if err != nil || lost.Some() {
		t.Fatalf("lost %v, %v", lost, err)
	}
	err = b.Atomic(ctx, func(tx collections.Tx) error {
		r, err := tx.Receipt("k")
		if err == nil && r == nil {
			t.Error("the receipt is lost")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
