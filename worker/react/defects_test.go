package react_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// step is a structured step.
func step(final bool, calls string) fakellm.Answer {
	text := `{"thought":"hm","tool_calls":[` + calls + `],"is_final":false}`
	if final {
		text = strings.Replace(text, "false", "true", 1)
	}
	return says(text)
}

// What builders of such conversations get wrong, and what is held here.
func TestConversationsAreSound(t *testing.T) {
	empty := react.Tool{Name: "empty", Run: func(context.Context, react.Call) (string, error) { return "", nil }}
	broken := react.Tool{Name: "broken", Run: func(context.Context, react.Call) (string, error) { return "", errors.New("out of order") }}
	panics := react.Tool{Name: "panics", Run: func(context.Context, react.Call) (string, error) { panic("oh no") }}
	twoTurns := `{"question":"first","turns":2,"scenario":"something that takes two turns"}`
	cases := map[string]struct {
		input  string // "hello" when ""
		opts   react.Options
		script []fakellm.Answer
		want   []string
		reward float64
	}{
		"a duplicate in one step is answered, and moves no other result": {
			script: []fakellm.Answer{
				calls("a", "count", `{"key":"x","more":1}`, "b", "count", `{"more":1, "key":"x"}`, "c", "count", `{"key":"y"}`),
				says("done"),
			},
			want: []string{
				"user: hello", `assistant: [a count {"key":"x","more":1}][b count {"more":1, "key":"x"}][c count {"key":"y"}]`,
				"tool a: x 1", "tool b: x 1", "tool c: y 1", "assistant: done",
			}, reward: 1,
		},
		"a duplicate in a later step is answered from the first": {
			script: []fakellm.Answer{calls("a", "count", `{"key":"x"}`), calls("b", "count", `{"key":"x"}`, "c", "count", `{"key":"z"}`), says("done")},
			want: []string{
				"user: hello", `assistant: [a count {"key":"x"}]`, "tool a: x 1",
				`assistant: [b count {"key":"x"}][c count {"key":"z"}]`, "tool b: x 1", "tool c: z 1", "assistant: done",
			}, reward: 1,
		},
		"a step of duplicates alone is whole": {
			script: []fakellm.Answer{calls("a", "count", `{"key":"x"}`), calls("b", "count", `{"key":"x"}`), says("done")},
			want: []string{
				"user: hello", `assistant: [a count {"key":"x"}]`, "tool a: x 1", `assistant: [b count {"key":"x"}]`, "tool b: x 1", "assistant: done",
			}, reward: 1,
		},
		"within a step only": {
			opts: react.Options{Duplicates: react.WithinStep},
			script: []fakellm.Answer{
				calls("a", "count", `{"key":"x"}`, "b", "count", `{"key":"x"}`), calls("c", "count", `{"key":"x"}`), says("done"),
			},
			want: []string{
				"user: hello", `assistant: [a count {"key":"x"}][b count {"key":"x"}]`, "tool a: x 1", "tool b: x 1",
				`assistant: [c count {"key":"x"}]`, "tool c: x 2", "assistant: done",
			}, reward: 1,
		},
		"a later turn reads again": {
			input: twoTurns,
			script: []fakellm.Answer{
				calls("a", "count", `{"key":"x"}`), says("one"), says(`{"should_conclude":false}`), says(`{"content":"and once more"}`),
				calls("b", "count", `{"key":"x"}`), says("two"),
			},
			opts: react.Options{Turns: react.Range{Min: 1, Max: 2}},
			want: []string{
				"user: first", `assistant: [a count {"key":"x"}]`, "tool a: x 1", "assistant: one",
				"user: and once more", `assistant: [b count {"key":"x"}]`, "tool b: x 2", "assistant: two",
			}, reward: 1,
		},
		"unless it is told not to": {
			input: twoTurns, opts: react.Options{Duplicates: react.WithinConversation},
			script: []fakellm.Answer{
				calls("a", "count", `{"key":"x"}`), says("one"), says(`{"content":"and once more"}`), calls("b", "count", `{"key":"x"}`), says("two"),
			},
			want: []string{
				"user: first", `assistant: [a count {"key":"x"}]`, "tool a: x 1", "assistant: one",
				"user: and once more", `assistant: [b count {"key":"x"}]`, "tool b: x 1", "assistant: two",
			}, reward: 1,
		},
		"an empty result is a result": {
			opts:   react.Options{Tools: []react.Tool{empty}},
			script: []fakellm.Answer{calls("a", "empty", `{}`), says("done")},
			want:   []string{"user: hello", "assistant: [a empty {}]", "tool a: ", "assistant: done"}, reward: 1,
		},
		"an unknown tool is an observation": {
			script: []fakellm.Answer{calls("a", "nothing", `{}`, "b", "count", `{"key":"x"}`), says("done")},
			want: []string{
				"user: hello", `assistant: [a nothing {}][b count {"key":"x"}]`,
				`tool a: Error: there is no tool "nothing"; the tools are count`, "tool b: x 1", "assistant: done",
			}, reward: 0.5,
		},
		"arguments that are no JSON are an observation": {
			script: []fakellm.Answer{calls("a", "count", `{"key":`), says("done")},
			want: []string{
				"user: hello", `assistant: [a count {"key":]`, "tool a: Error: the arguments are not JSON: invalid JSON at byte 7: expecting value", "assistant: done",
			},
		},
		"arguments that are no object are an observation": {
			script: []fakellm.Answer{calls("a", "count", `["x"]`), says("done")},
			want: []string{
				"user: hello", `assistant: [a count ["x"]]`, `tool a: Error: the arguments are ["x"]; they must be a JSON object`, "assistant: done",
			},
		},
		"a failing tool is an observation": {
			opts:   react.Options{Tools: []react.Tool{broken, panics}},
			script: []fakellm.Answer{calls("a", "broken", ``, "b", "panics", `{}`), says("done")},
			want: []string{
				"user: hello", "assistant: [a broken ][b panics {}]", "tool a: Error: out of order", "tool b: Error: the tool panicked: oh no", "assistant: done",
			},
		},
		"calls without an id, or with one that was used, get one": {
			script: []fakellm.Answer{
				calls("a", "count", `{"key":"x"}`, "a", "count", `{"key":"y"}`, "", "count", `{"key":"z"}`), calls("a", "count", `{"key":"w"}`), says("done"),
			},
			want: []string{
				"user: hello", `assistant: [a count {"key":"x"}][call_1_1_2 count {"key":"y"}][call_1_1_3 count {"key":"z"}]`,
				"tool a: x 1", "tool call_1_1_2: y 1", "tool call_1_1_3: z 1",
				`assistant: [call_1_2_1 count {"key":"w"}]`, "tool call_1_2_1: w 1", "assistant: done",
			}, reward: 1,
		},
		"the tool calls of a final step are not made": {
			opts: react.Options{Structured: true},
			script: []fakellm.Answer{
				step(false, `{"name":"count","arguments":{"key":"x"}}`), step(true, `{"name":"count","arguments":{"key":"y"}}`), says("done"),
			},
			want: []string{"user: hello", `assistant: hm[call_1_1_1 count {"key":"x"}]`, "tool call_1_1_1: x 1", "assistant: done"}, reward: 1,
		},
		"a first step that is final leaves no trace but the answer": {
			opts:   react.Options{Structured: true},
			script: []fakellm.Answer{step(true, ``), says("done")},
			want:   []string{"user: hello", "assistant: done"},
		},
		"steps run out": {
			opts:   react.Options{MaxSteps: 1},
			script: []fakellm.Answer{calls("a", "count", `{"key":"x"}`), says("done")},
			want:   []string{"user: hello", `assistant: [a count {"key":"x"}]`, "tool a: x 1", "assistant: done"}, reward: 1,
		},
		"the system message is there once": {
			opts: react.Options{System: "be brief", Structured: true},
			script: []fakellm.Answer{
				says("no JSON at all"), step(false, `{"name":"count","arguments":"{\"key\":\"x\"}"}`), step(true, ``), says(""), says("done"),
			},
			want: []string{"system: be brief", "user: hello", `assistant: hm[call_1_1_1 count {"key":"x"}]`, "tool call_1_1_1: x 1", "assistant: done"}, reward: 1,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.opts.Tools == nil {
				tool, _ := counter(t)
				c.opts.Tools = []react.Tool{tool}
			}
			if c.input == "" {
				c.input = `"hello"`
			}
			if strings.Contains(name, "later turn reads") {
				c.input = `{"question":"first","scenario":"something that takes two turns"}`
				for c.opts.Seed = 0; drawn(c.opts.Turns, c.opts.Seed, c.input) != 2; c.opts.Seed++ {
				}
			}
			o := newRig(t, sequence(c.script...), c.opts).succeed(c.input)
			if diff := cmp.Diff(c.want, lines(o.conv.Messages())); diff != "" {
				t.Error(diff)
			}
			calls, _ := o.conv.Counts()
			got, ok := rewardOf(o.spans)
			if ok != (calls > 0) || got != c.reward {
				t.Errorf("reward %v %v, want %v", got, ok, c.reward)
			}
			converts(t, o)
			exports(t, o)
		})
	}
}
