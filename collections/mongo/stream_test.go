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

// TestRecountEndsTheWait counts anew: what was written before is counted, and
// will never come by the stream.
func TestRecountEndsTheWait(t *testing.T) {
	b := mongotest.Open(t)
	if err := b.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.Awaited(); n != 0 {
		t.Errorf("the writes of %d sections are waited for", n)
	}
}

// TestBrokenOpen breaks off at the last step: nothing is left running, as
// TestMain makes sure.
func TestBrokenOpen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	broken := options.Client().SetMonitor(&monitor.CommandMonitor{Started: func(_ context.Context, e *monitor.CommandStartedEvent) {
		if e.CommandName == "aggregate" {
			cancel()
		}
	}})
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: slog.New(slog.DiscardHandler)}
	if _, err := mongo.OpenWith(ctx, o, broken); err == nil {
		t.Error("opened all the same")
	}
}

// TestCountsOfOthersAtOnce reads, right after Open, counts that another process
// has not left behind.
func TestCountsOfOthersAtOnce(t *testing.T) {
	_, b := two(t, 5, nil)
	got, _, err := b.Counted(t.Context())
	if err != nil || got[queue.RolloutQueuing] != 5 {
		t.Errorf("counted %v, %v", got, err)
	}
}

// TestLateWriteIsNews makes a write of this process that nobody waits for any
// more, as after a call whose outcome was unknown: it is told like one of others.
func TestLateWriteIsNews(t *testing.T) {
	_, b := two(t, 1, nil)
	news := make(chan collections.News, 10)
	defer b.Watch(func(n collections.News) { news <- n })()
	late := bson.D{{Key: "$set", Value: bson.D{{Key: "v", Value: b.OwnFinish()}}}}
	if _, err := b.Handle().Collection("rollouts").UpdateOne(t.Context(), bson.D{}, late); err != nil {
		t.Fatal(err)
	}
	for n := range news {
		if n.Finished == "r0" {
			break
		}
	}
}

// TestRevisionTellsOfManyAttempts holds for rollouts that are imported or
// deleted with all of their attempts.
func TestRevisionTellsOfManyAttempts(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 600, -600, 8191, -8191} {
		if got := mongo.Marked(n); got != n {
			t.Errorf("%d attempts are told as %d", n, got)
		}
	}
}
