package llmproxy

import (
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// onlyResponses are members of requests for OpenAI's responses that the chat API
// has no word for and the answer does not depend on, or that responsesToChat
// reads. All that is unknown goes along: servers of one's own take more.
var onlyResponses = map[string]bool{
	"input": true, "instructions": true, "max_output_tokens": true, "tools": true, "tool_choice": true, "text": true, "reasoning": true,
	"stream": true, "stream_options": true, "include": true, "store": true, "truncation": true, "metadata": true, "service_tier": true,
	"previous_response_id": true, "background": true, "conversation": true, "prompt": true, "max_tool_calls": true, "safety_identifier": true,
	"prompt_cache_key": true, "prompt_cache_retention": true, "context_management": true, "top_logprobs": true,
}

// withLogprobs is the word of include that asks for log probabilities.
const withLogprobs = "message.output_text.logprobs"

// responsesToChat turns a request for OpenAI's responses into one for a chat
// completion. What needs the upstream's own tools or memory is refused.
func responsesToChat(body rawjson.Value) (rawjson.Value, error) {
	if body.Get("background").Bool() {
		return nil, untranslatable("background cannot be translated")
	}
	for _, kept := range []string{"conversation", "prompt"} {
		if present(body.Get(kept)) != nil {
			return nil, untranslatable("%s, which is kept at OpenAI's, cannot be translated", kept)
		}
	}
	items := itemReader{strict: true}
	messages := items.read(body)
	if items.err != nil {
		return nil, items.err
	}
	if messages == nil {
		return nil, queue.Errorf(queue.Invalid, "input has no message: add one")
	}
	var out object
	for key, val := range body.Members() {
		if name := rawjson.Unescape(key); !onlyResponses[name] {
			out.raw(name, present(val))
		}
	}
	out.raw("messages", messages)
	out.raw("max_tokens", present(body.Get("max_output_tokens")))
	out.raw("reasoning_effort", present(body.Get("reasoning").Get("effort")))
	if body.Get("stream").Bool() {
		out.raw("stream", rawjson.Value("true"))
		out.raw("stream_options", rawjson.Value(`{"include_usage":true}`))
	}
	for what := range body.Get("include").Elements() {
		if what.Text() == withLogprobs {
			out.raw("logprobs", rawjson.Value("true"))
			out.raw("top_logprobs", present(body.Get("top_logprobs")))
			break
		}
	}
	if err := chatFormat(&out, body.Get("text").Get("format")); err != nil {
		return nil, err
	}
	if err := chatFunctions(&out, body); err != nil {
		return nil, err
	}
	return out.close(), nil
}

// chatFormat asks for the form of answer that text.format of responses does.
func chatFormat(out *object, format rawjson.Value) error {
	switch kind := format.Get("type").Text(); kind {
	case "", "text":
	case "json_object":
		out.raw("response_format", format)
	case "json_schema":
		var f object
		f.text("type", kind)
		f.raw("json_schema", without(format, "type"))
		out.raw("response_format", f.close())
	default:
		return untranslatable("a text format of type %q cannot be translated", kind)
	}
	return nil
}

// chatFunctions takes over the tools of a request for responses.
func chatFunctions(out *object, body rawjson.Value) error {
	var tools array
	for tool := range body.Get("tools").Elements() {
		if kind := tool.Get("type").Text(); kind != "function" {
			return untranslatable("a tool of type %q cannot be translated", kind)
		}
		tools.add(chatFunction(tool))
	}
	out.raw("tools", tools.close())
	choice := present(body.Get("tool_choice"))
	if choice.Kind() != rawjson.KindObject {
		out.raw("tool_choice", choice)
		return nil
	}
	if kind := choice.Get("type").Text(); kind != "function" {
		return untranslatable("a tool_choice of type %q cannot be translated", kind)
	}
	out.raw("tool_choice", chatFunction(choice))
	return nil
}

// chatFunction is a function, or the choice of one, with what responses keep
// beside the type kept below it.
func chatFunction(tool rawjson.Value) rawjson.Value {
	var t object
	t.text("type", "function")
	t.raw("function", withoutNull(without(tool, "type")))
	return t.close()
}

// responsesAsChat is for spans: what chats have no word for is left out, or
// stays as it is.
func responsesAsChat(body rawjson.Value) rawjson.Value {
	var tools array
	for tool := range body.Get("tools").Elements() {
		if tool.Get("type").Text() == "function" {
			tools.add(chatFunction(without(tool, "strict")))
		}
	}
	var items itemReader
	list := array{}
	list.extend(items.read(body))
	return chatOf(list, tools)
}

// itemReader makes chat messages of the items of OpenAI's responses.
type itemReader struct {
	strict bool // what chats have no word for is an error

	out     array
	systems []string // instructions and what follows them at the beginning
	begun   bool     // with messages of others
	turn    bool     // an assistant's message is in the making
	said    rawjson.Value
	calls   array
	images  array // out of the results of tools
	err     error // the first one
}

// read gives the messages of a request, absent where there are none.
func (r *itemReader) read(body rawjson.Value) rawjson.Value {
	if text := joinedText(body.Get("instructions")); text != "" {
		r.systems = append(r.systems, text)
	}
	input := body.Get("input")
	if input.Kind() == rawjson.KindString {
		r.begin()
		r.out.add(message("user", input))
	}
	for item := range input.Elements() {
		r.item(item)
	}
	r.flush()
	if !r.begun && !r.strict {
		r.begin() // a system prompt and nothing else
	}
	return r.out.close()
}

func (r *itemReader) fail(err error) {
	if r.err == nil && r.strict {
		r.err = err
	}
}

// begin writes the system prompt, in one: many models take no second one.
func (r *itemReader) begin() {
	if !r.begun && len(r.systems) > 0 {
		r.out.add(message("system", quote(strings.Join(r.systems, "\n"))))
	}
	r.begun = true
}

// flush ends the assistant's turn, and shows the user's side what tools returned.
func (r *itemReader) flush() {
	if r.turn {
		var m object
		m.text("role", "assistant")
		if r.said == nil {
			r.said = rawjson.Null
		}
		m.raw("content", r.said)
		m.raw("tool_calls", r.calls.close())
		r.out.add(m.close())
		r.turn, r.said, r.calls = false, nil, array{}
	}
	if !r.images.empty() {
		r.out.add(message("user", r.images.close()))
		r.images = array{}
	}
}

func (r *itemReader) item(item rawjson.Value) {
	switch kind := item.Get("type").Text(); kind {
	case "", "message":
		r.message(item.Get("role").Text(), item.Get("content"))
	case "function_call":
		if !r.images.empty() {
			r.flush()
		}
		r.begin()
		r.turn = true
		r.calls.add(toolCall(item.Get("call_id").Text(), item.Get("name").Text(), item.Get("arguments").Text()))
	case "function_call_output":
		images := r.images
		r.images = array{}
		r.flush()
		r.images = images
		r.result(item)
	case "reasoning": // templates leave earlier thoughts out
	default:
		r.fail(untranslatable("an item of type %q cannot be translated", kind))
	}
}

func (r *itemReader) message(role string, content rawjson.Value) {
	if role == "assistant" {
		if r.said != nil || !r.calls.empty() || !r.images.empty() {
			r.flush()
		}
		r.begin()
		r.turn, r.said = true, r.content(content)
		return
	}
	r.flush()
	if role == "system" || role == "developer" {
		if text := joinedText(content); !r.begun {
			r.systems = append(r.systems, text)
		} else {
			r.out.add(message("system", quote(text)))
		}
		return
	}
	r.begin()
	r.out.add(message(role, r.content(content)))
}

// result is what a tool returned. Its images become part of the user's next
// message: a tool's has text only.
func (r *itemReader) result(item rawjson.Value) {
	r.begin()
	output := item.Get("output")
	text := joinedText(output)
	for part := range output.Elements() {
		if part.Get("type").Text() == "input_image" {
			r.images.add(r.part(part))
		}
	}
	if text == "" && !r.images.empty() {
		text = "see the image"
	}
	var m object
	m.text("role", "tool")
	m.raw("tool_call_id", item.Get("call_id"))
	m.text("content", text)
	r.out.add(m.close())
}

// content is text where there is nothing else, and chat parts otherwise.
func (r *itemReader) content(content rawjson.Value) rawjson.Value {
	if content.Kind() == rawjson.KindString {
		return content
	}
	var parts array
	plain := true
	for part := range content.Elements() {
		made := r.part(part)
		plain = plain && made.Get("type").Text() == "text"
		parts.add(made)
	}
	list := parts.close()
	if plain {
		return quote(joinedText(list))
	}
	return list
}

func (r *itemReader) part(part rawjson.Value) rawjson.Value {
	var out, inner object
	kind := part.Get("type").Text()
	switch kind {
	case "input_text", "output_text", "text":
		out.text("type", "text")
		out.raw("text", part.Get("text"))
	case "refusal":
		out.text("type", "text")
		out.raw("text", part.Get("refusal"))
	case "input_image":
		if present(part.Get("image_url")) == nil {
			r.fail(untranslatable("an image that is kept at OpenAI's (file_id) cannot be translated"))
		}
		inner.raw("url", part.Get("image_url"))
		inner.raw("detail", present(part.Get("detail")))
		out.text("type", "image_url")
		out.raw("image_url", inner.close())
	case "input_file":
		if present(part.Get("file_data")) == nil {
			r.fail(untranslatable("a file without file_data cannot be translated"))
		}
		inner.raw("filename", present(part.Get("filename")))
		inner.raw("file_data", part.Get("file_data"))
		out.text("type", "file")
		out.raw("file", inner.close())
	default:
		if kind != "input_audio" { // the same in both
			r.fail(untranslatable("content of type %q cannot be translated", kind))
		}
		return part
	}
	return out.close()
}
