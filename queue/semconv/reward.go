package semconv

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

// Older forms of rewards that agents in the field still send.
const (
	taskOutputKey    = "agentops.task.output"
	entityOutputKey  = "agentops.entity.output"
	annotationReward = "reward"
)

// FinalReward is the reward of the last span that has one; spans are in the
// order they were sent. It may be NaN or infinite when the agent said so. Spans
// with malformed rewards are passed over.
func FinalReward(spans []queue.Span) (value float64, ok bool) {
	for i := range slices.Backward(spans) {
		if value, ok, _ = SpanReward(&spans[i]); ok {
			return value, true
		}
	}
	return 0, false
}

// SpanReward is the reward that a span carries: the first of its dimensions,
// else the output of an AgentOps operation of type "reward", else the bare
// "reward" attribute of an annotation. The error is that of [SpanRewards].
func SpanReward(s *queue.Span) (value float64, ok bool, err error) {
	rewards, err := SpanRewards(s)
	if err != nil {
		return 0, false, err
	}
	if len(rewards) > 0 {
		return rewards[0].Value, true, nil
	}
	for _, key := range []string{taskOutputKey, entityOutputKey} {
		output := s.Attribute(key)
		if output.Kind() != rawjson.KindString {
			continue
		}
		var v rawjson.Value
		if json.Unmarshal([]byte(output.Text()), &v) == nil && v.Get("type").Text() == "reward" {
			value, ok = number(v.Get("value"))
			return value, ok, nil
		}
	}
	if s.Name == AnnotationSpan {
		value, ok = number(s.Attribute(annotationReward))
	}
	return value, ok, nil
}

// SpanRewards lists the dimensions of the reward that a span carries, the
// primary one first; none when it carries no such list. A malformed list is an
// Invalid error: gaps in the numbering, a dimension without a name or a number.
func SpanRewards(s *queue.Span) ([]Reward, error) {
	type entry struct {
		Reward
		named, valued bool
	}
	var entries []entry
	malformed := func() ([]Reward, error) {
		return nil, queue.Errorf(queue.Invalid, "span %s of rollout %s has a malformed reward: its attributes %s.<0…n>.name and .value must be texts and numbers",
			s.SpanID, s.RolloutID, RewardPrefix)
	}
	for key, val := range s.Attributes.Members() {
		rest, ok := strings.CutPrefix(string(key), RewardPrefix)
		if !ok || rest != "" && rest[0] != '.' {
			continue
		}
		index, field, _ := strings.Cut(strings.TrimPrefix(rest, "."), ".")
		i, ok := Index([]byte(index))
		if !ok || i >= maxDimensions {
			return malformed()
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
	rewards := make([]Reward, 0, len(entries))
	for _, e := range entries {
		if !e.named || !e.valued {
			return malformed()
		}
		rewards = append(rewards, e.Reward)
	}
	return rewards, nil
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
