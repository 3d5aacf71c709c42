package archive_test

import (
	"fmt"
	"math"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Tests{M: m}) }

func inMemory() *memory.Backend { return memory.New(memory.Options{}) }

// stock is what a partition may hold.
type stock struct {
	resources []*queue.ResourcesUpdate
	workers   []*queue.Worker
	records   []*queue.Record
	counters  []collections.Counter
	spans     []queue.Span
}

// put stores all of it.
func (s *stock) put(t testing.TB, b collections.Backend) {
	t.Helper()
	ctx := t.Context()
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		for _, u := range s.resources {
			if err := tx.PutResources(u); err != nil {
				return err
			}
		}
		for _, w := range s.workers {
			if err := tx.PutWorker(w); err != nil {
				return err
			}
		}
		fresh := make([]*queue.Record, len(s.records))
		for i, r := range s.records {
			fresh[i] = r.Clone()
		}
		return tx.InsertRollouts(fresh)
	})
	if err == nil {
		err = b.RaiseSequence(ctx, s.counters)
	}
	if err == nil {
		_, err = b.InsertSpans(ctx, s.spans)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var (
	anyPayload = rapid.Custom(func(t *rapid.T) rawjson.Value {
		return rawjson.Value(rapid.SampledFrom([]string{
			`null`, `1`, `1.0`, `-0.0`, `12345678901234567890123`, `"\u0000é😀"`, `[1,[2.50,{}]]`, `true`,
			`{"":{"$a.b":null},"kind":"end","z":1,"a":[]}`, `{"text":"line\nand line"}`,
		}).Draw(t, "payload"))
	})
	anyObject = rapid.Custom(func(t *rapid.T) rawjson.Value {
		return rawjson.Value(rapid.SampledFrom([]string{
			`null`, `{}`, `{"kind":"span","b":{"a":1.0}}`, `{"a.b":1,"$c":[true,false]}`,
		}).Draw(t, "object"))
	})
	anyTime    = rapid.Custom(func(t *rapid.T) float64 { return float64(rapid.IntRange(0, 40).Draw(t, "time"))*0.1 + 1.7e9 })
	anyTimePtr = rapid.Ptr(anyTime, true)
	anyText    = rapid.SampledFrom([]string{"", "a", "trace", "é\"\\", "x/%2F"})
	anyTextPtr = rapid.Ptr(anyText, true)
	anyNumber  = rapid.OneOf(rapid.Int64Range(-2, 6), rapid.Just(int64(math.MaxInt64)))
)

var anyStock = rapid.Custom(func(t *rapid.T) *stock {
	s := &stock{}
	for i := range rapid.IntRange(0, 4).Draw(t, "sets") {
		s.resources = append(s.resources, &queue.ResourcesUpdate{
			ResourcesID: fmt.Sprintf("rs-%d", (i*3)%5), CreateTime: anyTime.Draw(t, "create"), UpdateTime: float64(rapid.IntRange(1, 2).Draw(t, "update")),
			Version: int64(i), Resources: anyObject.Draw(t, "resources"),
		})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "workers") {
		s.workers = append(s.workers, &queue.Worker{
			WorkerID: fmt.Sprintf("w/%d", (i*3)%5), Status: rapid.SampledFrom(queue.WorkerStatuses).Draw(t, "status"),
			HeartbeatStats: anyObject.Draw(t, "stats"), LastBusyTime: anyTimePtr.Draw(t, "busy"), CurrentRolloutID: anyTextPtr.Draw(t, "current"),
		})
	}
	for i := range rapid.IntRange(0, 130).Draw(t, "rollouts") {
		r := anyRecord(t, fmt.Sprintf("ro-%d", (i*37)%131), i)
		s.records = append(s.records, r)
		if n := rapid.Int64Range(0, 3).Draw(t, "counter"); n > 0 {
			s.counters = append(s.counters, collections.Counter{RolloutID: r.Rollout.RolloutID, N: n})
		}
		for _, a := range r.Attempts {
			for k := range rapid.IntRange(0, 3).Draw(t, "spans") {
				s.spans = append(s.spans, anySpan(t, a, k))
			}
		}
	}
	// Whoever stores a span raises the counter.
	highest := map[string]int64{}
	for _, span := range s.spans {
		if span.SequenceID > highest[span.RolloutID] {
			highest[span.RolloutID] = span.SequenceID
		}
	}
	for id, n := range highest {
		s.counters = append(s.counters, collections.Counter{RolloutID: id, N: n})
	}
	return s
})

func anyRecord(t *rapid.T, id string, i int) *queue.Record {
	status := rapid.SampledFrom(queue.RolloutStatuses).Draw(t, "status")
	r := &queue.Record{
		Rollout: queue.Rollout{
			RolloutID: id, Input: anyPayload.Draw(t, "input"), StartTime: anyTime.Draw(t, "start"), EndTime: anyTimePtr.Draw(t, "end"),
			Mode: rapid.SampledFrom(append([]queue.Mode{""}, queue.Modes...)).Draw(t, "mode"), ResourcesID: anyTextPtr.Draw(t, "resources"),
			Status: status, Metadata: anyObject.Draw(t, "metadata"),
			Config: queue.Config{
				TimeoutSeconds: anyTimePtr.Draw(t, "timeout"), MaxAttempts: rapid.Int64Range(1, 9).Draw(t, "max"),
				RetryCondition: rapid.SliceOfN(rapid.SampledFrom(queue.AttemptStatuses), 0, 3).Draw(t, "retry"),
			},
		},
		Attempts: []queue.Attempt{}, Spans: rapid.Int64Range(0, 5).Draw(t, "spans"),
	}
	if status.Queued() {
		r.Place = int64(1 + (i*61)%400)
	}
	if status.Active() {
		r.Due, r.Lease = anyTime.Draw(t, "due"), rapid.SampledFrom([]float64{0, 0.1, 30}).Draw(t, "lease")
	}
	for n := range rapid.IntRange(0, 3).Draw(t, "attempts") {
		a := queue.Attempt{
			RolloutID: id, AttemptID: fmt.Sprintf("at-%d", n), SequenceID: int64(n + 1), StartTime: anyTime.Draw(t, "began"),
			EndTime: anyTimePtr.Draw(t, "ended"), Status: rapid.SampledFrom(queue.AttemptStatuses).Draw(t, "attempt status"),
			WorkerID: anyTextPtr.Draw(t, "worker"), LastHeartbeatTime: anyTimePtr.Draw(t, "heartbeat"), Metadata: anyObject.Draw(t, "attempt metadata"),
		}
		a.Lost = a.Status == queue.AttemptUnresponsive && rapid.Bool().Draw(t, "lost")
		r.Attempts = append(r.Attempts, a)
	}
	return r
}

func anySpan(t *rapid.T, a queue.Attempt, k int) queue.Span {
	s := queue.Span{
		RolloutID: a.RolloutID, AttemptID: a.AttemptID, SpanID: fmt.Sprintf("s%d", k), SequenceID: anyNumber.Draw(t, "number"),
		TraceID: anyText.Draw(t, "trace"), ParentID: anyTextPtr.Draw(t, "parent"), Name: anyText.Draw(t, "name"),
		Status: rawjson.Value(`{"status_code":"OK","description":null}`), Attributes: anyPayload.Draw(t, "attributes"),
		Events: rawjson.EmptyArray, Links: rawjson.EmptyArray, StartTime: anyTimePtr.Draw(t, "start"), EndTime: anyTimePtr.Draw(t, "end"),
		Context: anyObject.Draw(t, "context"), Parent: rawjson.Null, Resource: rawjson.Value(`{"attributes":{},"schema_url":""}`),
	}
	if rapid.Bool().Draw(t, "extra") {
		s.Extra = rawjson.Value(`{"kind":"rollout","sha256":1,"_id":{"a":[]}}`)
	}
	return s
}
