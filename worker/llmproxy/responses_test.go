package llmproxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// model asks for another model than the bodies of these tests do.
func model(body, name string) string { return strings.Replace(body, `"m"`, fmt.Sprintf("%q", name), 1) }

const talk = `{"model":"m","instructions":"be brief","max_output_tokens":9,"temperature":0.5,"seed":7,"store":false,"truncation":"auto",
	"reasoning":{"effort":"low"},"include":["reasoning.encrypted_content","message.output_text.logprobs"],"top_logprobs":2,"parallel_tool_calls":false,
	"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true},"verbosity":"low"},
	"tools":[{"type":"function","name":"f","description":"does f","parameters":{"type":"object"},"strict":true}],"tool_choice":{"type":"function","name":"f"},
	"input":[
		{"role":"developer","content":"really"},
		{"role":"user","content":[{"type":"input_text","text":"look"},{"type":"input_image","image_url":"data:image/png;base64,AAAA","detail":"auto"}]},
		{"type":"reasoning","id":"rs_1","summary":[]},
		{"type":"message","role":"assistant","content":[{"type":"output_text","text":"calling","annotations":[]}]},
		{"type":"function_call","call_id":"t1","name":"f","arguments":"{\"a\":1.0}"},
		{"type":"function_call","call_id":"t2","name":"f","arguments":"{}"},
		{"type":"function_call_output","call_id":"t1","output":"42"},
		{"type":"function_call_output","call_id":"t2","output":[{"type":"input_text","text":"43"},{"type":"input_image","image_url":"http://x/y.png"}]},
		{"role":"user","content":"and?"}]}`

// TestResponsesRequest is what upstreams without responses get of them.
func TestResponsesRequest(t *testing.T) {
	r := newRig(t, nil, nil)
	if got := r.call("/v1/responses", talk); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	same(t, "chat", `{"model":"real-m","max_tokens":9,"temperature":0.5,"seed":7,"return_token_ids":true,"reasoning_effort":"low","logprobs":true,"top_logprobs":2,
		"parallel_tool_calls":false,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}},
		"tools":[{"type":"function","function":{"name":"f","description":"does f","parameters":{"type":"object"},"strict":true}}],
		"tool_choice":{"type":"function","function":{"name":"f"}},
		"messages":[
			{"role":"system","content":"be brief\nreally"},
			{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"auto"}}]},
			{"role":"assistant","content":"calling","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1.0}"}},{"id":"t2","type":"function","function":{"name":"f","arguments":"{}"}}]},
			{"role":"tool","tool_call_id":"t1","content":"42"},
			{"role":"tool","tool_call_id":"t2","content":"43"},
			{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/y.png"}}]},
			{"role":"user","content":"and?"}]}`, string(r.upstream.Requests()[0].Body))

	if got := r.call("/v1/responses", `{"model":"claude","input":"hello","instructions":"be brief","stream":true}`); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	same(t, "messages", `{"model":"real-claude","max_tokens":4096,"stream":true,"system":"be brief","messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}`,
		string(r.upstream.Requests()[1].Body))
}

// TestRequestsForResponses is what upstreams with nothing else get of chats and
// messages.
func TestRequestsForResponses(t *testing.T) {
	r := newRig(t, nil, nil)
	body := `{"model":"native","max_completion_tokens":9,"temperature":0.5,"seed":7,"reasoning_effort":"low","logprobs":true,"top_logprobs":2,"n":1,
		"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},"verbosity":"low",
		"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}},
		"messages":[
			{"role":"system","content":"be brief"},
			{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"http://x/y.png","detail":"low"}}]},
			{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]},
			{"role":"tool","tool_call_id":"t1","content":"42"}]}`
	if got := r.call("/v1/chat/completions", body); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	same(t, "chat", `{"model":"real-native","max_output_tokens":9,"temperature":0.5,"store":false,"reasoning":{"effort":"low"},"top_logprobs":2,
		"include":["message.output_text.logprobs"],"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}},"verbosity":"low"},
		"tools":[{"type":"function","name":"f","strict":false,"parameters":{"type":"object","properties":{}}}],"tool_choice":{"type":"function","name":"f"},
		"input":[
			{"role":"system","content":"be brief"},
			{"role":"user","content":[{"type":"input_text","text":"look"},{"type":"input_image","image_url":"http://x/y.png","detail":"low"}]},
			{"type":"function_call","call_id":"t1","name":"f","arguments":"{}"},
			{"type":"function_call_output","call_id":"t1","output":"42"}]}`, string(r.upstream.Requests()[0].Body))
	if got := r.call("/v1/messages", model(helloClaude, "native")+`}`); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	same(t, "messages", `{"model":"real-native","max_output_tokens":50,"store":false,"input":[{"role":"system","content":"be brief"},{"role":"user","content":"hello there"}]}`,
		string(r.upstream.Requests()[1].Body))
	if got := r.call("/v1/responses", model(talk, "native")); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	same(t, "responses", strings.Replace(talk, `"m"`, `"real-native"`, 1), string(r.upstream.Requests()[2].Body))
}

func TestUntranslatableResponses(t *testing.T) {
	r := newRig(t, nil, nil)
	ask := func(more string) string {
		return `{"model":"m","input":[{"role":"user","content":"x"}` + more + `}`
	}
	for _, c := range []struct{ path, body, says string }{
		{"/v1/responses", ask(`],"tools":[{"type":"web_search"}]`), "web_search"},
		{"/v1/responses", ask(`],"tool_choice":{"type":"allowed_tools"}`), "allowed_tools"},
		{"/v1/responses", ask(`],"background":true`), "background"},
		{"/v1/responses", ask(`],"conversation":"conv_1"`), "conversation"},
		{"/v1/responses", ask(`],"prompt":{"id":"p"}`), "prompt"},
		{"/v1/responses", ask(`],"text":{"format":{"type":"grammar"}}`), "grammar"},
		{"/v1/responses", ask(`],"previous_response_id":"resp_none"`), "send the whole conversation"},
		{"/v1/responses", ask(`,{"type":"item_reference","id":"x"}]`), "item_reference"},
		{"/v1/responses", ask(`,{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]`), "file_id"},
		{"/v1/responses", ask(`,{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]`), "file_data"},
		{"/v1/responses", `{"model":"m","input":[]}`, "add one"},
		{"/v1/responses", `{"model":"m","instructions":"be kind"}`, "add one"},
		{"/v1/responses", `{"model":"claude","input":"x","include":["message.output_text.logprobs"]}`, "logprobs"},
		{"/v1/chat/completions", `{"model":"native","n":2,"messages":[{"role":"user","content":"x"}]}`, "n is 2"},
		{"/v1/chat/completions", `{"model":"native","stop":["x"],"messages":[{"role":"user","content":"x"}]}`, "stop"},
		{"/v1/chat/completions", `{"model":"native","messages":[{"role":"user","content":"x"}],"tools":[{"type":"custom"}]}`, "custom"},
		{"/v1/chat/completions", `{"model":"native","messages":[{"role":"function","content":"x"}]}`, "function"},
		{"/v1/messages", `{"model":"native","max_tokens":1,"stop_sequences":["x"],"messages":[{"role":"user","content":"x"}]}`, "stop"},
	} {
		if got := r.call(c.path, c.body); got.status != 400 || !strings.Contains(got.text, c.says) {
			t.Errorf("%s: status %d: %s", c.body, got.status, got.text)
		}
	}
	if n := len(r.upstream.Requests()); n != 0 {
		t.Errorf("the upstream was called %d times", n)
	}
}

// everyWay are the pairs of API and model that have to be translated, and chats.
var everyWay = []struct{ path, model string }{
	{"/v1/chat/completions", "m"},
	{"/v1/chat/completions", "claude"},
	{"/v1/chat/completions", "native"},
	{"/v1/messages", "m"},
	{"/v1/messages", "native"},
	{"/v1/responses", "m"},
	{"/v1/responses", "claude"},
	{"/v1/responses", "native"},
}

// heard is what a client has of an answer, in the words of none of the APIs.
type heard struct {
	ID, Text, Thoughts, End string
	Calls                   []string
	Input, Output           int64
}

// TestEveryWay has clients of each API talk to upstreams of each, whole and as
// streams: they must hear the same, and the same must be filed.
func TestEveryWay(t *testing.T) {
	for _, c := range everyWay {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s to %s, stream %v", c.path, c.model, stream), func(t *testing.T) {
				r := newRig(t, say(rich), nil)
				body := `{"model":"` + c.model + `","max_tokens":50,"messages":[{"role":"user","content":"hello there"}]`
				if c.path == "/v1/responses" {
					body = `{"model":"` + c.model + `","input":"hello there"`
				}
				if stream {
					body += `,"stream":true`
					if c.path == "/v1/chat/completions" {
						body += `,"stream_options":{"include_usage":true}`
					}
				}
				got := r.call(c.path, body+"}")
				if got.status != 200 || got.err != nil {
					t.Fatalf("status %d, %v: %s", got.status, got.err, got.text)
				}
				want := heard{
					ID: "the-id", Text: "calling now", Thoughts: "let me think", End: "tools",
					Calls: []string{`t1 f {"a": "b c"}`, `t2 g {}`}, Input: 2, Output: 9,
				}
				if diff := cmp.Diff(want, hear(t, c.path, stream, got)); diff != "" {
					t.Errorf("-want +got:\n%s\n%s", diff, got.text)
				}
				conversation, _ := r.twoSpans()
				wantAttributes(t, conversation, map[string]string{
					"gen_ai.response.id": `"the-id"`, "gen_ai.prompt.0.role": `"user"`, "gen_ai.prompt.0.content": `"hello there"`,
					"gen_ai.completion.0.content":                `"calling now"`,
					"gen_ai.completion.0.reasoning_content":      `"let me think"`,
					"gen_ai.completion.0.finish_reason":          `"tool_calls"`,
					"gen_ai.completion.0.tool_calls.0.id":        `"t1"`,
					"gen_ai.completion.0.tool_calls.1.name":      `"g"`,
					"gen_ai.completion.0.tool_calls.1.arguments": `"{}"`,
					"gen_ai.usage.prompt_tokens":                 "2", "gen_ai.usage.completion_tokens": "9",
				})
				if c.model == "m" {
					wantAttributes(t, conversation, map[string]string{
						"prompt_token_ids":   ids("hello there"),
						"response_token_ids": ids("let me think", "calling now", `{"a": "b c"}`, "{}"),
					})
				}
			})
		}
	}
}

// TestLogprobsOfResponses come through in both directions.
func TestLogprobsOfResponses(t *testing.T) {
	for _, way := range []struct{ name, path, body string }{
		{"m", "/v1/responses", `{"model":"m","input":"x","include":["message.output_text.logprobs"]`},
		{"native", "/v1/chat/completions", `{"model":"native","messages":[{"role":"user","content":"x"}],"logprobs":true`},
	} {
		for _, more := range []string{"}", `,"stream":true}`} {
			r := newRig(t, say(fakellm.Answer{Text: "one two three"}), nil)
			got := r.call(way.path, way.body+more)
			if n := strings.Count(got.text, `"token":" two"`); got.status != 200 || n == 0 {
				t.Errorf("%s: status %d: %s", way.name, got.status, got.text)
			}
			conversation, _ := r.twoSpans()
			if probs := conversation.Attribute("logprobs.content").Text(); strings.Count(probs, `"token":`) != 3 {
				t.Errorf("%s: logprobs.content is %s", way.name, probs)
			}
		}
	}
}

// TestEndsOfResponses says why an answer ended in the client's words.
func TestEndsOfResponses(t *testing.T) {
	for _, more := range []string{"}", `,"stream":true}`} {
		r := newRig(t, say(fakellm.Answer{Text: "one two", FinishReason: "length"}), nil)
		got := r.call("/v1/responses", `{"model":"m","input":"x"`+more)
		if !strings.Contains(got.text, `"status":"incomplete"`) || !strings.Contains(got.text, `{"reason":"max_output_tokens"}`) {
			t.Errorf("responses: %s", got.text)
		}
		if got := r.call("/v1/chat/completions", model(hello, "native")+more); !strings.Contains(got.text, `"finish_reason":"length"`) {
			t.Errorf("chat: %s", got.text)
		}
		if got := r.call("/v1/messages", model(helloClaude, "native")+more); !strings.Contains(got.text, `"stop_reason":"max_tokens"`) {
			t.Errorf("messages: %s", got.text)
		}
	}
}

// TestBrokenResponses tells clients of half streams and of errors in them, and
// files them as such.
func TestBrokenResponses(t *testing.T) {
	for _, c := range []struct {
		answer  fakellm.Answer
		outcome string
	}{
		{fakellm.Answer{Text: "one two three", BreakAfter: 4}, `"truncated"`},
		{fakellm.Answer{Text: "one two three", NoEnd: true}, `"truncated"`},
		{fakellm.Answer{Text: "one two three", StreamError: "overheated"}, `"upstream_error"`},
	} {
		for _, way := range everyWay {
			r := newRig(t, say(c.answer), nil)
			body := model(helloClaude, way.model)
			if way.path == "/v1/responses" {
				body = `{"model":"` + way.model + `","input":"x"`
			}
			got := r.call(way.path, body+`,"stream":true}`)
			if way.model != "m" || way.path != "/v1/chat/completions" { // that is forwarded as it is
				if !strings.Contains(got.text, "one") || strings.Contains(got.text, "response.completed") || strings.Contains(got.text, "[DONE]") ||
					strings.Contains(got.text, "message_stop") || way.model != "native" && !strings.Contains(got.text, "error") {
					t.Errorf("%s to %s: %s", way.path, way.model, got.text)
				}
			}
			conversation, raw := r.twoSpans()
			wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": c.outcome})
			noAttributes(t, conversation, "gen_ai.completion", "gen_ai.prompt")
			if part := raw.Attribute("aglq.llm.partial_response").Text(); !strings.Contains(part, "one") {
				t.Errorf("%s to %s: partial_response is %q", way.path, way.model, part)
			}
		}
	}
}

// TestPreviousResponse goes on from a response that an upstream of chats cannot
// know.
func TestPreviousResponse(t *testing.T) {
	r := newRig(t, func(q fakellm.Request) fakellm.Answer {
		if q.Prompt() == "weather?" {
			return fakellm.Answer{ToolCalls: []fakellm.ToolCall{{ID: "t1", Name: "f", Arguments: "{}"}}}
		}
		return fakellm.Answer{Text: "you said " + q.Prompt()}
	}, nil)
	other, err := r.store.Start(t.Context(), queue.Request{Input: rawjson.Value("2")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"", `,"stream":true`} {
		next := func(input, previous string) string {
			body := `{"model":"m","instructions":"be brief","input":` + input + more
			if previous != "" {
				body += fmt.Sprintf(`,"previous_response_id":%q`, previous)
			}
			got := r.call("/v1/responses", body+"}")
			if got.status != 200 {
				t.Fatalf("status %d: %s", got.status, got.text)
			}
			return hear(t, "/v1/responses", more != "", got).ID
		}
		first := next(`"hello"`, "")
		second := next(`"weather?"`, first)
		third := next(`[{"type":"function_call_output","call_id":"t1","output":"sunny"}]`, second)
		sent := r.upstream.Requests()
		same(t, "the third request", `[{"role":"system","content":"be brief"},{"role":"user","content":"hello"},{"role":"assistant","content":"you said hello"},
			{"role":"user","content":"weather?"},{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]},
			{"role":"tool","tool_call_id":"t1","content":"sunny"}]`, string(sent[len(sent)-1].Body.Get("messages")))
		spans := r.spans()
		filed := spans[len(spans)-2]
		if filed.Name == "raw_gen_ai_request" {
			filed = spans[len(spans)-1]
		}
		wantAttributes(t, filed, map[string]string{"gen_ai.prompt.2.content": `"you said hello"`, "gen_ai.prompt.5.content": `"sunny"`})

		// Another attempt does not get to see it.
		got := r.do("POST", "/rollout/"+other.RolloutID+"/attempt/"+other.Attempt.AttemptID+"/v1/responses",
			fmt.Sprintf(`{"model":"m","input":"x","previous_response_id":%q}`, third))
		if got.status != 400 {
			t.Errorf("another attempt goes on: status %d: %s", got.status, got.text)
		}
	}
	got := r.call("/v1/responses", `{"model":"m","input":"hello","store":false}`)
	id := got.json(t).Get("id").Text()
	if got := r.call("/v1/responses", fmt.Sprintf(`{"model":"m","input":"x","previous_response_id":%q}`, id)); got.status != 400 {
		t.Errorf("what was not to be stored is there: status %d: %s", got.status, got.text)
	}
}

// TestResponsesInTheCache come out as they went in.
func TestResponsesInTheCache(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.CacheBytes = 1 << 20 })
	for _, body := range []string{`{"model":"m","input":"hello"}`, `{"model":"m","input":"hello","stream":true}`, `{"model":"m","input":"hello","metadata":{"a":"b"}}`} {
		a, b := r.call("/v1/responses", body), r.call("/v1/responses", body)
		if a.text != b.text || a.header.Get("X-Aglq-Cache") != "" || b.header.Get("X-Aglq-Cache") != "hit" {
			t.Errorf("%s:\n%s\n%s", body, a.text, b.text)
		}
	}
}
