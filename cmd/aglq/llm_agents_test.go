package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
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
	script := exec.CommandContext(t.Context(), "../../scripts/get-python-env", "agents")
	script.Stderr = os.Stderr
	out, err := script.Output()
	if err != nil {
		t.Fatalf("making the agents' environment: %v", err)
	}
	python := strings.TrimSpace(string(out))
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
			s := client.New(url, client.Options{})
			defer s.Close()
			for _, line := range results {
				var result struct {
					RolloutID string `json:"rollout_id"`
					Input     struct{ Question, Answer string }
					Reward    float64
				}
				if err := json.Unmarshal([]byte(line), &result); err != nil {
					t.Fatal(err)
				}
				checkTraining(t, s, result.RolloutID, result.Input.Question, result.Reward, result.Input.Answer != "3")
			}
		})
	}
}

func last(list rawjson.Value) (v rawjson.Value) {
	for e := range list.Elements() {
		v = e
	}
	return v
}

// checkTraining wants two calls of a rollout: one that asks for the tool, and one
// that answers and has the reward.
func checkTraining(t *testing.T, s *client.Client, rolloutID, question string, reward float64, right bool) {
	t.Helper()
	if (reward == 1) != right {
		t.Errorf("%s: the reward is %g", question, reward)
	}
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: rolloutID, Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	triplets, err := adapter.ProxyTriplets{}.Adapt(page.Items)
	if err != nil || len(triplets) != 2 {
		t.Fatalf("%s: %d triplets, want 2: %v", question, len(triplets), err)
	}
	answer := fmt.Sprint(fakellm.IDs(last(triplets[1].Prompt.RawContent).Get("content").Text()))
	if got := fmt.Sprint(triplets[1].Response.TokenIDs); got != answer {
		t.Errorf("%s: the tokens of the answer are %s, want %s", question, got, answer)
	}
	for i, tr := range triplets {
		if len(tr.Prompt.TokenIDs) == 0 || len(tr.Response.TokenIDs) == 0 {
			t.Errorf("%s: triplet %d has no tokens: %s", question, i, tr.AppendJSON(nil))
		}
	}
	if triplets[0].Reward != nil || triplets[1].Reward == nil || *triplets[1].Reward != reward {
		t.Errorf("%s: rewards of the calls are %v and %v, want none and %g", question, triplets[0].Reward, triplets[1].Reward, reward)
	}
	conversations, err := adapter.Messages{}.Adapt(page.Items)
	if err != nil || len(conversations) != 2 {
		t.Fatalf("%s: %d conversations, want 2: %v", question, len(conversations), err)
	}
	var said []string
	for m := range conversations[1].Messages.Elements() {
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
	if tools := string(conversations[1].Tools); !strings.Contains(tools, `"name":"add"`) {
		t.Errorf("%s: tools %s", question, tools)
	}
}
