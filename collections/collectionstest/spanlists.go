package collectionstest

import (
	"fmt"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// insertListedSpans stores spans whose ids are their positions from 1, in two
// calls, and one of another rollout.
func insertListedSpans(t *testing.T, b collections.Backend) {
	t.Helper()
	status := func(code string) rawjson.Value {
		return rawjson.Value(`{"status_code":"` + code + `","description":"OK"}`)
	}
	s := make([]queue.Span, 7)
	for i := range s {
		s[i] = span("ro", "at-1", fmt.Sprint(i+1), 0)
	}
	set := func(at int, attempt string, sequence int64, trace string, parent *string, name string, start, end *float64, code string) {
		x := &s[at-1]
		x.AttemptID, x.SequenceID, x.TraceID, x.ParentID, x.Name = attempt, sequence, trace, parent, name
		x.StartTime, x.EndTime, x.Status = start, end, status(code)
	}
	set(1, "at-2", 5, "T1", nil, "chat.completion", ptr(10.0), ptr(20.0), "OK")
	set(2, "at-1", 2, "t2", ptr("p2"), "Tool", nil, ptr(5.0), "ERROR")
	set(3, "at-1", 2, "T1", ptr("P1"), "reward", ptr(30.0), nil, "UNSET")
	set(4, "at-2", 1, "t0", ptr(""), "", ptr(10.0), ptr(11.0), "OK")
	set(5, "at-1", 9, "t2", nil, "CHAT", ptr(5.0), ptr(35.0), "ERROR")
	set(6, "at-1", -1, "T3", ptr("p2"), "tool%_", nil, nil, "UNSET")
	s[6].RolloutID = "other"
	insertSpans(t, b, s[0], s[1], s[6])
	insertSpans(t, b, s[2], s[3], s[4], s[5])
}

func testSpanLists(t *testing.T, open OpenFunc) {
	b := open(t)
	insertListedSpans(t, b)
	t.Run("Filters", func(t *testing.T) { spanFilters(t, b) })
	t.Run("Sorts", func(t *testing.T) { spanSorts(t, b) })
	t.Run("Pages", func(t *testing.T) { spanPages(t, b) })
	t.Run("Long", func(t *testing.T) { longSpanList(t, open(t)) })
}

func equals(s string) queue.TextMatch   { return queue.TextMatch{Equals: &s} }
func contains(s string) queue.TextMatch { return queue.TextMatch{Contains: &s} }

func spanFilters(t *testing.T, b collections.Backend) {
	tests := []struct {
		name string
		q    queue.SpanQuery
		want string
	}{
		{"none", queue.SpanQuery{}, "123456"},
		{"none with or", queue.SpanQuery{Logic: queue.Or}, "123456"},
		{"attempt", queue.SpanQuery{AttemptID: ptr("at-2")}, "14"},
		{"attempt with or", queue.SpanQuery{AttemptID: ptr("at-2"), Logic: queue.Or}, "14"},
		{"unknown attempt", queue.SpanQuery{AttemptID: ptr("at-0")}, ""},
		{"latest is literal", queue.SpanQuery{AttemptID: ptr("latest")}, ""},
		{"trace", queue.SpanQuery{TraceID: equals("T1")}, "13"},
		{"trace equals is exact", queue.SpanQuery{TraceID: equals("T2")}, ""},
		{"trace contains", queue.SpanQuery{TraceID: contains("T2")}, "25"},
		{"span", queue.SpanQuery{SpanID: equals("4")}, "4"},
		{"span contains", queue.SpanQuery{SpanID: contains("4")}, "4"},
		{"parent", queue.SpanQuery{ParentID: equals("p2")}, "26"},
		{"parent equals nothing", queue.SpanQuery{ParentID: equals("")}, "4"},
		{"parent contains", queue.SpanQuery{ParentID: contains("p")}, "236"},
		{"contains nothing leaves null out", queue.SpanQuery{ParentID: contains("")}, "2346"},
		{"name", queue.SpanQuery{Name: equals("CHAT")}, "5"},
		{"name contains", queue.SpanQuery{Name: contains("chat")}, "15"},
		{"name contains a dot", queue.SpanQuery{Name: contains("t.c")}, "1"},
		{"name contains wildcards", queue.SpanQuery{Name: contains("%_")}, "6"},
		{"name contains a regex", queue.SpanQuery{Name: contains(".*")}, ""},
		{"name contains nothing", queue.SpanQuery{Name: contains("")}, "123456"},
		{"two on one field", queue.SpanQuery{Name: queue.TextMatch{Equals: ptr("CHAT"), Contains: ptr("tool")}}, ""},
		{"two on one field with or", queue.SpanQuery{Name: queue.TextMatch{Equals: ptr("CHAT"), Contains: ptr("tool")}, Logic: queue.Or}, "256"},
		{"and", queue.SpanQuery{TraceID: equals("t2"), Name: contains("o")}, "2"},
		{"or", queue.SpanQuery{TraceID: equals("t0"), Name: equals("reward"), ParentID: contains("2"), Logic: queue.Or}, "2346"},
		{"or within an attempt", queue.SpanQuery{AttemptID: ptr("at-1"), TraceID: equals("T1"), Name: equals("Tool"), Logic: queue.Or}, "23"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.q.RolloutID, tt.q.Limit = "ro", -1
			page := querySpans(t, b, tt.q)
			same(t, "spans", spanIDs(page), tt.want)
			same(t, "total", page.Total, len(tt.want))
			tt.q.SortBy = "span_id"
			same(t, "sorted by id", spanIDs(querySpans(t, b, tt.q)), tt.want)
		})
	}
}

func spanSorts(t *testing.T, b collections.Backend) {
	tests := map[string][2]string{ // ascending, descending
		"rollout_id":  {"123456", "123456"},
		"attempt_id":  {"235614", "142356"},
		"sequence_id": {"642315", "512346"},
		"trace_id":    {"136425", "254613"},
		"span_id":     {"123456", "654321"},
		"parent_id":   {"154326", "263415"},
		"name":        {"452136", "631254"},
		"start_time":  {"265143", "314526"},
		"end_time":    {"362415", "514236"},
		"duration":    {"236415", "514236"},
		"status_code": {"251436", "361425"},
	}
	for _, field := range queue.SpanSorts {
		want, ok := tests[field]
		if !ok {
			t.Errorf("no test sorts spans by %s", field)
		}
		for i, descending := range []bool{false, true} {
			q := queue.SpanQuery{RolloutID: "ro", Paging: queue.Paging{SortBy: field, Descending: descending, Limit: -1}}
			what := fmt.Sprintf("by %s, descending %t", field, descending)
			same(t, what, spanIDs(querySpans(t, b, q)), want[i])
			q.Limit, q.Offset = 2, 3
			same(t, "page "+what, spanIDs(querySpans(t, b, q)), want[i][3:5])
		}
	}
}

func spanPages(t *testing.T, b collections.Backend) {
	tests := []struct {
		q     queue.SpanQuery
		p     queue.Paging
		want  string
		total int
	}{
		{queue.SpanQuery{}, queue.Paging{Limit: 2}, "12", 6},
		{queue.SpanQuery{}, queue.Paging{Limit: 2, Offset: 5}, "6", 6},
		{queue.SpanQuery{}, queue.Paging{Limit: 2, Offset: 6}, "", 6},
		{queue.SpanQuery{}, queue.Paging{Limit: -1, Offset: 4}, "56", 6},
		{queue.SpanQuery{}, queue.Paging{Limit: -1, Offset: 1 << 30}, "", 6},
		{queue.SpanQuery{AttemptID: ptr("at-1")}, queue.Paging{Limit: 2, Offset: 1}, "35", 4},
		{queue.SpanQuery{Name: contains("o")}, queue.Paging{Limit: 1, Offset: 1}, "2", 3},
		{queue.SpanQuery{RolloutID: "none"}, queue.Paging{Limit: 1}, "", 0},
	}
	for _, tt := range tests {
		if tt.q.RolloutID == "" {
			tt.q.RolloutID = "ro"
		}
		tt.q.Paging = tt.p
		page := querySpans(t, b, tt.q)
		same(t, fmt.Sprintf("spans of %+v", tt.q), spanIDs(page), tt.want)
		same(t, fmt.Sprintf("total of %+v", tt.q), page.Total, tt.total)
	}
}

// longSpanList reads a rollout whose numbers mostly rise, as real ones do, in
// pages.
func longSpanList(t *testing.T, b collections.Backend) {
	const n = 400
	spans := make([]queue.Span, n)
	for i := range spans {
		spans[i] = span("ro", "at", fmt.Sprintf("%03d", i), int64(i+1))
	}
	insertSpans(t, b, spans[:150]...)
	insertSpans(t, b, spans[150:]...)
	bySequence := queue.Paging{SortBy: "sequence_id", Limit: 130}
	check := func(what string, p queue.Paging, want func(i int) int) {
		t.Helper()
		at := 0
		for p.Offset = 0; p.Offset < n; p.Offset += p.Limit {
			for _, s := range querySpans(t, b, queue.SpanQuery{RolloutID: "ro", Paging: p}).Items {
				if s.SpanID != fmt.Sprintf("%03d", want(at)) {
					t.Fatalf("%s: span %d is %s, want %03d", what, at, s.SpanID, want(at))
				}
				at++
			}
		}
		same(t, what+": spans seen", at, n)
	}
	check("by number", bySequence, func(i int) int { return i })
	bySequence.Descending = true
	check("by number, descending", bySequence, func(i int) int { return n - 1 - i })
	// One that comes late sorts by its number all the same.
	late := span("ro", "at", "late", 0)
	insertSpans(t, b, late)
	bySequence = queue.Paging{SortBy: "sequence_id", Limit: 2}
	same(t, "first after a late one", spanIDs(querySpans(t, b, queue.SpanQuery{RolloutID: "ro", Paging: bySequence})), "late000")
	bySequence.Descending = true
	same(t, "last after a late one", spanIDs(querySpans(t, b, queue.SpanQuery{RolloutID: "ro", Paging: bySequence})), "399398")
}
