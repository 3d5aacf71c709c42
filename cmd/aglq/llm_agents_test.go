package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/internal/pyenv"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

const agents = "../../examples/llm/"

// policy is a model that asks for the tool, and says what the tool returned.
func policy(q fakellm.Request) fakellm.Answer {
	var a, b int
	if n, _ := fmt.Sscanf(q.Prompt(), "What is %d + %d?", &a, &b); n == 2 {
		return fakellm.Answer{ToolCalls: []fakellm.ToolCall{{ID: fmt.Sprint("call_", q.N), Name: "add", Arguments: fmt.Sprintf(`{"a": %d, "b": %d}`, a, b)}}}
	}
	return fakellm.Answer{Text: q.Prompt()}
}

// TestAgentsWithoutAglq runs agents that know nothing of aglq: on OpenAI's
// library, and on LangChain in each of its ways to call a model. Triplets with
// token ids, conversations and rewards must come out.
func TestAgentsWithoutAglq(t *testing.T) {
	t.Parallel()
	python := pyenv.Python(t, "agents")
	upstream := httptest.NewServer(fakellm.New(policy))
	t.Cleanup(upstream.Close)
	all := string(read(t, agents+"tasks.jsonl"))
	one := lines(all)[0]
	for _, c := range []struct {
		name, agent, tasks string
		env                []string
	}{
		{"openai", "openai_agent.py", all, nil},
		{"langchain, streams", "langchain_agent.py", one, []string{"STREAM=1"}},
		{"langchain, streams of responses", "langchain_agent.py", one, []string{"STREAM=1", "RESPONSES_API=1"}},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: the libraries take seconds to load
			url := start(t, nil, storeArgs()...).url()
			p := start(t, append(c.env, "AGL_STORE_URL="+url), "run", "--managed-store", "0", "--n-runners", "1",
				"--tasks", write(t, "tasks.jsonl", c.tasks), "--llm-upstream", upstream.URL+"/v1", "--out", "-", "--", python, agents+c.agent)
			p.exit(0)
			results := lines(p.out.String())
			if len(results) != len(lines(c.tasks)) {
				t.Errorf("%d results: %s", len(results), p.out)
			}
			for _, line := range results {
				var result struct {
					RolloutID string `json:"rollout_id"`
					Input     struct{ Question, Answer string }
					Reward    float64
				}
				if err := json.Unmarshal([]byte(line), &result); err != nil {
					t.Fatal(err)
				}
				if right := result.Input.Answer != "3"; (result.Reward == 1) != right {
					t.Errorf("%s: the reward is %g", result.Input.Question, result.Reward)
				}
				id := result.RolloutID
				checkTriplets(t, exported(t, url, id, "--format", "triplet"), result.Input.Question, result.Reward)
				conversations := exported(t, url, id, "--format", "conversational", "--each-call", "--include-system", "--include-tool-calls")
				checkConversations(t, conversations, result.Input.Question)
			}
			checkDatasets(t, url, len(results))
		})
	}
}

// exported are the rows that aglq export makes of a rollout.
func exported(t *testing.T, url, rolloutID string, options ...string) (rows []rawjson.Value) {
	t.Helper()
	for _, line := range lines(aglq(t, url, append([]string{"export", "--rollout-id", rolloutID, "--out", "-"}, options...)...)) {
		v, err := rawjson.Parse([]byte(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, v)
	}
	return rows
}

func firstOf(list rawjson.Value) rawjson.Value {
	for e := range list.Elements() {
		return e
	}
	return nil
}

func last(list rawjson.Value) (v rawjson.Value) {
	for e := range list.Elements() {
		v = e
	}
	return v
}

// checkTriplets wants two calls of a rollout: one that asks for the tool, and one
// that answers and has the reward.
func checkTriplets(t *testing.T, triplets []rawjson.Value, question string, reward float64) {
	t.Helper()
	if len(triplets) != 2 {
		t.Fatalf("%s: %d triplets, want 2: %s", question, len(triplets), triplets)
	}
	for _, tr := range triplets {
		for _, side := range []string{"prompt", "response"} {
			if _, ok := firstOf(tr.Get(side).Get("token_ids")).Int(); !ok {
				t.Errorf("%s: the %s has no token ids: %s", question, side, tr)
			}
		}
	}
	answer, err := json.Marshal(fakellm.IDs(last(triplets[1].Get("prompt").Get("raw_content")).Get("content").Text()))
	if got := triplets[1].Get("response").Get("token_ids"); err != nil || string(got) != string(answer) {
		t.Errorf("%s: the tokens of the answer are %s, want %s", question, got, answer)
	}
	given, ok := triplets[1].Get("reward").Float()
	if !triplets[0].Get("reward").IsNull() || !ok || given != reward {
		t.Errorf("%s: rewards of the calls are %s and %s, want none and %g", question, triplets[0].Get("reward"), triplets[1].Get("reward"), reward)
	}
}

// checkConversations wants the second call's whole, with the tool.
func checkConversations(t *testing.T, conversations []rawjson.Value, question string) {
	t.Helper()
	if len(conversations) == 0 {
		t.Fatalf("%s: no conversation", question)
	}
	whole := conversations[len(conversations)-1]
	var said []string
	for m := range whole.Get("messages").Elements() {
		text := m.Get("role").Text() + ": " + m.Get("content").Text()
		for call := range m.Get("tool_calls").Elements() {
			text += call.Get("function").Get("name").Text()
		}
		said = append(said, text)
	}
	want := []string{"system: Use the tool to add. Say nothing but the sum.", "user: " + question, "assistant: add", "tool: ", "assistant: "}
	if len(said) == len(want) {
		want[3], want[4] = said[3], strings.Replace(said[3], "tool: ", "assistant: ", 1)
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("%s (-want +got):\n%s", question, diff)
	}
	if tools := string(whole.Get("tools")); !strings.Contains(tools, `"name":"add"`) {
		t.Errorf("%s: tools %s", question, tools)
	}
}

// checkDatasets wants datasets of what n rollouts of agents left: a conversation of
// each, which their second call continues, and two triplets.
func checkDatasets(t *testing.T, url string, n int) {
	t.Helper()
	exported := func(format string, more ...string) []rawjson.Value {
		out := aglq(t, url, append([]string{"export", "--format", format, "--out", "-"}, more...)...)
		var rows []rawjson.Value
		for _, line := range lines(out) {
			rows = append(rows, rawjson.Value(line))
		}
		return rows
	}
	for format, row := range map[string]string{
		"conversational":    `^{"messages":\[{"role":"system","content":"Use .*},{"role":"user","content":"What .*},{"role":"assistant","content":"","tool_calls":\[.*"name":"add".*},{"role":"tool","content":"(\d+)","tool_call_id":"call_\d+"},{"role":"assistant","content":"\d+"}\],"tools":\[{"type":"function","function":{"name":"add",.*}$`,
		"openai-ft":         `^{"messages":\[.*{"role":"assistant","tool_calls":\[.*"tools":\[.*}$`,
		"prompt-completion": `^{"prompt":"System: Use .*\\n\\nUser: What .*","completion":"\d+"}$`,
	} {
		rows := exported(format)
		if len(rows) != n {
			t.Errorf("%d rollouts have %d rows in the format %s", n, len(rows), format)
		}
		for _, got := range rows {
			if !regexp.MustCompile(row).Match(got) {
				t.Errorf("%s: %s", format, got)
			}
		}
	}
	triplets := exported("triplet")
	if len(triplets) != 2*n {
		t.Errorf("%d rollouts have %d triplets", n, len(triplets))
	}
	for i, tr := range triplets {
		asked, answered := tr.Get("prompt").Get("token_ids"), tr.Get("response").Get("token_ids")
		if len(asked) <= len("[]") || len(answered) <= len("[]") || (i%2 == 1) != (tr.Get("reward").Kind() == rawjson.KindFloat) {
			t.Errorf("triplet %d: %s", i, tr)
		}
	}
	best := exported("triplet", "--min-reward", "1")
	for _, tr := range best {
		if string(tr.Get("final_reward")) != "1.0" {
			t.Errorf("a reward below 1: %s", tr)
		}
	}
	if len(best) == 0 || n > 1 && len(best) == len(triplets) {
		t.Errorf("%d of %d triplets have a reward of 1", len(best), len(triplets))
	}
}
