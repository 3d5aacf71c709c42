package algorithm

import (
	"math"
	"slices"

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

// Grouper gathers results, as they finish, into the groups that batches with
// repeats make. The zero Grouper is ready for use; it is not safe for concurrent use.
type Grouper struct {
	open map[string]*Group // by batch and task
}

// Add takes a result and returns its group once all of it is there: as many
// results as its rollouts say the group has. A result without such a word is a
// group of its own. A rollout that comes again takes the place of the first.
func (g *Grouper) Add(r Result) (group Group, complete bool) {
	size, _ := r.Rollout.Metadata.Get(GroupSizeKey).Int()
	if size < 2 {
		return Group{DataID: r.DataID(), Results: []Result{r}}, true
	}
	key := r.Rollout.Metadata.Get(BatchIDKey).Text() + "\x00" + r.DataID()
	found := g.open[key]
	if found == nil {
		if g.open == nil {
			g.open = map[string]*Group{}
		}
		found = &Group{DataID: r.DataID()}
		g.open[key] = found
	}
	same := func(o Result) bool { return o.Rollout.RolloutID == r.Rollout.RolloutID }
	if at := slices.IndexFunc(found.Results, same); at >= 0 {
		found.Results[at] = r
	} else {
		found.Results = append(found.Results, r)
	}
	if len(found.Results) < int(size) {
		return Group{}, false
	}
	delete(g.open, key)
	return *found, true
}

// Open counts the groups that are not complete.
func (g *Grouper) Open() int { return len(g.open) }

// Statistics sums a group up.
type Statistics struct {
	Count    int                         `json:"count"`    // of results
	Rewarded int                         `json:"rewarded"` // with a finite reward
	Coverage map[queue.RolloutStatus]int `json:"coverage"` // results by status
	// Of the finite rewards; null without any. Std is that of the whole, not of a
	// sample.
	Mean *float64 `json:"mean"`
	Std  *float64 `json:"std"`
	Min  *float64 `json:"min"`
	Max  *float64 `json:"max"`
	// Constant is as [Group.Constant].
	Constant bool `json:"constant"`
}

// Statistics sums the group up.
func (g Group) Statistics() Statistics {
	rewards := Rewards(g.Results)
	s := Statistics{
		Count: len(g.Results), Rewarded: len(rewards), Coverage: Coverage(g.Results), Constant: g.Constant(),
	}
	if len(rewards) > 0 {
		mean, std := MeanStd(rewards)
		low, high := slices.Min(rewards), slices.Max(rewards)
		s.Mean, s.Std, s.Min, s.Max = &mean, &std, &low, &high
	}
	return s
}

// Informative leaves out the groups that teach nothing, see [Group.Constant].
func Informative(groups []Group) []Group {
	return slices.DeleteFunc(slices.Clone(groups), Group.Constant)
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
