package collectionstest

import (
	"fmt"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// span makes a complete span; tests change what they are about.
func span(rollout, attempt, id string, sequence int64) queue.Span {
	return queue.Span{
		RolloutID: rollout, AttemptID: attempt, SequenceID: sequence, TraceID: "trace", SpanID: id, Name: "name",
		Status:     rawjson.Value(`{"status_code":"OK","description":null}`),
		Attributes: rawjson.Value(`{"n":1}`), Events: rawjson.EmptyArray, Links: rawjson.EmptyArray,
		StartTime: ptr(100.0), EndTime: ptr(101.0),
		Context: rawjson.Null, Parent: rawjson.Null, Resource: rawjson.Value(`{"attributes":{},"schema_url":""}`),
	}
}

func insertSpans(t *testing.T, b collections.Backend, spans ...queue.Span) []bool {
	t.Helper()
	stored, err := b.InsertSpans(testContext(t), spans)
	if err != nil {
		t.Fatalf("InsertSpans: %v", err)
	}
	return stored
}

func querySpans(t *testing.T, b collections.Backend, q queue.SpanQuery) queue.Page[queue.Span] {
	t.Helper()
	page, err := b.QuerySpans(testContext(t), q)
	if err != nil {
		t.Fatalf("QuerySpans(%+v): %v", q, err)
	}
	if page.Items == nil || page.Limit != q.Limit || page.Offset != q.Offset {
		t.Errorf("page of %+v has limit %d, offset %d, items %v", q, page.Limit, page.Offset, page.Items)
	}
	return page
}

func spanIDs(page queue.Page[queue.Span]) string {
	ids := ""
	for _, s := range page.Items {
		ids += s.SpanID
	}
	return ids
}

func testSpans(t *testing.T, open OpenFunc) {
	t.Run("Duplicates", func(t *testing.T) { spanDuplicates(t, open(t)) })
	t.Run("ManyRollouts", func(t *testing.T) { spansOfManyRollouts(t, open(t)) })
	t.Run("Fields", func(t *testing.T) { spanFields(t, open(t)) })
	t.Run("Concurrent", func(t *testing.T) { concurrentSpans(t, open(t)) })
}

func spanDuplicates(t *testing.T, b collections.Backend) {
	same(t, "stored of nothing", len(insertSpans(t, b)), 0)
	same(t, "first", insertSpans(t, b, span("ro", "at-1", "a", 1), span("ro", "at-1", "b", 2)), []bool{true, true})
	changed := span("ro", "at-1", "a", 9)
	changed.Name = "changed"
	stored := insertSpans(t, b,
		span("ro", "at-1", "c", 3),
		changed,                    // in the store
		span("ro", "at-1", "d", 4), //
		span("ro", "at-1", "c", 5), // earlier in the call
		span("ro", "at-2", "a", 6), // the id is another attempt's
		span("rp", "at-1", "a", 7), // and another rollout's
		span("ro", "at-1", "e", 3), // numbers may repeat
	)
	same(t, "stored", stored, []bool{true, false, true, false, true, true, true})
	same(t, "all of it again", insertSpans(t, b, changed, span("ro", "at-2", "a", 1)), []bool{false, false})
	page := querySpans(t, b, queue.SpanQuery{RolloutID: "ro", Paging: queue.All})
	same(t, "spans", spanIDs(page), "abcdae")
	same(t, "first name", page.Items[0].Name, "name")
	same(t, "first number", page.Items[0].SequenceID, 1)
	same(t, "other rollout", spanIDs(querySpans(t, b, queue.SpanQuery{RolloutID: "rp", Paging: queue.All})), "a")
	same(t, "unknown rollout", querySpans(t, b, queue.SpanQuery{RolloutID: "r", Paging: queue.All}).Total, 0)
}

func spansOfManyRollouts(t *testing.T, b collections.Backend) {
	const rollouts, each = 20, 30
	var spans []queue.Span
	for i := range each {
		for r := range rollouts {
			spans = append(spans, span(fmt.Sprintf("ro-%d", r), fmt.Sprintf("at-%d", i%2), fmt.Sprintf("%02d", i), int64(i)))
		}
	}
	for i, ok := range insertSpans(t, b, spans...) {
		if !ok {
			t.Fatalf("span %d was not stored", i)
		}
	}
	want := ""
	for i := range each {
		want += fmt.Sprintf("%02d", i)
	}
	for r := range rollouts {
		page := querySpans(t, b, queue.SpanQuery{RolloutID: fmt.Sprintf("ro-%d", r), Paging: queue.All})
		same(t, "spans of a rollout", spanIDs(page), want)
	}
	for _, ok := range insertSpans(t, b, spans...) {
		if ok {
			t.Fatal("a span was stored twice")
		}
	}
}

func spanFields(t *testing.T, b collections.Backend) {
	full := span("ro", "at", "full", 7)
	full.ParentID = ptr("parent")
	full.Events = rawjson.Value(`[{"name":"e","attributes":{"k":1.0},"timestamp":1.5}]`)
	full.Links = rawjson.Value(`[{"context":{"trace_id":"t","span_id":"s","is_remote":false,"trace_state":{}},"attributes":null}]`)
	full.Context = rawjson.Value(`{"trace_id":"t","span_id":"s","is_remote":true,"trace_state":{"a":"b"}}`)
	full.Parent = full.Context
	full.Extra = rawjson.Value(`{"_id":"x","partition_id":"y","$set":{"a.b":1},"":[1,1.0],"z":null}`)

	bare := span("ro", "at", "bare", -3)
	bare.StartTime, bare.EndTime, bare.TraceID, bare.Name = nil, nil, "", ""
	bare.Attributes, bare.Resource = rawjson.EmptyObject, rawjson.EmptyObject

	odd := span("ro", "at\x00$.é", "odd\x00$.é\U0001F600", 1<<62)
	odd.Name, odd.TraceID, odd.ParentID = "n\x00\n\"\\", "$where", ptr("")
	odd.StartTime, odd.EndTime = ptr(1700000000.1234567), ptr(-0.1)

	all := []queue.Span{full, bare, odd}
	insertSpans(t, b, all...)
	page := querySpans(t, b, queue.SpanQuery{RolloutID: "ro", Paging: queue.All})
	for i := range min(len(all), len(page.Items)) {
		same(t, all[i].SpanID, string(page.Items[i].AppendJSON(nil)), string(all[i].AppendJSON(nil)))
	}
	same(t, "number of spans", len(page.Items), len(all))
	byID := querySpans(t, b, queue.SpanQuery{RolloutID: "ro", AttemptID: &odd.AttemptID, SpanID: queue.TextMatch{Equals: &odd.SpanID}, Paging: queue.All})
	same(t, "by odd ids", byID.Total, 1)
}

func concurrentSpans(t *testing.T, b collections.Backend) {
	const writers, each = 6, 20
	ctx := testContext(t)
	stored := make([]int, writers)
	together(t, writers, func(i int) error {
		for n := range each {
			// Every writer sends the shared span and one of its own.
			oks, err := b.InsertSpans(ctx, []queue.Span{
				span("ro", "at", fmt.Sprintf("shared-%d", n), 1),
				span("ro", "at", fmt.Sprintf("own-%d-%d", i, n), 1),
			})
			if err != nil {
				return err
			}
			if !oks[1] {
				return fmt.Errorf("writer %d: its own span %d was not stored", i, n)
			}
			if oks[0] {
				stored[i]++
			}
		}
		return nil
	})
	sum := 0
	for _, n := range stored {
		sum += n
	}
	same(t, "shared spans stored", sum, each)
	same(t, "spans", querySpans(t, b, queue.SpanQuery{RolloutID: "ro", Paging: queue.All}).Total, each+writers*each)
}
