package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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
		case "find", "aggregate", "update", "delete", "findAndModify":
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sent = append(c.sent, append(bson.Raw(nil), e.Command...))
		}
	}}
}

// cost is what the server looked at for a command.
type cost struct{ keys, docs, returned int64 }

func (c *cost) add(other cost) {
	c.keys += other.keys
	c.docs += other.docs
	c.returned += other.returned
}

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

// examined is how much more than it returns a query may look at.
type examined struct {
	keys int64 // of indexes
	docs int64
}

// TestNothingIsExaminedInVain explains each command that each call sends, in a
// database that has grown.
func TestNothingIsExaminedInVain(t *testing.T) {
	b, sent := openWatched(t)
	size := growth(t)
	ctx := t.Context()
	input := rawjson.Value(`"` + strings.Repeat("x", 100_000) + `"`)
	prepareCalls(t, b, &input)
	size.grow(t, b)
	rested(t, b.Handle())
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
	separately := func(fn func(tx collections.Tx) error) func() error {
		return func() error {
			lost, err := b.Separately(ctx, fn)
			if err == nil && lost.Some() {
				err = fmt.Errorf("lost %v", lost)
			}
			return err
		}
	}
	ids := func(from, n int) (out []string) {
		for i := range n {
			out = append(out, rolloutID(from+i))
		}
		return out
	}
	attempt := "at-1"
	var cursor collections.Cursor
	// A claim ends with its last key, others with the one behind it.
	claiming, exactly, ranges := examined{keys: -1}, examined{}, examined{keys: 5}
	calls := []struct {
		name string
		more examined // than is returned: a key for the end of each range, a few for those merged
		call func() error
	}{
		{"page", exactly, page(queue.RolloutQuery{}, "", false, 0)},
		{"page, deep", examined{1000, 1000}, page(queue.RolloutQuery{}, "", false, 1000)}, // what it passes over
		{"page by start", exactly, page(queue.RolloutQuery{}, "start_time", false, 0)},
		{"page by start, descending", exactly, page(queue.RolloutQuery{}, "start_time", true, 0)},
		{"page of a status", exactly, page(queued, "", false, 0)},
		{"page of a status by start", exactly, page(queued, "start_time", false, 0)},
		{"page of a status by start, descending", exactly, page(queued, "start_time", true, 0)},
		{"page of statuses", ranges, page(ended, "start_time", false, 0)},
		{"page of statuses, descending", ranges, page(ended, "start_time", true, 0)},
		{"records", ranges, func() error {
			_, err := b.Records(ctx, []string{"ro-0000007", "ro-0000009", "ro-x", "ro-large"})
			return err
		}},
		{"finished", ranges, func() error { _, _, err := b.Finished(ctx, ids(size.finished-2, 4)); return err }},
		{"finished, many", ranges, func() error { _, _, err := b.Finished(ctx, ids(size.finished-2, 50)); return err }},
		{"has queued", exactly, func() error { _, err := b.HasQueued(ctx); return err }},
		{"nothing overdue", exactly, func() error { _, err := b.Overdue(ctx, 10, 200); return err }},
		{"overdue", exactly, func() error { _, err := b.Overdue(ctx, 1e9, 50); return err }},
		{"head", claiming, section(func(tx collections.Tx) error { _, err := tx.Head(1); return err })},
		{"claim", claiming, section(func(tx collections.Tx) error { return claimMany(tx, 20) })},
		{"claim, each by itself", claiming, separately(func(tx collections.Tx) error { return claimMany(tx, 20) })},
		{"finish, by itself", exactly, separately(func(tx collections.Tx) error { return finish(tx, rolloutID(size.finished+1), "w-1") })},
		{"finish", exactly, section(func(tx collections.Tx) error { return finish(tx, rolloutID(size.finished), "w-1") })},
		{"resources", exactly, func() error { _, err := b.Resources(ctx, "rs-1"); return err }},
		{"latest resources", exactly, func() error { _, err := b.LatestResources(ctx); return err }},
		{"spans", exactly, func() error {
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: rolloutID(1), Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
			return err
		}},
		{"page of spans", examined{keys: manySpans}, func() error { // and a count of all of the rollout, in the index
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: rolloutID(1), Paging: queue.Paging{SortBy: "sequence_id", Limit: 100}})
			return err
		}},
		{"spans of an attempt", examined{keys: manySpans}, func() error { // keys, not documents, of the other attempt
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: rolloutID(1), AttemptID: &attempt, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
			return err
		}},
		{"number", exactly, func() error {
			_, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: rolloutID(1), N: 1}}, true)
			return err
		}},
		{"raise", exactly, func() error { return b.RaiseSequence(ctx, []collections.Counter{{RolloutID: rolloutID(1), N: 90}}) }},
		{"worker", exactly, func() error { _, err := b.Worker(ctx, "w-1"); return err }},
		{"workers", exactly, func() error { _, err := b.QueryWorkers(ctx, queue.WorkerQuery{Paging: queue.All}); return err }},
		{"receipt", exactly, section(func(tx collections.Tx) error { _, err := tx.Receipt("k"); return err })},
		{"answered", ranges, func() error { _, err := b.Answered(ctx, []string{"k", "none"}); return err }},
		{"complete", exactly, func() error { own := input; return b.Complete(ctx, &own) }},
		{"scan of rollouts", exactly, func() (err error) { _, cursor, err = b.ScanRollouts(ctx, "", 100); return err }},
		{"rest of the scan", examined{1, 1}, func() error { _, _, err := b.ScanRollouts(ctx, cursor, 100); return err }},
		{"scan of spans", ranges, func() (err error) { _, cursor, err = b.ScanSpans(ctx, ids(0, 3), "", 100); return err }},
		{"rest of the scan of spans", ranges, func() error { _, _, err := b.ScanSpans(ctx, ids(0, 3), cursor, 100); return err }},
		{"scan of workers", exactly, func() (err error) { _, cursor, err = b.ScanWorkers(ctx, "", 1); return err }},
		{"rest of the scan of workers", examined{1, 1}, func() error { _, _, err := b.ScanWorkers(ctx, cursor, 100); return err }},
		{"scan of resources", exactly, func() (err error) { _, cursor, err = b.ScanResources(ctx, "", 1); return err }},
		{"rest of the scan of resources", examined{1, 1}, func() error { _, _, err := b.ScanResources(ctx, cursor, 100); return err }},
		{"counters", ranges, func() error { _, err := b.Counters(ctx, ids(0, 3)); return err }},
		// It counts the spans, in the index, and of millions not often.
		{"statistics", examined{keys: int64(size.spans)}, func() error { _, err := b.Statistics(ctx); return err }},
		{"purge of nothing", exactly, func() error {
			_, err := b.Purge(ctx, collections.Cutoffs{Now: 10, Finished: 10, Spans: 10})
			return err
		}},
		{"purge of finished rollouts", ranges, func() error { return purge(ctx, b, collections.Cutoffs{Now: 10, Finished: 1e9}) }},
		{"purge of spans", exactly, func() error {
			return purge(ctx, b, collections.Cutoffs{Now: 10, Spans: queue.Seconds(time.Now().Add(time.Hour))})
		}},
		{"purge of what hung on rollouts", examined{keys: 250}, func() error { // a seek for each rollout
			_, err := b.Purge(ctx, collections.Cutoffs{Now: 100})
			return err
		}},
		{"empty the queue", examined{1, 0}, func() error { return takeAll(ctx, b) }},
		{"claim from an empty queue, by itself", claiming, separately(func(tx collections.Tx) error { return claimMany(tx, 20) })},
		{"claim from an empty queue", claiming, section(func(tx collections.Tx) error { return claimMany(tx, 20) })},
		{"nothing queued", claiming, func() error { _, err := b.HasQueued(ctx); return err }},
	}
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			sent.take()
			if c.name == "empty the queue" {
				if err := c.call(); err != nil {
					t.Fatal(err)
				}
				return
			}
			began := time.Now()
			if err := c.call(); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			list := sent.take()
			if len(list) == 0 {
				t.Fatal("the call sent nothing")
			}
			var sum cost
			for _, command := range list {
				sum.add(examine(t, b.Handle(), command, c.more))
			}
			t.Logf("%d keys and %d documents examined for %d, in %d commands and %.1f ms",
				sum.keys, sum.docs, sum.returned, len(list), took.Seconds()*1000)
		})
	}
}

// prepareCalls makes what the calls ask for besides rollouts and spans.
func prepareCalls(t *testing.T, b *mongo.Backend, input *rawjson.Value) {
	t.Helper()
	ctx := t.Context()
	if err := b.Stage(ctx, 1000, input); err != nil {
		t.Fatal(err)
	}
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		large := queue.NewRecord("ro-large", queue.Request{Input: *input}, false, 1)
		if err := errors.Join(tx.InsertRollouts([]*queue.Record{large}), tx.PutReceipt(&collections.Receipt{Key: "k", Operation: "x"})); err != nil {
			return err
		}
		for i := range 20 {
			set := &queue.ResourcesUpdate{ResourcesID: fmt.Sprint("rs-", i), UpdateTime: float64(i), Resources: rawjson.EmptyObject}
			if err := errors.Join(tx.PutResources(set), tx.PutWorker(queue.NewWorker(fmt.Sprint("w-", i)))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.RaiseSequence(ctx, []collections.Counter{{RolloutID: rolloutID(1), N: 1}}); err != nil {
		t.Fatal(err)
	}
	// The indexes that retention alone needs are there before the data.
	if _, err := b.Purge(ctx, collections.Cutoffs{Now: 1, Finished: 1, Spans: 1}); err != nil {
		t.Fatal(err)
	}
}

func purge(ctx context.Context, b *mongo.Backend, old collections.Cutoffs) error {
	got, err := b.Purge(ctx, old)
	if err == nil && !got.More {
		err = fmt.Errorf("purged only %+v", got)
	}
	return err
}

// examine explains a command and compares what it looked at with what it gave.
func examine(t *testing.T, db *driver.Database, command bson.Raw, more examined) (sum cost) {
	t.Helper()
	for _, name := range []string{"updates", "deletes"} {
		list, err := command.LookupErr(name)
		if err != nil {
			continue
		}
		values, err := list.Array().Values()
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range values {
			sum.add(examineChange(t, db, command, u.Document(), more))
		}
		return sum
	}
	plan, got := explain(t, db, command)
	if got.docs > got.returned+more.docs || got.keys > got.returned+more.keys+1 {
		t.Errorf("examined %d keys and %d documents to return %d: %s\nplan: %s", got.keys, got.docs, got.returned, command, plan)
	}
	for _, bad := range []string{`"COLLSCAN"`, `"SORT"`} {
		if strings.Contains(plan, bad) {
			t.Errorf("plan has %s for %s", bad, command)
		}
	}
	return got
}

// examineChange looks how an update or delete finds its documents, which it may
// have deleted since.
func examineChange(t *testing.T, db *driver.Database, command, change bson.Raw, more examined) cost {
	t.Helper()
	element, err := command.IndexErr(0)
	if err != nil {
		t.Fatal(err)
	}
	find := bson.D{{Key: "find", Value: element.Value().StringValue()}, {Key: "filter", Value: change.Lookup("q")}}
	if hint, err := change.LookupErr("hint"); err == nil {
		find = append(find, bson.E{Key: "hint", Value: hint})
	}
	raw, err := bson.Marshal(find)
	if err != nil {
		t.Fatal(err)
	}
	plan, got := explain(t, db, raw)
	if wanted := got.returned + int64(idsIn(change.Lookup("q"))); got.docs > max(got.returned, 1) || got.keys > max(wanted, 1)+max(more.keys, 0) {
		t.Errorf("a change examines %d keys and %d documents for %d: %s\nplan: %s", got.keys, got.docs, got.returned, raw, plan)
	}
	if strings.Contains(plan, `"COLLSCAN"`) {
		t.Errorf("plan has a scan for %s", raw)
	}
	return got
}

// idsIn counts the ids that a filter names, each of which is a seek.
func idsIn(filter bson.RawValue) int {
	list, err := filter.Document().LookupErr("_id", "$in")
	if err != nil {
		return 0
	}
	values, err := list.Array().Values()
	if err != nil {
		return 0
	}
	return len(values)
}

// takeAll claims until the queue is empty.
func takeAll(ctx context.Context, b *mongo.Backend) error {
	for queued := true; queued; {
		err := b.Atomic(ctx, func(tx collections.Tx) error { return claimMany(tx, 1000) })
		if err != nil {
			return err
		}
		if queued, err = b.HasQueued(ctx); err != nil {
			return err
		}
	}
	return nil
}

func claimMany(tx collections.Tx, n int) error {
	rs, err := tx.Head(n)
	if err != nil {
		return err
	}
	for i, r := range rs {
		if err := claimFor(tx, r, fmt.Sprintf("w-%d", i%20)); err != nil {
			return err
		}
	}
	return nil
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
