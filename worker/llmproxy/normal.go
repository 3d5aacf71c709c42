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
		if request = c.whole; request == nil {
			request = c.body
		}
		request = responsesAsChat(request)
	case messages:
		request = messagesAsChat(c.body)
	}
	if c.wire == completions {
		return request, textAsChat(c.answer)
	}
	return request, answerAsChat(c.answer, c.wire, c.began)
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
