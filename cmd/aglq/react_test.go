package main

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

const reactConfig = `
tools:
  - name: shout
    parameters: {type: object, properties: {text: {type: string}}, required: [text]}
    command: [tr, a-z, A-Z]
`

// An agent whose model is behind the LLM proxy of aglq run, within a limit that only the
// proxy takes slots of.
func TestReactThroughTheLLMProxy(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(fakellm.New(func(r fakellm.Request) fakellm.Answer {
		if last := r.Prompt(); !strings.HasPrefix(last, "{") {
			return fakellm.Answer{ToolCalls: []fakellm.ToolCall{{ID: "a", Name: "shout", Arguments: fmt.Sprintf(`{"text":%q}`, last)}}}
		}
		return fakellm.Answer{Text: "done: " + r.Prompt()}
	}))
	defer upstream.Close()
	url := start(t, nil, storeArgs()...).url()
	task := write(t, "tasks.jsonl", `{"input": "hello"}`+"\n")
	out := aglq(t, url, "run", "--managed-store", "0", "--tasks", task, "--llm-upstream", upstream.URL+"/v1", "--limit", "llm=1",
		"--resources", write(t, "resources.json", `{"main":{"resource_type":"llm","endpoint":"http://nowhere","model":"m","sampling_parameters":{}}}`),
		"--react", write(t, "react.yaml", reactConfig))
	id, rest, _ := strings.Cut(lines(out)[0], " ")
	if !strings.HasPrefix(rest, "succeeded reward=1 ") {
		t.Fatalf("result %s", out)
	}
	spans := aglq(t, url, "spans", id, "--json")
	for _, want := range []string{
		`"name":"litellm_request"`, `"name":"openai.chat.completion"`, `"agentlightning.operation.name":"shout"`, `{\"TEXT\":\"HELLO\"}`,
	} {
		if !strings.Contains(spans, want) {
			t.Errorf("no %s among the spans:\n%s", want, spans)
		}
	}
}

// A model that a config has at an endpoint of its own is called past the proxy, and its
// calls are within the limit all the same.
func TestReactLimitsAModelOfItsOwn(t *testing.T) {
	t.Parallel()
	own := fakellm.New(func(r fakellm.Request) fakellm.Answer {
		return fakellm.Answer{ToolCalls: []fakellm.ToolCall{{ID: "a", Name: "shout", Arguments: fmt.Sprintf(`{"text":"%d"}`, len(r.Prompt()))}}}
	})
	server := httptest.NewServer(own)
	defer server.Close()
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", `{"input": "hello"}`+"\n"), "--llm-upstream", server.URL+"/v1",
		"--limit", "llm=1/h", "--task-timeout", "2",
		"--react", write(t, "react.yaml", reactConfig+"llm: {endpoint: '"+server.URL+"/v1', model: m}\n"))
	p.exit(1)
	if n := len(own.Requests()); n > 1 {
		t.Errorf("%d calls in an hour of one", n)
	}
}

func TestReactUsage(t *testing.T) {
	t.Parallel()
	config := write(t, "react.yaml", reactConfig)
	broken := write(t, "broken.yaml", "tools: [{nam: x}]")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--react", config, "--", "cat"}, 2, "--react is the agent: remove the command after --"},
		{[]string{"--react", config, "--http", "http://localhost:1"}, 2, "remove the command after --, --http"},
		{[]string{"--react", "/nowhere.yaml"}, 2, "no such file"},
		{[]string{"--react", broken}, 2, "field nam not found"},
		{[]string{"--react", config, "--react-record", "a", "--react-replay", "b"}, 2, "exclude each other"},
		{[]string{"--react-record", "a", "--", "cat"}, 2, "--react-record is for --react"},
		{[]string{"--react", config, "--react-replay", "/nowhere.jsonl", "--once", "--input", "1"}, 1, "opening the recording"},
		{[]string{"--react", config, "--react-record", config, "--once", "--input", "1"}, 1, "making the recording"},
		{[]string{"--react", write(t, "mcp.yaml", "mcp: [{command: [\"false\"]}]"), "--once", "--input", "1"}, 1, "MCP server false"},
		{[]string{"--react", config, "--once", "--input", `"x"`}, 1, "error: finding the model"},
	} {
		p := start(t, nil, append([]string{"worker"}, c.args...)...)
		p.exit(c.code)
		if text := p.log.String() + p.out.String(); !strings.Contains(text, c.says) {
			t.Errorf("%v said: %s", c.args, text)
		}
	}
}
