package llmproxy

import (
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// defaultMaxTokens is for chats that leave it to the upstream: Anthropic wants
// to be told.
const defaultMaxTokens = 4096

// chatToMessages turns a request of OpenAI's chat completions into one of
// Anthropic's messages. What would change the meaning of the answer and has no
// word there is refused; sampling settings that have none are left out.
func chatToMessages(body rawjson.Value) (rawjson.Value, error) {
	if err := chatOnly(body); err != nil {
		return nil, err
	}
	var out object
	limit := present(body.Get("max_completion_tokens"))
	if limit == nil {
		limit = present(body.Get("max_tokens"))
	}
	if limit == nil {
		limit = rawjson.AppendInt(nil, defaultMaxTokens)
	}
	out.raw("max_tokens", limit)
	for _, same := range []string{"model", "stream", "temperature", "top_p", "top_k"} {
		out.raw(same, present(body.Get(same)))
	}
	if stop := present(body.Get("stop")); stop.Kind() == rawjson.KindString {
		out.raw("stop_sequences", rawjson.Value("["+string(stop)+"]"))
	} else {
		out.raw("stop_sequences", stop)
	}
	if user := body.Get("user").Text(); user != "" {
		var m object
		m.text("user_id", user)
		out.raw("metadata", m.close())
	}
	if err := messagesTools(&out, body); err != nil {
		return nil, err
	}
	messages, system, err := turns(body.Get("messages"))
	if err != nil {
		return nil, err
	}
	if system != "" {
		out.text("system", system)
	}
	out.raw("messages", messages)
	return out.close(), nil
}

// chatOnly refuses what only the chat API can do.
func chatOnly(body rawjson.Value) error {
	if n, ok := body.Get("n").Int(); ok && n > 1 {
		return untranslatable("n is %d, and more than one choice cannot be translated", n)
	}
	if body.Get("logprobs").Bool() {
		return untranslatable("logprobs cannot be translated")
	}
	if kind := body.Get("response_format").Get("type").Text(); kind != "" && kind != "text" {
		return untranslatable("response_format %s cannot be translated", kind)
	}
	if present(body.Get("audio")) != nil {
		return untranslatable("audio cannot be translated")
	}
	return nil
}

func messagesTools(out *object, body rawjson.Value) error {
	var tools array
	for tool := range body.Get("tools").Elements() {
		function := tool.Get("function")
		if function == nil {
			return untranslatable("a tool of type %q cannot be translated", tool.Get("type").Text())
		}
		var t object
		t.raw("name", function.Get("name"))
		t.raw("description", present(function.Get("description")))
		schema := present(function.Get("parameters"))
		if schema == nil {
			schema = rawjson.Value(`{"type":"object","properties":{}}`)
		}
		t.raw("input_schema", schema)
		tools.add(t.close())
	}
	out.raw("tools", tools.close())
	var choice object
	switch v := body.Get("tool_choice"); {
	case v.Kind() == rawjson.KindObject:
		choice.text("type", "tool")
		choice.raw("name", v.Get("function").Get("name"))
	case v.Text() == "required":
		choice.text("type", "any")
	case v.Text() != "":
		choice.raw("type", v) // auto, none
	}
	if v := body.Get("parallel_tool_calls"); v.Kind() == rawjson.KindBool && !v.Bool() && tools.buf != nil {
		if choice.buf == nil {
			choice.text("type", "auto")
		}
		choice.raw("disable_parallel_tool_use", rawjson.Value("true"))
	}
	if choice.buf != nil {
		out.raw("tool_choice", choice.close())
	}
	return nil
}

// turns makes Anthropic's messages, and the system prompt, of a chat. Messages
// of one role that follow each other become one: the results of several tools
// must stand together.
func turns(messages rawjson.Value) (_ rawjson.Value, system string, err error) {
	var out, content array
	var systems []string
	role := ""
	flush := func() {
		if content.empty() {
			return
		}
		var m object
		m.text("role", role)
		m.raw("content", content.close())
		out.add(m.close())
		content = array{}
	}
	for m := range messages.Elements() {
		own := m.Get("role").Text()
		if own == "system" || own == "developer" {
			systems = append(systems, joinedText(m.Get("content")))
			continue
		}
		next := "user"
		if own == "assistant" {
			next = "assistant"
		}
		if next != role {
			flush()
			role = next
		}
		if err := addBlocks(&content, own, m); err != nil {
			return nil, "", err
		}
	}
	flush()
	if out.empty() {
		return nil, "", queue.Errorf(queue.Invalid, "messages has no message of the user: add one")
	}
	return out.close(), strings.Join(systems, "\n"), nil
}

// addBlocks adds the blocks of one chat message.
func addBlocks(to *array, role string, m rawjson.Value) error {
	content := m.Get("content")
	switch role {
	case "tool", "function":
		var b object
		b.text("type", "tool_result")
		b.raw("tool_use_id", m.Get("tool_call_id"))
		b.text("content", joinedText(content))
		to.add(b.close())
		return nil
	case "user", "assistant":
	default:
		return queue.Errorf(queue.Invalid, "messages has the role %q, which is none", role)
	}
	if text := content.Text(); text != "" {
		to.add(textBlock(text))
	}
	for part := range content.Elements() {
		block, err := messagesBlock(part)
		if err != nil {
			return err
		}
		to.add(block)
	}
	for call := range m.Get("tool_calls").Elements() {
		function := call.Get("function")
		to.add(toolUse(call.Get("id").Text(), function.Get("name").Text(), toolInput(function.Get("arguments").Text())))
	}
	return nil
}

func messagesBlock(part rawjson.Value) (rawjson.Value, error) {
	switch kind := part.Get("type").Text(); kind {
	case "text":
		return textBlock(part.Get("text").Text()), nil
	case "refusal":
		return textBlock(part.Get("refusal").Text()), nil
	case "image_url":
		var source, block object
		address := part.Get("image_url").Get("url").Text()
		media, data, ok := strings.Cut(strings.TrimPrefix(address, "data:"), ";base64,")
		if ok && strings.HasPrefix(address, "data:") {
			source.text("type", "base64")
			source.text("media_type", media)
			source.text("data", data)
		} else {
			source.text("type", "url")
			source.text("url", address)
		}
		block.text("type", "image")
		block.raw("source", source.close())
		return block.close(), nil
	default:
		return nil, untranslatable("content of type %q cannot be translated", kind)
	}
}

// chatUsage counts as OpenAI does.
func chatUsage(usage rawjson.Value) rawjson.Value {
	input, _ := usage.Get("input_tokens").Int()
	output, _ := usage.Get("output_tokens").Int()
	read, _ := usage.Get("cache_read_input_tokens").Int()
	written, _ := usage.Get("cache_creation_input_tokens").Int()
	input += read + written
	var out, details object
	out.int("prompt_tokens", input)
	out.int("completion_tokens", output)
	out.int("total_tokens", input+output)
	if read > 0 {
		details.int("cached_tokens", read)
		out.raw("prompt_tokens_details", details.close())
	}
	return out.close()
}

// messageToChat turns a message of Anthropic's into a chat completion, made at
// a time.
func messageToChat(resp rawjson.Value, at time.Time) rawjson.Value {
	var text, thinking strings.Builder
	var calls array
	for block := range resp.Get("content").Elements() {
		switch block.Get("type").Text() {
		case "text":
			text.WriteString(block.Get("text").Text())
		case "thinking":
			thinking.WriteString(block.Get("thinking").Text())
		case "tool_use":
			calls.add(toolCall(block.Get("id").Text(), block.Get("name").Text(), argumentsText(block.Get("input"))))
		}
	}
	var message, choice, out object
	message.text("role", "assistant")
	if text.Len() > 0 || calls.empty() {
		message.text("content", text.String())
	} else {
		message.raw("content", rawjson.Null)
	}
	if thinking.Len() > 0 {
		message.text("reasoning_content", thinking.String())
	}
	message.raw("tool_calls", calls.close())
	choice.int("index", 0)
	choice.raw("message", message.close())
	if reason := resp.Get("stop_reason").Text(); reason != "" {
		choice.text("finish_reason", translateStop(reason, 1, 0))
	} else {
		choice.raw("finish_reason", rawjson.Null)
	}
	out.raw("id", resp.Get("id"))
	out.text("object", "chat.completion")
	out.int("created", at.Unix())
	out.raw("model", resp.Get("model"))
	out.raw("choices", rawjson.Value("["+string(choice.close())+"]"))
	out.raw("usage", chatUsage(resp.Get("usage")))
	return out.close()
}
