package algorithm

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Reward is one dimension of a reward.
type Reward struct {
	Name  string
	Value float64
}

// Names by which spans carry rewards. The last three are older forms that
// agents in the field still send.
const (
	rewardPrefix     = "agentlightning.reward."
	taskOutputKey    = "agentops.task.output"
	entityOutputKey  = "agentops.entity.output"
	annotationName   = "agentlightning.annotation"
	annotationReward = "reward"
)

// FinalReward is the reward of the last span that has one; spans are in the
// order they were sent. It may be NaN or infinite when the agent said so.
func FinalReward(spans []queue.Span) (value float64, ok bool) {
	for i := range slices.Backward(spans) {
		if value, ok = SpanReward(&spans[i]); ok {
			return value, true
		}
	}
	return 0, false
}

// SpanReward is the reward that a span carries: the first of its dimensions,
// else the output of an AgentOps operation of type "reward", else the bare
// "reward" attribute of an annotation.
func SpanReward(s *queue.Span) (value float64, ok bool) {
	if rewards, present := spanRewards(s); present {
		if len(rewards) == 0 {
			return 0, false
		}
		return rewards[0].Value, true
	}
	for _, key := range []string{taskOutputKey, entityOutputKey} {
		output := s.Attribute(key)
		if output.Kind() != rawjson.KindString {
			continue
		}
		var v rawjson.Value
		if json.Unmarshal([]byte(output.Text()), &v) == nil && v.Get("type").Text() == "reward" {
			return number(v.Get("value"))
		}
	}
	if s.Name == annotationName {
		return number(s.Attribute(annotationReward))
	}
	return 0, false
}

// SpanRewards lists the dimensions of the reward that a span carries, the
// primary one first. It is empty when there is none or when the list is
// malformed: gaps in the numbering, a dimension without a name or a number.
func SpanRewards(s *queue.Span) []Reward {
	rewards, _ := spanRewards(s)
	return rewards
}

// spanRewards also tells whether the span has such a list at all, well formed
// or not.
func spanRewards(s *queue.Span) (rewards []Reward, present bool) {
	type entry struct {
		Reward
		named, valued bool
	}
	var entries []entry
	malformed := false
	for key, val := range s.Attributes.Members() {
		rest, ok := strings.CutPrefix(string(key), rewardPrefix)
		if !ok {
			continue
		}
		present = true
		index, field, _ := strings.Cut(rest, ".")
		i, err := strconv.Atoi(index)
		if err != nil || i < 0 || i >= maxDimensions {
			malformed = true
			continue
		}
		for len(entries) <= i {
			entries = append(entries, entry{})
		}
		switch e := &entries[i]; field {
		case "name":
			e.Name, e.named = val.Text(), val.Kind() == rawjson.KindString
		case "value":
			e.Value, e.valued = number(val)
		}
	}
	for _, e := range entries {
		if !e.named || !e.valued {
			return nil, true
		}
		rewards = append(rewards, e.Reward)
	}
	if malformed {
		return nil, true
	}
	return rewards, present
}

// maxDimensions bounds what a span with a huge index makes us allocate.
const maxDimensions = 1000

// number reads a number the way the senders' own readers do: booleans are 1 and
// 0, and text that is a number counts.
func number(v rawjson.Value) (value float64, ok bool) {
	switch v.Kind() {
	case rawjson.KindBool:
		if v.Bool() {
			return 1, true
		}
		return 0, true
	case rawjson.KindString:
		f, err := strconv.ParseFloat(strings.TrimSpace(v.Text()), 64)
		return f, err == nil
	}
	return v.Float()
}
