package collectionstest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func testScans(t *testing.T, open OpenFunc) {
	t.Run("Rollouts", func(t *testing.T) { scanRollouts(t, open(t)) })
	t.Run("AsTheyAre", func(t *testing.T) { insertedAsTheyAre(t, open(t)) })
	t.Run("Workers", func(t *testing.T) { scanWorkers(t, open(t)) })
	t.Run("Resources", func(t *testing.T) { scanResources(t, open(t)) })
	t.Run("Spans", func(t *testing.T) { scanSpans(t, open(t)) })
	t.Run("Counters", func(t *testing.T) { scanCounters(t, open(t)) })
	t.Run("Bytes", func(t *testing.T) { scanBytes(t, open(t)) })
	t.Run("Growing", func(t *testing.T) { scanGrowing(t, open(t)) })
	t.Run("Cursors", func(t *testing.T) { wrongCursors(t, open(t)) })
}

// scanAll reads all pages; between, if not nil, runs after each.
func scanAll[T any](t *testing.T, limit int, page func(context.Context, collections.Cursor, int) ([]T, collections.Cursor, error), between func()) []T {
	t.Helper()
	var out []T
	for cursor := collections.Cursor(""); ; {
		items, next, err := page(testContext(t), cursor, limit)
		if err != nil {
			t.Fatalf("page after %q: %v", cursor, err)
		}
		if len(items) > limit {
			t.Fatalf("page of %d items, limit %d", len(items), limit)
		}
		if len(items) == 0 {
			return out
		}
		out = append(out, items...)
		cursor = next
		if between != nil {
			between()
		}
	}
}

var scanLimits = []int{1, 2, 7, 1000}

func scanRollouts(t *testing.T, b collections.Backend) {
	same(t, "of nothing", len(scanAll(t, 5, b.ScanRollouts, nil)), 0)
	starts := []float64{5, 5, 5, 1, 9.25, 5, 1, -3}
	var rs []*queue.Record
	for i, start := range starts {
		rs = append(rs, queued(fmt.Sprintf("ro-%d", (i*5)%8), start))
	}
	insert(t, b, rs[:3]...)
	insert(t, b, rs[3:]...)
	page, err := b.QueryRollouts(testContext(t), queue.RolloutQuery{Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range scanLimits {
		got := scanAll(t, limit, b.ScanRollouts, nil)
		same(t, fmt.Sprintf("limit %d", limit), recordIDs(got), recordIDs(page.Items))
		for i, r := range got {
			same(t, r.Rollout.RolloutID, text(r), text(page.Items[i]))
		}
	}
}

// insertedAsTheyAre stores what a scan of another partition returned: nothing of
// it changes, and the queue has the order that it brought.
func insertedAsTheyAre(t *testing.T, b collections.Backend) {
	early, late, running, ended := queued("ro-early", 9), queued("ro-late", 1), queued("ro-running", 2), queued("ro-ended", 3)
	early.Place, late.Place = 3, 5
	w := "w-1"
	running.Begin("at-1", &w, true, 30, 50)
	running.Attempts[0].Status, running.Attempts[0].Lost = queue.AttemptUnresponsive, true
	running.Begin("at-2", &w, true, 30.5, 60)
	running.Spans, running.Due = 12, 61.125
	ended.Begin("at-1", nil, true, 0, 50)
	if _, _, err := ended.UpdateAttempt("at-1", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}, 70); err != nil {
		t.Fatal(err)
	}
	all := []*queue.Record{late, running, ended, early} // in order of start
	insert(t, b, early, late)
	insert(t, b, running, ended)
	insert(t, b, queued("ro-tail", 99))
	got := scanAll(t, 2, b.ScanRollouts, nil)
	same(t, "number of rollouts", len(got), 5)
	for i, r := range all {
		same(t, r.Rollout.RolloutID, text(got[i]), text(r))
		same(t, "place of "+r.Rollout.RolloutID, got[i].Place, r.Place)
	}
	same(t, "queue", claim(t, b, 9), []string{"ro-early", "ro-late", "ro-tail"})
	due, err := b.Overdue(testContext(t), 62, 9)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "overdue", due, []string{"ro-running"})
}

func scanWorkers(t *testing.T, b collections.Backend) {
	var want []string
	for _, w := range listedWorkers {
		putWorker(t, b, w)
		want = append(want, workerText(w))
	}
	putWorker(t, b, listedWorkers[0]) // keeps its place
	for _, limit := range scanLimits {
		got := []string{}
		for _, w := range scanAll(t, limit, b.ScanWorkers, nil) {
			got = append(got, workerText(w))
		}
		same(t, fmt.Sprintf("limit %d", limit), got, want)
	}
}

func scanResources(t *testing.T, b collections.Backend) {
	var want []string
	for _, id := range []string{"rs-m", "rs-B", "rs-a", "x.1"} {
		u := resourceSet(id, 1, float64(len(want)), 1)
		putResources(t, b, u)
		want = append(want, resourcesText(u))
	}
	for _, limit := range scanLimits {
		got := []string{}
		for _, u := range scanAll(t, limit, b.ScanResources, nil) {
			got = append(got, resourcesText(u))
		}
		same(t, fmt.Sprintf("limit %d", limit), got, want)
	}
}

func scanSpans(t *testing.T, b collections.Backend) {
	insertSpans(t, b,
		span("ro-2", "at-1", "c", 3), span("ro-2", "at-2", "a", 1), span("ro-1", "at-1", "a", 7),
		span("ro-2", "at-1", "z", 3), span("ro-2", "at-1", "b", 3), span("ro-2", "at-2", "c", 3),
		span("ro-3", "at-1", "left out", 1), span("ro-9", "at-1", "a", 2), span("ro-9", "at-1", "b", -2),
		span("ro-2", "at-2", "d", 2),
	)
	ids := []string{"ro-1", "ro-2", "ro-8", "ro-9"}
	page := func(ctx context.Context, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
		return b.ScanSpans(ctx, ids, after, limit)
	}
	want := "ro-1/at-1/a ro-2/at-2/a ro-2/at-2/d ro-2/at-1/c ro-2/at-1/z ro-2/at-1/b ro-2/at-2/c ro-9/at-1/b ro-9/at-1/a"
	for _, limit := range scanLimits {
		var got []string
		for _, s := range scanAll(t, limit, page, nil) {
			got = append(got, s.RolloutID+"/"+s.AttemptID+"/"+s.SpanID)
		}
		same(t, fmt.Sprintf("limit %d", limit), strings.Join(got, " "), want)
	}
	ids = nil
	same(t, "of no rollouts", len(scanAll(t, 3, page, nil)), 0)
}

func scanCounters(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	if err := b.RaiseSequence(ctx, []collections.Counter{{RolloutID: "ro-1", N: 7}, {RolloutID: "x$.\x00é/%", N: 1 << 60}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.NextSequence(ctx, []collections.Counter{{RolloutID: "ro-3", N: 2}}, true); err != nil {
		t.Fatal(err)
	}
	got, err := b.Counters(ctx, []string{"ro-3", "ro-2", "x$.\x00é/%", "ro-1"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "counters", got, []int64{2, 0, 1 << 60, 7})
	got, err = b.Counters(ctx, nil)
	if err != nil || len(got) != 0 {
		t.Errorf("counters of nothing: %v, %v", got, err)
	}
}

// scanBytes has payloads that do not all fit into one page.
func scanBytes(t *testing.T, b collections.Backend) {
	big := rawjson.Value(`"` + strings.Repeat("x", collections.ScanBytes/3) + `"`)
	for i := range 5 {
		id := fmt.Sprintf("ro-%d", i)
		insert(t, b, queue.NewRecord(id, queue.Request{Input: big}, true, float64(i)))
		s := span(id, "at-1", "a", 1)
		s.Attributes = rawjson.Value(`{"x":` + string(big) + `}`)
		insertSpans(t, b, s)
	}
	first, cursor, err := b.ScanRollouts(testContext(t), "", 100)
	if err != nil || len(first) < 1 || len(first) > 4 {
		t.Fatalf("first page has %d rollouts: %v", len(first), err)
	}
	rest, _, err := b.ScanRollouts(testContext(t), cursor, 1)
	if err != nil || len(rest) != 1 || rest[0].Rollout.RolloutID != fmt.Sprintf("ro-%d", len(first)) {
		t.Fatalf("page behind it: %v, %v", recordIDs(rest), err)
	}
	ids := []string{"ro-0", "ro-1", "ro-2", "ro-3", "ro-4"}
	spans, _, err := b.ScanSpans(testContext(t), ids, "", 100)
	if err != nil || len(spans) < 1 || len(spans) > 4 {
		t.Fatalf("first page has %d spans: %v", len(spans), err)
	}
	all := scanAll(t, 100, func(ctx context.Context, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
		return b.ScanSpans(ctx, ids, after, limit)
	}, nil)
	same(t, "spans", len(all), 5)
}

// scanGrowing adds on both sides of the cursor: what was there is seen once.
func scanGrowing(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 12)...)
	added := 0
	got := recordIDs(scanAll(t, 5, b.ScanRollouts, func() {
		if added++; added <= 3 {
			insert(t, b, queued(fmt.Sprintf("new-before-%d", added), 1), queued(fmt.Sprintf("new-behind-%d", added), 500))
		}
	}))
	for i := range 12 {
		id := fmt.Sprintf("ro-%03d", i)
		if n := strings.Count(" "+strings.Join(got, " ")+" ", " "+id+" "); n != 1 {
			t.Errorf("%s was seen %d times in %q", id, n, got)
		}
	}
	if !slices.IsSorted(got[:5]) {
		t.Errorf("first page %q", got[:5])
	}
}

func wrongCursors(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 2)...)
	ctx := testContext(t)
	for _, c := range []collections.Cursor{"x", "0x1p+2", "[1]"} {
		_, _, r := b.ScanRollouts(ctx, c, 5)
		_, _, w := b.ScanWorkers(ctx, c, 5)
		_, _, u := b.ScanResources(ctx, c, 5)
		_, _, s := b.ScanSpans(ctx, []string{"ro-000"}, c, 5)
		for i, err := range []error{r, w, u, s} {
			if queue.KindOf(err) != queue.Invalid {
				t.Errorf("scan %d after %q: %v", i, c, err)
			}
		}
	}
}
