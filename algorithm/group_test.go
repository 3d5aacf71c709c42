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
