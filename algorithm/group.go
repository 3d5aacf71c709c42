package algorithm

import (
	"math"

	"github.com/aglq/aglq/queue"
)

// Group is the repeats of one task.
type Group struct {
	DataID  string
	Results []Result
}

// Groups sorts results by task, in the order in which the tasks first occur.
func Groups(results []Result) []Group {
	var groups []Group
	at := map[string]int{}
	for _, r := range results {
		id := r.DataID()
		i, ok := at[id]
		if !ok {
			i = len(groups)
			at[id] = i
			groups = append(groups, Group{DataID: id})
		}
		groups[i].Results = append(groups[i].Results, r)
	}
	return groups
}

// Rewards lists the finite rewards of results; those without one are left out.
func Rewards(results []Result) []float64 {
	var rewards []float64
	for i := range results {
		if v, ok := results[i].FiniteReward(); ok {
			rewards = append(rewards, v)
		}
	}
	return rewards
}

// FiniteReward is the reward, unless there is none or it is no finite number.
func (r *Result) FiniteReward() (value float64, ok bool) {
	if r.Reward == nil || math.IsNaN(*r.Reward) || math.IsInf(*r.Reward, 0) {
		return 0, false
	}
	return *r.Reward, true
}

// MeanStd is the mean and the standard deviation of values (of the whole, not of
// a sample); both are NaN when there are none.
func MeanStd(values []float64) (mean, std float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v
	}
	mean /= n
	for _, v := range values {
		std += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(std / n)
}

// Advantages tells by how many standard deviations the reward of each result is
// above the group's mean. It is 0 for a result without a finite reward, and for
// all when the rewards are equal.
func (g Group) Advantages() []float64 {
	advantages := make([]float64, len(g.Results))
	if g.Constant() {
		return advantages
	}
	mean, std := MeanStd(Rewards(g.Results))
	for i := range g.Results {
		if v, ok := g.Results[i].FiniteReward(); ok {
			advantages[i] = (v - mean) / std
		}
	}
	return advantages
}

// Constant reports whether the group teaches nothing: fewer than two rewards, or
// all the same.
func (g Group) Constant() bool {
	rewards := Rewards(g.Results)
	for _, v := range rewards {
		if v != rewards[0] {
			return false
		}
	}
	return true
}

// Coverage counts results by status.
func Coverage(results []Result) map[queue.RolloutStatus]int {
	count := map[queue.RolloutStatus]int{}
	for i := range results {
		count[results[i].Rollout.Status]++
	}
	return count
}
