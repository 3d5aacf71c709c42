package worker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/emit"
)

// verdict reads a program's standard output for its result: the last line that
// is a number, or a JSON object with "reward", "rewards" or "spans". It is an
// io.Writer, and keeps one line at most.
type verdict struct {
	lines  lineCutter
	found  bool
	result Result
	broken error // why the last object that looked like a result is none
}

// resultStarts are the bytes that a line with a result may begin with.
const resultStarts = "{+-.0123456789nNiI"

func (v *verdict) Write(p []byte) (int, error) {
	v.lines.cut(p, resultStarts, func(line []byte, whole bool) {
		if whole {
			v.judge(line)
		}
	})
	return len(p), nil
}

// end judges an unfinished last line.
func (v *verdict) end() { _, _ = v.Write([]byte{'\n'}) }

func (v *verdict) judge(line []byte) {
	if line[0] != '{' {
		if f, ok := plainNumber(string(line)); ok {
			v.found, v.result, v.broken = true, Reward(f), nil
		}
		return
	}
	object, _, err := rawjson.Compact(nil, line)
	if err != nil {
		return // some line with a brace
	}
	result, ok, err := objectResult(object)
	switch {
	case err != nil:
		v.broken = err
	case ok:
		v.found, v.result, v.broken = true, result, nil
	}
}

// plainNumber reads a decimal number, or what programs print for one that is
// none.
func plainNumber(s string) (float64, bool) {
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case "nan", "inf", "infinity":
	default:
		if strings.Trim(s, "0123456789+-.eE") != "" {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil || errors.Is(err, strconv.ErrRange)
}

// objectResult reads {"reward": x}, {"rewards": {…}, "primary": name} and
// {"spans": […]}, or several of them in one. Ok is false for other objects.
func objectResult(object rawjson.Value) (r Result, ok bool, err error) {
	reward, rewards, spans := object.Get("reward"), object.Get("rewards"), object.Get("spans")
	if rewards != nil {
		if r.Rewards, err = namedRewards(rewards, object.Get("primary")); err != nil {
			return r, false, err
		}
	}
	if !reward.IsNull() && rewards == nil {
		f, isNumber := rewardNumber(reward)
		if !isNumber {
			return r, false, fmt.Errorf("its reward is no number: %.100s", reward)
		}
		r.Rewards = Reward(f).Rewards
	}
	if spans != nil {
		if r.Spans, err = ownSpans(spans); err != nil {
			return r, false, err
		}
	}
	return r, reward != nil || rewards != nil || spans != nil, nil
}

// answer reads what an agent that was asked by a message answers: nothing or null,
// a number, or an object as objectResult reads it, or with "error". The spans of
// an answer count also where there is an error.
func answer(text []byte) (Result, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return Result{}, nil
	}
	if f, ok := plainNumber(string(text)); ok {
		return Reward(f), nil
	}
	v, _, err := rawjson.Compact(nil, text)
	if err != nil {
		return Result{}, malformed(fmt.Errorf("it is no JSON: %w", err))
	}
	switch v.Kind() {
	case rawjson.KindNull:
		return Result{}, nil
	case rawjson.KindObject:
		return objectAnswer(v)
	}
	return Result{}, malformed(fmt.Errorf("it is neither a number nor an object: %.100s", v))
}

func objectAnswer(object rawjson.Value) (Result, error) {
	result, _, err := objectResult(object)
	if err != nil {
		return Result{}, malformed(err)
	}
	if reported := object.Get("error"); !reported.IsNull() {
		return Result{Spans: result.Spans}, reportedFailure(reported)
	}
	return result, nil
}

func malformed(err error) error {
	return &Failure{Type: "answer", Message: "the agent's answer is malformed: " + err.Error(), Err: err}
}

// reportedFailure is the error that an agent reports: a text, or an object with
// "message", "type" and "stack".
func reportedFailure(v rawjson.Value) error {
	f := &Failure{Type: "agent", Message: v.Text()}
	switch v.Kind() {
	case rawjson.KindString:
	case rawjson.KindObject:
		f.Message, f.Stack = v.Get("message").Text(), v.Get("stack").Text()
		f.Type = cmp.Or(v.Get("type").Text(), f.Type)
	default:
		f.Message = clip(v.String(), 500)
	}
	f.Message = cmp.Or(f.Message, "the agent reported an error without a text")
	return f
}

// rewardNumber takes booleans for 1 and 0.
func rewardNumber(v rawjson.Value) (float64, bool) {
	if v.Kind() == rawjson.KindBool {
		if v.Bool() {
			return 1, true
		}
		return 0, true
	}
	return v.Float()
}

func namedRewards(v, primary rawjson.Value) ([]RewardDimension, error) {
	values := map[string]float64{}
	only := ""
	for key, val := range v.Members() {
		f, ok := rewardNumber(val)
		if !ok {
			return nil, fmt.Errorf("its reward %s is no number: %.100s", key, val)
		}
		only = rawjson.Unescape(key)
		values[only] = f
	}
	name := primary.Text()
	if primary == nil && len(values) == 1 {
		name = only
	}
	if _, ok := values[name]; !ok {
		return nil, fmt.Errorf("its primary reward %q is not among its rewards", name)
	}
	return emit.Dimensions(name, values)
}

// ownSpans reads spans as the protocol writes them; ids and numbers are given
// by the worker, where a span leaves them out.
func ownSpans(v rawjson.Value) ([]queue.Span, error) {
	if v.Kind() != rawjson.KindArray {
		return nil, fmt.Errorf("its spans are no list: %.100s", v)
	}
	var spans []queue.Span
	for item := range v.Elements() {
		s := queue.DecodeSpan(rawjson.ReplaceNonFinite(nil, item, true))
		if s.Name == "" {
			return nil, fmt.Errorf("its span %d has no name", len(spans))
		}
		for _, part := range []struct {
			v    rawjson.Value
			kind rawjson.Kind
		}{{s.Attributes, rawjson.KindObject}, {s.Status, rawjson.KindObject}, {s.Events, rawjson.KindArray}, {s.Links, rawjson.KindArray}} {
			if !part.v.IsNull() && part.v.Kind() != part.kind {
				return nil, fmt.Errorf("its span %q is malformed: %.100s", s.Name, part.v)
			}
		}
		spans = append(spans, s)
	}
	return spans, nil
}
