package mongo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func openPartition(t *testing.T, database, partition string) *mongo.Backend {
	t.Helper()
	b, err := mongo.Open(t.Context(), mongo.Options{
		URI: mongotest.URI(t), Database: database, Partition: partition, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b
}

// TestOpenAtOnce opens a new database from several places at the same time.
func TestOpenAtOnce(t *testing.T) {
	database := mongotest.Database(t)
	var group sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		group.Go(func() {
			b, err := mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database})
			if err == nil {
				err = b.Close(context.Background())
			}
			errs[i] = err
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	database := mongotest.Database(t)
	b := openPartition(t, database, "")
	_, err := b.Handle().Collection("schema").UpdateByID(t.Context(), "schema", bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: 99}}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database})
	if queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "upgrade aglq") {
		t.Errorf("opening a newer schema: %v", err)
	}
}

func TestDatabaseName(t *testing.T) {
	name := mongotest.Database(t)
	base, rest, _ := strings.Cut(strings.TrimPrefix(mongotest.URI(t), "mongodb://"), "/")
	_, query, _ := strings.Cut(rest, "?")
	uri := fmt.Sprintf("mongodb://%s/%s?%s", base, name, query)
	b, err := mongo.Open(t.Context(), mongo.Options{URI: uri})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	if got := b.Handle().Name(); got != name {
		t.Errorf("database of the URI: %s, want %s", got, name)
	}
	if _, err := mongo.Open(t.Context(), mongo.Options{URI: "postgres://x"}); queue.KindOf(err) != queue.Invalid {
		t.Errorf("opening a foreign URI: %v", err)
	}
}

// TestPartitions keeps data apart whose names are made to be confused.
func TestPartitions(t *testing.T) {
	database := mongotest.Database(t)
	names := []string{"a", "a/b", "a%2Fb", "b"}
	ids := []string{"b/c", "c", "c", "c"}
	var backends []*mongo.Backend
	for i, name := range names {
		b := openPartition(t, database, name)
		backends = append(backends, b)
		err := b.Atomic(t.Context(), func(tx collections.Tx) error {
			return errors.Join(
				tx.InsertRollouts([]*queue.Record{queue.NewRecord(ids[i], queue.Request{}, true, 1)}),
				tx.PutWorker(queue.NewWorker(name+"-worker")))
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.InsertSpans(t.Context(), []queue.Span{{RolloutID: "c", AttemptID: "d/e", SpanID: "f"}, {RolloutID: "c", AttemptID: "d", SpanID: "e/f"}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range backends {
		st, err := b.Statistics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Rollouts != 1 || st.Workers != 1 || st.Spans != 2 || st.ByStatus[queue.RolloutQueuing] != 1 {
			t.Errorf("partition %s: %+v", names[i], st)
		}
		if rs, err := b.Records(t.Context(), ids); err != nil || len(rs) != 1 {
			t.Errorf("partition %s has %d of the records, error %v", names[i], len(rs), err)
		}
	}
}

// TestTooLarge refuses what no document can hold, naming the size, and leaves
// the rest of the section to the caller.
func TestTooLarge(t *testing.T) {
	b := mongotest.Open(t)
	// Two documents of 15 MiB take their time on a busy machine.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	huge := rawjson.Value(`"` + strings.Repeat("x", 16<<20) + `"`)
	nearly := rawjson.Value(`"` + strings.Repeat("x", 15<<20) + `"`)
	wantTooLarge := func(what string, err error) {
		t.Helper()
		if queue.KindOf(err) != queue.TooLarge || !strings.Contains(err.Error(), "1677") {
			t.Errorf("%s: %.200v", what, err)
		}
	}
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		wantTooLarge("insert", tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro-1", queue.Request{Input: huge}, true, 1)}))
		full := rawjson.Value(`"` + strings.Repeat("x", 16<<20-20<<10) + `"`) // no room for attempts
		if err := tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro-1", queue.Request{Input: full}, true, 1)}); queue.KindOf(err) != queue.TooLarge {
			t.Errorf("a rollout that could never be claimed: %.200v", err)
		}
		wantTooLarge("worker", tx.PutWorker(&queue.Worker{WorkerID: "w-1", HeartbeatStats: huge}))
		wantTooLarge("resources", tx.PutResources(&queue.ResourcesUpdate{ResourcesID: "rs-1", Resources: huge}))
		return tx.InsertRollouts([]*queue.Record{
			queue.NewRecord("ro-2", queue.Request{Input: nearly}, true, 1), queue.NewRecord("ro-3", queue.Request{Input: nearly}, true, 1),
		})
	})
	if err != nil {
		t.Fatalf("a section with members that were refused: %v", err)
	}
	err = b.Atomic(ctx, func(tx collections.Tx) error {
		r, err := tx.Rollout("ro-2")
		if err != nil {
			return err
		}
		r = r.Clone()
		r.Update(queue.RolloutUpdate{Metadata: queue.Set(nearly)}, 2)
		err = tx.PutRollout(r)
		wantGrown := queue.KindOf(err) == queue.TooLarge
		if !wantGrown {
			t.Errorf("growing a rollout: %.200v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := b.InsertSpans(ctx, []queue.Span{{RolloutID: "ro-2", AttemptID: "a", SpanID: "1"}, {RolloutID: "ro-2", AttemptID: "a", SpanID: "2", Name: huge.String()}})
	wantTooLarge("span", err)
	if stored != nil {
		t.Error("spans are stored beside one that is refused")
	}
	rs, err := b.Records(ctx, []string{"ro-1", "ro-2", "ro-3"})
	if err != nil || len(rs) != 2 || !bytes.Equal(rs[0].Rollout.Input, nearly) {
		t.Errorf("%d records, error %v", len(rs), err)
	}
}

// TestCountsStayExact races sections of several stores on one partition.
func TestCountsStayExact(t *testing.T) {
	database := mongotest.Database(t)
	const stores, each = 3, 20
	var group sync.WaitGroup
	errs := make([]error, stores)
	ack := acknowledged{claimed: map[string]bool{}, spans: map[string]int{}}
	for i := range stores {
		b := openPartition(t, database, "")
		group.Go(func() {
			for n := range each {
				err := b.Atomic(t.Context(), func(tx collections.Tx) error {
					return tx.InsertRollouts([]*queue.Record{queue.NewRecord(fmt.Sprintf("ro-%d-%d", i, n), queue.Request{}, true, 1)})
				})
				errs[i] = errors.Join(errs[i], err)
				ack.claim(t.Context(), b, fmt.Sprint("w-", i))
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil || ack.maybe > 0 {
		t.Fatalf("%d claims failed; %v", ack.maybe, err)
	}
	if ack.count() != stores*each {
		t.Errorf("%d of %d rollouts were claimed", ack.count(), stores*each)
	}
	ack.check(t, openPartition(t, database, ""))
}

// TestHeartbeatIsSmall checks that an unchanged input is not sent again.
func TestHeartbeatIsSmall(t *testing.T) {
	r := queue.NewRecord("ro-1", queue.Request{Input: rawjson.Value(`"` + strings.Repeat("x", 100_000) + `"`)}, true, 1)
	w := "w-1"
	r.Begin("at-1", &w, true, 0, 2)
	after := r.Clone()
	after.SpansStored("at-1", 3, 4)
	if n := len(mongo.Change(r, after)); n > 400 {
		t.Errorf("a heartbeat is an update of %d bytes", n)
	}
}

func TestNumbersFollowTheQueue(t *testing.T) {
	first := mongo.NumberAfter(0)
	if next := mongo.NumberAfter(first + 5_000_000); next <= first+5_000_000 {
		t.Errorf("number %d does not follow the last place %d", next, first+5_000_000)
	}
	if next := mongo.NumberAfter(1 << 62); next >= 1<<62 {
		t.Error("a place from the far future was followed")
	}
}
