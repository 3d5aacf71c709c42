// Package clients_test makes the calls of agents with OpenAI's and Anthropic's
// own clients, in Python and on Node, through the LLM proxy to a fake model.
package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/internal/pyenv"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

const scripts = "../../../scripts"

// nodeFolder makes the clients' folder and gives where it is.
func nodeFolder(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(scripts, "get-node-env"), "llm")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("making a folder with the clients for Node: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestPython(t *testing.T) {
	test(t, nil, pyenv.Python(t, "llm"), "python/calls.py")
}

func TestNode(t *testing.T) {
	test(t, []string{"NODE_ENV_FOLDER=" + nodeFolder(t)}, "node", "node/calls.mjs")
}

// model says back what it hears, asks for the weather where it may, and refuses
// to fail.
func model(r fakellm.Request) fakellm.Answer {
	prompt := r.Prompt()
	switch {
	case prompt == "fail":
		return fakellm.Answer{Status: 429, Error: "too much"}
	case prompt == "weather please" && r.Body.Get("tools") != nil:
		return fakellm.Answer{ToolCalls: []fakellm.ToolCall{{ID: fmt.Sprint("call_", r.N), Name: "get_weather", Arguments: `{"city": "Paris in spring"}`}}}
	}
	return fakellm.Answer{Text: "you said " + prompt}
}

// want is what every client must get.
func want() []map[string]any {
	var out []map[string]any
	add := func(call string, result map[string]any) {
		result["call"] = call
		out = append(out, result)
	}
	said := map[string]any{"text": "you said hello there"}
	tool := map[string]any{"name": "get_weather", "arguments": map[string]any{"city": "Paris in spring"}}
	with := func(m map[string]any, more ...any) map[string]any {
		out := map[string]any{}
		for k, v := range m {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i].(string)] = more[i+1]
		}
		return out
	}
	for _, m := range []string{"m", "claude", "native"} {
		add("chat "+m, with(said, "stop", "stop"))
		add("chat stream "+m, with(said, "stop", "stop", "tokens", 4.0))
		add("chat tool "+m, with(tool, "stop", "tool_calls"))
		add("chat tool result "+m, map[string]any{"text": "you said sunny"})
		add("chat stream tool "+m, with(tool))
		add("messages "+m, with(said, "stop", "end_turn", "tokens", 4.0))
		add("messages stream "+m, with(said, "stop", "end_turn", "tokens", 4.0))
		add("messages tool "+m, with(tool, "stop", "tool_use"))
		add("messages tool result "+m, map[string]any{"text": "you said sunny"})
		add("messages stream tool "+m, with(tool))
		add("responses "+m, with(said, "stop", "completed", "tokens", 4.0))
		add("responses stream "+m, with(said, "whole", "you said hello there", "stop", "completed", "tokens", 4.0))
		add("responses tool "+m, with(tool, "stop", "completed"))
		add("responses tool result "+m, map[string]any{"text": "you said sunny"})
		if m != "native" {
			add("responses from the previous "+m, map[string]any{"text": "you said sunny"})
		}
		add("responses stream tool "+m, with(tool))
	}
	add("completions", with(said))
	add("completions stream", with(said))
	add("embeddings", map[string]any{"length": 8.0})
	add("models", map[string]any{"names": []any{"m", "claude", "native"}})
	add("anthropic models", map[string]any{"names": []any{"m", "claude", "native"}})
	add("unknown model", map[string]any{"status": 400.0})
	add("unknown model of messages", map[string]any{"status": 400.0})
	add("upstream refuses", map[string]any{"status": 429.0})
	add("upstream refuses messages", map[string]any{"status": 429.0})
	return out
}

// forwarded is how many of these calls are filed: all but the two lists.
func forwarded() int { return len(want()) - 2 }

func test(t *testing.T, env []string, command ...string) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	defer s.Close(context.Background())
	started, err := s.Start(t.Context(), queue.Request{Input: rawjson.Value("1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	upstream := httptest.NewServer(fakellm.New(model))
	defer upstream.Close()
	entries, err := llmproxy.ParseModels(fmt.Appendf(nil, `[
		{"model_name": "m", "litellm_params": {"model": "hosted_vllm/real", "api_base": %[1]q}},
		{"model_name": "claude", "litellm_params": {"model": "anthropic/real", "api_base": %[1]q}},
		{"model_name": "native", "litellm_params": {"model": "hosted_vllm/real", "api_base": %[1]q}, "model_info": {"supported_endpoints": ["/v1/responses"]}}]`, upstream.URL))
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := llmproxy.New(s, llmproxy.Options{Models: entries, Keys: []string{"secret"}, Retries: -1, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(proxy)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	base := server.URL + "/rollout/" + started.RolloutID + "/attempt/" + started.Attempt.AttemptID
	cmd.Env = append(os.Environ(), "OPENAI_BASE_URL="+base+"/v1", "ANTHROPIC_BASE_URL="+base, "OPENAI_API_KEY=secret", "ANTHROPIC_API_KEY=secret", "NO_PROXY=127.0.0.1")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	server.Close()
	if closed := proxy.Close(context.Background()); closed != nil {
		t.Error(closed)
	}
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	var got []map[string]any
	for line := range bytes.Lines(out) {
		result := map[string]any{}
		if err := json.Unmarshal(line, &result); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, result)
	}
	if diff := cmp.Diff(want(), got); diff != "" {
		t.Errorf("what the clients got (-want +got):\n%s", diff)
	}
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: started.RolloutID, Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	if page.Total != 2*forwarded() {
		t.Errorf("%d spans are filed, want %d", page.Total, 2*forwarded())
	}
}
