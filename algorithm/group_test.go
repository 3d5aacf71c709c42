package algorithm_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func rewarded(dataID string, rewards ...float64) []algorithm.Result {
	var results []algorithm.Result
	for _, v := range rewards {
		r := algorithm.Result{Rollout: queue.Rollout{
			Status: queue.RolloutSucceeded, Metadata: rawjson.Value(`{"data_id":"` + dataID + `"}`),
		}}
		if !math.IsInf(v, -1) {
			r.Reward = &v
		}
		results = append(results, r)
	}
	return results
}

func TestGroups(t *testing.T) {
	none := math.Inf(-1) // stands for no reward
	results := append(rewarded("b", 1, 3, none), rewarded("a", 2, 2)...)
	results = append(results, rewarded("b", math.NaN())...)
	results[4].Rollout.Status = queue.RolloutFailed
	groups := algorithm.Groups(results)
	if len(groups) != 2 || groups[0].DataID != "b" || len(groups[0].Results) != 4 || groups[1].DataID != "a" {
		t.Fatalf("groups %+v", groups)
	}
	if diff := cmp.Diff([]float64{-1, 1, 0, 0}, groups[0].Advantages()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{0, 0}, groups[1].Advantages()); diff != "" {
		t.Error(diff)
	}
	if groups[0].Constant() || !groups[1].Constant() {
		t.Error("only the second group has equal rewards")
	}
	want := map[queue.RolloutStatus]int{queue.RolloutSucceeded: 5, queue.RolloutFailed: 1}
	if diff := cmp.Diff(want, algorithm.Coverage(results)); diff != "" {
		t.Error(diff)
	}
}

func TestGrouper(t *testing.T) {
	var g algorithm.Grouper
	result := func(batch, task, id string, size int, reward float64) algorithm.Result {
		metadata := map[string]any{algorithm.BatchIDKey: batch, algorithm.DataIDKey: task}
		if size > 1 {
			metadata[algorithm.GroupSizeKey] = size
		}
		v, err := rawjson.Marshal(metadata)
		if err != nil {
			t.Fatal(err)
		}
		return algorithm.Result{Rollout: queue.Rollout{RolloutID: id, Status: queue.RolloutSucceeded, Metadata: v}, Reward: &reward}
	}
	for i, r := range []algorithm.Result{
		result("a", "x", "1", 2, 1), result("b", "x", "2", 2, 0), result("a", "y", "3", 3, 0), result("a", "x", "1", 2, 5),
	} {
		if group, complete := g.Add(r); complete {
			t.Fatalf("result %d completes %+v", i, group)
		}
	}
	if group, complete := g.Add(result("a", "z", "4", 1, 0)); !complete || group.DataID != "z" || len(group.Results) != 1 {
		t.Errorf("a task without repeats: %+v", group)
	}
	group, complete := g.Add(result("a", "x", "5", 2, 7))
	if !complete || g.Open() != 2 {
		t.Fatalf("%+v, %d groups open", group, g.Open())
	}
	mean, std, low, high := 6.0, 1.0, 5.0, 7.0
	want := algorithm.Statistics{
		Count: 2, Rewarded: 2, Coverage: map[queue.RolloutStatus]int{queue.RolloutSucceeded: 2},
		Mean: &mean, Std: &std, Min: &low, Max: &high,
	}
	if diff := cmp.Diff(want, group.Statistics()); diff != "" {
		t.Error(diff)
	}
}

func TestInformative(t *testing.T) {
	groups := algorithm.Groups(append(append(rewarded("a", 1, 1), rewarded("b", 1, 2)...), rewarded("c", math.Inf(-1), 3)...))
	left := algorithm.Informative(groups)
	if len(left) != 1 || left[0].DataID != "b" || len(groups) != 3 || groups[0].DataID != "a" {
		t.Errorf("left %+v of %+v", left, groups)
	}
	if s := (algorithm.Group{}).Statistics(); s.Mean != nil || !s.Constant || s.Count != 0 {
		t.Errorf("statistics of nothing: %+v", s)
	}
}
