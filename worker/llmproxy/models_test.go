package llmproxy_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/limit"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

func TestParseModels(t *testing.T) {
	t.Setenv("SOME_KEY", "sk-1")
	got := entries(t, `
model_list:
  - model_name: policy
    litellm_params:
      model: hosted_vllm/Qwen/Qwen2.5-1.5B
      api_base: http://one:8000
      rpm: 60
      max_parallel_requests: 4
      temperature: 0.5
      extra_headers: {X-A: b}
      extra_body: {top_k: 5}
      input_cost_per_token: 0.1
      timeout: 30
  - model_name: any-owner
    litellm_params: {model: Qwen/Qwen3, api_base: "http://two/base/v1/", logprobs: 1, return_token_ids: false}
  - model_name: gpt
    litellm_params: {model: openai/gpt-x, api_key: os.environ/SOME_KEY}
  - model_name: claude
    litellm_params: {model: claude-x, custom_llm_provider: anthropic}
  - model_name: "*"
    litellm_params: {model: "hosted_vllm/*", api_base: http://three}
`)
	type line struct {
		Name, Provider, Model, Base, Key, Defaults, Extra string
		RPM, Concurrency                                  int
		Timeout                                           time.Duration
	}
	var lines []line
	for _, e := range got {
		lines = append(lines, line{e.Name, e.Provider, e.Model, e.APIBase, e.APIKey, string(e.Defaults), string(e.Extra), e.RPM, e.Concurrency, e.Timeout})
	}
	want := []line{
		{"policy", "hosted_vllm", "Qwen/Qwen2.5-1.5B", "http://one:8000/v1", "", `{"temperature":0.5}`, `{"top_k":5}`, 60, 4, 30 * time.Second},
		{"any-owner", "hosted_vllm", "Qwen/Qwen3", "http://two/base/v1", "", "{}", "", 0, 0, 0},
		{"gpt", "openai", "gpt-x", "https://api.openai.com/v1", "sk-1", "{}", "", 0, 0, 0},
		{"claude", "anthropic", "claude-x", "https://api.anthropic.com/v1", "", "{}", "", 0, 0, 0},
		{"*", "hosted_vllm", "*", "http://three/v1", "", "{}", "", 0, 0, 0},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if e := got[1]; e.Logprobs == nil || !*e.Logprobs || e.ReturnTokenIDs == nil || *e.ReturnTokenIDs {
		t.Errorf("the second entry's choices: %+v", e)
	}
}

// TestServedEndpoints has what an upstream serves of its kind, or of model_info.
func TestServedEndpoints(t *testing.T) {
	got := entries(t, `
- {model_name: own, litellm_params: {model: hosted_vllm/x, api_base: "http://a"}}
- {model_name: own with responses, litellm_params: {model: hosted_vllm/x, api_base: "http://a"}, model_info: {supported_endpoints: [/v1/chat/completions, /v1/responses]}}
- {model_name: own with nothing else, litellm_params: {model: hosted_vllm/x, api_base: "http://a"}, model_info: {supported_endpoints: [/v1/responses]}}
- {model_name: openai, litellm_params: {model: openai/gpt-x}}
- {model_name: openai without, litellm_params: {model: openai/gpt-x}, model_info: {supported_endpoints: [/v1/chat/completions]}}
- {model_name: openai elsewhere, litellm_params: {model: openai/gpt-x, api_base: "http://a"}}
- {model_name: prefix, litellm_params: {model: openai/responses/gpt-x-pro}}
- {model_name: mode, litellm_params: {model: openai/gpt-x-pro}, model_info: {mode: responses}}
- {model_name: anthropic, litellm_params: {model: anthropic/x}, model_info: {supported_endpoints: [/v1/messages]}}
`)
	var lines []string
	for _, e := range got {
		lines = append(lines, fmt.Sprintf("%s: %s %t %t", e.Name, e.Model, e.Responses, e.NoChat))
	}
	want := []string{
		"own: x false false", "own with responses: x true false", "own with nothing else: x true true", "openai: gpt-x true false",
		"openai without: gpt-x false false", "openai elsewhere: gpt-x false false", "prefix: gpt-x-pro true true", "mode: gpt-x-pro true true",
		"anthropic: x false false",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestBrokenModels(t *testing.T) {
	for text, says := range map[string]string{
		"":                      "empty",
		"{":                     "neither JSON nor YAML",
		`{"models": []}`:        "model_list",
		`[{"model": "x"}]`:      "model_name is missing",
		`[{"model_name": "x"}]`: "x: litellm_params is missing",
		`[{"model_name": "x", "litellm_params": {"model": "y"}}]`:                                                                   "api_base is missing",
		`[{"model_name": "x", "litellm_params": {"model": "y", "api_base": "here"}}]`:                                               "must be a URL",
		`[{"model_name": "x", "litellm_params": {"model": "bedrock/y"}}]`:                                                           "bedrock is not supported",
		`[{"model_name": "x", "litellm_params": {"model": 1, "api_base": "http://a"}}]`:                                             "model must be a string",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a", "rpm": -1}}]`:                                              "rpm must be a number",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a", "api_key": "os.environ/AGLQ_NO_SUCH"}}]`:                   "AGLQ_NO_SUCH",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a"}}, {"model_name": "y"}]`:                                    "entry 2",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a", "rpm": 1e8}}]`:                                             "at most 1000000",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a", "extra_body": []}}]`:                                       "extra_body must be an object",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a", "extra_headers": {"X": 1}}}]`:                              "extra_headers must be a string",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a", "return_token_ids": "yes"}}]`:                              "true or false",
		`[{"model_name": "x", "litellm_params": {"api_base": "http://a"}, "model_info": {"supported_endpoints": "/v1/responses"}}]`: "supported_endpoints must be a list",
		"- model_name: x\n  litellm_params: {1: 2}":                                                                                 "model table",
	} {
		if _, err := llmproxy.ParseModels([]byte(text)); err == nil || !strings.Contains(err.Error(), says) || queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseModels(f *testing.F) {
	f.Add([]byte(table("http://x")))
	f.Add([]byte("model_list:\n- model_name: a\n  litellm_params: {model: b, api_base: http://x}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := llmproxy.ParseModels(text)
		if err != nil && queue.KindOf(err) != queue.Invalid {
			t.Errorf("%v", err)
		}
		for _, e := range list {
			if err == nil && (e.Name == "" || e.APIBase == "") {
				t.Errorf("entry %+v", e)
			}
		}
	})
}

// chatWith asks for a model.
func (r *rig) chatWith(model string) answer {
	return r.call("/v1/chat/completions", strings.Replace(hello, `"m"`, `"`+model+`"`, 1)+"}")
}

func TestRoundRobin(t *testing.T) {
	r := newRig(t, nil, nil)
	other, base := fake(t, nil)
	r.proxy.SetModels(entries(t, fmt.Sprintf(`[
		{"model_name": "m", "litellm_params": {"model": "one", "api_base": %q}},
		{"model_name": "m", "litellm_params": {"model": "two", "api_base": %q}}]`, r.base, base)))
	for range 6 {
		if got := r.chatWith("m"); got.status != 200 {
			t.Fatalf("status %d: %s", got.status, got.text)
		}
	}
	if a, b := len(r.upstream.Requests()), len(other.Requests()); a != 3 || b != 3 {
		t.Errorf("%d and %d calls, want 3 and 3", a, b)
	}
}

// TestRetries goes on to the next upstream, and leaves one that fails alone.
func TestRetries(t *testing.T) {
	r := newRig(t, say(fakellm.Answer{Status: 503, Error: "down"}), nil)
	good, base := fake(t, nil)
	r.proxy.SetModels(entries(t, fmt.Sprintf(`[
		{"model_name": "m", "litellm_params": {"model": "bad", "api_base": %q}},
		{"model_name": "m", "litellm_params": {"model": "good", "api_base": %q}}]`, r.base, base)))
	for i := range 8 {
		if got := r.chatWith("m"); got.status != 200 {
			t.Fatalf("call %d: status %d: %s", i, got.status, got.text)
		}
	}
	if n := len(good.Requests()); n != 8 {
		t.Errorf("the good upstream has %d calls, want 8", n)
	}
	if n := len(r.upstream.Requests()); n != 3 { // then it rests
		t.Errorf("the bad upstream has %d calls, want 3", n)
	}
	state := r.do("GET", "/admin/models", "").json(t)
	bad := first(state.Get("model_list")).Get("state")
	if bad.Get("healthy").Bool() || !strings.Contains(bad.Get("last_error").Text(), "down") {
		t.Errorf("the state of the bad upstream is %s", bad)
	}
	retried := 0
	for _, s := range r.spans() {
		if n, _ := s.Attribute("aglq.llm.retries").Int(); n > 0 {
			retried++
		}
	}
	if retried != 3 {
		t.Errorf("%d spans tell of a retry, want 3", retried)
	}
}

// TestRetryAlone makes a call again to the only upstream there is.
func TestRetryAlone(t *testing.T) {
	var calls atomic.Int64
	r := newRig(t, func(fakellm.Request) fakellm.Answer {
		if calls.Add(1) < 3 {
			return fakellm.Answer{Wait: cut}
		}
		return fakellm.Answer{Text: "at last"}
	}, nil)
	if got := r.chatWith("m"); got.status != 200 || !strings.Contains(got.text, "at last") {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	if n := calls.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

func TestConcurrencyLimit(t *testing.T) {
	g := newGate()
	r := newRig(t, say(fakellm.Answer{Text: "x", Wait: g.wait}), func(o *llmproxy.Options) { o.LimitWait = -1 })
	defer g.open()
	limited := fmt.Sprintf(`[{"model_name": "m", "litellm_params": {"model": "one", "api_base": %q, "max_parallel_requests": 1}}]`, r.base)
	r.proxy.SetModels(entries(t, limited))
	first := make(chan answer, 1)
	go func() { first <- r.chatWith("m") }()
	<-g.reached
	got := r.chatWith("m")
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" || !strings.Contains(got.text, "max_parallel_requests") {
		t.Errorf("status %d, %v: %s", got.status, got.header, got.text)
	}
	g.open()
	if got := <-first; got.status != 200 {
		t.Errorf("the first call: status %d: %s", got.status, got.text)
	}
	if got := r.chatWith("m"); got.status != 200 {
		t.Errorf("afterwards: status %d: %s", got.status, got.text)
	}
}

// TestLimitOverAllModels bounds the calls of different models together.
func TestLimitOverAllModels(t *testing.T) {
	g := newGate()
	r := newRig(t, say(fakellm.Answer{Text: "x", Wait: g.wait}), func(o *llmproxy.Options) {
		o.LimitWait, o.Limit = -1, limit.NewGroup(limit.Rule{AtATime: 1})
	})
	defer g.open()
	r.proxy.SetModels(entries(t, fmt.Sprintf(`[{"model_name": "m", "litellm_params": {"model": "one", "api_base": %[1]q}},
		{"model_name": "other", "litellm_params": {"model": "two", "api_base": %[1]q, "max_parallel_requests": 1}}]`, r.base)))
	first := make(chan answer, 1)
	go func() { first <- r.chatWith("m") }()
	<-g.reached
	for range 2 { // a call that is refused keeps nothing of its model
		got := r.chatWith("other")
		if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" || !strings.Contains(got.text, "over all models") {
			t.Errorf("status %d, %v: %s", got.status, got.header, got.text)
		}
	}
	g.open()
	if got := <-first; got.status != 200 {
		t.Errorf("the first call: status %d: %s", got.status, got.text)
	}
	if got := r.chatWith("other"); got.status != 200 {
		t.Errorf("afterwards: status %d: %s", got.status, got.text)
	}
}

// TestLimitWaits holds calls until it is their turn.
func TestLimitWaits(t *testing.T) {
	var running, most atomic.Int64
	r := newRig(t, func(fakellm.Request) fakellm.Answer {
		return fakellm.Answer{Text: "x", Wait: func(context.Context, int) error {
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(2 * time.Millisecond) // the model thinks, and others would come in
			running.Add(-1)
			return nil
		}}
	}, nil)
	r.proxy.SetModels(entries(t, fmt.Sprintf(`[{"model_name": "m", "litellm_params": {"model": "one", "api_base": %q, "max_parallel_requests": 2}}]`, r.base)))
	answers := make(chan answer, 20)
	for range 20 {
		go func() { answers <- r.chatWith("m") }()
	}
	for range 20 {
		if got := <-answers; got.status != 200 {
			t.Errorf("status %d: %s", got.status, got.text)
		}
	}
	if most.Load() > 2 {
		t.Errorf("%d calls at a time, want 2 at most", most.Load())
	}
}

func TestRateLimit(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.LimitWait = -1 })
	r.proxy.SetModels(entries(t, fmt.Sprintf(`[{"model_name": "m", "litellm_params": {"model": "one", "api_base": %q, "rpm": 3}}]`, r.base)))
	for i := range 4 {
		got := r.chatWith("m")
		if want := map[bool]int{true: 200, false: 429}[i < 3]; got.status != want {
			t.Errorf("call %d: status %d, want %d: %s", i, got.status, want, got.text)
		}
	}
}

func TestMaxConcurrency(t *testing.T) {
	g := newGate()
	r := newRig(t, say(fakellm.Answer{Wait: g.wait}), func(o *llmproxy.Options) { o.MaxConcurrency = 1 })
	defer g.open()
	done := make(chan answer, 1)
	go func() { done <- r.chatWith("m") }()
	<-g.reached
	if got := r.chatWith("m"); got.status != http.StatusTooManyRequests {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	g.open()
	<-done
}

func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "models.json")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put(`[{"model_name": "before", "litellm_params": {"api_base": "http://127.0.0.1:1"}}]`)
	r := newRig(t, nil, func(o *llmproxy.Options) { o.Models, o.ModelsFile, o.FollowResources = nil, path, true })
	names := func() string { return strings.Join(r.proxy.ModelNames(), " ") }
	if got := names(); got != "before" {
		t.Fatalf("models at the start: %s", got)
	}
	put(`[{"model_name": "broken"}]`)
	put(fmt.Sprintf(`[{"model_name": "m", "litellm_params": {"model": "file", "api_base": %q}}]`, r.base))
	eventually(t, "the file's models", func() bool { return names() == "m" })
	if got := r.chatWith("m"); got.status != 200 || r.upstream.Requests()[0].Model != "file" {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	// An algorithm stores a new checkpoint.
	resources := fmt.Sprintf(`{"m": {"resource_type": "llm", "endpoint": %q, "model": "checkpoint-7", "api_key": null, "sampling_parameters": {"temperature": 0.25}},
		"agents": {"resource_type": "proxy_llm", "endpoint": "http://proxy/v1", "model": "m"}}`, r.base)
	if _, err := r.store.AddResources(t.Context(), rawjson.Value(mustParse(t, resources))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the resources' models", func() bool { return names() == "m checkpoint-7" })
	if got := r.chatWith("m"); got.status != 200 {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	if sent := r.upstream.Requests()[1]; sent.Model != "checkpoint-7" || string(sent.Body.Get("temperature")) != "0.25" {
		t.Errorf("the upstream was sent %s", sent.Body)
	}
	// And the admin API.
	got := r.do("PUT", "/admin/models", `[{"model_name": "other", "litellm_params": {"api_base": "http://secret:word@host/v1", "api_key": "sk-1"}}]`)
	if got.status != 200 || names() != "other m checkpoint-7" || strings.Contains(got.text, "sk-1") || strings.Contains(got.text, "word") {
		t.Errorf("status %d, models %s: %s", got.status, names(), got.text)
	}
	if got := r.do("PUT", "/admin/models", `[{}]`); got.status != 400 || names() != "other m checkpoint-7" {
		t.Errorf("a broken table: status %d: %s", got.status, got.text)
	}
}

func mustParse(t *testing.T, text string) rawjson.Value {
	t.Helper()
	v, err := rawjson.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAnyModel(t *testing.T) {
	r := newRig(t, nil, nil)
	r.proxy.SetModels(entries(t, fmt.Sprintf(`[{"model_name": "*", "litellm_params": {"model": "hosted_vllm/*", "api_base": %q}}]`, r.base)))
	if got := r.chatWith("whatever"); got.status != 200 || r.upstream.Requests()[0].Model != "whatever" {
		t.Errorf("status %d, %+v", got.status, r.upstream.Requests())
	}
	if got := r.do("GET", "/v1/models", ""); !strings.Contains(got.text, `"id":"fake"`) || strings.Contains(got.text, `"*"`) {
		t.Errorf("models: %s", got.text) // the upstream's list
	}
}

func TestKeys(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.Keys, o.AdminKeys = []string{"k1", "k2"}, []string{"boss"} })
	agent := "agl-" + r.ref.RolloutID + "-" + r.ref.AttemptID
	for _, c := range []struct {
		path   string
		key    string
		status int
	}{
		{"/v1/models", "", 401},
		{"/v1/models", "k3", 401},
		{"/v1/models", agent, 401},
		{"/v1/models", agent + ".k3", 401},
		{"/v1/models", agent + ".k2", 200},
		{"/v1/models", "k1", 200},
		{"/health", "", 200},
		{"/health?deep=1", "", 401},
		{"/health?deep=1", "k1", 200},
		{"/admin/models", "k1", 401},
		{"/admin/models", "boss", 200},
	} {
		if got := r.do("GET", c.path, "", "Authorization", "Bearer "+c.key); got.status != c.status {
			t.Errorf("%s with key %q: status %d, want %d", c.path, c.key, got.status, c.status)
		}
	}
	if got := r.do("POST", "/v1/chat/completions", hello+"}", "X-Api-Key", agent+".k1"); got.status != 200 {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	if n := len(r.spans()); n != 2 {
		t.Errorf("%d spans, want 2", n)
	}
}

// TestForeignPages keeps web pages from calling a proxy without keys.
func TestForeignPages(t *testing.T) {
	r := newRig(t, nil, nil)
	for origin, status := range map[string]int{"https://evil.example": 403, "null": 403, "http://localhost:3000": 200, "http://127.0.0.1": 200} {
		if got := r.do("POST", "/v1/chat/completions", hello+"}", "Origin", origin); got.status != status {
			t.Errorf("%s: status %d: %s", origin, got.status, got.text)
		}
	}
	r = newRig(t, nil, func(o *llmproxy.Options) { o.Keys = []string{"k"} })
	if got := r.do("POST", "/v1/chat/completions", hello+"}", "Origin", "https://tool.example", "X-Api-Key", "k"); got.status != 200 {
		t.Errorf("with a key: status %d: %s", got.status, got.text)
	}
}

func TestDeepHealth(t *testing.T) {
	r := newRig(t, nil, nil)
	if got := r.do("GET", "/health?deep=1", ""); got.status != 200 {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	r.proxy.SetModels(entries(t, `[{"model_name": "m", "litellm_params": {"api_base": "http://127.0.0.1:1"}}]`))
	if got := r.do("GET", "/health?deep=1", ""); got.status != 503 || !strings.Contains(got.text, `"healthy":false`) {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	if got := r.do("GET", "/health", ""); got.status != 200 {
		t.Errorf("its own health: status %d", got.status)
	}
}

func TestCache(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.CacheBytes = 1 << 20 })
	for _, more := range []string{"}", `,"stream":true}`} {
		before := len(r.upstream.Requests())
		one := r.call("/v1/chat/completions", hello+more)
		two := r.call("/v1/chat/completions", hello+more)
		if one.status != 200 || one.text != two.text || two.header.Get("X-Aglq-Cache") != "hit" {
			t.Errorf("%s\nand again, %v\n%s", one.text, two.header, two.text)
		}
		if n := len(r.upstream.Requests()) - before; n != 1 {
			t.Errorf("the upstream was called %d times", n)
		}
	}
	if n := len(r.spans()); n != 8 {
		t.Errorf("%d spans, want 8", n)
	}
}
