package collectionstest

import (
	"fmt"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

func testRollouts(t *testing.T, open OpenFunc) {
	b := open(t)
	ctx := testContext(t)
	insert(t, b, queuedNumbered("ro-", 0, 4)...)
	finish := func(id string, s queue.RolloutStatus) {
		change(t, b, id, func(r *queue.Record) { r.Update(queue.RolloutUpdate{Status: queue.Set(s)}, 200) })
	}
	finish("ro-001", queue.RolloutSucceeded)
	finish("ro-002", queue.RolloutFailed)
	finish("ro-003", queue.RolloutCancelled)

	rs, err := b.Records(ctx, []string{"ro-003", "ro-none", "ro-000"})
	if err != nil {
		t.Fatal(err)
	}
	sameSet(t, "Records", recordIDs(rs), []string{"ro-000", "ro-003"})
	if rs, err = b.Records(ctx, nil); err != nil || len(rs) != 0 {
		t.Errorf("Records of no ids = %d, %v", len(rs), err)
	}

	tests := []struct {
		ids     []string
		done    []string
		pending int
	}{
		{[]string{"ro-000", "ro-001", "ro-none", "ro-002", "ro-003"}, []string{"ro-001", "ro-002", "ro-003"}, 1},
		{[]string{"ro-000"}, nil, 1},
		{[]string{"ro-001"}, []string{"ro-001"}, 0},
		{[]string{"ro-none"}, nil, 0},
		{nil, nil, 0},
	}
	for _, tt := range tests {
		done, pending, err := b.Finished(ctx, tt.ids)
		if err != nil {
			t.Fatal(err)
		}
		sameSet(t, fmt.Sprintf("Finished(%q)", tt.ids), recordIDs(done), tt.done)
		same(t, fmt.Sprintf("pending of %q", tt.ids), pending, tt.pending)
		for _, r := range done {
			if r.Rollout.EndTime == nil || *r.Rollout.EndTime != 200 {
				t.Errorf("%s ended at %v", r.Rollout.RolloutID, r.Rollout.EndTime)
			}
		}
	}
	for _, id := range []string{"ro-001", "ro-none"} { // neither has an attempt
		if latest, err := b.LatestAttemptID(ctx, id); latest != "" || err != nil {
			t.Errorf("latest attempt of %s: %q, %v", id, latest, err)
		}
	}
	// A finished rollout may run again.
	if err := b.Recall(ctx, []string{"ro-001", "ro-none", "ro-000"}); err != nil {
		t.Fatal(err)
	}
	change(t, b, "ro-001", func(r *queue.Record) { r.Begin("at-1", nil, false, 0, 300) })
	if done, pending, err := b.Finished(ctx, []string{"ro-001"}); len(done) != 0 || pending != 1 || err != nil {
		t.Errorf("a rollout started again: %d done, %d pending, %v", len(done), pending, err)
	}
	if latest, err := b.LatestAttemptID(ctx, "ro-001"); latest != "at-1" || err != nil {
		t.Errorf("latest attempt: %q, %v", latest, err)
	}
}

// listed are the rollouts of the list tests in the order of an unsorted list:
// by start time, then by insertion. They are inserted in the order of at.
var listed = []struct {
	key       byte // names the rollout in the tables below
	id        string
	start     float64
	at        int
	status    queue.RolloutStatus
	mode      queue.Mode
	resources *string
	end       *float64
	attempt   string // the latest; "" is none
	worker    *string
	heartbeat *float64
}{
	{'1', "ro-Delta", 10, 2, queue.RolloutQueuing, queue.ModeTrain, nil, nil, "", nil, nil},
	{'2', "ro-alpha", 20, 0, queue.RolloutRunning, queue.ModeVal, ptr("rs-b"), nil, "at-2", ptr("w-b"), ptr(25.0)},
	{'3', "ro-Beta", 20, 1, queue.RolloutFailed, queue.ModeTest, ptr("rs-a"), ptr(50.0), "at-9", nil, ptr(24.0)},
	{'4', "ro-echo", 30, 3, queue.RolloutSucceeded, "", nil, ptr(35.0), "at-1", ptr("w-a"), nil},
	{'5', "ro-gamma", 40, 4, queue.RolloutCancelled, queue.ModeTrain, ptr(""), ptr(41.0), "", nil, nil},
	{'6', "ro-1.5", 50, 5, queue.RolloutRequeuing, queue.ModeVal, nil, ptr(45.0), "at-3", ptr("w-a"), ptr(51.0)},
}

func insertListed(t *testing.T, b collections.Backend) {
	t.Helper()
	byAt := make([]*queue.Record, len(listed))
	for _, l := range listed {
		r := queue.NewRecord(l.id, queue.Request{Mode: l.mode, ResourcesID: l.resources}, l.status.Queued(), l.start)
		r.Rollout.Status, r.Rollout.EndTime = l.status, l.end
		if l.attempt != "" {
			// An older attempt, whose fields no sort may take.
			older := queue.Attempt{
				RolloutID: l.id, AttemptID: "at-5", SequenceID: 1, StartTime: l.start, Status: queue.AttemptFailed,
				WorkerID: ptr("w-z"), LastHeartbeatTime: ptr(99 - l.start),
			}
			latest := queue.Attempt{
				RolloutID: l.id, AttemptID: l.attempt, SequenceID: 2, StartTime: l.start + 1,
				Status: queue.AttemptRunning, WorkerID: l.worker, LastHeartbeatTime: l.heartbeat,
			}
			r.Attempts = []queue.Attempt{older, latest}
		}
		byAt[l.at] = r
	}
	for _, r := range byAt {
		insert(t, b, r)
	}
}

// listedKeys names a page's rollouts by their keys.
func listedKeys(page queue.Page[*queue.Record]) string {
	keys := ""
	for _, r := range page.Items {
		for _, l := range listed {
			if l.id == r.Rollout.RolloutID {
				keys += string(l.key)
			}
		}
	}
	return keys
}

type (
	statuses = []queue.RolloutStatus
	modes    = []queue.Mode
)

func testRolloutLists(t *testing.T, open OpenFunc) {
	b := open(t)
	insertListed(t, b)
	t.Run("Filters", func(t *testing.T) { rolloutFilters(t, b) })
	t.Run("Sorts", func(t *testing.T) { rolloutSorts(t, b) })
	t.Run("Pages", func(t *testing.T) { rolloutPages(t, b) })
	t.Run("FollowChanges", func(t *testing.T) { rolloutListsFollow(t, open(t)) })
	t.Run("Long", func(t *testing.T) { longRolloutList(t, open(t)) })
}

func queryRollouts(t *testing.T, b collections.Backend, q queue.RolloutQuery) queue.Page[*queue.Record] {
	t.Helper()
	page, err := b.QueryRollouts(testContext(t), q)
	if err != nil {
		t.Fatalf("QueryRollouts(%+v): %v", q, err)
	}
	if page.Items == nil {
		t.Errorf("QueryRollouts(%+v) has nil Items", q)
	}
	if page.Limit != q.Limit || page.Offset != q.Offset {
		t.Errorf("page says limit %d, offset %d; asked %d, %d", page.Limit, page.Offset, q.Limit, q.Offset)
	}
	return page
}

func rolloutFilters(t *testing.T, b collections.Backend) {
	tests := []struct {
		name string
		q    queue.RolloutQuery
		want string
	}{
		{"none", queue.RolloutQuery{}, "123456"},
		{"none with or", queue.RolloutQuery{Logic: queue.Or}, "123456"},
		{"statuses", queue.RolloutQuery{Statuses: statuses{queue.RolloutFailed, queue.RolloutQueuing, queue.RolloutFailed}}, "13"},
		{"no status", queue.RolloutQuery{Statuses: statuses{}}, ""},
		{"ids", queue.RolloutQuery{IDs: []string{"ro-echo", "ro-alpha", "ro-none", "ro-echo"}}, "24"},
		{"no id", queue.RolloutQuery{IDs: []string{}}, ""},
		{"empty id", queue.RolloutQuery{IDs: []string{""}}, ""},
		{"id in other case", queue.RolloutQuery{IDs: []string{"ro-delta"}}, ""},
		{"contains, in other case", queue.RolloutQuery{IDContains: ptr("BETA")}, "3"},
		{"contains, stored in upper case", queue.RolloutQuery{IDContains: ptr("-d")}, "1"},
		{"contains in many", queue.RolloutQuery{IDContains: ptr("a")}, "1235"},
		{"contains takes a dot literally", queue.RolloutQuery{IDContains: ptr(".")}, "6"},
		{"contains takes an anchor literally", queue.RolloutQuery{IDContains: ptr("^ro")}, ""},
		{"contains takes a class literally", queue.RolloutQuery{IDContains: ptr("[a-z]")}, ""},
		{"contains takes a backslash literally", queue.RolloutQuery{IDContains: ptr(`\d`)}, ""},
		{"contains takes an open bracket", queue.RolloutQuery{IDContains: ptr(`(`)}, ""},
		{"contains nothing", queue.RolloutQuery{IDContains: ptr("")}, "123456"},
		{"modes", queue.RolloutQuery{Modes: modes{queue.ModeTrain}}, "15"},
		{"two modes", queue.RolloutQuery{Modes: modes{queue.ModeVal, queue.ModeTest}}, "236"},
		{"no mode", queue.RolloutQuery{Modes: modes{}}, ""},
		{"status and mode", queue.RolloutQuery{Statuses: statuses{queue.RolloutQueuing, queue.RolloutRunning}, Modes: modes{queue.ModeTrain}}, "1"},
		{"status and contains", queue.RolloutQuery{Statuses: statuses{queue.RolloutQueuing, queue.RolloutCancelled}, IDContains: ptr("GAM")}, "5"},
		{"ids and mode", queue.RolloutQuery{IDs: []string{"ro-1.5", "ro-alpha", "ro-Delta"}, Modes: modes{queue.ModeVal}}, "26"},
		{"all four", queue.RolloutQuery{
			Statuses: statuses{queue.RolloutRunning, queue.RolloutFailed}, IDs: []string{"ro-alpha", "ro-Beta", "ro-echo"},
			IDContains: ptr("al"), Modes: modes{queue.ModeVal, queue.ModeTest},
		}, "2"},
		{"status or ids", queue.RolloutQuery{Statuses: statuses{queue.RolloutFailed}, IDs: []string{"ro-1.5"}, Logic: queue.Or}, "36"},
		{"status or mode", queue.RolloutQuery{Statuses: statuses{queue.RolloutSucceeded}, Modes: modes{queue.ModeTrain}, Logic: queue.Or}, "145"},
		{"mode or contains", queue.RolloutQuery{Modes: modes{queue.ModeTest}, IDContains: ptr("delta"), Logic: queue.Or}, "13"},
		{"nothing or contains", queue.RolloutQuery{Statuses: statuses{}, IDContains: ptr("echo"), Logic: queue.Or}, "4"},
		{"nothing or nothing", queue.RolloutQuery{Statuses: statuses{}, IDs: []string{}, Logic: queue.Or}, ""},
		{"nothing and contains", queue.RolloutQuery{Statuses: statuses{}, IDContains: ptr("echo")}, ""},
		{"overlap is counted once", queue.RolloutQuery{Statuses: statuses{queue.RolloutFailed}, IDContains: ptr("beta"), Logic: queue.Or}, "3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.q.Limit = -1
			page := queryRollouts(t, b, tt.q)
			same(t, "rollouts", listedKeys(page), tt.want)
			same(t, "total", page.Total, len(tt.want))
			// A sort does not change what matches.
			tt.q.SortBy = "rollout_id"
			same(t, "sorted total", queryRollouts(t, b, tt.q).Total, len(tt.want))
		})
	}
}

func rolloutSorts(t *testing.T, b collections.Backend) {
	tests := map[string][2]string{ // ascending, descending
		"":                    {"123456", "123456"},
		"rollout_id":          {"631245", "542136"},
		"start_time":          {"123456", "654231"},
		"end_time":            {"124563", "365412"},
		"mode":                {"431526", "261534"},
		"resources_id":        {"146532", "235146"},
		"status":              {"531624", "426135"},
		"duration":            {"126543", "345612"},
		"attempt_id":          {"154263", "362415"},
		"worker_id":           {"135462", "246135"},
		"last_heartbeat_time": {"145326", "623145"},
	}
	for _, field := range queue.RolloutSorts {
		if _, ok := tests[field]; !ok {
			t.Errorf("no test sorts rollouts by %s", field)
		}
	}
	for field, want := range tests {
		for i, descending := range []bool{false, true} {
			if field == "" && descending {
				continue
			}
			p := queue.Paging{SortBy: field, Descending: descending, Limit: -1}
			same(t, fmt.Sprintf("order by %q, descending %t", field, descending),
				listedKeys(queryRollouts(t, b, queue.RolloutQuery{Paging: p})), want[i])
			p.Limit, p.Offset = 3, 2
			same(t, fmt.Sprintf("page by %q, descending %t", field, descending),
				listedKeys(queryRollouts(t, b, queue.RolloutQuery{Paging: p})), want[i][2:5])
		}
	}
}

func rolloutPages(t *testing.T, b collections.Backend) {
	running := queue.RolloutQuery{Modes: modes{queue.ModeTrain, queue.ModeVal}} // 1256
	tests := []struct {
		q             queue.RolloutQuery
		limit, offset int
		want          string
		total         int
	}{
		{queue.RolloutQuery{}, 2, 0, "12", 6},
		{queue.RolloutQuery{}, 2, 1, "23", 6},
		{queue.RolloutQuery{}, 2, 5, "6", 6},
		{queue.RolloutQuery{}, 2, 6, "", 6},
		{queue.RolloutQuery{}, 2, 1 << 30, "", 6},
		{queue.RolloutQuery{}, -1, 4, "56", 6},
		{queue.RolloutQuery{}, 100, 0, "123456", 6},
		{queue.RolloutQuery{}, 1 << 30, 3, "456", 6},
		{running, 2, 0, "12", 4},
		{running, 2, 1, "25", 4},
		{running, 2, 3, "6", 4},
		{running, -1, 2, "56", 4},
		{running, 5, 4, "", 4},
		{queue.RolloutQuery{IDs: []string{"ro-echo", "ro-Delta", "ro-Beta"}}, 1, 1, "3", 3},
		{queue.RolloutQuery{IDContains: ptr("a")}, 2, 1, "23", 4},
	}
	for _, tt := range tests {
		tt.q.Limit, tt.q.Offset = tt.limit, tt.offset
		page := queryRollouts(t, b, tt.q)
		what := fmt.Sprintf("limit %d, offset %d of %+v", tt.limit, tt.offset, tt.q)
		same(t, what, listedKeys(page), tt.want)
		same(t, "total of "+what, page.Total, tt.total)
		tt.q.SortBy, tt.q.Descending = "start_time", false
		same(t, what+" by start_time", listedKeys(queryRollouts(t, b, tt.q)), tt.want)
	}
}

// rolloutListsFollow moves rollouts between statuses and modes.
func rolloutListsFollow(t *testing.T, b collections.Backend) {
	insert(t, b, queuedNumbered("ro-", 0, 6)...)
	list := func(q queue.RolloutQuery) []string {
		t.Helper()
		q.Limit = -1
		page := queryRollouts(t, b, q)
		same(t, "total", page.Total, len(page.Items))
		return recordIDs(page.Items)
	}
	claim(t, b, 3)
	change(t, b, "ro-001", func(r *queue.Record) {
		_, _, err := r.UpdateAttempt("at-1", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}, 500)
		if err != nil {
			t.Error(err)
		}
	})
	change(t, b, "ro-004", func(r *queue.Record) { r.Update(queue.RolloutUpdate{Mode: queue.Set(queue.ModeVal)}, 500) })
	change(t, b, "ro-005", func(r *queue.Record) {
		r.Update(queue.RolloutUpdate{Mode: queue.Set(queue.ModeVal), Status: queue.Set(queue.RolloutCancelled)}, 500)
	})
	same(t, "preparing", list(queue.RolloutQuery{Statuses: statuses{queue.RolloutPreparing}}), []string{"ro-000", "ro-002"})
	same(t, "queuing", list(queue.RolloutQuery{Statuses: statuses{queue.RolloutQueuing}}), []string{"ro-003", "ro-004"})
	same(t, "finished", list(queue.RolloutQuery{Statuses: statuses{queue.RolloutSucceeded, queue.RolloutCancelled}}), []string{"ro-001", "ro-005"})
	same(t, "val", list(queue.RolloutQuery{Modes: modes{queue.ModeVal}}), []string{"ro-004", "ro-005"})
	change(t, b, "ro-004", func(r *queue.Record) { r.Update(queue.RolloutUpdate{Mode: queue.Set(queue.Mode(""))}, 500) })
	same(t, "val after clearing one", list(queue.RolloutQuery{Modes: modes{queue.ModeVal}}), []string{"ro-005"})
	same(t, "all", list(queue.RolloutQuery{}), []string{"ro-000", "ro-001", "ro-002", "ro-003", "ro-004", "ro-005"})
}

// longRolloutList walks pages of a list that is longer than one batch of a
// database cursor.
func longRolloutList(t *testing.T, b collections.Backend) {
	const n = 320
	rs := queuedNumbered("ro-", 0, n)
	var even []string
	for i, r := range rs {
		// Three of each start time, so that pages cut through ties.
		r.Rollout.StartTime = float64(i / 3)
		if i%2 == 0 {
			r.Rollout.Mode = queue.ModeTrain
			even = append(even, r.Rollout.RolloutID)
		}
	}
	insert(t, b, rs...)
	all := recordIDs(rs)
	walk := func(q queue.RolloutQuery, limit int) (ids []string) {
		q.Limit = limit
		for q.Offset = 0; ; q.Offset += limit {
			page := queryRollouts(t, b, q)
			if len(page.Items) == 0 {
				return ids
			}
			ids = append(ids, recordIDs(page.Items)...)
		}
	}
	same(t, "pages of 100", walk(queue.RolloutQuery{}, 100), all)
	same(t, "filtered pages of 47", walk(queue.RolloutQuery{Modes: modes{queue.ModeTrain}}, 47), even)
	byMode := walk(queue.RolloutQuery{Paging: queue.Paging{SortBy: "mode", Descending: true}}, 47)
	same(t, "even ones by mode", byMode[:len(even)], even)
	whole := queryRollouts(t, b, queue.RolloutQuery{Paging: queue.All})
	same(t, "whole list", recordIDs(whole.Items), all)
}
