package dataset

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/where"
)

// Which of a rollout's attempts count.
const (
	LatestAttempt = "latest" // the last one, whatever came of it
	BestAttempt   = "best"   // the one with the highest reward, the later one of equals
	AllAttempts   = "all"
)

// AttemptChoices are the values of [Filter.Attempt].
var AttemptChoices = []string{LatestAttempt, BestAttempt, AllAttempts}

// Filter says which attempts are wanted. The zero Filter wants the latest attempts of
// rollouts that succeeded; each field that is set narrows that, save for Statuses.
type Filter struct {
	Statuses    []queue.RolloutStatus // succeeded when nil
	RolloutIDs  []string              // in this order; any when nil
	Modes       []queue.Mode
	ResourceIDs []string
	// Since and Until bound the time at which a rollout ended, or began where it
	// has not ended. Until is exclusive.
	Since, Until time.Time
	// Metadata are conditions that the rollout's metadata must meet, all of them.
	Metadata []MetadataMatch
	// MinReward and MaxReward bound the final reward, inclusively; attempts without
	// one, or with NaN, are out.
	MinReward, MaxReward *float64
	// TopFraction, above 0 and up to 1, keeps that part of what the rest of the
	// filter leaves, rounded up: those with the highest final rewards. It takes a
	// second reading. Which of equals are kept depends on Seed alone; 0 keeps all.
	TopFraction float64
	Seed        uint64
	Judgment    string   // the text of the last judgment; "" for any, and none
	Tags        []string // any span has each of them
	// Measure is the name of a measure that must have been taken, with the result
	// that MeasureFailed says; "" asks for none.
	Measure       string
	MeasureFailed bool
	Attempt       string // one of AttemptChoices; LatestAttempt when ""
	// Where must be true of the rollout. It speaks of the latest attempt, save for
	// what it takes from spans. Nil takes all.
	Where *where.Filter
	// Predicate is asked last; nil takes all.
	Predicate func(*Candidate) (bool, error)
}

// MetadataMatch is a condition on a member of metadata.
type MetadataMatch struct {
	Key string // a member, or the path to one with dots
	// Value is the text of the member, or its JSON where it is no text.
	Value string
}

// ParseMetadataMatch reads "key=value".
func ParseMetadataMatch(text string) (MetadataMatch, error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return MetadataMatch{}, queue.Errorf(queue.Invalid, "%q is no condition on metadata; it must be KEY=VALUE", text)
	}
	return MetadataMatch{key, value}, nil
}

// String is the condition as [ParseMetadataMatch] reads it.
func (m MetadataMatch) String() string { return m.Key + "=" + m.Value }

func (m MetadataMatch) matches(metadata rawjson.Value) bool {
	v := metadata.Get(m.Key)
	if v == nil {
		v = metadata
		for _, name := range strings.Split(m.Key, ".") {
			v = v.Get(name)
		}
	}
	if v.Kind() == rawjson.KindString && v.Text() == m.Value {
		return true
	}
	return v != nil && string(v) == m.Value
}

// Candidate is an attempt that may become part of a dataset.
type Candidate struct {
	Rollout   queue.AttemptedRollout // with its latest attempt
	AttemptID string
	Spans     []queue.Span // of the attempt, by number, without judgments and verdicts
	Reward    *float64     // the final one; nil when there is none
	Assessment
	every []queue.Span // judgments and verdicts too
}

// Validate reports what is wrong with f, as an Invalid error.
func (f *Filter) Validate() error {
	switch {
	case f.TopFraction != 0 && !(f.TopFraction > 0 && f.TopFraction <= 1):
		return queue.Errorf(queue.Invalid, "the top fraction is %g; it must be above 0 and at most 1", f.TopFraction)
	case f.Attempt != "" && !slices.Contains(AttemptChoices, f.Attempt):
		return queue.Errorf(queue.Invalid, "attempt is %q; it must be one of %s", f.Attempt, strings.Join(AttemptChoices, ", "))
	case f.MeasureFailed && f.Measure == "":
		return queue.Errorf(queue.Invalid, "which measure must have failed?")
	}
	for _, bound := range []*float64{f.MinReward, f.MaxReward} {
		if bound != nil && math.IsNaN(*bound) {
			return queue.Errorf(queue.Invalid, "a bound of the reward is no number")
		}
	}
	for _, s := range f.Statuses {
		if !s.Valid() {
			return queue.Errorf(queue.Invalid, "%q is no status of a rollout", s)
		}
	}
	return nil
}

func (f *Filter) statuses() []queue.RolloutStatus {
	if f.Statuses == nil {
		return []queue.RolloutStatus{queue.RolloutSucceeded}
	}
	return f.Statuses
}

// rejectRollout is why a rollout is not wanted, as far as can be told without its
// spans; "" when it may be.
func (f *Filter) rejectRollout(r *queue.AttemptedRollout) Reason {
	at := r.StartTime
	if r.EndTime != nil && r.Status.Finished() {
		at = *r.EndTime
	}
	switch {
	case !slices.Contains(f.statuses(), r.Status):
		return WrongStatus
	case f.Modes != nil && !slices.Contains(f.Modes, r.Mode):
		return WrongMode
	case f.ResourceIDs != nil && (r.ResourcesID == nil || !slices.Contains(f.ResourceIDs, *r.ResourcesID)):
		return WrongResources
	case !f.Since.IsZero() && at < queue.Seconds(f.Since), !f.Until.IsZero() && at >= queue.Seconds(f.Until):
		return WrongTime
	case slices.ContainsFunc(f.Metadata, func(m MetadataMatch) bool { return !m.matches(r.Metadata) }):
		return WrongMetadata
	case r.Attempt == nil:
		return NoAttempt
	}
	if f.Where != nil && !f.Where.NeedsSpans() {
		return told(f.Where.Match(r, nil))
	}
	return ""
}

// told is what follows from a condition that was looked at.
func told(met bool, err error) Reason {
	switch {
	case err != nil:
		return WhereFailed
	case !met:
		return WrongWhere
	}
	return ""
}

// reject is why an attempt is not wanted; "" when it is.
func (f *Filter) reject(c *Candidate) Reason {
	for _, tag := range f.Tags {
		if !c.Tags[tag] {
			return WrongTag
		}
	}
	verdict, measured := c.Verdicts[f.Measure]
	switch {
	case f.Judgment != "" && (c.Judgment == nil || c.Judgment.Text != f.Judgment):
		return WrongJudgment
	case f.Measure != "" && (!measured || verdict.Passed == f.MeasureFailed):
		return WrongMeasure
	case c.Reward == nil && (f.MinReward != nil || f.MaxReward != nil || f.TopFraction > 0):
		return NoReward
	case f.MinReward != nil && !(*c.Reward >= *f.MinReward), f.MaxReward != nil && !(*c.Reward <= *f.MaxReward),
		f.TopFraction > 0 && math.IsNaN(*c.Reward):
		return WrongReward
	}
	if f.Where != nil && f.Where.NeedsSpans() {
		if why := told(f.Where.Match(&c.Rollout, c.every)); why != "" {
			return why
		}
	}
	if f.Predicate != nil {
		return told(f.Predicate(c))
	}
	return ""
}

// candidates makes candidates of the attempts of a rollout that were read; none
// where it has no spans. Unfit are the reasons why others are none.
func (f *Filter) candidates(t adapter.Trace) (list []*Candidate, unfit []Reason) {
	var order []string
	byAttempt := map[string][]queue.Span{}
	for _, s := range t.Spans {
		if byAttempt[s.AttemptID] == nil {
			order = append(order, s.AttemptID)
		}
		byAttempt[s.AttemptID] = append(byAttempt[s.AttemptID], s)
	}
	if order == nil {
		return nil, []Reason{NoSpans}
	}
	for _, id := range order {
		own, said := assess(byAttempt[id])
		if len(own) == 0 {
			unfit = append(unfit, NoSpans)
			continue
		}
		c := &Candidate{Rollout: t.Rollout, AttemptID: id, Spans: own, Assessment: said, every: byAttempt[id]}
		if reward, ok := semconv.FinalReward(own); ok {
			c.Reward = &reward
		}
		list = append(list, c)
	}
	if f.Attempt != BestAttempt || len(list) < 2 {
		return list, unfit
	}
	best := list[0]
	for _, c := range list[1:] {
		if rank(c.Reward) >= rank(best.Reward) {
			best = c
		}
	}
	for range len(list) - 1 {
		unfit = append(unfit, NotBest)
	}
	return []*Candidate{best}, unfit
}

// rank orders rewards; none, and NaN, come last.
func rank(reward *float64) float64 {
	if reward == nil || math.IsNaN(*reward) {
		return math.Inf(-1)
	}
	return *reward
}
