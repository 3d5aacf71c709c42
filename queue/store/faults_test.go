package store_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// faulty is a backend with faults.
type faulty struct {
	collections.Backend
	separately func()
	query      func() error
	insert     func() error
}

func (f *faulty) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	if f.separately != nil {
		f.separately()
	}
	return f.Backend.Separately(ctx, fn)
}

func (f *faulty) QueryRollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	if f.query != nil {
		if err := f.query(); err != nil {
			return queue.Page[*queue.Record]{}, err
		}
	}
	return f.Backend.QueryRollouts(ctx, q)
}

func (f *faulty) InsertSpans(ctx context.Context, spans []queue.Span) ([]bool, error) {
	if f.insert != nil {
		if err := f.insert(); err != nil {
			return nil, err
		}
	}
	return f.Backend.InsertSpans(ctx, spans)
}

// TestAdoptionIsRepeated has the backend out of reach for a moment when the store
// starts: the attempts that are there get a lease all the same.
func TestAdoptionIsRepeated(t *testing.T) {
	b := memory.New(memory.Options{Logger: quiet})
	r := queue.NewRecord("ro-1", queue.Request{}, true, 1)
	r.Begin("at-1", ptr("w"), true, 0, 1)
	if err := b.Atomic(t.Context(), func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r}) }); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	f := &faulty{Backend: b, query: func() error {
		if asked.Add(1) == 1 {
			return queue.Errorf(queue.Unavailable, "an election is under way")
		}
		return nil
	}}
	s := start(t, f, store.Options{WorkerTTL: time.Second, ScanInterval: 50 * time.Millisecond})
	got := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 1, Wait: 30 * time.Second}))
	if len(got) != 1 {
		t.Error("the rollout of a worker that is gone is not queued")
	}
}

// TestReadHonoursItsContext reads while the backend hangs in a write.
func TestReadHonoursItsContext(t *testing.T) {
	hang, hung := make(chan struct{}), atomic.Bool{}
	f := &faulty{Backend: memory.New(memory.Options{Logger: quiet})}
	f.separately = func() {
		if hung.Load() {
			<-hang
		}
	}
	s := start(t, f, store.Options{})
	must[[]queue.Rollout](t)(s.Enqueue(t.Context(), requests(1)))
	a := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 1}))[0].Attempt
	hung.Store(true)
	must[*queue.Span](t)(s.AddSpan(t.Context(), span(a, "1")))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = s.Rollout(ctx, a.RolloutID) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Error("a read with a deadline of 100 ms still waits after 3 s")
	}
	close(hang)
	<-done
}

// TestReadSeesWhatIsBeingWritten reads a rollout while an update that carries the
// heartbeat of an acknowledged span is under way.
func TestReadSeesWhatIsBeingWritten(t *testing.T) {
	hang, reached := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var armed atomic.Bool
	f := &faulty{Backend: memory.New(memory.Options{Logger: quiet})}
	f.separately = func() {
		if armed.Load() {
			once.Do(func() { close(reached); <-hang })
		}
	}
	s := start(t, f, store.Options{})
	must[[]queue.Rollout](t)(s.Enqueue(t.Context(), requests(1)))
	a := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 1}))[0].Attempt
	must[*queue.Span](t)(s.AddSpan(t.Context(), span(a, "1"))) // the rollout is running from here on
	armed.Store(true)
	updated := make(chan error, 1)
	go func() {
		_, err := s.UpdateAttempt(t.Context(), a.RolloutID, a.AttemptID, queue.AttemptUpdate{Metadata: queue.Set(requests(1)[0].Input)})
		updated <- err
	}()
	<-reached
	read := make(chan queue.RolloutStatus, 1)
	go func() { read <- must[*queue.AttemptedRollout](t)(s.Rollout(t.Context(), a.RolloutID)).Status }()
	select {
	case got := <-read:
		t.Errorf("read %s before the write", got)
	case <-time.After(50 * time.Millisecond): // it waits for the write
		close(hang)
		if got := <-read; got != queue.RolloutRunning {
			t.Errorf("after an acknowledged span the rollout reads as %s", got)
		}
	}
	if err := <-updated; err != nil {
		t.Fatal(err)
	}
}

// TestNumbersAfterBrokenInsert has a span that brings its number raise the counter
// without a journal. The insert fails for longer than a commit waits, the primary
// loses the counter, and the span is sent again.
func TestNumbersAfterBrokenInsert(t *testing.T) {
	database := mongotest.Database(t)
	b := must[*mongo.Backend](t)(mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database, Logger: quiet}))
	var broken atomic.Bool
	f := &faulty{Backend: b, insert: func() error {
		if broken.CompareAndSwap(true, false) {
			deleteCounters(t, database) // what was not journaled is gone
			return queue.Errorf(queue.Unavailable, "MongoDB cannot be reached")
		}
		return nil
	}}
	s := start(t, f, store.Options{})
	must[[]queue.Rollout](t)(s.Enqueue(t.Context(), requests(1)))
	a := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 1}))[0].Attempt
	sp := span(a, "1")
	sp.SequenceID = 7
	broken.Store(true)
	if _, err := s.AddSpan(t.Context(), sp); err == nil {
		t.Fatal("stored")
	}
	must[*queue.Span](t)(s.AddSpan(t.Context(), sp))
	next := must[int64](t)(s.NextSequence(t.Context(), a.RolloutID, 1))
	if next <= 7 {
		t.Errorf("a span is stored under number 7, and the next number issued is %d", next)
	}
}

func deleteCounters(t *testing.T, database string) {
	c := must[*driver.Client](t)(driver.Connect(options.Client().ApplyURI(mongotest.URI(t))))
	defer c.Disconnect(context.Background())
	if _, err := c.Database(database).Collection("span_sequence_ids").DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
}

// TestWorkerOfLostClaim claims two rollouts, the last of which another store cancels
// meanwhile: the worker holds the first.
func TestWorkerOfLostClaim(t *testing.T) {
	database := mongotest.Database(t)
	var other *store.Store
	var meddle atomic.Bool
	var last atomic.Value
	watch := &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if name, _ := e.Command.Lookup("update").StringValueOK(); name == "rollouts" && meddle.CompareAndSwap(true, false) {
			if _, err := other.UpdateRollout(t.Context(), last.Load().(string), queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
				t.Error(err)
			}
		}
	}}
	open := func(w *event.CommandMonitor) collections.Backend {
		return must[*mongo.Backend](t)(mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database, Logger: quiet, Commands: w}))
	}
	other = start(t, open(nil), store.Options{})
	s := start(t, open(watch), store.Options{})
	made := must[[]queue.Rollout](t)(other.Enqueue(t.Context(), requests(2)))
	last.Store(made[1].RolloutID)
	meddle.Store(true)
	got := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 2, WorkerID: ptr("w")}))
	if len(got) != 1 || meddle.Load() {
		t.Fatalf("claimed %d", len(got))
	}
	w := must[*queue.Worker](t)(s.Worker(t.Context(), "w"))
	if *w.CurrentAttemptID != got[0].Attempt.AttemptID {
		t.Errorf("the worker holds %s of %s; its record says %s of %s, which was never made",
			got[0].Attempt.AttemptID, got[0].RolloutID, *w.CurrentAttemptID, *w.CurrentRolloutID)
	}
	if _, err := s.UpdateAttempt(t.Context(), got[0].RolloutID, got[0].Attempt.AttemptID, queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}); err != nil {
		t.Fatal(err)
	}
	if w = must[*queue.Worker](t)(s.Worker(t.Context(), "w")); w.Status != queue.WorkerIdle {
		t.Errorf("after its attempt the worker is %s", w.Status)
	}
}

// TestRefusedCallLeavesNothing has the backend refuse the receipt of a call, which is
// written after what the call creates.
func TestRefusedCallLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		s := start(t, noReceipts{open()}, store.Options{})
		keyed := queue.WithIdempotencyKey(t.Context(), "refused")
		var calls sync.WaitGroup
		for range 4 { // some in one batch
			calls.Go(func() {
				if _, err := s.Enqueue(keyed, requests(2)); queue.KindOf(err) != queue.TooLarge {
					t.Errorf("the refused call answered %v", err)
				}
				must[[]queue.Rollout](t)(s.Enqueue(t.Context(), requests(1)))
			})
		}
		calls.Wait()
		if n := must[queue.Page[queue.AttemptedRollout]](t)(s.Rollouts(t.Context(), queue.RolloutQuery{Paging: queue.All})).Total; n != 4 {
			t.Errorf("%d rollouts are stored, want the 4 of calls that were not refused", n)
		}
		if _, err := s.Claim(keyed, queue.Claim{Limit: 1}); queue.KindOf(err) != queue.TooLarge {
			t.Errorf("the refused claim answered %v", err)
		}
		if got := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 9})); len(got) != 4 {
			t.Errorf("%d rollouts are left to claim", len(got))
		}
	})
}

// noReceipts is a backend that holds no receipts.
type noReceipts struct{ collections.Backend }

type noReceiptsTx struct{ collections.Tx }

func (noReceiptsTx) PutReceipt(*collections.Receipt) error {
	return queue.Errorf(queue.TooLarge, "told to")
}

func (n noReceipts) Atomic(ctx context.Context, fn func(tx collections.Tx) error) error {
	return n.Backend.Atomic(ctx, func(tx collections.Tx) error { return fn(noReceiptsTx{tx}) })
}

func (n noReceipts) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	return n.Backend.Separately(ctx, func(tx collections.Tx) error { return fn(noReceiptsTx{tx}) })
}
