package llmproxy

import (
	"github.com/aglq/aglq/queue/rawjson"
)

// asChat is the call as a chat completion, whatever API it was made in: that is
// the form that spans are in.
func (c *call) asChat() (request, answer rawjson.Value) {
	switch c.endpoint {
	case chat:
		request = c.body
	case completions:
		request = promptAsChat(c.body)
	case responses:
		request = responsesAsChat(c.body)
	case messages:
		request = messagesAsChat(c.body)
	}
	switch {
	case c.answeredBy() == anthropic:
		answer = messageToChat(c.answer, c.began)
	case c.endpoint == completions:
		answer = textAsChat(c.answer)
	case c.endpoint == responses:
		answer = outputAsChat(c.answer)
	default:
		answer = c.answer
	}
	return request, answer
}

// message is a chat message.
func message(role string, content rawjson.Value) rawjson.Value {
	var m object
	m.text("role", role)
	m.raw("content", content)
	return m.close()
}

func chatOf(messages, tools array) rawjson.Value {
	var out object
	out.raw("messages", messages.close())
	out.raw("tools", tools.close())
	return out.close()
}

// promptAsChat makes each prompt a message of the user's.
func promptAsChat(body rawjson.Value) rawjson.Value {
	var list array
	prompt := body.Get("prompt")
	if first(prompt).Kind() == rawjson.KindString {
		for p := range prompt.Elements() {
			list.add(message("user", p))
		}
	} else {
		list.add(message("user", prompt))
	}
	return chatOf(list, array{})
}

func textAsChat(answer rawjson.Value) rawjson.Value {
	var choices array
	for c := range answer.Get("choices").Elements() {
		var over object
		over.raw("message", message("assistant", c.Get("text")))
		choices.add(merge(without(c, "text"), over.close()))
	}
	var over object
	over.raw("choices", choices.close())
	return merge(answer, over.close())
}

// messagesAsChat translates what can be, and takes over the rest as it is: an
// upstream that speaks the API itself understands more of it.
func messagesAsChat(body rawjson.Value) rawjson.Value {
	if out, err := messagesToChat(body); err == nil {
		return out
	}
	var list array
	if system := joinedText(body.Get("system")); system != "" {
		list.add(message("system", quote(system)))
	}
	for m := range body.Get("messages").Elements() {
		list.add(message(m.Get("role").Text(), m.Get("content")))
	}
	return chatOf(list, array{})
}

func responsesAsChat(body rawjson.Value) rawjson.Value {
	var list, tools array
	if instructions := present(body.Get("instructions")); instructions != nil {
		list.add(message("system", instructions))
	}
	input := body.Get("input")
	if input.Kind() == rawjson.KindString {
		list.add(message("user", input))
	}
	for item := range input.Elements() {
		addItem(&list, item)
	}
	for tool := range body.Get("tools").Elements() {
		if tool.Get("type").Text() == "function" {
			var t object
			t.text("type", "function")
			t.raw("function", without(tool, "type", "strict"))
			tools.add(t.close())
		}
	}
	return chatOf(list, tools)
}

// addItem adds an item of OpenAI's responses, of the input or of the output.
func addItem(to *array, item rawjson.Value) {
	switch item.Get("type").Text() {
	case "", "message":
		to.add(message(item.Get("role").Text(), itemContent(item.Get("content"))))
	case "function_call":
		var m object
		var calls array
		calls.add(toolCall(item.Get("call_id").Text(), item.Get("name").Text(), item.Get("arguments").Text()))
		m.text("role", "assistant")
		m.raw("content", rawjson.Null)
		m.raw("tool_calls", calls.close())
		to.add(m.close())
	case "function_call_output":
		var m object
		m.text("role", "tool")
		m.raw("tool_call_id", item.Get("call_id"))
		m.raw("content", itemContent(item.Get("output")))
		to.add(m.close())
	}
}

// itemContent is text where there is nothing else, and chat parts otherwise.
func itemContent(content rawjson.Value) rawjson.Value {
	if content.Kind() == rawjson.KindString {
		return content
	}
	var parts array
	plain := true
	for part := range content.Elements() {
		var out object
		switch part.Get("type").Text() {
		case "input_text", "output_text", "text":
			out.text("type", "text")
			out.raw("text", part.Get("text"))
		case "refusal":
			out.text("type", "text")
			out.raw("text", part.Get("refusal"))
		case "input_image":
			plain = false
			var image object
			image.raw("url", part.Get("image_url"))
			out.text("type", "image_url")
			out.raw("image_url", image.close())
		default:
			plain = false
			parts.add(part)
			continue
		}
		parts.add(out.close())
	}
	list := parts.close()
	if plain {
		return quote(joinedText(list))
	}
	return list
}

// outputAsChat is the output of OpenAI's responses as one choice.
func outputAsChat(answer rawjson.Value) rawjson.Value {
	var text, thoughts string
	var calls array
	for item := range answer.Get("output").Elements() {
		switch item.Get("type").Text() {
		case "message":
			text += itemContent(item.Get("content")).Text()
		case "function_call":
			calls.add(toolCall(item.Get("call_id").Text(), item.Get("name").Text(), item.Get("arguments").Text()))
		case "reasoning":
			thoughts += joinedText(item.Get("summary"))
		}
	}
	reason := "stop"
	if !calls.empty() {
		reason = "tool_calls"
	} else if answer.Get("status").Text() == "incomplete" {
		reason = "length"
	}
	var m, choice, over object
	m.text("role", "assistant")
	if text != "" || calls.empty() {
		m.text("content", text)
	}
	if thoughts != "" {
		m.text("reasoning_content", thoughts)
	}
	m.raw("tool_calls", calls.close())
	choice.int("index", 0)
	choice.raw("message", m.close())
	choice.text("finish_reason", reason)
	over.raw("choices", rawjson.Value("["+string(choice.close())+"]"))
	return merge(answer, over.close())
}
