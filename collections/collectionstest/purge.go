package collectionstest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

func testRetention(t *testing.T, open OpenFunc) {
	t.Run("nothing goes without a cutoff", func(t *testing.T) {
		b := open(t)
		insertEnded(t, b, "ro-a", 100)
		got := purgeAll(t, b, collections.Cutoffs{Now: 1e12})
		same(t, "purged", got, collections.Purged{})
		same(t, "rollouts", total(t, b), 1)
	})
	t.Run("finished rollouts", func(t *testing.T) { finishedGo(t, open(t)) })
	t.Run("many", func(t *testing.T) { manyGo(t, open(t)) })
	t.Run("spans", func(t *testing.T) { oldSpansGo(t, open(t)) })
}

// purgeAll purges until there is no more to do.
func purgeAll(t *testing.T, b collections.Backend, old collections.Cutoffs) (sum collections.Purged) {
	t.Helper()
	for range 1000 {
		got, err := b.Purge(testContext(t), old)
		if err != nil {
			t.Fatalf("Purge: %v", err)
		}
		sum.Rollouts += got.Rollouts
		sum.Spans += got.Spans
		sum.Attempts = append(sum.Attempts, got.Attempts...)
		if !got.More {
			return sum
		}
	}
	t.Fatal("there is always more to purge")
	return sum
}

// insertEnded inserts a rollout with one attempt that succeeded at a time.
func insertEnded(t *testing.T, b collections.Backend, id string, end float64) {
	t.Helper()
	r := queued(id, end-10)
	r.Begin("at-1", nil, true, 0, end-5)
	r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutSucceeded)}, end)
	insert(t, b, r)
}

func total(t *testing.T, b collections.Backend) int {
	t.Helper()
	return queryRollouts(t, b, queue.RolloutQuery{Paging: queue.Paging{Limit: 1}}).Total
}

func spansOf(t *testing.T, b collections.Backend, id string) int {
	t.Helper()
	return len(querySpans(t, b, queue.SpanQuery{RolloutID: id, Paging: queue.All}).Items)
}

func finishedGo(t *testing.T, b collections.Backend) {
	insertEnded(t, b, "ro-old", 100)
	insertEnded(t, b, "ro-new", 300)
	insertEnded(t, b, "ro-revived", 100)
	change(t, b, "ro-revived", func(r *queue.Record) {
		r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutQueuing)}, 150)
	})
	insert(t, b, queued("ro-waiting", 50))
	for _, id := range []string{"ro-old", "ro-new", "ro-revived"} {
		insertSpans(t, b, span(id, "at-1", "a", 1), span(id, "at-1", "b", 2))
	}
	ctx := testContext(t)
	if _, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-old", N: 7}}, true); err != nil {
		t.Fatal(err)
	}

	got := purgeAll(t, b, collections.Cutoffs{Now: 1000, Finished: 100})
	same(t, "purged of what ended at the cutoff", got, collections.Purged{})
	got = purgeAll(t, b, collections.Cutoffs{Now: 1000, Finished: 200})
	same(t, "purged", got, collections.Purged{
		Rollouts: 1, Attempts: []queue.AttemptRef{{RolloutID: "ro-old", AttemptID: "at-1"}},
	})
	if rs, err := b.Records(ctx, []string{"ro-old"}); err != nil || len(rs) != 0 {
		t.Errorf("an old rollout is there still: %v, %v", rs, err)
	}
	same(t, "rollouts left", total(t, b), 3)
	same(t, "queue", head(t, b, 10), []string{"ro-revived", "ro-waiting"})
	st, err := b.Statistics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "attempts left", st.Attempts, 2)
	same(t, "succeeded", st.ByStatus[queue.RolloutSucceeded], 1)

	got = purgeAll(t, b, collections.Cutoffs{Now: 1001 + collections.PurgeGrace, Finished: 200})
	same(t, "purged after the grace", got, collections.Purged{Spans: 2})
	same(t, "spans of the old one", spansOf(t, b, "ro-old"), 0)
	same(t, "spans of the new one", spansOf(t, b, "ro-new"), 2)
	same(t, "spans of the revived one", spansOf(t, b, "ro-revived"), 2)
	first, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-old", N: 1}}, true)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the counter begins anew", first, []int64{1})
	insertEnded(t, b, "ro-old", 500) // the place is free
	same(t, "rollouts", total(t, b), 4)
}

// manyGo purges more than one batch of rollouts, some with more spans than a
// batch, those that stay in between.
func manyGo(t *testing.T, b collections.Backend) {
	const n = 450
	rs := make([]*queue.Record, n)
	for i := range rs {
		rs[i] = queued(fmt.Sprintf("ro-%03d", i), float64(i))
		if i%3 > 0 {
			rs[i].Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutFailed)}, float64(1000+i))
		}
	}
	insert(t, b, rs...)
	spans := make([]queue.Span, 2500)
	for i := range spans {
		spans[i] = span("ro-001", "at-1", fmt.Sprint("s", i), int64(i+1))
	}
	insertSpans(t, b, spans...)
	insertSpans(t, b, span("ro-003", "at-1", "a", 1))
	old := collections.Cutoffs{Now: 5000, Finished: 2000}
	same(t, "purged", purgeAll(t, b, old).Rollouts, n/3*2)
	old.Now += collections.PurgeGrace + 1
	same(t, "spans purged", purgeAll(t, b, old).Spans, 2500)
	same(t, "spans kept", spansOf(t, b, "ro-003"), 1)
	page := queryRollouts(t, b, queue.RolloutQuery{Paging: queue.Paging{Limit: 20, Offset: 100}})
	same(t, "total", page.Total, n/3)
	want := []string{}
	for i := 300; i < 360; i += 3 {
		want = append(want, fmt.Sprintf("ro-%03d", i))
	}
	same(t, "page", recordIDs(page.Items), want)
	same(t, "head", head(t, b, 2), []string{"ro-000", "ro-003"})
	insert(t, b, queued("ro-end", 999))
	same(t, "after an insert", total(t, b), n/3+1)
	same(t, "claimed", strings.Join(claim(t, b, 3), " "), "ro-000 ro-003 ro-006")
}

func oldSpansGo(t *testing.T, b collections.Backend) {
	insertEnded(t, b, "ro-a", 100)
	insertSpans(t, b, span("ro-a", "at-1", "a", 1), span("ro-a", "at-1", "b", 2))
	before := queue.Seconds(time.Now()) - 60
	same(t, "purged of what is young", purgeAll(t, b, collections.Cutoffs{Now: before, Spans: before}), collections.Purged{})
	later := queue.Seconds(time.Now()) + 60
	same(t, "purged", purgeAll(t, b, collections.Cutoffs{Now: later, Spans: later}), collections.Purged{Spans: 2})
	same(t, "spans", spansOf(t, b, "ro-a"), 0)
	same(t, "rollouts", total(t, b), 1)
	st, err := b.Statistics(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "spans counted", st.Spans, 0)
	same(t, "stored again", insertSpans(t, b, span("ro-a", "at-1", "a", 3)), []bool{true})
	same(t, "spans", spansOf(t, b, "ro-a"), 1)
}
