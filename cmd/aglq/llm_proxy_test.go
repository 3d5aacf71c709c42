package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// caller is an agent that knows nothing of aglq: it calls OpenAI's API where the
// environment says.
const caller = `
import json, os, sys, urllib.request
task = json.load(sys.stdin)
body = json.dumps({"model": os.environ.get("AGL_LLM_MODEL", "any"), "messages": [{"role": "user", "content": task}]})
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body.encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
print(1 if answer == task else 0)
`

func TestRunWithLLMProxy(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(fakellm.New(nil))
	defer upstream.Close()
	url := start(t, nil, storeArgs()...).url()
	task := write(t, "tasks.jsonl", `{"input": "say this"}`+"\n")
	out := aglq(t, url, "run", "--managed-store", "0", "--tasks", task, "--llm-upstream", upstream.URL+"/v1", "--out", "-",
		"--", "python3", "-c", caller)
	var result struct {
		RolloutID string `json:"rollout_id"`
		Reward    float64
	}
	if err := json.Unmarshal([]byte(lines(out)[0]), &result); err != nil || result.Reward != 1 {
		t.Fatalf("result %s: %v", out, err)
	}
	spans := aglq(t, url, "spans", result.RolloutID, "--json")
	for _, want := range []string{`"name":"litellm_request"`, `"name":"raw_gen_ai_request"`, `"gen_ai.completion.0.content":"say this"`, `"response_token_ids":[`} {
		if !strings.Contains(spans, want) {
			t.Errorf("no %s among the spans:\n%s", want, spans)
		}
	}
}

// TestRunPublishesLLMMetrics scrapes a run that has a proxy, while its agent waits.
func TestRunPublishesLLMMetrics(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(fakellm.New(nil))
	defer upstream.Close()
	end := filepath.Join(t.TempDir(), "end")
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", `{"input": "say this"}`+"\n"), "--llm-upstream", upstream.URL+"/v1",
		"--tracker", "prometheus", "--metrics-addr", "127.0.0.1:0",
		"--", "sh", "-c", `python3 -c "$1"; until [ -e "$2" ]; do sleep 0.05; done; echo 1`, "sh", caller, end)
	for _, url := range []string{p.url(), p.metricsURL()} {
		until(t, "the call at "+url, func() bool {
			_, text := get(t, url+"/metrics")
			return strings.Contains(text, "aglq_llm_requests_total{") && strings.Contains(text, "aglq_llm_spans_dropped_total 0")
		})
	}
	if err := os.WriteFile(end, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	p.exit(0)
}

// An agent of another machine is told an address of this one, and the key that the
// proxy then demands.
func TestRunWithAnOpenLLMProxy(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(fakellm.New(nil))
	defer upstream.Close()
	const agent = `
import json, os, sys, urllib.error, urllib.request
def call(key):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    try:
        urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers))
        return 200
    except urllib.error.HTTPError as error:
        return error.code
key = os.environ["OPENAI_API_KEY"]
print(1 if (call(key), call(key.split(".")[0])) == (200, 401) else 0)
`
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", "1\n"), "--llm-upstream", upstream.URL+"/v1", "--llm-host", "0.0.0.0",
		"--", "python3", "-c", agent)
	p.exit(0)
	if text := p.log.String(); !strings.Contains(text, "1 succeeded, 0 failed, mean reward 1") {
		t.Errorf("said: %s", text)
	}
}

func TestLLMProxyCommand(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(fakellm.New(nil))
	defer upstream.Close()
	store := start(t, nil, storeArgs()...).url()
	id := strings.TrimSpace(aglq(t, store, "enqueue", write(t, "tasks.jsonl", tasks(1))))
	started := post(t, store+"/v1/agl/rollouts/"+id+"/attempts", "{}")
	var attempt struct {
		Attempt struct {
			AttemptID string `json:"attempt_id"`
		}
	}
	if err := json.Unmarshal([]byte(started), &attempt); err != nil || attempt.Attempt.AttemptID == "" {
		t.Fatalf("attempt %s: %v", started, err)
	}
	models := fmt.Sprintf("model_list:\n  - model_name: m\n    litellm_params:\n      model: hosted_vllm/real\n      api_base: %s/v1\n", upstream.URL)
	p := start(t, nil, "llm-proxy", "--port", "0", "--store-url", store, "--models", write(t, "models.yaml", models))
	url := p.url()
	post(t, url+"/rollout/"+id+"/attempt/"+attempt.Attempt.AttemptID+"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hello"}]}`)
	if code, text := get(t, url+"/metrics"); code != 200 || !strings.Contains(text, `aglq_llm_requests_total{model="m",status="200"} 1`) {
		t.Errorf("metrics: status %d: %s", code, text)
	}
	p.signal(syscall.SIGTERM)
	p.exit(143)
	if spans := aglq(t, store, "spans", id, "--json"); !strings.Contains(spans, `"gen_ai.completion.0.content":"hello"`) {
		t.Errorf("spans after the end of the proxy:\n%s", spans)
	}
}

// poolCaller is the same as a program that stays.
const poolCaller = `
import json, sys, urllib.request
for line in sys.stdin:
    message = json.loads(line)
    env, task = message["env"], message["input"]
    body = json.dumps({"model": env.get("AGL_LLM_MODEL", "any"), "messages": [{"role": "user", "content": task}]})
    request = urllib.request.Request(env["OPENAI_BASE_URL"] + "/chat/completions", body.encode(), {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
    print(json.dumps({"id": message["id"], "reward": 1 if answer == task else 0}), flush=True)
`

// TestRunLimitsCallsOfModels has agents of a pool call a model one at a time.
func TestRunLimitsCallsOfModels(t *testing.T) {
	t.Parallel()
	var calls, most atomic.Int64
	upstream := httptest.NewServer(fakellm.New(func(r fakellm.Request) fakellm.Answer {
		return fakellm.Answer{Text: r.Prompt(), Wait: func(context.Context, int) error {
			most.Store(max(most.Load(), calls.Add(1)))
			time.Sleep(2 * time.Millisecond) // so that others would come in
			calls.Add(-1)
			return nil
		}}
	}))
	defer upstream.Close()
	task := write(t, "tasks.jsonl", strings.Repeat(`"say this"`+"\n", 12))
	p := start(t, nil, "run", "--tasks", task, "--bridge", "pool", "--concurrency", "4", "--limit", "llm=1",
		"--llm-upstream", upstream.URL+"/v1", "--", "python3", "-c", poolCaller)
	p.exit(0)
	if text := p.log.String(); !strings.Contains(text, "12 succeeded, 0 failed, mean reward 1") {
		t.Errorf("said: %s", text)
	}
	if most.Load() != 1 {
		t.Errorf("%d calls at a time", most.Load())
	}
}

// post wants a good answer.
func post(t *testing.T, url, body string) string {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		t.Fatalf("%s: status %d, %v: %s", url, resp.StatusCode, err, text)
	}
	return string(text)
}

func TestLLMProxyUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"llm-proxy"}, 2, "there is no model"},
		{[]string{"llm-proxy", "--upstream", "http://localhost:1", "--host", "0.0.0.0"}, 2, "give --key"},
		{[]string{"llm-proxy", "--upstream", "localhost:1"}, 2, "it must be the URL of an upstream"},
		{[]string{"llm-proxy", "--upstream", "http://localhost:1", "--sequence", "block:0"}, 2, "block:16"},
		{[]string{"run", "--tasks", "-", "--http", "http://other:8000", "--llm-upstream", "http://localhost:1"}, 2, "by --llm-host"},
		{[]string{"run", "--tasks", "-", "--http", "http://other:8000", "--llm-upstream", "http://localhost:1", "--llm-host", ""}, 2, "llm-host"},
		{[]string{"llm-proxy", "--models", "/nowhere.yaml"}, 1, "reading the model table"},
	} {
		p := start(t, nil, c.args...)
		p.exit(c.code)
		if text := p.log.String(); !strings.Contains(text, c.says) {
			t.Errorf("%v said: %s", c.args, text)
		}
	}
}
