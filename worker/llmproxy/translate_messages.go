package llmproxy

import (
	"fmt"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Members of Anthropic's requests that the chat API has no word for; they are
// left out. All that is unknown goes along: servers of one's own take more.
var onlyAnthropic = map[string]bool{
	"thinking": true, "service_tier": true, "metadata": true, "container": true, "context_management": true,
	"mcp_servers": true, "output_config": true, "betas": true, "cache_control": true, "inference_geo": true,
}

func untranslatable(format string, args ...any) error {
	return queue.Errorf(queue.Invalid, "%s; the upstream of this model speaks another API", fmt.Sprintf(format, args...))
}

// messagesToChat turns a request of Anthropic's messages into one of OpenAI's
// chat completions.
func messagesToChat(body rawjson.Value) (rawjson.Value, error) {
	var out object
	var messages array
	for key, val := range body.Members() {
		if val.IsNull() {
			continue
		}
		switch name := rawjson.Unescape(key); name {
		case "system":
			var m object
			m.text("role", "system")
			m.text("content", joinedText(val))
			messages.add(m.close())
		case "messages":
		case "stop_sequences":
			out.raw("stop", val)
		case "tools":
			tools, err := chatTools(val)
			if err != nil {
				return nil, err
			}
			out.raw("tools", tools)
		case "tool_choice":
			chatToolChoice(&out, val)
		case "stream":
			out.raw(name, val)
			if val.Bool() {
				out.raw("stream_options", rawjson.Value(`{"include_usage":true}`))
			}
		default:
			if !onlyAnthropic[name] {
				out.raw(name, val)
			}
		}
	}
	if user := body.Get("metadata").Get("user_id").Text(); user != "" {
		out.text("user", user)
	}
	for m := range body.Get("messages").Elements() {
		if err := addChatMessages(&messages, m); err != nil {
			return nil, err
		}
	}
	if messages.empty() {
		return nil, queue.Errorf(queue.Invalid, "messages: at least one message is required")
	}
	out.raw("messages", messages.close())
	return out.close(), nil
}

// joinedText is a text, or the texts of a list of blocks, a line each.
func joinedText(v rawjson.Value) string {
	if v.Kind() == rawjson.KindString {
		return v.Text()
	}
	var texts []string
	for block := range v.Elements() {
		if text := block.Get("text"); text != nil {
			texts = append(texts, text.Text())
		}
	}
	return strings.Join(texts, "\n")
}

// addChatMessages adds what one message of Anthropic's is to OpenAI: results of
// tools are messages of their own, before what else the user says.
func addChatMessages(to *array, m rawjson.Value) error {
	role, content := m.Get("role").Text(), m.Get("content")
	if content.Kind() == rawjson.KindString {
		var out object
		out.text("role", role)
		out.raw("content", content)
		to.add(out.close())
		return nil
	}
	if role == "assistant" {
		return addAssistant(to, content)
	}
	var parts array
	plain := true
	for block := range content.Elements() {
		kind := block.Get("type").Text()
		if kind == "tool_result" {
			plain = !addToolResult(to, &parts, block) && plain
			continue
		}
		part, err := chatPart(block)
		if err != nil {
			return err
		}
		plain = plain && kind == "text"
		parts.add(part)
	}
	if parts.empty() {
		return nil
	}
	var out object
	out.text("role", role)
	list := parts.close()
	if plain && count(list) == 1 {
		out.raw("content", first(list).Get("text"))
	} else {
		out.raw("content", list)
	}
	to.add(out.close())
	return nil
}

// addToolResult adds the message with a tool's result. Images in it follow with
// what else the user says, as messages of tools hold text only; it reports
// whether there are any.
func addToolResult(to, parts *array, block rawjson.Value) (images bool) {
	content := block.Get("content")
	var out object
	out.text("role", "tool")
	out.raw("tool_call_id", block.Get("tool_use_id"))
	out.text("content", joinedText(content))
	to.add(out.close())
	for item := range content.Elements() {
		if item.Get("type").Text() == "image" {
			if part, err := chatPart(item); err == nil {
				parts.add(part)
				images = true
			}
		}
	}
	return images
}

func addAssistant(to *array, content rawjson.Value) error {
	var texts []byte
	var calls array
	for block := range content.Elements() {
		switch kind := block.Get("type").Text(); kind {
		case "text":
			texts = append(texts, block.Get("text").Text()...)
		case "tool_use":
			calls.add(toolCall(block.Get("id").Text(), block.Get("name").Text(), argumentsText(block.Get("input"))))
		case "thinking", "redacted_thinking": // templates leave earlier thoughts out
		default:
			return untranslatable("content of type %q cannot be translated", kind)
		}
	}
	var out object
	out.text("role", "assistant")
	if len(texts) > 0 || calls.empty() {
		out.text("content", string(texts))
	} else {
		out.raw("content", rawjson.Null)
	}
	out.raw("tool_calls", calls.close())
	to.add(out.close())
	return nil
}

// argumentsText is a tool's input as the JSON text that OpenAI sends it as.
func argumentsText(input rawjson.Value) string {
	if input.IsNull() {
		return "{}"
	}
	return string(input)
}

// chatPart is a block of the user's as a part of a chat message.
func chatPart(block rawjson.Value) (rawjson.Value, error) {
	var part, inner object
	source := block.Get("source")
	switch kind := block.Get("type").Text(); kind {
	case "text":
		part.text("type", "text")
		part.raw("text", block.Get("text"))
	case "image":
		part.text("type", "image_url")
		inner.text("url", sourceURL(source))
		part.raw("image_url", inner.close())
	case "document":
		switch source.Get("type").Text() {
		case "text":
			part.text("type", "text")
			part.raw("text", source.Get("data"))
		case "base64":
			part.text("type", "file")
			title := block.Get("title").Text()
			if title == "" {
				title = "document"
			}
			inner.text("filename", title)
			inner.text("file_data", sourceURL(source))
			part.raw("file", inner.close())
		default:
			return nil, untranslatable("a document whose source is %q cannot be translated", source.Get("type").Text())
		}
	default:
		return nil, untranslatable("content of type %q cannot be translated", kind)
	}
	return part.close(), nil
}

func sourceURL(source rawjson.Value) string {
	if source.Get("type").Text() == "base64" {
		return "data:" + source.Get("media_type").Text() + ";base64," + source.Get("data").Text()
	}
	return source.Get("url").Text()
}

func chatTools(tools rawjson.Value) (rawjson.Value, error) {
	var out array
	for tool := range tools.Elements() {
		if kind := tool.Get("type").Text(); kind != "" && kind != "custom" {
			return nil, untranslatable("tool %q of type %q cannot be translated", tool.Get("name").Text(), kind)
		}
		var function, t object
		function.raw("name", tool.Get("name"))
		function.raw("description", tool.Get("description"))
		function.raw("parameters", tool.Get("input_schema"))
		t.text("type", "function")
		t.raw("function", function.close())
		out.add(t.close())
	}
	return out.close(), nil
}

func chatToolChoice(out *object, choice rawjson.Value) {
	switch kind := choice.Get("type").Text(); kind {
	case "any":
		out.text("tool_choice", "required")
	case "tool":
		var function, t object
		function.raw("name", choice.Get("name"))
		t.text("type", "function")
		t.raw("function", function.close())
		out.raw("tool_choice", t.close())
	default: // auto, none
		out.text("tool_choice", kind)
	}
	if choice.Get("disable_parallel_tool_use").Bool() {
		out.raw("parallel_tool_calls", rawjson.Value("false"))
	}
}

// stopReasons are the words for why an answer ended, OpenAI's first.
var stopReasons = [][2]string{
	{"stop", "end_turn"}, {"length", "max_tokens"}, {"tool_calls", "tool_use"}, {"function_call", "tool_use"},
	{"content_filter", "refusal"}, {"stop", "stop_sequence"}, {"stop", "pause_turn"}, {"length", "model_context_window_exceeded"},
}

// translateStop turns a reason into the other side's word; an unknown one stays.
func translateStop(reason string, from, to int) string {
	for _, pair := range stopReasons {
		if pair[from] == reason {
			return pair[to]
		}
	}
	return reason
}

// stopOfChat is a choice's end as Anthropic says it.
func stopOfChat(choice rawjson.Value) (reason string, sequence rawjson.Value) {
	reason = translateStop(choice.Get("finish_reason").Text(), 0, 1)
	if stop := choice.Get("stop_reason"); stop.Kind() == rawjson.KindString && reason == "end_turn" {
		return "stop_sequence", stop
	}
	return reason, rawjson.Null
}

// messagesUsage counts as Anthropic does: what came from the cache is apart.
func messagesUsage(usage rawjson.Value) rawjson.Value {
	input, _ := usage.Get("prompt_tokens").Int()
	output, _ := usage.Get("completion_tokens").Int()
	cached, _ := usage.Get("prompt_tokens_details").Get("cached_tokens").Int()
	var out object
	out.int("input_tokens", max(0, input-cached))
	out.int("output_tokens", output)
	if cached > 0 {
		out.int("cache_read_input_tokens", cached)
	}
	return out.close()
}

// chatToMessage turns a chat completion into a message of Anthropic's.
func chatToMessage(resp rawjson.Value) rawjson.Value {
	choice := first(resp.Get("choices"))
	message := choice.Get("message")
	var content array
	if text := reasoningOf(message); text != "" {
		content.add(thinkingBlock(text))
	}
	text := message.Get("content").Text() + message.Get("refusal").Text()
	if text != "" {
		content.add(textBlock(text))
	}
	for call := range message.Get("tool_calls").Elements() {
		function := call.Get("function")
		content.add(toolUse(call.Get("id").Text(), function.Get("name").Text(), toolInput(function.Get("arguments").Text())))
	}
	var out object
	out.raw("id", resp.Get("id"))
	out.text("type", "message")
	out.text("role", "assistant")
	out.raw("model", resp.Get("model"))
	if content.empty() {
		out.raw("content", rawjson.EmptyArray)
	}
	out.raw("content", content.close())
	reason, sequence := stopOfChat(choice)
	out.text("stop_reason", reason)
	out.raw("stop_sequence", sequence)
	out.raw("usage", messagesUsage(resp.Get("usage")))
	return out.close()
}

func textBlock(text string) rawjson.Value {
	var b object
	b.text("type", "text")
	b.text("text", text)
	return b.close()
}

func thinkingBlock(text string) rawjson.Value {
	var b object
	b.text("type", "thinking")
	b.text("thinking", text)
	b.text("signature", "")
	return b.close()
}

func toolUse(id, name string, input rawjson.Value) rawjson.Value {
	var b object
	b.text("type", "tool_use")
	b.text("id", id)
	b.text("name", name)
	b.raw("input", input)
	return b.close()
}

// toolInput is the arguments of a call as the object that Anthropic has; what is
// no object is kept as text in one.
func toolInput(arguments string) rawjson.Value {
	if strings.TrimSpace(arguments) == "" {
		return rawjson.EmptyObject
	}
	if v, err := rawjson.Parse([]byte(arguments)); err == nil && v.Kind() == rawjson.KindObject {
		return v
	}
	var o object
	o.text("arguments", arguments)
	return o.close()
}
