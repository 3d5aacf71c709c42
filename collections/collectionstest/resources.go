package collectionstest

import (
	"fmt"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func resourceSet(id string, create, update float64, version int64) *queue.ResourcesUpdate {
	return &queue.ResourcesUpdate{
		ResourcesID: id, CreateTime: create, UpdateTime: update, Version: version,
		Resources: rawjson.Value(fmt.Sprintf(`{"v":%d}`, version)),
	}
}

func testResources(t *testing.T, open OpenFunc) {
	t.Run("Latest", func(t *testing.T) { latestResources(t, open(t)) })
	t.Run("Hidden", func(t *testing.T) { hiddenResources(t, open(t)) })
	t.Run("Lists", func(t *testing.T) { resourcesLists(t, open(t)) })
}

func latestResources(t *testing.T, b collections.Backend) {
	steps := []struct {
		put  *queue.ResourcesUpdate
		want string
	}{
		{resourceSet("rs-b", 1, 1, 1), "rs-b"},
		{resourceSet("rs-a", 2, 2, 1), "rs-a"},
		{resourceSet("rs-b", 1, 3, 2), "rs-b"}, // an update makes it the latest
		{resourceSet("rs-c", 3, 3, 1), "rs-c"}, // of equals the last written
		{resourceSet("rs-b", 1, 3, 3), "rs-b"},
		{resourceSet("rs-d", 9, 9, 1), "rs-d"},
	}
	for i, step := range steps {
		putResources(t, b, step.put)
		got, err := b.LatestResources(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if got == nil || got.ResourcesID != step.want || got.Version != step.put.Version {
			t.Errorf("step %d: latest is %s, want %s", i, resourcesText(got), step.want)
		}
	}
	// Two sets of one time in one section.
	atomic(t, b, func(tx collections.Tx) error {
		for _, id := range []string{"rs-z", "rs-e"} {
			if err := tx.PutResources(resourceSet(id, 10, 10, 1)); err != nil {
				return err
			}
		}
		return nil
	})
	got, err := b.LatestResources(testContext(t))
	if err != nil || got == nil || got.ResourcesID != "rs-e" {
		t.Errorf("after one section: latest is %s, %v; want rs-e", resourcesText(got), err)
	}
}

func resourcesLists(t *testing.T, b collections.Backend) {
	sets := []*queue.ResourcesUpdate{ // in order of insertion
		resourceSet("rs-m", 1, 7, 3), resourceSet("rs-B", 1, 5, 1), resourceSet("rs-a", 2, 5, 2), resourceSet("x.1", 3, 3, 1),
	}
	for _, u := range sets {
		putResources(t, b, u)
	}
	putResources(t, b, sets[1]) // keeps its place
	keys := func(q queue.ResourcesQuery) string {
		t.Helper()
		page, err := b.QueryResources(testContext(t), q)
		if err != nil {
			t.Fatal(err)
		}
		if page.Items == nil || page.Limit != q.Limit || page.Offset != q.Offset {
			t.Errorf("page of %+v has limit %d, offset %d, items %v", q, page.Limit, page.Offset, page.Items)
		}
		out := ""
		for _, u := range page.Items {
			out += u.ResourcesID[len(u.ResourcesID)-1:]
		}
		return fmt.Sprint(out, " of ", page.Total)
	}
	all := queue.All
	tests := []struct {
		q    queue.ResourcesQuery
		want string
	}{
		{queue.ResourcesQuery{Paging: all}, "mBa1 of 4"},
		{queue.ResourcesQuery{ID: ptr("rs-a"), Paging: all}, "a of 1"},
		{queue.ResourcesQuery{ID: ptr("rs-none"), Paging: all}, " of 0"},
		{queue.ResourcesQuery{IDContains: ptr("RS-"), Paging: all}, "mBa of 3"},
		{queue.ResourcesQuery{IDContains: ptr("b"), Paging: all}, "B of 1"},
		{queue.ResourcesQuery{IDContains: ptr("."), Paging: all}, "1 of 1"},
		{queue.ResourcesQuery{IDContains: ptr(""), Paging: all}, "mBa1 of 4"},
		{queue.ResourcesQuery{ID: ptr("rs-a"), IDContains: ptr("m"), Paging: all}, " of 0"},
		{queue.ResourcesQuery{Paging: queue.Paging{Limit: 2, Offset: 1}}, "Ba of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{Limit: 2, Offset: 7}}, " of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "resources_id", Limit: -1}}, "Bam1 of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "resources_id", Descending: true, Limit: 3}}, "1ma of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "create_time", Limit: -1}}, "mBa1 of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "create_time", Descending: true, Limit: -1}}, "1amB of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "update_time", Limit: -1}}, "1Bam of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "update_time", Descending: true, Limit: 2, Offset: 1}}, "Ba of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "version", Limit: -1}}, "B1am of 4"},
		{queue.ResourcesQuery{Paging: queue.Paging{SortBy: "version", Descending: true, Limit: -1}}, "maB1 of 4"},
	}
	for _, tt := range tests {
		same(t, fmt.Sprintf("resources of %+v", tt.q), keys(tt.q), tt.want)
	}
}

// hiddenResources checks that sets that are hidden are stored like others, and are
// never the latest.
func hiddenResources(t *testing.T, b collections.Backend) {
	latest := func(want string) {
		t.Helper()
		got, err := b.LatestResources(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if (got == nil) != (want == "") || got != nil && got.ResourcesID != want {
			t.Errorf("latest is %s, want %q", resourcesText(got), want)
		}
	}
	putResources(t, b, resourceSet(".state", 1, 1, 1))
	latest("")
	putResources(t, b, resourceSet("rs-a", 2, 2, 1))
	putResources(t, b, resourceSet(".state", 1, 9, 2))
	putResources(t, b, resourceSet(".trial", 9, 9, 1))
	latest("rs-a")
	putResources(t, b, resourceSet("rs-b", 5, 5, 1))
	latest("rs-b")
	putResources(t, b, resourceSet("rs-b", 5, 1, 2)) // its clock went back
	latest("rs-a")
	got, err := b.Resources(testContext(t), ".state")
	if err != nil || got == nil || got.UpdateTime != 9 || got.Version != 2 {
		t.Errorf("the hidden set is %s, %v", resourcesText(got), err)
	}
	page, err := b.QueryResources(testContext(t), queue.ResourcesQuery{Paging: queue.All})
	if err != nil || len(page.Items) != 4 {
		t.Errorf("%d sets are listed, %v; want 4", len(page.Items), err)
	}
}
