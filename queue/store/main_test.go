package store_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Tests{M: m}) }

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// onEach runs a test on every backend.
func onEach(t *testing.T, test func(t *testing.T, open func() collections.Backend)) {
	t.Run("memory", func(t *testing.T) {
		test(t, func() collections.Backend { return memory.New(memory.Options{Logger: quiet}) })
	})
	t.Run("mongo", func(t *testing.T) {
		database := mongotest.Database(t)
		partitions := 0
		test(t, func() collections.Backend {
			partitions++
			b, err := mongo.Open(t.Context(), mongo.Options{
				URI: mongotest.URI(t), Database: database, Partition: fmt.Sprint("p", partitions), Logger: quiet,
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
	})
}

// start opens a store for one test.
func start(t testing.TB, b collections.Backend, o store.Options) *store.Store {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet
	}
	s := store.New(b, o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ptr[T any](v T) *T { return &v }

func requests(n int) []queue.Request {
	out := make([]queue.Request, n)
	for i := range out {
		out[i].Input = rawjson.AppendInt(nil, int64(i))
	}
	return out
}

func span(ref *queue.Attempt, id string) queue.Span {
	return queue.Span{
		RolloutID: ref.RolloutID, AttemptID: ref.AttemptID, SequenceID: queue.NumberOnArrival,
		TraceID: "t", SpanID: id, Name: "step",
		Status: rawjson.Value(`{"status_code":"OK","description":null}`), Attributes: rawjson.EmptyObject,
		Events: rawjson.EmptyArray, Links: rawjson.EmptyArray, Context: rawjson.Null, Parent: rawjson.Null,
		Resource: rawjson.Value(`{"attributes":{},"schema_url":""}`),
	}
}
