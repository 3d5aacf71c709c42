package react_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// roles tells the calls of a conversation apart by what they are asked for.
func role(r fakellm.Request) string {
	return r.Body.Get("response_format").Get("json_schema").Get("name").Text()
}

// userAndAgent is a model that plays all parts; judge says after how many answers the
// conversation may end.
func userAndAgent(enough int) fakellm.Script {
	return func(r fakellm.Request) fakellm.Answer {
		switch role(r) {
		case "scenario":
			return says(`{"description":"a user who wants to count a few things"}`)
		case "request":
			return says(fmt.Sprintf(`{"content":"please count again, time %d"}`, 1+strings.Count(r.Prompt(), "Assistant: ")))
		case "judgement":
			return says(fmt.Sprintf(`{"should_conclude":%v}`, strings.Count(r.Prompt(), "Assistant: ") >= enough))
		}
		var last rawjson.Value
		for m := range r.Body.Get("messages").Elements() {
			last = m
		}
		if last.Get("role").Text() == "tool" {
			return says("counted: " + last.Get("content").Text())
		}
		return calls("", "count", `{"key":"x"}`)
	}
}

func TestConversationsOfSeveralTurns(t *testing.T) {
	for name, c := range map[string]struct {
		opts   react.Options
		input  string
		enough int
		turns  int
		judged int
	}{
		"all turns":  {input: `{"topic":"counting","turns":3}`, enough: 1, turns: 3},
		"ends early": {input: `{"topic":"counting","turns":{"min":2,"max":5}}`, enough: 3, turns: 3, judged: 2, opts: react.Options{Seed: seedFor(5)}},
		"not before enough calls": {
			input: `{"topic":"counting","turns":{"min":2,"max":5}}`, enough: 1, turns: 4, judged: 1, opts: react.Options{Seed: seedFor(5), MinToolCalls: 4},
		},
		"one turn about a topic": {input: `{"topic":"counting"}`, turns: 1},
		"text context":           {input: `{"topic":"counting","turns":3}`, turns: 3, opts: react.Options{TextContext: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tool, _ := counter(t)
			c.opts.Tools, c.opts.System = []react.Tool{tool}, "count what is asked"
			r := newRig(t, userAndAgent(c.enough), c.opts)
			o := r.succeed(c.input)
			if len(o.conv.Turns) != c.turns || len(o.named("react.judge")) != c.judged {
				t.Fatalf("%d turns, judged %d times", len(o.conv.Turns), len(o.named("react.judge")))
			}
			want := []string{"system: count what is asked"}
			for n := 1; n <= c.turns; n++ {
				id := fmt.Sprintf("call_%d_1_1", n)
				want = append(want, fmt.Sprintf("user: please count again, time %d", n), fmt.Sprintf(`assistant: [%s count {"key":"x"}]`, id),
					fmt.Sprintf("tool %s: x %d", id, n), fmt.Sprintf("assistant: counted: x %d", n))
			}
			if diff := cmp.Diff(want, lines(o.conv.Messages())); diff != "" {
				t.Error(diff)
			}
			converts(t, o)
			exports(t, o)
			for _, q := range r.model.Requests() {
				if role(q) == "judgement" && (q.Body.Get("max_tokens").String() != "100" || q.Body.Get("temperature").String() != "0.3") {
					t.Errorf("judged with %s", q.Body)
				}
				if c.opts.TextContext && role(q) == "" && strings.Count(q.Body.String(), `"role":"tool"`) > 1 {
					t.Errorf("earlier results are shown: %s", q.Body)
				}
			}
		})
	}
}

// seedFor is a seed by which turns from 2 to 5 about counting are so many.
func seedFor(turns int) uint64 {
	for seed := uint64(0); ; seed++ {
		if drawn(react.Range{Min: 2, Max: 5}, seed, `{"topic":"counting","turns":{"min":2,"max":5}}`) == turns {
			return seed
		}
	}
}

func TestTurnsAreDrawnFromTheWholeRange(t *testing.T) {
	seen := map[int]bool{}
	for seed := range uint64(100) {
		n := drawn(react.Range{Min: 2, Max: 4}, seed, `"task"`)
		if n != drawn(react.Range{Min: 2, Max: 4}, seed, `"task"`) {
			t.Fatal("the same seed gives different turns")
		}
		seen[n] = true
	}
	if len(seen) != 3 || seen[1] || seen[5] {
		t.Errorf("drawn: %v", seen)
	}
}

// The calls of those who play along and of graders are not the agent's.
func TestOnlyTheAgentsCallsBecomeTriplets(t *testing.T) {
	tool, _ := counter(t)
	r := newRig(t, userAndAgent(9), react.Options{
		Tools: []react.Tool{tool},
		Grade: func(ctx context.Context, task *worker.Task, c *react.Conversation) (worker.Result, error) {
			llm, err := task.LLM()
			if err != nil {
				return worker.Result{}, err
			}
			_, err = llmclient.ForLLM(llm).Chat(ctx, llmclient.Request{Messages: []llmclient.Message{{Role: "user", Content: c.Answer()}}})
			return worker.Reward(0.25), err
		},
	})
	o := r.succeed(`{"topic":"counting","turns":2}`)
	triplets, err := adapter.TracerTriplets{}.Adapt(o.spans)
	must(t, err)
	agents := map[string]int{}
	for _, item := range triplets {
		agents[*item.Metadata.AgentName]++
	}
	if diff := cmp.Diff(map[string]int{"react": 4, "user": 3}, agents); diff != "" {
		t.Error(diff)
	}
	if reward, ok := rewardOf(o.spans); !ok || reward != 0.25 {
		t.Errorf("reward %g", reward)
	}
	for _, s := range o.named("count") {
		if s.Attribute("category").Text() != "tool" || s.Attribute("agentlightning.operation.input.key").Text() != "x" ||
			!strings.HasPrefix(s.Attribute("agentlightning.operation.output").Text(), "x ") {
			t.Errorf("%s", s.Attributes)
		}
	}
}

func TestAnswersThatAreNotValidAreAskedForAgain(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string
		opts    react.Options
		want    []string // what the next requests end with
		fails   string
	}{
		"no JSON":       {answers: []string{"well"}, want: []string{"it is not JSON: invalid JSON at byte 0: expecting value"}},
		"twice":         {answers: []string{"well", `{"thought":"x"}`}, want: []string{"it is not JSON", "it does not fit the schema"}},
		"three times":   {answers: []string{"a", "b", "c"}, want: []string{"it is not JSON", "it is not JSON"}, fails: "the model's answers are not valid after 3 tries"},
		"never again":   {answers: []string{"a"}, opts: react.Options{SampleRetries: -1}, fails: "the model's answers are not valid after 1 tries"},
		"wrong types":   {answers: []string{`{"thought":1,"tool_calls":[],"is_final":true}`}, want: []string{`it does not fit the schema: validating root: validating /properties/thought`}},
		"another field": {answers: []string{`{"thought":"","tool_calls":[],"is_final":true,"more":1}`}, want: []string{"it does not fit the schema"}},
		"NaN":           {answers: []string{`{"thought":"","tool_calls":[],"is_final":true,"more":NaN}`}, want: []string{"it holds NaN"}},
		"a fence":       {answers: []string{"```json\n{\"thought\":\"x\",\"tool_calls\":[],\"is_final\":true}\n```"}},
		"other errors":  {answers: []string{"!500"}, fails: "500 Internal Server Error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.opts.Structured = true
			next := 0
			r := newRig(t, func(q fakellm.Request) fakellm.Answer {
				if role(q) != "step" {
					return says("done")
				}
				if next++; next <= len(c.answers) {
					if c.answers[next-1] == "!500" {
						return fakellm.Answer{Status: 500, Error: "down"}
					}
					return says(c.answers[next-1])
				}
				return step(true, "")
			}, c.opts)
			if c.fails != "" {
				if got := r.fail(`"go"`); !strings.Contains(got, c.fails) {
					t.Errorf("%s", got)
				}
			} else {
				r.succeed(`"go"`)
			}
			var told []string
			for _, q := range r.model.Requests() {
				if text, ok := strings.CutPrefix(q.Prompt(), "That answer is not valid: "); ok {
					told = append(told, text)
				}
			}
			if !slices.EqualFunc(told, c.want, strings.HasPrefix) {
				t.Errorf("told %q", told)
			}
		})
	}
}

// The first step, and no other, is told why the attempt before failed.
func TestTheFirstStepIsToldOfAnEarlierFailure(t *testing.T) {
	for _, structured := range []bool{false, true} {
		tool, _ := counter(t)
		failed := false
		r := newRig(t, func(q fakellm.Request) fakellm.Answer {
			if !failed {
				failed = true
				return fakellm.Answer{Status: 500, Error: "the dog ate it"}
			}
			if structured && role(q) == "step" {
				return step(q.N > 2, `{"name":"count","arguments":{"key":"x"}}`)
			}
			if !structured && q.N == 2 {
				return calls("a", "count", `{"key":"x"}`)
			}
			return says("done")
		}, react.Options{Structured: structured, Tools: []react.Tool{tool}})
		r.config.MaxAttempts, r.config.RetryCondition = 2, []queue.AttemptStatus{queue.AttemptFailed}
		r.succeed(`"go"`)
		for i, q := range r.model.Requests() {
			if told := strings.Contains(q.Body.String(), "the dog ate it"); told != (i == 1) {
				t.Errorf("structured %v: request %d is told %v: %s", structured, i, told, q.Body)
			}
		}
	}
}

func TestTasksThatAreNone(t *testing.T) {
	for input, want := range map[string]string{
		`1`:                                        "it must be a text, or an object with question, topic or scenario",
		`{"prompt":"x"}`:                           "it must be a text",
		`{"question":1}`:                           "reading the task",
		`{"question":"x","turns":0}`:               "turns are 0 to 0",
		`{"question":"x","turns":{"min":3}}`:       "turns are 3 to 0",
		`{"question":"x","turns":1000000}`:         "turns are 1000000",
		`{"question":"x","turns":"many"}`:          "reading the task",
		`{"question":"x","files":{"a":{"b":"c"}}}`: "reading the task",
	} {
		if got := newRig(t, sequence(says("done")), react.Options{}).fail(input); !strings.Contains(got, want) {
			t.Errorf("%s: %s", input, got)
		}
	}
}
