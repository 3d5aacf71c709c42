package mongo_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	monitor "go.mongodb.org/mongo-driver/v2/event"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/collectionstest"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// together opens a backend that writes together with others of its database.
func together(t *testing.T, database string, commands *monitor.CommandMonitor) *mongo.Backend {
	t.Helper()
	b, err := mongo.Open(t.Context(), mongo.Options{
		URI: mongotest.URI(t), Database: database, Together: true, Logger: slog.New(slog.DiscardHandler), Commands: commands,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b
}

// TestFollower holds a backend that has another one write for it to the contract.
func TestFollower(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	collectionstest.Run(t, func(t *testing.T) collections.Backend {
		database := mongotest.Database(t)
		leader := together(t, database, nil)
		waitFor(t, leader.Leads)
		follower := together(t, database, nil)
		waitFor(t, follower.Follows)
		return follower
	})
}

// TestFollowerSendsNoWrites has the leader write for it and tell it what happens.
func TestFollowerSendsNoWrites(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	database := mongotest.Database(t)
	leader := together(t, database, nil)
	waitFor(t, leader.Leads)
	var sent sync.Map
	follower := together(t, database, &monitor.CommandMonitor{Started: func(_ context.Context, e *monitor.CommandStartedEvent) {
		name, _ := e.Command.Lookup(e.CommandName).StringValueOK()
		n, _ := sent.LoadOrStore(e.CommandName+" "+name, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}})
	waitFor(t, follower.Follows)
	var load acknowledgedTogether
	load.init()
	waitFor(t, func() bool { // its stream goes on from where the leader's is
		load.life(t, follower, "w")
		return follower.Listens()
	})
	before := map[string]int64{}
	sent.Range(func(k, n any) bool { before[k.(string)] = n.(*atomic.Int64).Load(); return true })
	for range 20 {
		load.life(t, follower, "w")
	}
	load.check(t, follower)
	for _, command := range []string{"update rollouts", "insert spans", "insert span_sequence_ids", "getMore "} {
		n, ok := sent.Load(command)
		if ok && n.(*atomic.Int64).Load() != before[command] {
			t.Errorf("the follower sent %s itself", command)
		}
	}
	load.check(t, leader)
}

// TestLeadersComeAndGo ends whoever leads under load, again and again: nothing
// acknowledged is lost, nothing done twice, and every count is right.
func TestLeadersComeAndGo(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	database := mongotest.Database(t)
	var load acknowledgedTogether
	load.init()
	stores := []*mongo.Backend{together(t, database, nil), together(t, database, nil), together(t, database, nil)}
	for round := range 4 {
		ends, stays := 0, []*mongo.Backend{}
		waitFor(t, func() bool {
			for i, b := range stores {
				if b.Leads() {
					ends = i
					return true
				}
			}
			return false
		})
		var stop, stopLeader atomic.Bool
		var running, leading sync.WaitGroup
		for i, b := range stores {
			for w := range 2 {
				name := fmt.Sprintf("%d-%d-%d", round, i, w)
				if i == ends {
					leading.Go(func() { load.work(t, &stopLeader, b, name) })
				} else {
					running.Go(func() { load.work(t, &stop, b, name) })
				}
			}
			if i != ends {
				stays = append(stays, b)
			}
		}
		goal := load.count() + 100
		waitFor(t, func() bool { return load.count() >= goal })
		stopLeader.Store(true)
		leading.Wait()
		if err := stores[ends].Close(t.Context()); err != nil {
			t.Error(err)
		}
		goal = load.count() + 50
		waitFor(t, func() bool { return load.count() >= goal })
		stop.Store(true)
		running.Wait()
		for _, b := range stays {
			load.check(t, b)
		}
		stores = append(stays, together(t, database, nil))
	}
}

// acknowledgedTogether is what backends have acknowledged whose writes are
// gathered.
type acknowledgedTogether struct {
	acknowledged
	numbers map[string]map[int64]bool // of spans, by rollout
}

func (a *acknowledgedTogether) init() {
	a.claimed, a.spans, a.numbers = map[string]bool{}, map[string]int{}, map[string]map[int64]bool{}
}

func (a *acknowledgedTogether) work(t *testing.T, stop *atomic.Bool, b *mongo.Backend, name string) {
	for i := 0; !stop.Load(); i++ {
		a.life(t, b, fmt.Sprint(name, "-", i))
	}
}

// life enqueues a rollout, claims one, numbers and stores spans of it.
func (a *acknowledgedTogether) life(t *testing.T, b *mongo.Backend, name string) {
	ctx := t.Context()
	id := fmt.Sprintf("ro-%s-%d", name, a.count())
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		return tx.InsertRollouts([]*queue.Record{queue.NewRecord(id, queue.Request{}, true, 1)})
	})
	if err == nil {
		a.note(func() { a.made = append(a.made, id) })
	}
	var got string
	lost, err := b.Separately(ctx, func(tx collections.Tx) error {
		got = ""
		rs, err := tx.Head(1)
		if err != nil || len(rs) == 0 {
			return err
		}
		got = rs[0].Rollout.RolloutID
		return claimFor(tx, rs[0], name)
	})
	if err != nil {
		a.note(func() { a.maybe++ })
		return
	}
	if got == "" || lost.Rollouts[got] {
		return
	}
	const n = 3
	first, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: got, N: n}}, false)
	if err != nil {
		t.Errorf("numbering: %v", err)
		return
	}
	spans := make([]queue.Span, n)
	for i := range spans {
		spans[i] = queue.Span{RolloutID: got, AttemptID: "at-1", SpanID: fmt.Sprint(i), SequenceID: first[0] + int64(i)}
	}
	stored, err := b.InsertSpans(ctx, spans)
	a.note(func() {
		if a.claimed[got] {
			a.twice = append(a.twice, got)
		}
		a.claimed[got] = true
		if err != nil {
			return
		}
		a.spans[got] = n
		for i := range stored {
			if a.numbers[got] == nil {
				a.numbers[got] = map[int64]bool{}
			}
			if a.numbers[got][spans[i].SequenceID] {
				t.Errorf("number %d of %s was issued twice", spans[i].SequenceID, got)
			}
			a.numbers[got][spans[i].SequenceID] = true
		}
	})
}

// TestOneOfSeveralIsRefused puts into one command what the server takes and what
// it does not.
func TestOneOfSeveralIsRefused(t *testing.T) {
	b := mongotest.Open(t)
	rule := bson.D{{Key: "collMod", Value: "spans"}, {Key: "validator", Value: bson.D{{Key: "si", Value: bson.D{{Key: "$ne", Value: "bad"}}}}}}
	if err := b.Handle().RunCommand(t.Context(), rule).Err(); err != nil {
		t.Fatal(err)
	}
	of := func(ids ...string) []queue.Span {
		out := make([]queue.Span, len(ids))
		for i, id := range ids {
			out[i] = queue.Span{RolloutID: "ro-1", AttemptID: "at-1", SpanID: id, SequenceID: 1}
		}
		return out
	}
	if _, err := b.InsertSpans(t.Context(), of("old")); err != nil {
		t.Fatal(err)
	}
	stored, errs := b.InsertTogether(t.Context(), of("a", "old", "b"), of("c", "bad"), of("d"))
	if errs[0] != nil || fmt.Sprint(stored[0]) != "[1]" {
		t.Errorf("the first call: existing %v, %v", stored[0], errs[0])
	}
	if errs[1] == nil {
		t.Error("what the server refused was acknowledged")
	}
	if errs[2] != nil || len(stored[2]) != 0 {
		t.Errorf("the last call: existing %v, %v", stored[2], errs[2])
	}
	page, err := b.QuerySpans(t.Context(), queue.SpanQuery{RolloutID: "ro-1", Paging: queue.All})
	if err != nil || len(page.Items) != 5 {
		t.Errorf("%d spans are stored, %v", len(page.Items), err)
	}
}

func FuzzRelayDocs(f *testing.F) {
	doc := mongo.EmptyDocument()
	f.Add(append(append([]byte{}, doc...), doc...))
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if out, err := mongo.RepackDocs(in); err == nil && string(out) != string(in) {
			t.Errorf("%q came back as %q", in, out)
		}
	})
}

func FuzzRelayCounters(f *testing.F) {
	f.Add([]byte{1, 2, 'r', 'o', 8})
	f.Add([]byte{0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := mongo.RepackCounters(in)
		if err != nil {
			return
		}
		if again, err := mongo.RepackCounters(out); err != nil || string(again) != string(out) {
			t.Errorf("%q came back as %q, %v", out, again, err)
		}
	})
}

func FuzzRelayBatch(f *testing.F) {
	doc := mongo.EmptyDocument()
	f.Add(append(make([]byte, 8), doc...))
	f.Add(append(append(append(make([]byte, 8), doc...), 2, 'r', 'o', 0, 0, 0, 0, 0, 0, 0, 1), doc...))
	f.Add(append(append(make([]byte, 8), doc...), 255, 255, 255, 255, 255, 255, 255, 255, 127))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := mongo.RepackBatch(in)
		if err != nil {
			return
		}
		if again, err := mongo.RepackBatch(out); err != nil || string(again) != string(out) {
			t.Errorf("%q came back as %q, %v", out, again, err)
		}
	})
}
