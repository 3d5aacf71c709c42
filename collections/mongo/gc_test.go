package mongo_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func openJanitor(t *testing.T, database string) *mongo.Janitor {
	t.Helper()
	j, err := mongo.OpenJanitor(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close(context.Background()) })
	return j
}

// fillPartition leaves something in every collection.
func fillPartition(t *testing.T, b *mongo.Backend) {
	t.Helper()
	ctx := t.Context()
	input := rawjson.Value(`"` + strings.Repeat("x", 200_000) + `"`)
	if err := b.Stage(ctx, 1000, &input); err != nil {
		t.Fatal(err)
	}
	abandoned := rawjson.Value(`"` + strings.Repeat("y", 2000) + `"`)
	if err := b.Stage(ctx, 1000, &abandoned); err != nil {
		t.Fatal(err)
	}
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		if err := tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro", queue.Request{Input: input}, true, 1)}); err != nil {
			return err
		}
		if err := tx.PutWorker(queue.NewWorker("w")); err != nil {
			return err
		}
		if err := tx.PutReceipt(&collections.Receipt{Key: "k", Operation: "x", Time: 1}); err != nil {
			return err
		}
		return tx.PutResources(&queue.ResourcesUpdate{ResourcesID: "rs", Resources: rawjson.EmptyObject})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.InsertSpans(ctx, []queue.Span{{RolloutID: "ro", AttemptID: "at", SpanID: "s", Attributes: rawjson.EmptyObject}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro", N: 1}}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Purge(ctx, collections.Cutoffs{Now: 1}); err != nil { // takes a lease
		t.Fatal(err)
	}
}

// contents counts the documents of a database by collection, without the
// version and the list of partitions.
func contents(t *testing.T, b *mongo.Backend) map[string]int64 {
	t.Helper()
	names, err := b.Handle().ListCollectionNames(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, name := range names {
		n, err := b.Handle().Collection(name).CountDocuments(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$ne", Value: "schema"}}}})
		if err != nil {
			t.Fatal(err)
		}
		out[name] = n
	}
	return out
}

// rest makes a partition look unused for a time.
func rest(t *testing.T, b *mongo.Backend, name string, d time.Duration) {
	t.Helper()
	_, err := b.Handle().Collection("partitions").UpdateByID(t.Context(), name,
		bson.D{{Key: "$set", Value: bson.D{{Key: "seen", Value: time.Now().Add(-d)}}}})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDrop drops partitions whose names are made to be confused, and leaves
// nothing of them and everything of the others.
func TestDrop(t *testing.T) {
	database := mongotest.Database(t)
	names := []string{"a", "a/b", "a%2Fb", "b"}
	for _, name := range names {
		fillPartition(t, openPartition(t, database, name))
	}
	b := openPartition(t, database, "b")
	each := contents(t, b)
	for name, n := range each {
		if n == 0 || n%4 != 0 {
			t.Errorf("%d documents in %s: each partition is to have some", n, name)
		}
		each[name] = n / 4
	}
	j := openJanitor(t, database)
	if err := j.Drop(t.Context(), "a", nil); queue.KindOf(err) != queue.Conflict || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("dropping a partition in use: %v", err)
	}
	if err := j.Drop(t.Context(), "none", nil); queue.KindOf(err) != queue.NotFound {
		t.Fatalf("dropping what is not there: %v", err)
	}
	for i, name := range names[:3] {
		rest(t, b, name, time.Hour)
		told := int64(0)
		if err := j.Drop(t.Context(), name, func(n int64) { told = n }); err != nil {
			t.Fatal(err)
		}
		if told == 0 {
			t.Error("no progress was told")
		}
		for collection, n := range contents(t, b) {
			if want := each[collection] * int64(3-i); n != want {
				t.Errorf("%d documents in %s after dropping %s, want %d", n, collection, name, want)
			}
		}
	}
	found, err := j.Partitions(t.Context())
	if err != nil || len(found) != 1 || found[0].Name != "b" || found[0].Rollouts != 1 || found[0].Spans != 1 {
		t.Errorf("left are %+v, %v", found, err)
	}
}

// TestBrokenDrop breaks a drop off at each of its commands: the partition cannot
// be opened until another drop has ended it.
func TestBrokenDrop(t *testing.T) {
	database := mongotest.Database(t)
	b := openPartition(t, database, "")
	empty := contents(t, b)
	for stopAt := 1; ; stopAt++ {
		name := fmt.Sprint("p", stopAt)
		p := openPartition(t, database, name)
		fillPartition(t, p)
		_ = p.Close(context.Background())
		rest(t, b, name, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		j := openJanitor(t, database)
		told := 0
		err := j.Drop(ctx, name, func(int64) {
			if told++; told == stopAt {
				cancel()
			}
		})
		cancel()
		if err == nil {
			break // it ended before it could be broken off
		}
		if _, err := mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database, Partition: name}); queue.KindOf(err) != queue.Conflict {
			t.Fatalf("opening a partition that is half gone: %v", err)
		}
		if err := j.Drop(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	for collection, n := range contents(t, b) {
		if n != empty[collection] {
			t.Errorf("%d documents in %s after all, %d before", n, collection, empty[collection])
		}
	}
}
