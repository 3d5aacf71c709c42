package collections

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue"
)

func ptr[T any](v T) *T { return &v }

func TestPageAttempts(t *testing.T) {
	attempts := []queue.Attempt{
		{RolloutID: "ro", AttemptID: "b", SequenceID: 1, StartTime: 5, Status: queue.AttemptTimeout, WorkerID: ptr("w2")},
		{RolloutID: "ro", AttemptID: "c", SequenceID: 2, StartTime: 5, EndTime: ptr(9.0), Status: queue.AttemptFailed, LastHeartbeatTime: ptr(0.0)},
		{RolloutID: "ro", AttemptID: "A", SequenceID: 3, StartTime: 7, EndTime: ptr(8.0), Status: queue.AttemptSucceeded, WorkerID: ptr("w1"), LastHeartbeatTime: ptr(6.0)},
		{RolloutID: "ro", AttemptID: "d", SequenceID: 4, StartTime: 6, Status: queue.AttemptRunning, WorkerID: ptr(""), LastHeartbeatTime: ptr(6.0)},
	}
	tests := map[string][2]string{ // ascending, descending
		"":                    {"1234", "1234"},
		"rollout_id":          {"1234", "1234"},
		"attempt_id":          {"3124", "4213"},
		"sequence_id":         {"1234", "4321"},
		"start_time":          {"1243", "3412"},
		"end_time":            {"1432", "2314"},
		"status":              {"2431", "1342"},
		"worker_id":           {"2431", "1342"},
		"last_heartbeat_time": {"1234", "3421"},
	}
	keys := func(p queue.Paging) string {
		page := PageAttempts(attempts, p)
		if page.Items == nil || page.Limit != p.Limit || page.Offset != p.Offset || page.Total != 4 {
			t.Errorf("page of %+v is %+v", p, page)
		}
		out := ""
		for _, a := range page.Items {
			out += fmt.Sprint(a.SequenceID)
		}
		return out
	}
	for _, field := range append([]string{""}, queue.AttemptSorts...) {
		want, ok := tests[field]
		if !ok {
			t.Errorf("no test sorts attempts by %s", field)
		}
		for i, descending := range []bool{false, true} {
			all := queue.Paging{SortBy: field, Descending: descending, Limit: -1}
			for limit := -1; limit <= 5; limit++ {
				for offset := range 6 {
					from := min(offset, 4)
					to := 4
					if limit >= 0 {
						to = min(from+limit, 4)
					}
					p := all
					p.Limit, p.Offset = limit, offset
					if got := keys(p); got != want[i][from:to] {
						t.Errorf("%+v gives %s, want %s", p, got, want[i][from:to])
					}
				}
			}
		}
	}
	if attempts[0].AttemptID != "b" || attempts[3].AttemptID != "d" {
		t.Error("the attempts themselves were sorted")
	}
	if page := PageAttempts(nil, queue.All); page.Items == nil || page.Total != 0 {
		t.Errorf("page of nothing is %+v", page)
	}
}

// TestPagesAreCutFromTheStableSort compares page with a stable sort.
func TestPagesAreCutFromTheStableSort(t *testing.T) {
	type item struct{ key, at int }
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.IntRange(0, 20), 0, 200).Draw(t, "keys")
		items := make([]item, len(keys))
		for i, key := range keys {
			items[i] = item{key, i}
		}
		p := queue.Paging{
			Descending: rapid.Bool().Draw(t, "descending"),
			Limit:      rapid.IntRange(-1, 30).Draw(t, "limit"),
			Offset:     rapid.IntRange(0, 210).Draw(t, "offset"),
		}
		sorted := slices.Clone(items)
		slices.SortStableFunc(sorted, func(a, b item) int {
			if p.Descending {
				a, b = b, a
			}
			return cmp.Compare(a.key, b.key)
		})
		from := min(p.Offset, len(sorted))
		to := len(sorted)
		if p.Limit >= 0 {
			to = min(from+p.Limit, len(sorted))
		}
		got := page(items, p, func(a, b item) int { return cmp.Compare(a.key, b.key) })
		if !slices.Equal(got.Items, sorted[from:to]) || got.Total != len(items) {
			t.Fatalf("page is %v of %d, want %v", got.Items, got.Total, sorted[from:to])
		}
	})
}

func TestEverySortHasAnOrder(t *testing.T) {
	check := func(list string, names []string, known func(string) bool) {
		for _, name := range names {
			if !known(name) {
				t.Errorf("%s cannot be sorted by %s", list, name)
			}
		}
	}
	check("attempts", queue.AttemptSorts, func(s string) bool { return attemptOrders[s] != nil })
	check("rollouts", queue.RolloutSorts, func(s string) bool { return rolloutOrders[s] != nil })
	check("workers", queue.WorkerSorts, func(s string) bool { return workerOrders[s] != nil })
	check("resources", queue.ResourcesSorts, func(s string) bool { return resourcesOrders[s] != nil })
	check("spans", queue.SpanSorts, func(s string) bool { return spanOrders[s] != nil })
}

func TestContainsFold(t *testing.T) {
	tests := []struct {
		s, sub string
		want   bool
	}{
		{"", "", true},
		{"abc", "", true},
		{"", "a", false},
		{"Rollout", "LLO", true},
		{"rollout", "outs", false},
		{"aab", "AB", true},
		{"ÄÖÜ", "öü", true},
		{"straße", "STRASSE", false},
		{"ΑΣΑΣ", "σας", true},
		{"日本", "本", true},
		{"a.b", "A.B", true},
		{"axb", "a.b", false},
		{"\xff", "\xff", true},
		{"[]", "[}", false}, // no letters: they differ by the bit that tells case
		{"{}", "[]", false},
		{"@`", "`@", false},
	}
	for _, tt := range tests {
		if got := ContainsFold(tt.s, tt.sub); got != tt.want {
			t.Errorf("ContainsFold(%q, %q) = %t", tt.s, tt.sub, got)
		}
	}
}
