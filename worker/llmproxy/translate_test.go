package llmproxy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// same compares JSON without regard to the order of members.
func same(t *testing.T, what string, want, got string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(want), &a); err != nil {
		t.Fatalf("%s: %v in %s", what, err, want)
	}
	if err := json.Unmarshal([]byte(got), &b); err != nil {
		t.Fatalf("%s: %v in %s", what, err, got)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestMessagesRequest is what an upstream with OpenAI's API gets of messages.
func TestMessagesRequest(t *testing.T) {
	r := newRig(t, nil, nil)
	body := `{"model":"m","max_tokens":9,"temperature":0.5,"top_k":3,"stop_sequences":["END"],"metadata":{"user_id":"u1"},
		"thinking":{"type":"enabled","budget_tokens":1024},"chat_template_kwargs":{"x":1.0},
		"system":[{"type":"text","text":"be","cache_control":{"type":"ephemeral"}},{"type":"text","text":"brief"}],
		"tools":[{"name":"f","description":"does f","input_schema":{"type":"object"}}],
		"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},
		"messages":[
			{"role":"user","content":[{"type":"text","text":"look"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]},
			{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"calling"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1.0}}]},
			{"role":"user","content":[{"type":"text","text":"and?"},{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"42"}]}]}]}`
	if got := r.call("/v1/messages", body); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	same(t, "request", `{"model":"real-m","max_tokens":9,"temperature":0.5,"top_k":3,"stop":["END"],"user":"u1","chat_template_kwargs":{"x":1.0},
		"return_token_ids":true,"parallel_tool_calls":false,"tool_choice":{"type":"function","function":{"name":"f"}},
		"tools":[{"type":"function","function":{"name":"f","description":"does f","parameters":{"type":"object"}}}],
		"messages":[
			{"role":"system","content":"be\nbrief"},
			{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},
			{"role":"assistant","content":"calling","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1.0}"}}]},
			{"role":"tool","tool_call_id":"t1","content":"42"},
			{"role":"user","content":"and?"}]}`, string(r.upstream.Requests()[0].Body))
}

// TestChatRequest is what an upstream with Anthropic's API gets of a chat.
func TestChatRequest(t *testing.T) {
	r := newRig(t, nil, nil)
	body := `{"model":"claude","max_completion_tokens":9,"temperature":0.5,"stop":"END","user":"u1","seed":7,"parallel_tool_calls":false,
		"tools":[{"type":"function","function":{"name":"f","description":"does f"}}],"tool_choice":"required",
		"messages":[
			{"role":"developer","content":"be brief"},
			{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},{"type":"image_url","image_url":{"url":"http://x/y.png"}}]},
			{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1.0}"}},{"id":"t2","type":"function","function":{"name":"f","arguments":""}}]},
			{"role":"tool","tool_call_id":"t1","content":"42"},
			{"role":"tool","tool_call_id":"t2","content":"43"},
			{"role":"user","content":"and?"}]}`
	if got := r.call("/v1/chat/completions", body); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	sent := r.upstream.Requests()[0]
	same(t, "request", `{"model":"real-claude","max_tokens":9,"temperature":0.5,"stop_sequences":["END"],"metadata":{"user_id":"u1"},"system":"be brief",
		"tools":[{"name":"f","description":"does f","input_schema":{"type":"object","properties":{}}}],
		"tool_choice":{"type":"any","disable_parallel_tool_use":true},
		"messages":[
			{"role":"user","content":[{"type":"text","text":"look"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"image","source":{"type":"url","url":"http://x/y.png"}}]},
			{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{"a":1.0}},{"type":"tool_use","id":"t2","name":"f","input":{}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"42"},{"type":"tool_result","tool_use_id":"t2","content":"43"},{"type":"text","text":"and?"}]}]}`,
		string(sent.Body))
	if sent.Header.Get("X-Api-Key") != "sk-ant" || sent.Header.Get("Authorization") != "" || sent.Header.Get("Anthropic-Version") == "" {
		t.Errorf("headers %v", sent.Header)
	}
}

var rich = fakellm.Answer{
	ID: "the-id", Reasoning: "let me think", Text: "calling now",
	ToolCalls: []fakellm.ToolCall{{ID: "t1", Name: "f", Arguments: `{"a": "b c"}`}, {ID: "t2", Name: "g", Arguments: `{}`}},
}

// TestTranslatedAnswers has both kinds of client talk to both kinds of upstream.
func TestTranslatedAnswers(t *testing.T) {
	const asMessage = `{"id":"the-id","type":"message","role":"assistant","model":"real-m","stop_reason":"tool_use","stop_sequence":null,
		"content":[{"type":"thinking","thinking":"let me think","signature":""},{"type":"text","text":"calling now"},
			{"type":"tool_use","id":"t1","name":"f","input":{"a":"b c"}},{"type":"tool_use","id":"t2","name":"g","input":{}}],
		"usage":{"input_tokens":3,"output_tokens":9}}`
	r := newRig(t, say(rich), nil)
	got := r.call("/v1/messages", helloClaude+"}")
	same(t, "message", asMessage, got.text)

	got = r.call("/v1/chat/completions", strings.Replace(hello, `"m"`, `"claude"`, 1)+"}")
	choice := first(got.json(t).Get("choices"))
	same(t, "chat", `{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"calling now","reasoning_content":"let me think",
		"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":\"b c\"}"}},{"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]}}`,
		string(choice))
	for _, s := range r.spans() {
		if s.Name == "litellm_request" {
			wantAttributes(t, s, map[string]string{
				"gen_ai.response.id": `"the-id"`, "gen_ai.prompt.0.role": `"system"`, "gen_ai.prompt.1.content": `"hello there"`,
				"gen_ai.completion.0.content":                `"calling now"`,
				"gen_ai.completion.0.reasoning_content":      `"let me think"`,
				"gen_ai.completion.0.finish_reason":          `"tool_calls"`,
				"gen_ai.completion.0.tool_calls.0.id":        `"t1"`,
				"gen_ai.completion.0.tool_calls.1.name":      `"g"`,
				"gen_ai.completion.0.tool_calls.1.arguments": `"{}"`,
			})
		}
	}
}

// TestTranslatedStreams puts the streams together again.
func TestTranslatedStreams(t *testing.T) {
	r := newRig(t, say(rich), nil)
	got := r.call("/v1/messages", helloClaude+`,"stream":true}`)
	var kinds, content []string
	blocks := map[int64]string{}
	for _, e := range got.events(t) {
		kind := e.Get("type").Text()
		if len(kinds) == 0 || kinds[len(kinds)-1] != kind {
			kinds = append(kinds, kind)
		}
		index, _ := e.Get("index").Int()
		switch kind {
		case "content_block_start":
			content = append(content, e.Get("content_block").Get("type").Text())
		case "content_block_delta":
			d := e.Get("delta")
			blocks[index] += d.Get("text").Text() + d.Get("thinking").Text() + d.Get("partial_json").Text()
		case "message_delta":
			same(t, "message_delta", `{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":3,"output_tokens":9}}`, string(e))
		case "message_start":
			if e.Get("message").Get("id").Text() != "the-id" || string(e.Get("message").Get("usage").Get("input_tokens")) != "3" {
				t.Errorf("%s", e)
			}
		}
	}
	if diff := cmp.Diff([]string{"thinking", "text", "tool_use", "tool_use"}, content); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[int64]string{0: "let me think", 1: "calling now", 2: `{"a": "b c"}`, 3: "{}"}, blocks); diff != "" {
		t.Error(diff)
	}
	if kinds[0] != "message_start" || kinds[len(kinds)-1] != "message_stop" || kinds[len(kinds)-2] != "message_delta" {
		t.Errorf("events %v", kinds)
	}

	got = r.call("/v1/chat/completions", strings.Replace(hello, `"m"`, `"claude"`, 1)+`,"stream":true,"stream_options":{"include_usage":true}}`)
	var text, thoughts, finish string
	arguments := map[int64]string{}
	var usage rawjson.Value
	for _, e := range got.events(t) {
		if u := e.Get("usage"); !u.IsNull() {
			usage = u
		}
		choice := first(e.Get("choices"))
		delta := choice.Get("delta")
		text += delta.Get("content").Text()
		thoughts += delta.Get("reasoning_content").Text()
		finish += choice.Get("finish_reason").Text()
		for call := range delta.Get("tool_calls").Elements() {
			index, _ := call.Get("index").Int()
			arguments[index] += call.Get("id").Text() + call.Get("function").Get("name").Text() + call.Get("function").Get("arguments").Text()
		}
	}
	if text != "calling now" || thoughts != "let me think" || finish != "tool_calls" {
		t.Errorf("text %q, thoughts %q, finish %q", text, thoughts, finish)
	}
	if diff := cmp.Diff(map[int64]string{0: `t1f{"a": "b c"}`, 1: "t2g{}"}, arguments); diff != "" {
		t.Error(diff)
	}
	same(t, "usage", `{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}`, string(usage))
	if !strings.HasSuffix(got.text, "data: [DONE]\n\n") {
		t.Errorf("the stream ends with %q", got.text[max(0, len(got.text)-60):])
	}
}

// TestBrokenTranslatedStreams tells the client in its own words.
func TestBrokenTranslatedStreams(t *testing.T) {
	r := newRig(t, say(fakellm.Answer{Text: "one two three", BreakAfter: 4}), nil)
	if got := r.call("/v1/messages", helloClaude+`,"stream":true}`); !strings.Contains(got.text, "event: error") || strings.Contains(got.text, "message_stop") {
		t.Errorf("messages: %s", got.text)
	}
	if got := r.call("/v1/chat/completions", strings.Replace(hello, `"m"`, `"claude"`, 1)+`,"stream":true}`); !strings.Contains(got.text, `"error":`) || strings.Contains(got.text, "[DONE]") {
		t.Errorf("chat: %s", got.text)
	}
}

func TestTranslatedErrors(t *testing.T) {
	r := newRig(t, say(fakellm.Answer{Status: 400, Error: "too long"}), nil)
	same(t, "to messages", `{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}`, r.call("/v1/messages", helloClaude+"}").text)
	same(t, "to chat", `{"error":{"type":"invalid_request_error","message":"too long","param":null,"code":"400"}}`,
		r.call("/v1/chat/completions", strings.Replace(hello, `"m"`, `"claude"`, 1)+"}").text)
}

// TestUntranslatable refuses what would be lost, and says what.
func TestUntranslatable(t *testing.T) {
	r := newRig(t, nil, nil)
	for _, c := range []struct{ path, body, says string }{
		{"/v1/messages", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"type":"web_search_20250305","name":"w"}]}`, "web_search"},
		{"/v1/messages", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"search_result"}]}]}`, "search_result"},
		{"/v1/messages", `{"model":"m","max_tokens":1,"messages":[]}`, "at least one message"},
		{"/v1/chat/completions", `{"model":"claude","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema"}}`, "response_format"},
		{"/v1/chat/completions", `{"model":"claude","messages":[{"role":"user","content":"x"}],"logprobs":true}`, "logprobs"},
		{"/v1/chat/completions", `{"model":"claude","messages":[{"role":"user","content":[{"type":"input_audio"}]}]}`, "input_audio"},
		{"/v1/chat/completions", `{"model":"claude","messages":[{"role":"nobody","content":"x"}]}`, "nobody"},
	} {
		if got := r.call(c.path, c.body); got.status != 400 || !strings.Contains(got.text, c.says) {
			t.Errorf("%s: status %d: %s", c.body, got.status, got.text)
		}
	}
}

// TestMessagesOfAnthropic forwards what needs no translation as it is.
func TestMessagesOfAnthropic(t *testing.T) {
	for _, more := range []string{"}", `,"stream":true}`} {
		r := newRig(t, say(rich), nil)
		body := strings.Replace(helloClaude, `"m"`, `"claude"`, 1) + more
		got := r.call("/v1/messages", body, "Anthropic-Beta", "b1")
		if got.status != 200 || !strings.Contains(got.text, "signed") {
			t.Fatalf("status %d: %s", got.status, got.text)
		}
		sent := r.upstream.Requests()[0]
		same(t, "request", strings.Replace(body, `"claude"`, `"real-claude"`, 1), string(sent.Body))
		if sent.Header.Get("Anthropic-Beta") != "b1" {
			t.Errorf("headers %v", sent.Header)
		}
		conversation, raw := r.twoSpans()
		wantAttributes(t, conversation, map[string]string{
			"gen_ai.system": `"anthropic"`, "llm.request.type": `"anthropic_messages"`, "gen_ai.response.id": `"the-id"`,
			"gen_ai.prompt.0.role": `"system"`, "gen_ai.completion.0.content": `"calling now"`, "gen_ai.completion.0.tool_calls.0.name": `"f"`,
			"gen_ai.usage.completion_tokens": "9",
		})
		if content := raw.Attribute("llm.anthropic.content").Text(); !strings.Contains(content, `"type":"tool_use"`) || !strings.Contains(content, `{"a":"b c"}`) {
			t.Errorf("raw content is %s", content)
		}
	}
	r := newRig(t, nil, nil)
	if got := r.call("/v1/messages/count_tokens", `{"model":"claude","messages":[{"role":"user","content":"one two"}]}`); got.text != `{"input_tokens":2}` {
		t.Errorf("count_tokens: %s", got.text)
	}
}
