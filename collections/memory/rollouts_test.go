package memory_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
)

// TestListsFollowTheRules compares lists of random tables, some rollouts
// inserted out of order and many changed, with the plain rules of collections.
func TestListsFollowTheRules(t *testing.T) {
	statuses := rapid.SampledFrom(queue.RolloutStatuses)
	modes := rapid.SampledFrom(append([]queue.Mode{""}, queue.Modes...))
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		b := memory.New(memory.Options{})
		var model []*queue.Record // in order of insertion
		put := func(fn func(tx collections.Tx) error) {
			if err := b.Atomic(ctx, fn); err != nil {
				t.Fatal(err)
			}
		}
		set := func(r *queue.Record) {
			r.Update(queue.RolloutUpdate{
				Status: queue.Set(statuses.Draw(t, "status")), Mode: queue.Set(modes.Draw(t, "mode")),
			}, 100)
		}
		start := 0
		for range rapid.IntRange(0, 400).Draw(t, "rollouts") {
			start += len(model) % 2
			at := start
			if len(model)%50 == 49 {
				at = rapid.IntRange(0, start).Draw(t, "early")
			}
			r := queue.NewRecord(fmt.Sprintf("ro-%03d", len(model)*7%1000), queue.Request{}, false, float64(at))
			if len(model)%10 == 0 {
				set(r)
			}
			model = append(model, r)
			put(func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r.Clone()}) })
		}
		if len(model) > 0 {
			for range rapid.IntRange(0, 30).Draw(t, "changes") {
				r := rapid.SampledFrom(model).Draw(t, "changed")
				set(r)
				put(func(tx collections.Tx) error { return tx.PutRollout(r.Clone()) })
			}
		}
		slices.SortStableFunc(model, func(a, b *queue.Record) int { return int(a.Rollout.StartTime - b.Rollout.StartTime) })
		for range 10 {
			q := drawQuery(t)
			var matches []*queue.Record
			for _, r := range model {
				if collections.MatchRollout(r, &q) {
					matches = append(matches, r)
				}
			}
			want := collections.PageRollouts(matches, q.Paging)
			got, err := b.QueryRollouts(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			same := func(a, b *queue.Record) bool { return a.Rollout.RolloutID == b.Rollout.RolloutID }
			if got.Total != want.Total || !slices.EqualFunc(got.Items, want.Items, same) {
				t.Fatalf("%+v gives %d of %d, want %d of %d, or in another order",
					q, len(got.Items), got.Total, len(want.Items), want.Total)
			}
		}
	})
}

func drawQuery(t *rapid.T) queue.RolloutQuery {
	q := queue.RolloutQuery{
		Logic: rapid.SampledFrom([]queue.Logic{queue.And, queue.Or}).Draw(t, "logic"),
		Paging: queue.Paging{
			SortBy:     rapid.SampledFrom([]string{"", "start_time", "start_time", "rollout_id", "status"}).Draw(t, "sort"),
			Descending: rapid.Bool().Draw(t, "descending"),
			Limit:      rapid.SampledFrom([]int{-1, 1, 10, 100}).Draw(t, "limit"),
			Offset:     rapid.SampledFrom([]int{0, 0, 3, 130, 500}).Draw(t, "offset"),
		},
	}
	if q.SortBy == "" {
		q.Descending = false
	}
	if rapid.Bool().Draw(t, "by status") {
		q.Statuses = rapid.SliceOfN(rapid.SampledFrom(queue.RolloutStatuses), 0, 3).Draw(t, "statuses")
	}
	if rapid.IntRange(0, 2).Draw(t, "by mode") == 0 {
		q.Modes = rapid.SliceOfN(rapid.SampledFrom(queue.Modes), 0, 2).Draw(t, "modes")
	}
	if rapid.IntRange(0, 2).Draw(t, "by id") == 0 {
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 999), 0, 20).Draw(t, "ids") {
			q.IDs = append(q.IDs, fmt.Sprintf("ro-%03d", n))
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "by text") == 0 {
		text := rapid.SampledFrom([]string{"", "RO-1", "7", "x"}).Draw(t, "contains")
		q.IDContains = &text
	}
	return q
}
