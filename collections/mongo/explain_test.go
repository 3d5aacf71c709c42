package mongo_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// commands records what a backend sends.
type commands struct {
	mu   sync.Mutex
	sent []bson.Raw
}

func (c *commands) take() []bson.Raw {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.sent
	c.sent = nil
	return out
}

func (c *commands) monitor() *event.CommandMonitor {
	return &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		switch e.CommandName {
		case "find", "aggregate", "update", "findAndModify":
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sent = append(c.sent, append(bson.Raw(nil), e.Command...))
		}
	}}
}

// cost is what the server looked at for a command.
type cost struct{ keys, docs, returned int64 }

// explain runs a command that was sent once more, under explain.
func explain(t *testing.T, db *driver.Database, command bson.Raw) (plan string, c cost) {
	t.Helper()
	var again bson.D
	elements, err := command.Elements()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range elements {
		switch e.Key() {
		case "lsid", "$db", "$clusterTime", "txnNumber", "startTransaction", "autocommit", "writeConcern", "$readPreference", "readConcern", "maxTimeMS":
		default:
			again = append(again, bson.E{Key: e.Key(), Value: e.Value()})
		}
	}
	raw, err := db.RunCommand(t.Context(), bson.D{{Key: "explain", Value: again}, {Key: "verbosity", Value: "executionStats"}}).Raw()
	if err != nil {
		t.Fatalf("explain %s: %v", command, err)
	}
	stats, err := raw.LookupErr("executionStats")
	if err != nil {
		// An aggregation reports its query under its first stage.
		stats = raw.Lookup("stages", "0", "$cursor", "executionStats")
	}
	number := func(name string) int64 { n, _ := stats.Document().Lookup(name).AsInt64OK(); return n }
	return raw.String(), cost{keys: number("totalKeysExamined"), docs: number("totalDocsExamined"), returned: number("nReturned")}
}

func openWatched(t *testing.T) (*mongo.Backend, *commands) {
	t.Helper()
	var c commands
	b, err := mongo.OpenWith(t.Context(), mongo.Options{
		URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: slog.New(slog.DiscardHandler),
	}, options.Client().SetMonitor(c.monitor()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b, &c
}

const many = 5000

// fillQueue stores many rollouts: most queued, some running with a limit, some
// finished, and as many in another partition.
func fillQueue(t *testing.T, b *mongo.Backend) {
	t.Helper()
	limit := 60.0
	for from := 0; from < many; from += 500 {
		var rs []*queue.Record
		for i := from; i < from+500; i++ {
			r := queue.NewRecord(fmt.Sprintf("ro-%05d", i), queue.Request{
				Input: rawjson.Value(`{"n":1}`), Config: &queue.Config{MaxAttempts: 1, TimeoutSeconds: &limit},
			}, true, float64(1000+i/2)) // two start at a time
			switch i % 10 {
			case 0:
				w := "w-1"
				r.Begin("at-1", &w, true, 0, float64(1000+i))
			case 1:
				r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutSucceeded)}, float64(2000+i))
			}
			rs = append(rs, r)
		}
		if err := b.Atomic(t.Context(), func(tx collections.Tx) error { return tx.InsertRollouts(rs) }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingIsExaminedInVain explains each command that each call sends.
func TestNothingIsExaminedInVain(t *testing.T) {
	b, sent := openWatched(t)
	fillQueue(t, b)
	ctx := t.Context()
	var spans []queue.Span
	for i := range 2000 {
		spans = append(spans, queue.Span{
			RolloutID: fmt.Sprintf("ro-%05d", i%4), AttemptID: fmt.Sprintf("at-%d", i/4%2), SpanID: fmt.Sprint(i),
			SequenceID: int64(i/4 + 1), Attributes: rawjson.EmptyObject,
		})
	}
	if _, err := b.InsertSpans(ctx, spans); err != nil {
		t.Fatal(err)
	}
	page := func(q queue.RolloutQuery, sort string, descending bool, offset int) func() error {
		q.Paging = queue.Paging{SortBy: sort, Descending: descending, Limit: 100, Offset: offset}
		return func() error {
			got, err := b.QueryRollouts(ctx, q)
			if err == nil && len(got.Items) != 100 {
				return fmt.Errorf("page of %d of %d", len(got.Items), got.Total)
			}
			return err
		}
	}
	queued := queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutQueuing}}
	ended := queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutSucceeded, queue.RolloutPreparing, queue.RolloutFailed}}
	section := func(fn func(tx collections.Tx) error) func() error {
		return func() error { return b.Atomic(ctx, fn) }
	}
	if err := b.RaiseSequence(ctx, []collections.Counter{{RolloutID: "ro-00001", N: 1}}); err != nil {
		t.Fatal(err)
	}
	attempt := "at-1"
	calls := []struct {
		name  string
		spare int64 // keys looked at beyond what is returned: one for each range of the index and more
		call  func() error
	}{
		{"page", 0, page(queue.RolloutQuery{}, "", false, 0)},
		{"page, deep", 1000, page(queue.RolloutQuery{}, "", false, 1000)},
		{"page by start", 0, page(queue.RolloutQuery{}, "start_time", false, 0)},
		{"page by start, descending", 0, page(queue.RolloutQuery{}, "start_time", true, 0)},
		{"page of a status", 1, page(queued, "", false, 0)},
		{"page of a status by start", 1, page(queued, "start_time", false, 0)},
		{"page of a status by start, descending", 1, page(queued, "start_time", true, 0)},
		{"page of statuses", 5, page(ended, "start_time", false, 0)},
		{"page of statuses, descending", 5, page(ended, "start_time", true, 0)},
		{"records", 3, func() error { _, err := b.Records(ctx, []string{"ro-00007", "ro-00009", "ro-x"}); return err }},
		{"finished", 3, func() error { _, _, err := b.Finished(ctx, []string{"ro-00001", "ro-00002"}); return err }},
		{"has queued", 0, func() error { _, err := b.HasQueued(ctx); return err }},
		{"nothing overdue", 0, func() error { _, err := b.Overdue(ctx, 10, 200); return err }},
		{"overdue", 1, func() error { _, err := b.Overdue(ctx, 1e9, 50); return err }},
		{"head", 0, section(func(tx collections.Tx) error { _, err := tx.Head(1); return err })},
		{"claim", 0, section(func(tx collections.Tx) error {
			rs, err := tx.Head(20)
			if err != nil {
				return err
			}
			for i, r := range rs {
				if err := claimFor(tx, r, fmt.Sprintf("w-%d", i)); err != nil {
					return err
				}
			}
			return nil
		})},
		{"finish", 0, section(func(tx collections.Tx) error { return finish(tx, "ro-00010", "w-1") })},
		{"latest resources", 0, func() error { _, err := b.LatestResources(ctx); return err }},
		{"spans", 0, func() error {
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: "ro-00001", Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
			return err
		}},
		{"page of spans", 401, func() error { // and a count of all, in the index
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: "ro-00001", Paging: queue.Paging{SortBy: "sequence_id", Limit: 100}})
			return err
		}},
		{"spans of an attempt", 251, func() error { // keys, not documents, of the other attempt
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: "ro-00001", AttemptID: &attempt, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
			return err
		}},
		{"number", 1, func() error {
			_, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-00001", N: 1}}, true)
			return err
		}},
		{"raise", 1, func() error { return b.RaiseSequence(ctx, []collections.Counter{{RolloutID: "ro-00001", N: 90}}) }},
		{"worker", 0, func() error { _, err := b.Worker(ctx, "w-1"); return err }},
		{"scan of rollouts", 1, func() error { return twoPages(ctx, b.ScanRollouts) }},
		{"scan of workers", 1, func() error { return twoPages(ctx, b.ScanWorkers) }},
		{"scan of resources", 1, func() error { return twoPages(ctx, b.ScanResources) }},
		{"scan of spans", 4, func() error { // a range of the index for each rollout
			return twoPages(ctx, func(ctx context.Context, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
				return b.ScanSpans(ctx, []string{"ro-00000", "ro-00001", "ro-00003", "ro-00900"}, after, limit)
			})
		}},
		{"counters", 3, func() error { _, err := b.Counters(ctx, []string{"ro-00001", "ro-00002"}); return err }},
	}
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			sent.take()
			if err := c.call(); err != nil {
				t.Fatal(err)
			}
			list := sent.take()
			if len(list) == 0 {
				t.Fatal("the call sent nothing")
			}
			for _, command := range list {
				if updates, err := command.LookupErr("updates"); err == nil {
					explainUpdates(t, b.Handle(), command, updates)
					continue
				}
				plan, got := explain(t, b.Handle(), command)
				// Several ranges merged end with one key each beyond the page.
				if got.docs > got.returned+min(c.spare, 1) && c.spare < 1000 || got.keys > got.returned+1+c.spare {
					t.Errorf("examined %d keys and %d documents to return %d: %s\nplan: %s", got.keys, got.docs, got.returned, command, plan)
				}
				for _, bad := range []string{`"COLLSCAN"`, `"SORT"`} {
					if strings.Contains(plan, bad) {
						t.Errorf("plan has %s for %s", bad, command)
					}
				}
			}
		})
	}
}

// twoPages reads the beginning of a scan.
func twoPages[T any](ctx context.Context, page func(context.Context, collections.Cursor, int) ([]T, collections.Cursor, error)) error {
	_, next, err := page(ctx, "", 20)
	if err == nil {
		_, _, err = page(ctx, next, 600) // for spans, from within one rollout into the next
	}
	return err
}

// explainUpdates checks that each update of a command finds its document by its
// id.
func explainUpdates(t *testing.T, db *driver.Database, command bson.Raw, updates bson.RawValue) {
	t.Helper()
	list, err := updates.Array().Values()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list {
		find := bson.D{{Key: "find", Value: command.Lookup("update").StringValue()}, {Key: "filter", Value: u.Document().Lookup("q")}}
		raw, err := bson.Marshal(find)
		if err != nil {
			t.Fatal(err)
		}
		if plan, got := explain(t, db, raw); got.keys > 1 || got.docs > 1 {
			t.Errorf("update examines %d keys and %d documents: %s", got.keys, got.docs, plan)
		}
	}
}

func claimFor(tx collections.Tx, r *queue.Record, worker string) error {
	r = r.Clone()
	events := r.Begin("at-1", &worker, true, 0, 5000)
	if err := tx.PutRollout(r); err != nil {
		return err
	}
	return tell(tx, events, 5000)
}

func tell(tx collections.Tx, events []queue.WorkerEvent, now float64) error {
	for _, e := range events {
		w, err := tx.Worker(e.WorkerID)
		if err != nil {
			return err
		}
		next := queue.NewWorker(e.WorkerID)
		if w != nil {
			*next = *w
		}
		next.Apply(e, now)
		if err := tx.PutWorker(next); err != nil {
			return err
		}
	}
	return nil
}

func finish(tx collections.Tx, id, worker string) error {
	if err := tx.Prefetch([]string{id}, []string{worker}); err != nil {
		return err
	}
	r, err := tx.Rollout(id)
	if err != nil {
		return err
	}
	r = r.Clone()
	_, events, err := r.UpdateAttempt("latest", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}, 6000)
	if err != nil {
		return err
	}
	if err := tx.PutRollout(r); err != nil {
		return err
	}
	return tell(tx, events, 6000)
}
