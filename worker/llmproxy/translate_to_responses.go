package llmproxy

import (
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// chatToResponses turns a request for a chat completion into one for OpenAI's
// responses. What would change the meaning of the answer and has no word there is
// refused; sampling settings that have none are left out.
func chatToResponses(body rawjson.Value) (rawjson.Value, error) {
	if n, ok := body.Get("n").Int(); ok && n > 1 {
		return nil, untranslatable("n is %d, and more than one choice cannot be translated", n)
	}
	for _, name := range []string{"stop", "audio", "functions"} {
		if v := present(body.Get(name)); v != nil && string(v) != "[]" {
			return nil, untranslatable("%s cannot be translated", name)
		}
	}
	input, err := itemsOf(body.Get("messages"))
	if err != nil {
		return nil, err
	}
	var out object
	out.raw("input", input)
	for _, same := range []string{
		"model", "stream", "temperature", "top_p", "user", "metadata", "parallel_tool_calls", "service_tier", "safety_identifier",
		"prompt_cache_key", "top_logprobs",
	} {
		out.raw(same, present(body.Get(same)))
	}
	limit := present(body.Get("max_completion_tokens"))
	if limit == nil {
		limit = present(body.Get("max_tokens"))
	}
	out.raw("max_output_tokens", limit)
	store := present(body.Get("store"))
	if store == nil {
		store = rawjson.Value("false") // as chats are
	}
	out.raw("store", store)
	if body.Get("logprobs").Bool() {
		out.raw("include", rawjson.Value(`["`+withLogprobs+`"]`))
	}
	if effort := present(body.Get("reasoning_effort")); effort != nil {
		var reasoning object
		reasoning.raw("effort", effort)
		out.raw("reasoning", reasoning.close())
	}
	out.raw("text", responsesText(body))
	if err := responsesFunctions(&out, body); err != nil {
		return nil, err
	}
	return out.close(), nil
}

// responsesText is the form of answer that a chat asks for, absent where it does
// not say.
func responsesText(body rawjson.Value) rawjson.Value {
	var text, format object
	switch wanted := body.Get("response_format"); wanted.Get("type").Text() {
	case "json_schema":
		format.text("type", "json_schema")
		text.raw("format", merge(format.close(), wanted.Get("json_schema")))
	case "":
	default:
		text.raw("format", wanted)
	}
	text.raw("verbosity", present(body.Get("verbosity")))
	if text.buf == nil {
		return nil
	}
	return text.close()
}

func responsesFunctions(out *object, body rawjson.Value) error {
	flat := func(tool rawjson.Value) (rawjson.Value, error) {
		function := tool.Get("function")
		if function.Kind() != rawjson.KindObject {
			return nil, untranslatable("a tool of type %q cannot be translated", tool.Get("type").Text())
		}
		var t object
		t.text("type", "function")
		return merge(t.close(), function), nil
	}
	var tools array
	for tool := range body.Get("tools").Elements() {
		t, err := flat(tool)
		if err != nil {
			return err
		}
		if present(t.Get("strict")) == nil {
			t = merge(t, rawjson.Value(`{"strict":false}`)) // as chats are; responses are strict unless told
		}
		if t.Get("parameters") == nil {
			t = merge(t, rawjson.Value(`{"parameters":{"type":"object","properties":{}}}`))
		}
		tools.add(t)
	}
	out.raw("tools", tools.close())
	choice := present(body.Get("tool_choice"))
	if choice.Kind() == rawjson.KindObject {
		var err error
		if choice, err = flat(choice); err != nil {
			return err
		}
	}
	out.raw("tool_choice", choice)
	return nil
}

// itemsOf makes items of OpenAI's responses of a chat.
func itemsOf(messages rawjson.Value) (rawjson.Value, error) {
	var out array
	for m := range messages.Elements() {
		role, content := m.Get("role").Text(), m.Get("content")
		switch role {
		case "system", "developer":
			out.add(message(role, quote(joinedText(content))))
		case "user":
			parts, err := inputParts(content)
			if err != nil {
				return nil, err
			}
			out.add(message(role, parts))
		case "assistant":
			if text := joinedText(content) + m.Get("refusal").Text(); text != "" {
				out.add(message(role, quote(text)))
			}
			for call := range m.Get("tool_calls").Elements() {
				function := call.Get("function")
				out.add(functionCall(call.Get("id").Text(), function.Get("name").Text(), function.Get("arguments").Text()))
			}
		case "tool":
			var item object
			item.text("type", "function_call_output")
			item.raw("call_id", m.Get("tool_call_id"))
			item.text("output", joinedText(content))
			out.add(item.close())
		default:
			return nil, queue.Errorf(queue.Invalid, "messages has the role %q, which responses do not have", role)
		}
	}
	if out.empty() {
		return nil, queue.Errorf(queue.Invalid, "messages is empty: add one of the user")
	}
	return out.close(), nil
}

// functionCall is a call of a function as an item of what is put in.
func functionCall(id, name, arguments string) rawjson.Value {
	var item object
	item.text("type", "function_call")
	item.text("call_id", id)
	item.text("name", name)
	item.text("arguments", arguments)
	return item.close()
}

func inputParts(content rawjson.Value) (rawjson.Value, error) {
	if content.Kind() != rawjson.KindArray {
		return content, nil
	}
	var out array
	for part := range content.Elements() {
		var made object
		switch kind := part.Get("type").Text(); kind {
		case "text":
			made.text("type", "input_text")
			made.raw("text", part.Get("text"))
		case "image_url":
			made.text("type", "input_image")
			made.raw("image_url", part.Get("image_url").Get("url"))
			made.raw("detail", present(part.Get("image_url").Get("detail")))
		case "file":
			made.text("type", "input_file")
			out.add(merge(made.close(), withoutNull(part.Get("file"))))
			continue
		case "input_audio":
			out.add(part)
			continue
		default:
			return nil, untranslatable("content of type %q cannot be translated", kind)
		}
		out.add(made.close())
	}
	if out.empty() {
		return rawjson.EmptyArray, nil
	}
	return out.close(), nil
}
