package llmproxy

import (
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// Items of the output of OpenAI's responses. Their ids are made of that of the
// response, and of the call.

func reasoningItem(responseID, text, status string) rawjson.Value {
	var item object
	item.text("type", "reasoning")
	item.text("id", "rs_"+responseID)
	item.text("status", status)
	item.raw("summary", rawjson.EmptyArray)
	item.raw("content", listOf(reasoningPart(text)))
	return item.close()
}

func reasoningPart(text string) rawjson.Value {
	var part object
	part.text("type", "reasoning_text")
	part.text("text", text)
	return part.close()
}

// messageItem has one part, or none where that is absent.
func messageItem(responseID, status string, part rawjson.Value) rawjson.Value {
	var item object
	item.text("type", "message")
	item.text("id", "msg_"+responseID)
	item.text("status", status)
	item.text("role", "assistant")
	item.raw("content", listOf(part))
	return item.close()
}

// textPart has log probabilities in the form of chats, which is theirs too.
func textPart(text string, logprobs rawjson.Value) rawjson.Value {
	var part object
	part.text("type", "output_text")
	part.text("text", text)
	part.raw("annotations", rawjson.EmptyArray)
	if logprobs == nil {
		logprobs = rawjson.EmptyArray
	}
	part.raw("logprobs", logprobs)
	return part.close()
}

func refusalPart(text string) rawjson.Value {
	var part object
	part.text("type", "refusal")
	part.text("refusal", text)
	return part.close()
}

func callItem(id, name, arguments, status string) rawjson.Value {
	var item object
	item.text("id", "fc_"+id)
	item.text("status", status)
	return merge(functionCall(id, name, arguments), item.close())
}

// listOf is a list of one value, an empty one of an absent value.
func listOf(v rawjson.Value) rawjson.Value {
	if v == nil {
		return rawjson.EmptyArray
	}
	return rawjson.Value("[" + string(v) + "]")
}

// responseHead is a response without its output and what belongs to its end: what
// was asked for is said again.
func responseHead(request, id, model rawjson.Value, created int64) *object {
	o := &object{}
	o.raw("id", id)
	o.text("object", "response")
	o.int("created_at", created)
	o.raw("model", model)
	o.raw("error", rawjson.Null)
	for _, said := range []struct{ name, otherwise string }{
		{"background", "false"}, {"instructions", "null"}, {"max_output_tokens", "null"}, {"metadata", "{}"}, {"parallel_tool_calls", "true"},
		{"previous_response_id", "null"}, {"reasoning", `{"effort":null,"summary":null}`}, {"store", "true"}, {"temperature", "1.0"},
		{"text", `{"format":{"type":"text"}}`}, {"tool_choice", `"auto"`}, {"tools", "[]"}, {"top_p", "1.0"}, {"truncation", `"disabled"`},
		{"user", "null"},
	} {
		v := present(request.Get(said.name))
		if v == nil {
			v = rawjson.Value(said.otherwise)
		}
		o.raw(said.name, v)
	}
	return o
}

// finishResponse adds an end and its output to a response.
func finishResponse(o *object, status, reason string, output, usage rawjson.Value) rawjson.Value {
	o.text("status", status)
	incomplete := rawjson.Null
	if reason != "" {
		var details object
		details.text("reason", reason)
		incomplete = details.close()
	}
	o.raw("incomplete_details", incomplete)
	if output == nil {
		output = rawjson.EmptyArray
	}
	o.raw("output", output)
	if usage == nil {
		usage = rawjson.Null
	}
	o.raw("usage", usage)
	return o.close()
}

// responseStatus is what a chat's reason to end is to a response: its status, and
// why it is incomplete.
func responseStatus(finish string) (status, reason string) {
	switch finish {
	case "length":
		return "incomplete", "max_output_tokens"
	case "content_filter":
		return "incomplete", "content_filter"
	}
	return "completed", ""
}

// chatToResponse turns a chat completion into the answer to a request for OpenAI's
// responses.
func chatToResponse(request, chat rawjson.Value) rawjson.Value {
	id := chat.Get("id").Text()
	choice := first(chat.Get("choices"))
	m := choice.Get("message")
	var output array
	if text := reasoningOf(m); text != "" {
		output.add(reasoningItem(id, text, "completed"))
	}
	calls := m.Get("tool_calls")
	switch text, refused := m.Get("content").Text(), m.Get("refusal").Text(); {
	case refused != "":
		output.add(messageItem(id, "completed", refusalPart(refused)))
	case text != "" || count(calls) == 0:
		output.add(messageItem(id, "completed", textPart(text, probsIn(choice))))
	}
	for call := range calls.Elements() {
		function := call.Get("function")
		output.add(callItem(call.Get("id").Text(), function.Get("name").Text(), function.Get("arguments").Text(), "completed"))
	}
	created, ok := chat.Get("created").Int()
	if !ok {
		created = time.Now().Unix()
	}
	status, reason := responseStatus(choice.Get("finish_reason").Text())
	head := responseHead(request, chat.Get("id"), chat.Get("model"), created)
	return finishResponse(head, status, reason, output.close(), responsesUsage(chat.Get("usage")))
}

// probsIn is a choice's log probabilities as chats have them, absent where there
// are none.
func probsIn(choice rawjson.Value) rawjson.Value {
	if content := choice.Get("logprobs").Get("content"); content.Kind() == rawjson.KindArray {
		return content
	}
	return nil
}

// responsesUsage counts as responses do, absent for absent.
func responsesUsage(usage rawjson.Value) rawjson.Value {
	if present(usage) == nil {
		return nil
	}
	number := func(v rawjson.Value, name string) int64 {
		n, _ := v.Get(name).Int()
		return n
	}
	input, output := number(usage, "prompt_tokens"), number(usage, "completion_tokens")
	var out, in, made object
	in.int("cached_tokens", number(usage.Get("prompt_tokens_details"), "cached_tokens"))
	made.int("reasoning_tokens", number(usage.Get("completion_tokens_details"), "reasoning_tokens"))
	out.int("input_tokens", input)
	out.raw("input_tokens_details", in.close())
	out.int("output_tokens", output)
	out.raw("output_tokens_details", made.close())
	out.int("total_tokens", max(number(usage, "total_tokens"), input+output))
	return out.close()
}

// usageOfResponse counts as chats do, absent for absent.
func usageOfResponse(usage rawjson.Value) rawjson.Value {
	if present(usage) == nil {
		return nil
	}
	var out object
	for _, pair := range [][2]string{
		{"prompt_tokens", "input_tokens"}, {"completion_tokens", "output_tokens"}, {"total_tokens", "total_tokens"},
		{"prompt_tokens_details", "input_tokens_details"}, {"completion_tokens_details", "output_tokens_details"},
	} {
		out.raw(pair[0], usage.Get(pair[1]))
	}
	return out.close()
}

// finishOfResponse is why a response ended, as chats say it.
func finishOfResponse(response rawjson.Value, calls bool) string {
	switch {
	case response.Get("incomplete_details").Get("reason").Text() == "content_filter":
		return "content_filter"
	case response.Get("status").Text() == "incomplete":
		return "length"
	case calls:
		return "tool_calls"
	}
	return "stop"
}

// thoughtsOf is what a reasoning item says, whole or in short.
func thoughtsOf(item rawjson.Value) string {
	if text := joinedText(item.Get("content")); text != "" {
		return text
	}
	return joinedText(item.Get("summary"))
}

// responseToChat turns a response of OpenAI's into a chat completion.
func responseToChat(response rawjson.Value) rawjson.Value {
	var text, refused, thoughts string
	var calls, probs array
	for item := range response.Get("output").Elements() {
		switch item.Get("type").Text() {
		case "message":
			for part := range item.Get("content").Elements() {
				text += part.Get("text").Text()
				refused += part.Get("refusal").Text()
				probs.extend(part.Get("logprobs"))
			}
		case "function_call":
			calls.add(toolCall(item.Get("call_id").Text(), item.Get("name").Text(), item.Get("arguments").Text()))
		case "reasoning":
			thoughts += thoughtsOf(item)
		}
	}
	var m, choice, out object
	m.text("role", "assistant")
	if text != "" || calls.empty() && refused == "" {
		m.text("content", text)
	} else {
		m.raw("content", rawjson.Null)
	}
	if thoughts != "" {
		m.text("reasoning_content", thoughts)
	}
	if refused != "" {
		m.text("refusal", refused)
	}
	choice.int("index", 0)
	choice.text("finish_reason", finishOfResponse(response, !calls.empty()))
	m.raw("tool_calls", calls.close())
	choice.raw("message", m.close())
	if list := probs.close(); list != nil {
		var p object
		p.raw("content", list)
		choice.raw("logprobs", p.close())
	}
	out.raw("id", response.Get("id"))
	out.text("object", "chat.completion")
	created, _ := response.Get("created_at").Float()
	out.int("created", int64(created))
	out.raw("model", response.Get("model"))
	out.raw("choices", listOf(choice.close()))
	out.raw("usage", usageOfResponse(response.Get("usage")))
	return out.close()
}
