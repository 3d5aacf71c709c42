package mongo_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// version is what the database says.
func version(t *testing.T, b *mongo.Backend) int64 {
	t.Helper()
	var doc struct {
		Version int64 `bson:"version"`
	}
	if err := b.Handle().Collection("schema").FindOne(t.Context(), bson.D{{Key: "_id", Value: "schema"}}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc.Version
}

// TestFirstSchema opens a database as version 1 left it.
func TestFirstSchema(t *testing.T) {
	database := mongotest.Database(t)
	for _, name := range []string{"a", "b"} {
		b := openPartition(t, database, name)
		err := b.Atomic(t.Context(), func(tx collections.Tx) error {
			return errors.Join(tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro", queue.Request{}, true, 1)}), tx.PutWorker(queue.NewWorker("w")))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	old := openPartition(t, database, "a").Handle()
	lane := bson.D{{Key: "_id", Value: "a/7"}, {Key: "p", Value: "a"}, {Key: "queuing", Value: 1}}
	if _, err := old.Collection("rollout_counts").InsertOne(t.Context(), lane); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"partitions", "waste", "payloads"} {
		if err := old.Collection(name).Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := old.Collection("schema").UpdateByID(t.Context(), "schema", bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: int64(1)}}}}); err != nil {
		t.Fatal(err)
	}

	b := openPartition(t, database, "c")
	if got := version(t, b); got != mongo.SchemaVersion() {
		t.Errorf("version %d after opening, want %d", got, mongo.SchemaVersion())
	}
	if n, err := old.Collection("rollout_counts").CountDocuments(t.Context(), bson.D{{Key: "_id", Value: "a/7"}}); n != 0 || err != nil {
		t.Errorf("%d counts of the old kind are left, %v", n, err)
	}
	j := openJanitor(t, database)
	found, err := j.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range found {
		names = append(names, p.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("partitions %q, want a, b and c", names)
	}
	st, err := openPartition(t, database, "b").Statistics(t.Context())
	if err != nil || st.Rollouts != 1 {
		t.Errorf("%d rollouts after the migration, %v", st.Rollouts, err)
	}
}

// TestMigrationRunsOnce opens from several places while one of them migrates.
func TestMigrationRunsOnce(t *testing.T) {
	database := mongotest.Database(t)
	var runs, running atomic.Int32
	step := func(ctx context.Context, progress func(int64)) error {
		if running.Add(1) > 1 {
			t.Error("two processes migrate at a time")
		}
		runs.Add(1)
		for n := range int64(20) {
			progress(n)
			time.Sleep(5 * time.Millisecond) // long enough for the others to come
		}
		running.Add(-1)
		return ctx.Err()
	}
	var opened []*mongo.Backend
	for range 4 {
		opened = append(opened, openPartition(t, database, ""))
	}
	var group sync.WaitGroup
	for _, b := range opened {
		group.Go(func() {
			if err := b.Migrate(t.Context(), step, step); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := runs.Load(); got != 2 {
		t.Errorf("two steps ran %d times", got)
	}
}

// TestBrokenMigration goes on with the step that failed, not with those before.
func TestBrokenMigration(t *testing.T) {
	database := mongotest.Database(t)
	b := openPartition(t, database, "")
	first, second := 0, 0
	broken := errors.New("broken off")
	steps := []func(context.Context, func(int64)) error{
		func(context.Context, func(int64)) error { first++; return nil },
		func(context.Context, func(int64)) error {
			if second++; second == 1 {
				return broken
			}
			return nil
		},
	}
	if err := b.Migrate(t.Context(), steps...); !errors.Is(err, broken) {
		t.Fatalf("a step that fails: %v", err)
	}
	if got := version(t, b); got != mongo.SchemaVersion()+1 {
		t.Errorf("version %d after the first step", got)
	}
	other := openPartitionUnchecked(t, database, b)
	if err := other.Migrate(t.Context(), steps...); err != nil {
		t.Fatal(err)
	}
	if first != 1 || second != 2 || version(t, b) != mongo.SchemaVersion()+2 {
		t.Errorf("steps ran %d and %d times, version %d", first, second, version(t, b))
	}
	_, err := mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database})
	if queue.KindOf(err) != queue.Invalid {
		t.Errorf("opening the newer schema: %v", err)
	}
}

// openPartitionUnchecked is a second process, opened before the schema changed.
func openPartitionUnchecked(t *testing.T, database string, b *mongo.Backend) *mongo.Backend {
	t.Helper()
	now := version(t, b)
	set := func(v int64) {
		_, err := b.Handle().Collection("schema").UpdateByID(t.Context(), "schema", bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: v}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	set(mongo.SchemaVersion())
	defer set(now)
	return openPartition(t, database, "")
}

func TestLease(t *testing.T) {
	database := mongotest.Database(t)
	a, b := openPartition(t, database, ""), openPartition(t, database, "")
	take := func(who *mongo.Backend, life time.Duration) bool {
		t.Helper()
		held, err := who.Hold(t.Context(), "x", life)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	if !take(a, time.Hour) || take(b, time.Hour) || !take(a, time.Hour) {
		t.Fatal("the first to take a lease has it, and may renew it")
	}
	b.Release(t.Context(), "x")
	if take(b, time.Hour) {
		t.Error("a process gave back the lease of another")
	}
	a.Release(t.Context(), "x")
	if !take(b, time.Millisecond) {
		t.Error("a lease that was given back is not free")
	}
	waitFor(t, func() bool { return take(a, time.Hour) }) // it ends by itself
}
