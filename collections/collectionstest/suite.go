// Package collectionstest is the contract of package collections as code. A
// backend's test calls [Run]; what it may rely on beyond the doc comments of
// collections is written down here first.
package collectionstest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// OpenFunc opens an empty backend of a partition that nobody else uses, and
// closes it when the test ends.
type OpenFunc func(t *testing.T) collections.Backend

// Run tests a backend against the contract, one subtest a rule.
func Run(t *testing.T, open func(t *testing.T) collections.Backend) {
	topics := []struct {
		name string
		test func(t *testing.T, open OpenFunc)
	}{
		{"Atomic", testAtomic},
		{"Concurrency", testConcurrency},
		{"Queue", testQueue},
		{"Overdue", testOverdue},
		{"Rollouts", testRollouts},
		{"RolloutLists", testRolloutLists},
		{"Workers", testWorkers},
		{"Resources", testResources},
		{"Receipts", testReceipts},
		{"Spans", testSpans},
		{"SpanLists", testSpanLists},
		{"Counters", testCounters},
		{"Statistics", testStatistics},
		{"Payloads", testPayloads},
		{"Scans", testScans},
		{"Retention", testRetention},
	}
	for _, topic := range topics {
		t.Run(topic.name, func(t *testing.T) { topic.test(t, open) })
	}
}

// deadline bounds one test's calls, far above what any backend needs.
const deadline = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// atomic runs a section that has to succeed.
func atomic(t *testing.T, b collections.Backend, fn func(tx collections.Tx) error) {
	t.Helper()
	if err := b.Atomic(testContext(t), fn); err != nil {
		t.Fatalf("Atomic: %v", err)
	}
}

func insert(t *testing.T, b collections.Backend, rs ...*queue.Record) {
	t.Helper()
	atomic(t, b, func(tx collections.Tx) error {
		return tx.InsertRollouts(clones(rs))
	})
}

// clones keeps a section that runs twice from seeing its first run.
func clones(rs []*queue.Record) []*queue.Record {
	out := make([]*queue.Record, len(rs))
	for i, r := range rs {
		out[i] = r.Clone()
	}
	return out
}

// change puts a changed clone of a record that has to exist.
func change(t *testing.T, b collections.Backend, id string, f func(r *queue.Record)) {
	t.Helper()
	atomic(t, b, func(tx collections.Tx) error {
		r, err := tx.Rollout(id)
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("rollout %s does not exist", id)
		}
		r = r.Clone()
		f(r)
		return tx.PutRollout(r)
	})
}

func putWorker(t *testing.T, b collections.Backend, w *queue.Worker) {
	t.Helper()
	atomic(t, b, func(tx collections.Tx) error {
		if _, err := tx.Worker(w.WorkerID); err != nil {
			return err
		}
		own := *w
		return tx.PutWorker(&own)
	})
}

func putResources(t *testing.T, b collections.Backend, u *queue.ResourcesUpdate) {
	t.Helper()
	atomic(t, b, func(tx collections.Tx) error {
		if _, err := tx.Resources(u.ResourcesID); err != nil {
			return err
		}
		own := *u
		return tx.PutResources(&own)
	})
}

// record gets one record that has to exist.
func record(t *testing.T, b collections.Backend, id string) *queue.Record {
	t.Helper()
	rs, err := b.Records(testContext(t), []string{id})
	if err != nil || len(rs) != 1 {
		t.Fatalf("Records(%s) = %d records, error %v; want 1", id, len(rs), err)
	}
	return rs[0]
}

// queued makes the record of a rollout that waits in the queue.
func queued(id string, start float64) *queue.Record {
	return queue.NewRecord(id, queue.Request{Input: rawjson.Value(`{"task":1}`)}, true, start)
}

func queuedNumbered(prefix string, from, n int) []*queue.Record {
	rs := make([]*queue.Record, n)
	for i := range rs {
		rs[i] = queued(fmt.Sprintf("%s%03d", prefix, from+i), float64(100+from+i))
	}
	return rs
}

// head lists the ids at the head of the queue.
func head(t *testing.T, b collections.Backend, n int) []string {
	t.Helper()
	var out []string
	atomic(t, b, func(tx collections.Tx) error {
		rs, err := tx.Head(n)
		out = recordIDs(rs)
		return err
	})
	return out
}

// claim takes n rollouts from the head of the queue in one section.
func claim(t *testing.T, b collections.Backend, n int) []string {
	t.Helper()
	var out []string
	atomic(t, b, func(tx collections.Tx) error {
		rs, err := tx.Head(n)
		if err != nil {
			return err
		}
		out = recordIDs(rs)
		return begin(tx, rs)
	})
	return out
}

func begin(tx collections.Tx, rs []*queue.Record) error {
	for _, r := range rs {
		r = r.Clone()
		r.Begin(fmt.Sprintf("at-%d", len(r.Attempts)+1), nil, true, 0, 1000)
		if err := tx.PutRollout(r); err != nil {
			return err
		}
	}
	return nil
}

func recordIDs(rs []*queue.Record) []string {
	out := []string{}
	for _, r := range rs {
		out = append(out, r.Rollout.RolloutID)
	}
	return out
}

// text writes out all of a record that the contract keeps, Place aside.
func text(r *queue.Record) string {
	var b strings.Builder
	b.Write(r.Rollout.AppendJSON(nil))
	for i := range r.Attempts {
		b.WriteByte('\n')
		b.Write(r.Attempts[i].AppendJSON(nil))
		fmt.Fprintf(&b, " lost=%t", r.Attempts[i].Lost)
	}
	fmt.Fprintf(&b, "\ndue=%v lease=%v spans=%d", r.Due, r.Lease, r.Spans)
	return b.String()
}

func workerText(w *queue.Worker) string {
	if w == nil {
		return "none"
	}
	return string(w.AppendJSON(nil))
}

func resourcesText(u *queue.ResourcesUpdate) string {
	if u == nil {
		return "none"
	}
	return string(u.AppendJSON(nil))
}

// same fails the test when got is not want.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// sameSet is same with the order left out.
func sameSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	same(t, what, got, want)
}

func ptr[T any](v T) *T { return &v }
