package fakellm

// stopReasons are Anthropic's words for OpenAI's.
var stopReasons = map[string]string{
	"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal",
}

func (t *turn) stopReason() string {
	if word, ok := stopReasons[t.finish()]; ok {
		return word
	}
	return t.finish()
}

func (t *turn) messageHead(content []fields, stop any) fields {
	return fields{
		"id": t.id("msg_"), "type": "message", "role": "assistant", "model": t.req.Model, "content": content,
		"stop_reason": stop, "stop_sequence": nil, "usage": t.messageUsage(stop != nil),
	}
}

func (t *turn) messageUsage(ended bool) fields {
	u := t.usage()
	output := u["completion_tokens"]
	if !ended {
		output = 1 // as the real one begins
	}
	return fields{"input_tokens": u["prompt_tokens"], "output_tokens": output, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
}

// blocks are the content of a message.
func (t *turn) blocks() []fields {
	out := []fields{}
	if t.answer.Reasoning != "" {
		out = append(out, fields{"type": "thinking", "thinking": t.answer.Reasoning, "signature": "signed"})
	}
	if t.answer.Text != "" {
		out = append(out, fields{"type": "text", "text": t.answer.Text})
	}
	for _, c := range t.answer.ToolCalls {
		out = append(out, fields{"type": "tool_use", "id": c.ID, "name": c.Name, "input": parsed(c.Arguments)})
	}
	return out
}

func (t *turn) message() fields { return t.messageHead(t.blocks(), t.stopReason()) }

func (t *turn) streamMessage() {
	send := func(kind string, more fields) { t.event(kind, with(more, fields{"type": kind})) }
	send("message_start", fields{"message": t.messageHead([]fields{}, nil)})
	send("ping", fields{})
	call := 0
	for i, block := range t.blocks() {
		begun, whole, kind, member := clone(block), "", "", ""
		switch block["type"] {
		case "text":
			begun["text"], whole, kind, member = "", t.answer.Text, "text_delta", "text"
		case "thinking":
			begun["thinking"], begun["signature"] = "", ""
			whole, kind, member = t.answer.Reasoning, "thinking_delta", "thinking"
		case "tool_use":
			begun["input"], whole, kind, member = fields{}, t.answer.ToolCalls[call].Arguments, "input_json_delta", "partial_json"
			call++
		}
		send("content_block_start", fields{"index": i, "content_block": begun})
		for _, tok := range Tokens(whole) {
			send("content_block_delta", fields{"index": i, "delta": fields{"type": kind, member: tok.Text}})
		}
		if kind == "thinking_delta" {
			send("content_block_delta", fields{"index": i, "delta": fields{"type": "signature_delta", "signature": "signed"}})
		}
		send("content_block_stop", fields{"index": i})
	}
	if t.answer.StreamError != "" {
		send("error", fields{"error": fields{"type": "overloaded_error", "message": t.answer.StreamError}})
		return
	}
	if t.answer.NoEnd {
		return
	}
	send("message_delta", fields{
		"delta": fields{"stop_reason": t.stopReason(), "stop_sequence": nil}, "usage": fields{"output_tokens": t.usage()["completion_tokens"]},
	})
	send("message_stop", fields{})
}
