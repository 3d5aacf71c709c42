package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// acknowledged is what a backend has said is stored.
type acknowledged struct {
	mu      sync.Mutex
	made    []string
	claimed map[string]bool
	spans   map[string]int
	twice   []string // claimed twice
	maybe   int      // claims whose outcome is unknown
}

// TestKilledServer kills mongod under load, twice: whatever was acknowledged is
// there afterwards, nothing is done by halves, and the backend goes on without
// being opened again.
func TestKilledServer(t *testing.T) {
	server := mongotest.Start(t)
	b, err := mongo.Open(t.Context(), mongo.Options{URI: server.URI(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	ack := acknowledged{claimed: map[string]bool{}, spans: map[string]int{}}
	for round := range 2 {
		var stop atomic.Bool // calls are not cut short: what they do would go on in the server
		var load sync.WaitGroup
		for worker := range 4 {
			load.Go(func() { ack.work(t.Context(), &stop, b, fmt.Sprintf("%d-%d", round, worker)) })
		}
		waitFor(t, func() bool { return ack.count() >= 60*(2*round+1) })
		server.Kill()
		if err := pingFor(t, b, 200*time.Millisecond); queue.KindOf(err) != queue.Unavailable {
			t.Errorf("Ping of a dead server: %v of kind %v, want unavailable", err, queue.KindOf(err))
		}
		server.Restart(t)
		after := ack.count()
		waitFor(t, func() bool { return ack.count() >= after+60 })
		stop.Store(true)
		load.Wait()
		ack.check(t, b)
	}
}

func pingFor(t *testing.T, b *mongo.Backend, d time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return b.Ping(ctx)
}

func waitFor(t *testing.T, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no progress for a minute")
		}
	}
}

func (a *acknowledged) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.claimed)
}

// work enqueues, claims and stores spans until it is told to stop.
func (a *acknowledged) work(ctx context.Context, stop *atomic.Bool, b *mongo.Backend, name string) {
	for i := 0; !stop.Load(); i++ {
		ids := []string{fmt.Sprintf("ro-%s-%d-a", name, i), fmt.Sprintf("ro-%s-%d-b", name, i)}
		err := b.Atomic(ctx, func(tx collections.Tx) error {
			return tx.InsertRollouts([]*queue.Record{
				queue.NewRecord(ids[0], queue.Request{}, true, 1), queue.NewRecord(ids[1], queue.Request{}, true, 1),
			})
		})
		if err == nil {
			a.note(func() { a.made = append(a.made, ids...) })
		}
		a.claim(ctx, b, name)
	}
}

func (a *acknowledged) note(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *acknowledged) claim(ctx context.Context, b *mongo.Backend, worker string) {
	var got []string
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		got = nil
		rs, err := tx.Head(1)
		if err != nil {
			return err
		}
		for _, r := range rs {
			got = append(got, r.Rollout.RolloutID)
			if err := claimFor(tx, r, worker); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.note(func() { a.maybe++ })
		return
	}
	for _, id := range got {
		a.note(func() {
			if a.claimed[id] {
				a.twice = append(a.twice, id)
			}
		})
		spans := []queue.Span{
			{RolloutID: id, AttemptID: "at-1", SpanID: "1", SequenceID: 1},
			{RolloutID: id, AttemptID: "at-1", SpanID: "2", SequenceID: 2},
		}
		_, err := b.InsertSpans(ctx, spans)
		a.note(func() {
			a.claimed[id] = true
			if err == nil {
				a.spans[id] = len(spans)
			}
		})
	}
}

// check compares what is stored with what was acknowledged.
func (a *acknowledged) check(t *testing.T, b *mongo.Backend) {
	t.Helper()
	ctx := t.Context()
	found, err := b.QueryRollouts(ctx, queue.RolloutQuery{Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]*queue.Record{}
	byStatus, attempts, begun := map[queue.RolloutStatus]int64{}, int64(0), 0
	for _, r := range found.Items {
		byID[r.Rollout.RolloutID] = r
		byStatus[r.Rollout.Status]++
		attempts += int64(len(r.Attempts))
		begun += len(r.Attempts)
		if (r.Place > 0) == (len(r.Attempts) > 0) {
			t.Errorf("%s is half claimed: place %d, %d attempts", r.Rollout.RolloutID, r.Place, len(r.Attempts))
		}
	}
	for _, id := range a.made {
		if byID[id] == nil {
			t.Errorf("acknowledged rollout %s is lost", id)
		}
	}
	if len(a.twice) > 0 {
		t.Errorf("claimed twice: %q", a.twice)
	}
	for id := range a.claimed {
		if r := byID[id]; r == nil || len(r.Attempts) != 1 {
			t.Errorf("acknowledged claim of %s is lost: %v", id, r)
		}
	}
	if begun > len(a.claimed)+a.maybe {
		t.Errorf("%d attempts were begun by %d claims", begun, len(a.claimed)+a.maybe)
	}
	for id, n := range a.spans {
		page, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: id, Paging: queue.All})
		if err != nil || len(page.Items) != n {
			t.Errorf("%s has %d spans, error %v; %d were acknowledged", id, len(page.Items), err, n)
		}
	}
	counted, countedAttempts, err := b.Counted(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range queue.RolloutStatuses {
		if counted[status] != byStatus[status] {
			t.Errorf("counted %d rollouts %s, there are %d", counted[status], status, byStatus[status])
		}
	}
	if countedAttempts != attempts {
		t.Errorf("counted %d attempts, there are %d", countedAttempts, attempts)
	}
}

// TestUnreachable checks that a lost server is reported as such by every kind
// of call, within the caller's deadline.
func TestUnreachable(t *testing.T) {
	server := mongotest.Start(t)
	b, err := mongo.Open(t.Context(), mongo.Options{URI: server.URI(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	server.Kill()
	calls := map[string]func(ctx context.Context) error{
		"atomic": func(ctx context.Context) error {
			return b.Atomic(ctx, func(tx collections.Tx) error {
				return tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro-1", queue.Request{}, true, 1)})
			})
		},
		"read in a section": func(ctx context.Context) error {
			return b.Atomic(ctx, func(tx collections.Tx) error { _, err := tx.Rollout("ro-1"); return err })
		},
		"single write": func(ctx context.Context) error {
			return b.Atomic(ctx, func(tx collections.Tx) error { return tx.PutWorker(queue.NewWorker("w-1")) })
		},
		"spans": func(ctx context.Context) error {
			_, err := b.InsertSpans(ctx, []queue.Span{{RolloutID: "ro-1", Attributes: rawjson.EmptyObject}})
			return err
		},
		"statistics": func(ctx context.Context) error { _, err := b.Statistics(ctx); return err },
		"list": func(ctx context.Context) error {
			_, err := b.QueryRollouts(ctx, queue.RolloutQuery{Paging: queue.All})
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err := call(ctx)
			var e *queue.Error
			if !errors.As(err, &e) || e.Kind != queue.Unavailable {
				t.Errorf("error %v of kind %v, want unavailable", err, queue.KindOf(err))
			}
		})
	}
}

// TestDeadProcess leaves a transaction behind, as a killed store does. Sections
// that write to the same documents go on long before the server's time limit of
// a minute.
func TestDeadProcess(t *testing.T) {
	b := mongotest.Open(t)
	ctx := t.Context()
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		return errors.Join(
			tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro-1", queue.Request{}, true, 1)}),
			tx.PutWorker(queue.NewWorker("w-1")))
	})
	if err != nil {
		t.Fatal(err)
	}
	abandon := func(collection string) {
		dead, err := mongo.Open(ctx, mongo.Options{URI: mongotest.URI(t), Database: b.Handle().Name()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dead.Close(context.Background()) })
		sess, err := dead.Handle().Client().StartSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.StartTransaction(); err != nil {
			t.Fatal(err)
		}
		_, err = dead.Handle().Collection(collection).UpdateMany(driver.NewSessionContext(ctx, sess),
			bson.D{}, bson.D{{Key: "$set", Value: bson.D{{Key: "l", Value: 9}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	abandon("rollouts")
	if ids := claimIDs(t, b); len(ids) != 1 {
		t.Errorf("claimed %q", ids)
	}
	abandon("workers")
	err = b.Atomic(ctx, func(tx collections.Tx) error {
		w := queue.NewWorker("w-1")
		w.Beat(nil, 5)
		return tx.PutWorker(w)
	})
	if err != nil {
		t.Errorf("a single write: %v", err)
	}
}

func claimIDs(t *testing.T, b *mongo.Backend) []string {
	a := acknowledged{claimed: map[string]bool{}, spans: map[string]int{}}
	a.claim(t.Context(), b, "w-1")
	if a.maybe > 0 {
		t.Error("the claim failed")
	}
	return slices.Collect(maps.Keys(a.claimed))
}

// TestNumbersOfKilledServer kills mongod between the numbers, which wait for no
// journal, and the insert of the spans, which finds the server restarted.
func TestNumbersOfKilledServer(t *testing.T) {
	server := mongotest.Start(t)
	ctx := t.Context()
	b, err := mongo.Open(ctx, mongo.Options{URI: server.URI(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	entries := []collections.Counter{{RolloutID: "ro-1", N: 3}}
	if _, err := b.NextSequence(ctx, entries, true); err != nil { // 1 to 3, durable
		t.Fatal(err)
	}
	insert := func(id string, number int64) {
		t.Helper()
		if _, err := b.InsertSpans(ctx, []queue.Span{{RolloutID: "ro-1", AttemptID: "at-1", SpanID: id, SequenceID: number}}); err != nil {
			t.Fatal(err)
		}
	}
	insert("1", 1)
	first, err := b.NextSequence(ctx, entries, false) // 4 to 6
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	server.Restart(t)
	waitFor(t, func() bool { return pingFor(t, b, 5*time.Second) == nil })
	insert("2", first[0]+2)
	next, err := b.NextSequence(ctx, entries, true)
	if err != nil || next[0] <= first[0]+2 {
		t.Errorf("a span is stored under number %d, and the next number issued is %d, %v", first[0]+2, next[0], err)
	}
}
