package collectionstest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// listedWorkers are in order of insertion. Keys are their positions from 1.
var listedWorkers = []*queue.Worker{
	{WorkerID: "w-Zulu", Status: queue.WorkerIdle, LastHeartbeatTime: ptr(5.0), LastDequeueTime: ptr(1.0), LastIdleTime: ptr(9.0)},
	{WorkerID: "w-beta", Status: queue.WorkerBusy, LastHeartbeatTime: ptr(3.0), LastBusyTime: ptr(2.0), CurrentRolloutID: ptr("ro-2"), CurrentAttemptID: ptr("at-1")},
	{WorkerID: "w-Alpha", Status: queue.WorkerUnknown},
	{WorkerID: "w.1", Status: queue.WorkerBusy, LastHeartbeatTime: ptr(3.0), LastDequeueTime: ptr(0.5), LastBusyTime: ptr(1.0), LastIdleTime: ptr(2.0), CurrentRolloutID: ptr("ro-1"), CurrentAttemptID: ptr("at-2")},
}

func workerKeys(page queue.Page[*queue.Worker]) string {
	keys := ""
	for _, w := range page.Items {
		for i, l := range listedWorkers {
			if l.WorkerID == w.WorkerID {
				keys += fmt.Sprint(i + 1)
			}
		}
	}
	return keys
}

func testWorkers(t *testing.T, open OpenFunc) {
	b := open(t)
	for _, w := range listedWorkers {
		putWorker(t, b, w)
	}
	query := func(q queue.WorkerQuery) queue.Page[*queue.Worker] {
		t.Helper()
		page, err := b.QueryWorkers(testContext(t), q)
		if err != nil {
			t.Fatal(err)
		}
		if page.Items == nil || page.Limit != q.Limit || page.Offset != q.Offset {
			t.Errorf("page of %+v has limit %d, offset %d, items %v", q, page.Limit, page.Offset, page.Items)
		}
		return page
	}
	busy := []queue.WorkerStatus{queue.WorkerBusy}
	filters := []struct {
		q    queue.WorkerQuery
		want string
	}{
		{queue.WorkerQuery{}, "1234"},
		{queue.WorkerQuery{Logic: queue.Or}, "1234"},
		{queue.WorkerQuery{Statuses: busy}, "24"},
		{queue.WorkerQuery{Statuses: []queue.WorkerStatus{}}, ""},
		{queue.WorkerQuery{IDContains: ptr("W-")}, "123"},
		{queue.WorkerQuery{IDContains: ptr(".")}, "4"},
		{queue.WorkerQuery{IDContains: ptr("")}, "1234"},
		{queue.WorkerQuery{Statuses: busy, IDContains: ptr("-")}, "2"},
		{queue.WorkerQuery{Statuses: busy, IDContains: ptr("ALPHA"), Logic: queue.Or}, "234"},
	}
	for _, tt := range filters {
		tt.q.Limit = -1
		page := query(tt.q)
		same(t, fmt.Sprintf("workers of %+v", tt.q), workerKeys(page), tt.want)
		same(t, fmt.Sprintf("total of %+v", tt.q), page.Total, len(tt.want))
	}
	sorts := map[string][2]string{
		"worker_id":           {"3124", "4213"},
		"status":              {"2413", "3124"},
		"last_heartbeat_time": {"3241", "1243"},
		"last_dequeue_time":   {"2341", "1423"},
		"last_busy_time":      {"1342", "2413"},
		"last_idle_time":      {"2341", "1423"},
		"current_rollout_id":  {"1342", "2413"},
		"current_attempt_id":  {"1324", "4213"},
	}
	for _, field := range queue.WorkerSorts {
		want, ok := sorts[field]
		if !ok {
			t.Errorf("no test sorts workers by %s", field)
		}
		for i, descending := range []bool{false, true} {
			p := queue.Paging{SortBy: field, Descending: descending, Limit: -1}
			what := fmt.Sprintf("by %s, descending %t", field, descending)
			same(t, what, workerKeys(query(queue.WorkerQuery{Paging: p})), want[i])
			p.Limit, p.Offset = 2, 1
			page := query(queue.WorkerQuery{Paging: p})
			same(t, "page "+what, workerKeys(page), want[i][1:3])
			same(t, "total "+what, page.Total, 4)
		}
	}
	page := query(queue.WorkerQuery{Paging: queue.Paging{Limit: 5, Offset: 4}})
	same(t, "past the end", workerKeys(page), "")
	same(t, "total past the end", page.Total, 4)

	replaced := *listedWorkers[0]
	replaced.Status, replaced.HeartbeatStats, replaced.LastHeartbeatTime = queue.WorkerBusy, rawjson.Value(`{"x":1}`), nil
	putWorker(t, b, &replaced)
	w, err := b.Worker(testContext(t), replaced.WorkerID)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "replaced worker", workerText(w), workerText(&replaced))
	same(t, "workers after a replacement", workerKeys(query(queue.WorkerQuery{Paging: queue.All})), "1234")
	same(t, "busy after a replacement", workerKeys(query(queue.WorkerQuery{Statuses: busy, Paging: queue.All})), "124")
}

func testReceipts(t *testing.T, open OpenFunc) {
	b := open(t)
	receipts := []*collections.Receipt{
		{Key: "a", Operation: "enqueue", Time: 1e9, Refs: []queue.AttemptRef{{RolloutID: "ro-2"}, {RolloutID: "ro-1"}}},
		{Key: "b", Operation: "claim", Time: 1e9 + 1},
		{Key: "c", Operation: "claim", Time: 1e9 + 2.5, Refs: []queue.AttemptRef{{RolloutID: "ro-1", AttemptID: "at-1"}}},
		{Key: "d", Operation: "add_resources", Time: 1e9 + collections.ReceiptLife - 1, Refs: []queue.AttemptRef{{RolloutID: "rs-1"}}},
		{Key: "é $.\x00 key", Operation: "start", Time: 1e9 + 3},
	}
	for _, r := range receipts {
		atomic(t, b, func(tx collections.Tx) error {
			if got, err := tx.Receipt(r.Key); got != nil || err != nil {
				t.Errorf("receipt %q exists before it was put: %v, %v", r.Key, got, err)
			}
			own := *r
			return tx.PutReceipt(&own)
		})
	}
	answered, err := b.Answered(testContext(t), []string{"none", "d", receipts[4].Key, "a"})
	slices.Sort(answered)
	if err != nil || !slices.Equal(answered, []string{"a", "d", receipts[4].Key}) {
		t.Errorf("Answered = %q, %v", answered, err)
	}
	for _, want := range receipts {
		atomic(t, b, func(tx collections.Tx) error {
			got, err := tx.Receipt(want.Key)
			if err != nil {
				return err
			}
			if got == nil {
				t.Errorf("receipt %q is gone", want.Key)
				return nil
			}
			own := *got
			own.Refs = append([]queue.AttemptRef(nil), got.Refs...)
			same(t, "receipt", &own, want)
			return nil
		})
	}
}
