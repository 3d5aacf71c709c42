package llmproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

const (
	hello       = `{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hello there"}]`
	helloClaude = `{"model":"m","max_tokens":50,"system":"be brief","messages":[{"role":"user","content":"hello there"}]`
)

func say(a fakellm.Answer) fakellm.Script { return func(fakellm.Request) fakellm.Answer { return a } }

// TestChat files a chat, whole and as a stream, under its attempt.
func TestChat(t *testing.T) {
	for _, c := range []struct{ name, more, streaming string }{
		{"whole", `,"temperature":0.5,"max_tokens":7}`, `"False"`},
		{"stream", `,"temperature":0.5,"max_tokens":7,"stream":true}`, `"True"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, say(fakellm.Answer{ID: "chatcmpl-abc", Text: "good day to you"}), func(o *llmproxy.Options) { o.Logprobs = true })
			got := r.call("/v1/chat/completions", hello+c.more)
			if got.status != 200 || got.err != nil {
				t.Fatalf("status %d, %v: %s", got.status, got.err, got.text)
			}
			if !strings.Contains(got.text, `"chatcmpl-abc"`) {
				t.Errorf("the client did not get the id: %s", got.text)
			}
			sent := r.upstream.Requests()[0]
			if m := sent.Body.Get("model").Text(); m != "real-m" {
				t.Errorf("the upstream was asked for model %q", m)
			}
			if !sent.Body.Get("return_token_ids").Bool() || !sent.Body.Get("logprobs").Bool() {
				t.Errorf("the upstream was sent %s", sent.Body)
			}
			if key := sent.Header.Get("Authorization"); key != "Bearer fake-api-key" {
				t.Errorf("the upstream was sent the key %q", key)
			}
			conversation, raw := r.twoSpans()
			if conversation.Name != "litellm_request" || conversation.SequenceID != 1 || raw.SequenceID != 1 {
				t.Errorf("spans %s and %s numbered %d and %d", conversation.Name, raw.Name, conversation.SequenceID, raw.SequenceID)
			}
			wantAttributes(t, conversation, map[string]string{
				"gen_ai.system": `"hosted_vllm"`, "gen_ai.request.model": `"real-m"`,
				"gen_ai.request.temperature": "0.5", "gen_ai.request.max_tokens": "7",
				"llm.request.type": `"acompletion"`, "llm.is_streaming": c.streaming,
				"gen_ai.response.id": `"chatcmpl-abc"`, "gen_ai.response.model": `"real-m"`,
				"gen_ai.prompt.0.role": `"system"`, "gen_ai.prompt.0.content": `"be brief"`,
				"gen_ai.prompt.1.role": `"user"`, "gen_ai.prompt.1.content": `"hello there"`,
				"gen_ai.completion.0.role": `"assistant"`, "gen_ai.completion.0.content": `"good day to you"`,
				"gen_ai.completion.0.finish_reason": `"stop"`,
				"gen_ai.usage.prompt_tokens":        "3", "gen_ai.usage.completion_tokens": "4", "llm.usage.total_tokens": "7",
				"prompt_token_ids": ids("be briefhello there"), "response_token_ids": ids("good day to you"),
				"aglq.llm.outcome": `"ok"`,
			})
			probs, err := rawjson.Parse([]byte(conversation.Attribute("logprobs.content").Text()))
			if err != nil || count(probs) != 4 || first(probs).Get("token").Text() != "good" {
				t.Errorf("logprobs.content is %s: %v", probs, err)
			}
			wantAttributes(t, raw, map[string]string{
				"llm.hosted_vllm.id": `"chatcmpl-abc"`, "llm.hosted_vllm.model": `"real-m"`,
				"llm.hosted_vllm.return_token_ids": `"True"`,
				"llm.hosted_vllm.prompt_token_ids": `"` + ids("be briefhello there") + `"`,
			})
			if choices := raw.Attribute("llm.hosted_vllm.choices").Text(); !strings.Contains(choices, `"token_ids":`+ids("good day to you")) {
				t.Errorf("raw choices are %s", choices)
			}
			noAttributes(t, raw, "gen_ai.")
			if conversation.StatusCode() != "OK" {
				t.Errorf("status %s", conversation.Status)
			}
		})
	}
}

func first(v rawjson.Value) rawjson.Value {
	for e := range v.Elements() {
		return e
	}
	return nil
}

func count(v rawjson.Value) (n int) {
	for range v.Elements() {
		n++
	}
	return n
}

// TestStreamIsForwardedAtOnce reads the first word while the upstream holds the
// second one back.
func TestStreamIsForwardedAtOnce(t *testing.T) {
	for model, second := range map[string]int{"m": 3, "claude": 5} { // the piece with the second word
		t.Run(model, func(t *testing.T) {
			g := newGate()
			r := newRig(t, say(fakellm.Answer{Text: "one two three", Wait: func(ctx context.Context, piece int) error {
				if piece < second {
					return nil
				}
				return g.wait(ctx, piece)
			}}), nil)
			defer g.open()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			body := strings.Replace(hello, `"m"`, `"`+model+`"`, 1) + `,"stream":true}`
			resp, err := r.client.Do(r.request(ctx, "POST", r.prefix()+"/v1/chat/completions", body))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var seen strings.Builder
			buf := make([]byte, 4096)
			for !strings.Contains(seen.String(), "one") {
				n, err := resp.Body.Read(buf)
				if err != nil {
					t.Fatalf("after %q: %v", seen.String(), err)
				}
				seen.Write(buf[:n])
			}
			if strings.Contains(seen.String(), "two") {
				t.Errorf("the second word came early: %s", seen.String())
			}
			g.open()
			if rest, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(rest), "three") {
				t.Errorf("the rest is %s: %v", rest, err)
			}
		})
	}
}

func TestAttribution(t *testing.T) {
	r := newRig(t, nil, nil)
	path, body := "/v1/chat/completions", hello+"}"
	ways := map[string]func() answer{
		"path":         func() answer { return r.call(path, body) },
		"path, no /v1": func() answer { return r.call("/chat/completions", body) },
		"headers": func() answer {
			return r.do("POST", path, body, "X-Rollout-Id", r.ref.RolloutID, "X-Attempt-Id", r.ref.AttemptID)
		},
		"bearer key": func() answer {
			return r.do("POST", path, body, "Authorization", "Bearer agl-"+r.ref.RolloutID+"-"+r.ref.AttemptID)
		},
		"x-api-key": func() answer {
			return r.do("POST", path, body, "X-Api-Key", "agl-"+r.ref.RolloutID+"-"+r.ref.AttemptID)
		},
		"path over keys": func() answer {
			return r.call(path, body, "X-Rollout-Id", "other", "X-Attempt-Id", "other", "X-Api-Key", "agl-ro-x-at-y")
		},
	}
	want := 0
	for name, call := range ways {
		if got := call(); got.status != 200 {
			t.Errorf("%s: status %d: %s", name, got.status, got.text)
		}
		want += 2
		if n := len(r.spans()); n != want {
			t.Errorf("%s: %d spans, want %d", name, n, want)
			want = n
		}
	}
	if got := r.do("POST", path, body); got.status != 200 {
		t.Errorf("without attribution: status %d: %s", got.status, got.text)
	}
	if n := len(r.spans()); n != want {
		t.Errorf("a call of nobody's was filed")
	}
}

// TestFailures records what went wrong as what it was, and nothing that readers
// would take for a conversation.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  fakellm.Answer
		more    string
		status  int
		outcome string
		broken  bool // the client must see that the answer is not whole
	}{
		{"upstream error", fakellm.Answer{Status: 422, Error: "no such thing"}, "}", 422, "upstream_error", false},
		{"upstream down", fakellm.Answer{Status: 503, Error: "overloaded"}, "}", 503, "upstream_error", false},
		{"connection cut", fakellm.Answer{Wait: cut}, "}", 502, "unreachable", false},
		{"half a stream", fakellm.Answer{Text: "one two three", BreakAfter: 3}, `,"stream":true}`, 200, "truncated", true},
		{"stream without end", fakellm.Answer{Text: "one two three", NoEnd: true}, `,"stream":true}`, 200, "truncated", true},
		{"error in a stream", fakellm.Answer{Text: "one two three", StreamError: "out of memory"}, `,"stream":true}`, 200, "upstream_error", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, say(c.answer), func(o *llmproxy.Options) { o.Retries = -1 })
			got := r.call("/v1/chat/completions", hello+c.more)
			if got.status != c.status || (got.err != nil) != c.broken {
				t.Errorf("status %d, error %v: %s", got.status, got.err, got.text)
			}
			conversation, raw := r.twoSpans()
			wantAttributes(t, conversation, map[string]string{
				"aglq.llm.outcome": `"` + c.outcome + `"`, "error.type": `"` + c.outcome + `"`, "http.response.status_code": fmt.Sprint(c.status),
			})
			noAttributes(t, conversation, "gen_ai.prompt", "gen_ai.completion", "gen_ai.request", "gen_ai.response", "prompt_token_ids", "response_token_ids")
			noAttributes(t, raw, "llm.hosted_vllm.choices", "llm.hosted_vllm.prompt_token_ids")
			if conversation.StatusCode() != "ERROR" {
				t.Errorf("status %s", conversation.Status)
			}
			if c.status == 200 && !strings.Contains(raw.Attribute("aglq.llm.partial_response").Text(), "one") {
				t.Errorf("what came is not recorded: %s", raw.Attributes)
			}
			if c.answer.Error != "" && !strings.Contains(got.text, c.answer.Error) {
				t.Errorf("the client was told %s", got.text)
			}
		})
	}
}

func cut(context.Context, int) error { return errors.New("cut") }

func TestClientGoesAway(t *testing.T) {
	for _, more := range []string{"}", `,"stream":true}`} {
		t.Run(more, func(t *testing.T) {
			g := newGate()
			r := newRig(t, say(fakellm.Answer{Text: "one two three four", Wait: func(ctx context.Context, piece int) error {
				if piece == 1 || piece == 2 {
					return nil
				}
				return g.wait(ctx, piece)
			}}), nil)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				resp, err := r.client.Do(r.request(ctx, "POST", r.prefix()+"/v1/chat/completions", hello+more))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				done <- err
			}()
			if piece := <-g.reached; piece == 0 && strings.Contains(more, "stream") {
				g.pass <- struct{}{}
				<-g.reached
			}
			cancel()
			if err := <-done; err == nil {
				t.Error("the client got a whole answer")
			}
			eventually(t, "the spans", func() bool { return len(r.spans()) == 2 })
			conversation, _ := r.twoSpans()
			wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": `"cancelled"`})
		})
	}
}

func TestSilentUpstream(t *testing.T) {
	for _, more := range []string{"}", `,"stream":true}`} {
		t.Run(more, func(t *testing.T) {
			r := newRig(t, say(fakellm.Answer{Text: "one two three", Wait: func(ctx context.Context, piece int) error {
				if piece == 3 || more == "}" {
					<-ctx.Done()
				}
				return ctx.Err()
			}}), func(o *llmproxy.Options) {
				o.Retries = -1
				o.RequestTimeout = 50e6 // 50 ms: it must pass for the test to go on
			})
			got := r.call("/v1/chat/completions", hello+more)
			if more == "}" && got.status != http.StatusGatewayTimeout || more != "}" && got.err == nil {
				t.Errorf("status %d, error %v: %s", got.status, got.err, got.text)
			}
			conversation, _ := r.twoSpans()
			wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": `"timeout"`})
		})
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.MaxBody = 1000 })
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/v1/chat/completions", `{"model":"nope","messages":[]}`, 400, `there is no model \"nope\"`},
		{"POST", "/v1/chat/completions", `{"messages":[]}`, 400, "model is missing"},
		{"POST", "/v1/chat/completions", `{"model":`, 400, "not a JSON object"},
		{"POST", "/v1/chat/completions", `[1]`, 400, "not a JSON object"},
		{"POST", "/v1/chat/completions", `{"model":"` + strings.Repeat("m", 1000) + `"}`, 413, "larger than 1000 bytes"},
		{"GET", "/v1/chat/completions", "", 405, "use POST"},
		{"POST", "/v1/nothing", "{}", 404, "this proxy has no POST"},
		{"POST", "/v1/completions", `{"model":"claude","prompt":"x"}`, 400, "completions cannot be translated"},
		{"POST", "/v1/messages/count_tokens", `{"model":"m","messages":[]}`, 400, "count_tokens cannot be translated"},
		{"POST", "/v1/chat/completions", `{"model":"claude","n":2,"messages":[{"role":"user","content":"x"}]}`, 400, "more than one choice"},
		{"GET", "/v1/models/nope", "", 404, "no model"},
	} {
		got := r.do(c.method, c.path, c.body)
		if got.status != c.status || !strings.Contains(got.text, c.says) {
			t.Errorf("%s %s %.60s: status %d: %s", c.method, c.path, c.body, got.status, got.text)
		}
		if got.json(t).Get("error").Get("message").Text() == "" {
			t.Errorf("%s %s: an error in no known form: %s", c.method, c.path, got.text)
		}
	}
	if n := len(r.upstream.Requests()); n != 0 {
		t.Errorf("the upstream was called %d times", n)
	}
}

func TestOtherEndpoints(t *testing.T) {
	r := newRig(t, func(q fakellm.Request) fakellm.Answer {
		return fakellm.Answer{Text: "fine weather"}
	}, func(o *llmproxy.Options) { o.Logprobs = true })
	for _, c := range []struct {
		path, body string
		want       map[string]string // nil is no conversation
	}{
		{"/completions", `{"model":"m","prompt":"how is"`, map[string]string{
			"gen_ai.prompt.0.role": `"user"`, "gen_ai.prompt.0.content": `"how is"`, "gen_ai.completion.0.content": `"fine weather"`,
			"prompt_token_ids": ids("how is"), "response_token_ids": ids("fine weather"), "llm.request.type": `"atext_completion"`,
		}},
		{"/responses", `{"model":"m","instructions":"be kind","input":[{"role":"user","content":[{"type":"input_text","text":"how is"}]}]`, map[string]string{
			"gen_ai.prompt.0.role": `"system"`, "gen_ai.prompt.0.content": `"be kind"`,
			"gen_ai.prompt.1.role": `"user"`, "gen_ai.prompt.1.content": `"how is"`,
			"gen_ai.completion.0.content": `"fine weather"`, "gen_ai.usage.completion_tokens": "2", "llm.request.type": `"aresponses"`,
		}},
		{"/embeddings", `{"model":"m","input":"how is"`, nil},
	} {
		for _, more := range []string{"}", `,"stream":true}`} {
			if c.want == nil && more != "}" {
				continue
			}
			before := len(r.spans())
			if got := r.call("/v1"+c.path, c.body+more); got.status != 200 || got.err != nil {
				t.Fatalf("%s: status %d, %v: %s", c.path, got.status, got.err, got.text)
			}
			spans := r.spans()[before:]
			if len(spans) != 2 {
				t.Fatalf("%s: %d spans", c.path, len(spans))
			}
			conversation, raw := spans[0], spans[1]
			if conversation.Name == "raw_gen_ai_request" {
				conversation, raw = raw, conversation
			}
			wantAttributes(t, conversation, c.want)
			wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": `"ok"`})
			if c.want == nil {
				noAttributes(t, conversation, "gen_ai.prompt", "gen_ai.completion", "gen_ai.request", "gen_ai.response")
				noAttributes(t, raw, "llm.hosted_vllm.data")
			} else if strings.Contains(c.path, "/completions") {
				if probs := conversation.Attribute("logprobs.content").Text(); !strings.Contains(probs, `"token":"fine"`) {
					t.Errorf("%s: logprobs.content is %s", c.path, probs)
				}
			}
		}
	}
}

// TestCost multiplies tokens with the prices of the table.
func TestCost(t *testing.T) {
	var costs []float64
	r := newRig(t, nil, func(o *llmproxy.Options) {
		o.CacheBytes = 1 << 20
		priced := strings.Replace(table(o.Models[0].APIBase), `"hosted_vllm/real-m",`, `"hosted_vllm/real-m", "input_cost_per_token": 0.5, "output_cost_per_token": "0",`, 1)
		if _, err := llmproxy.ParseModels([]byte(priced)); err == nil || !strings.Contains(err.Error(), "output_cost_per_token must be a number") {
			t.Errorf("a price that is no number: %v", err)
		}
		o.Models = entries(t, strings.Replace(priced, `"0"`, "0.25", 1))
		o.Observe = func(seen llmproxy.Observation) { costs = append(costs, seen.Cost) }
	})
	for range 2 { // the second from the cache
		r.call("/v1/chat/completions", hello+"}")
	}
	if fmt.Sprint(costs) != "[2 0]" { // three tokens there, two back
		t.Errorf("costs %v", costs)
	}
	wantAttributes(t, r.spans()[0], map[string]string{"gen_ai.cost.total_cost": "2.0"})
}

func TestSpanName(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.SpanName = "openai.chat.completion" })
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if got := r.call("/v1/chat/completions", hello+"}", "Traceparent", parent); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	conversation, _ := r.twoSpans()
	if conversation.Name != "openai.chat.completion" || conversation.TraceID != "0af7651916cd43dd8448eb211c80319c" ||
		conversation.ParentID == nil || *conversation.ParentID != "b7ad6b7169203331" {
		t.Errorf("span %+v", conversation)
	}
}
