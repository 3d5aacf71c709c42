package mongo_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// grown is how much a database holds in which nothing is to be examined in
// vain. AGLQ_GROWTH names other numbers: "1000000,100000,5000000".
type grown struct{ finished, queued, spans int }

// The parts that do not grow: rollouts that run with a time limit, and spans of
// each of the first rollouts.
const (
	runningNow  = 500
	manySpans   = 500
	ofTheFirst  = 4
	byStanders  = 600 // rollouts and spans of each of the other partitions
	endedAt     = 1e6 // when the first finished rollout ended, Unix seconds
	growthBatch = 5000
)

func growth(t *testing.T) grown {
	t.Helper()
	text := os.Getenv("AGLQ_GROWTH")
	if text == "" {
		return grown{3000, 2000, 6000}
	}
	var n []int
	for _, part := range strings.Split(text, ",") {
		v, err := strconv.Atoi(part)
		if err != nil {
			t.Fatalf("AGLQ_GROWTH is %q: it must be three numbers, of finished rollouts, queued ones and spans", text)
		}
		n = append(n, v)
	}
	if len(n) != 3 || n[0] < 1000 || n[1] < 1000 || n[2] < ofTheFirst*manySpans {
		t.Fatalf("AGLQ_GROWTH is %q: it must be three numbers, of finished rollouts (1000 or more), queued ones (1000) and spans (%d)",
			text, ofTheFirst*manySpans)
	}
	return grown{n[0], n[1], n[2]}
}

// grow writes documents as the backend makes them, many at a time: through calls
// millions would take hours.
func (g grown) grow(t *testing.T, b *mongo.Backend) {
	t.Helper()
	began := time.Now()
	insertMany(t, b, "rollouts", g.finished+runningNow+g.queued, func(i int) bson.Raw {
		return b.EncodeRecord(g.rollout(i))
	})
	insertMany(t, b, "spans", g.spans, func(i int) bson.Raw { return b.EncodeSpan(g.span(i)) })
	for _, name := range []string{"aa", "zz"} {
		other := openPartition(t, b.Handle().Name(), name)
		insertMany(t, other, "rollouts", byStanders, func(i int) bson.Raw { return other.EncodeRecord(g.rollout(g.finished + i)) })
		insertMany(t, other, "spans", byStanders, func(i int) bson.Raw { return other.EncodeSpan(g.span(i)) })
	}
	for n := 0; n < g.finished+runningNow+g.queued; { // the counts follow what was inserted past them
		byStatus, _, err := b.Counted(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n = 0
		for _, more := range byStatus {
			n += int(more)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%d finished, %d running and %d queued rollouts and %d spans written in %v",
		g.finished, runningNow, g.queued, g.spans, time.Since(began).Round(time.Second))
}

// rollout is the i-th: finished ones, then those that run, then the queue.
func (g grown) rollout(i int) *queue.Record {
	limit, worker := 60.0, "w-1"
	r := queue.NewRecord(rolloutID(i), queue.Request{
		Input: rawjson.Value(`{"n":1}`), Config: &queue.Config{MaxAttempts: 1, TimeoutSeconds: &limit},
	}, true, 1000+float64(i)/2) // two start at a time
	if i >= g.finished+runningNow {
		return r
	}
	r.Begin("at-1", &worker, true, 0, 1000+float64(i))
	if i < g.finished {
		status := []queue.RolloutStatus{queue.RolloutSucceeded, queue.RolloutFailed, queue.RolloutCancelled}[i%3]
		r.Update(queue.RolloutUpdate{Status: queue.Set(status)}, endedAt+float64(i))
	}
	r.Place = 0
	return r
}

func rolloutID(i int) string { return fmt.Sprintf("ro-%07d", i) }

// span is the i-th: many of each of the first rollouts, from two attempts, then
// the same number of each of the others.
func (g grown) span(i int) *queue.Span {
	s := &queue.Span{
		RolloutID: rolloutID(i % ofTheFirst), AttemptID: fmt.Sprint("at-", i/ofTheFirst%2+1), SpanID: fmt.Sprintf("%016x", i),
		TraceID: "6a1f0000000000000000000000000000", SequenceID: int64(i/ofTheFirst + 1), Name: "openai.chat.completion",
		Attributes: rawjson.Value(`{"gen_ai.request.model":"m","gen_ai.usage.input_tokens":312,"gen_ai.usage.output_tokens":87}`),
		Events:     rawjson.EmptyArray, Links: rawjson.EmptyArray,
	}
	if at := i - ofTheFirst*manySpans; at >= 0 {
		s.RolloutID, s.AttemptID = rolloutID(ofTheFirst+at%(g.finished-ofTheFirst)), "at-1"
		s.SequenceID = int64(at/(g.finished-ofTheFirst) + 1)
	}
	return s
}

// insertMany inserts documents without waiting for their journal.
func insertMany(t *testing.T, b *mongo.Backend, collection string, n int, document func(i int) bson.Raw) {
	t.Helper()
	c := b.Handle().Collection(collection, options.Collection().SetWriteConcern(&writeconcern.WriteConcern{W: 1}))
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(4)
	for from := 0; from < n; from += growthBatch {
		docs := make([]bson.Raw, min(growthBatch, n-from))
		for i := range docs {
			docs[i] = document(from + i)
		}
		group.Go(func() error {
			_, err := c.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// rested waits until the server has nothing left to write down, so that times
// are those of the queries.
func rested(t *testing.T, db *driver.Database) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := db.Client().Database("admin").RunCommand(ctx, bson.D{{Key: "fsync", Value: 1}}).Err(); err != nil {
		t.Fatal(err)
	}
}
