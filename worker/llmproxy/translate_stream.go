package llmproxy

import (
	"net/http"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// streamTranslator turns the events of an upstream into those of the other API
// as they come.
type streamTranslator interface {
	// add takes the next event; the error is that of writing to the client.
	add(name string, data rawjson.Value) error
	// end closes the stream after its last event. An absent failure is none;
	// otherwise it says what went wrong, and the message has no proper end.
	end(failure error) error
}

// toMessages writes chat completion chunks as a stream of Anthropic's.
type toMessages struct {
	emit    events
	started bool
	open    string // the type of the open block, "" for none
	index   int64  // of the open block, or of the next
	call    int64  // the number of the tool call in the open block
	reason  string
	stop    rawjson.Value
	usage   rawjson.Value
	err     error // of writing
}

func (t *toMessages) send(name string, event object) {
	if t.err == nil {
		t.err = t.emit(name, event.close())
	}
}

func (t *toMessages) add(_ string, chunk rawjson.Value) error {
	if present(chunk.Get("error")) != nil {
		return t.err
	}
	if !t.started {
		t.start(chunk)
	}
	if usage := present(chunk.Get("usage")); usage != nil {
		t.usage = usage
	}
	for choice := range chunk.Get("choices").Elements() {
		if index, ok := placeIn(choice); ok && index == 0 {
			t.choice(choice)
		}
	}
	return t.err
}

func (t *toMessages) start(chunk rawjson.Value) {
	t.started = true
	var usage, message, event object
	usage.int("input_tokens", int64(count(chunk.Get("prompt_token_ids"))))
	usage.int("output_tokens", 0)
	message.raw("id", chunk.Get("id"))
	message.text("type", "message")
	message.text("role", "assistant")
	message.raw("model", chunk.Get("model"))
	message.raw("content", rawjson.EmptyArray)
	message.raw("stop_reason", rawjson.Null)
	message.raw("stop_sequence", rawjson.Null)
	message.raw("usage", usage.close())
	event.text("type", "message_start")
	event.raw("message", message.close())
	t.send("message_start", event)
}

func (t *toMessages) choice(choice rawjson.Value) {
	delta := choice.Get("delta")
	if text := reasoningOf(delta); text != "" {
		t.ensure("thinking", func() rawjson.Value { return thinkingBlock("") })
		t.delta("thinking_delta", "thinking", text)
	}
	if text := delta.Get("content").Text() + delta.Get("refusal").Text(); text != "" {
		t.ensure("text", func() rawjson.Value { return textBlock("") })
		t.delta("text_delta", "text", text)
	}
	for call := range delta.Get("tool_calls").Elements() {
		number, _ := call.Get("index").Int()
		function := call.Get("function")
		if t.open == "tool_use" && number != t.call {
			t.closeBlock()
		}
		t.call = number
		t.ensure("tool_use", func() rawjson.Value {
			return toolUse(call.Get("id").Text(), function.Get("name").Text(), rawjson.EmptyObject)
		})
		if part := function.Get("arguments").Text(); part != "" {
			t.delta("input_json_delta", "partial_json", part)
		}
	}
	if present(choice.Get("finish_reason")) != nil {
		t.reason, t.stop = stopOfChat(choice)
		t.stop = t.stop.Clone()
	}
}

// ensure has a block of a kind open, a new one where another is.
func (t *toMessages) ensure(kind string, block func() rawjson.Value) {
	if t.open == kind {
		return
	}
	t.closeBlock()
	t.open = kind
	var event object
	event.text("type", "content_block_start")
	event.int("index", t.index)
	event.raw("content_block", block())
	t.send("content_block_start", event)
}

func (t *toMessages) delta(kind, member, text string) {
	var delta, event object
	delta.text("type", kind)
	delta.text(member, text)
	event.text("type", "content_block_delta")
	event.int("index", t.index)
	event.raw("delta", delta.close())
	t.send("content_block_delta", event)
}

func (t *toMessages) closeBlock() {
	if t.open == "" {
		return
	}
	var event object
	event.text("type", "content_block_stop")
	event.int("index", t.index)
	t.send("content_block_stop", event)
	t.open = ""
	t.index++
}

func (t *toMessages) end(failure error) error {
	if failure != nil {
		if t.err == nil {
			t.err = t.emit("error", anthropicError("api_error", failure.Error()))
		}
		return t.err
	}
	t.closeBlock()
	var delta, event, stop object
	if t.reason == "" {
		t.reason, t.stop = "end_turn", rawjson.Null
	}
	delta.text("stop_reason", t.reason)
	delta.raw("stop_sequence", t.stop)
	event.text("type", "message_delta")
	event.raw("delta", delta.close())
	event.raw("usage", messagesUsage(t.usage))
	t.send("message_delta", event)
	stop.text("type", "message_stop")
	t.send("message_stop", stop)
	return t.err
}

// chunkWriter writes a stream of chat completion chunks.
type chunkWriter struct {
	emit      events
	withUsage bool // the client asked for it
	created   time.Time

	id, model rawjson.Value
	usage     rawjson.Value // as chats count, absent where the upstream does not say
	err       error         // of writing
}

// open begins the message of an answer, which says its id and model.
func (t *chunkWriter) open(answer rawjson.Value) {
	t.id, t.model = answer.Get("id").Clone(), answer.Get("model").Clone()
	var delta object
	delta.text("role", "assistant")
	delta.text("content", "")
	t.chunk(delta, rawjson.Null)
}

func (t *chunkWriter) callDelta(number int64, call rawjson.Value) {
	var head, delta object
	head.int("index", number)
	delta.raw("tool_calls", listOf(merge(head.close(), call)))
	t.chunk(delta, rawjson.Null)
}

func (t *chunkWriter) chunk(delta object, finish rawjson.Value) {
	var choice object
	choice.int("index", 0)
	choice.raw("delta", delta.close())
	choice.raw("finish_reason", finish)
	t.write(listOf(choice.close()), nil)
}

// chunkWithProbs writes a piece of text with its log probabilities, if it has any.
func (t *chunkWriter) chunkWithProbs(delta object, probs rawjson.Value) {
	var choice, content object
	choice.int("index", 0)
	choice.raw("delta", delta.close())
	if len(probs) > len("[]") {
		content.raw("content", probs)
		choice.raw("logprobs", content.close())
	}
	choice.raw("finish_reason", rawjson.Null)
	t.write(listOf(choice.close()), nil)
}

func (t *chunkWriter) write(choices, usage rawjson.Value) {
	var out object
	out.raw("id", t.id)
	out.text("object", "chat.completion.chunk")
	out.int("created", t.created.Unix())
	out.raw("model", t.model)
	out.raw("choices", choices)
	out.raw("usage", usage)
	if t.err == nil {
		t.err = t.emit("", out.close())
	}
}

func (t *chunkWriter) end(failure error) error {
	if failure != nil {
		if t.err == nil {
			t.err = t.emit("", openAIError("api_error", failure.Error(), http.StatusBadGateway))
		}
		return t.err
	}
	if t.withUsage && t.usage != nil {
		t.write(rawjson.EmptyArray, t.usage)
	}
	if t.err == nil {
		t.err = t.emit("", []byte(doneMark))
	}
	return t.err
}

// messagesToChunks writes a stream of Anthropic's as chat completion chunks.
type messagesToChunks struct {
	chunkWriter
	counts rawjson.Value   // of tokens, as Anthropic does
	calls  int64           // tool calls begun
	callOf map[int64]int64 // block to call
}

func (t *messagesToChunks) add(_ string, event rawjson.Value) error {
	switch event.Get("type").Text() {
	case "message_start":
		message := event.Get("message")
		t.counts = withoutNull(message.Get("usage"))
		t.open(message)
	case "content_block_start":
		t.blockStart(event)
	case "content_block_delta":
		t.blockDelta(event)
	case "message_delta":
		if usage := present(event.Get("usage")); usage != nil {
			t.counts = merge(t.counts, withoutNull(usage))
		}
		t.usage = chatUsage(t.counts)
		if reason := event.Get("delta").Get("stop_reason").Text(); reason != "" {
			t.chunk(object{}, quote(translateStop(reason, 1, 0)))
		}
	}
	return t.err
}

func (t *messagesToChunks) blockStart(event rawjson.Value) {
	block := event.Get("content_block")
	var delta object
	switch block.Get("type").Text() {
	case "tool_use":
		index, _ := event.Get("index").Int()
		if t.callOf == nil {
			t.callOf = map[int64]int64{}
		}
		t.callOf[index] = t.calls
		call := toolCall(block.Get("id").Text(), block.Get("name").Text(), "")
		t.callDelta(t.calls, call)
		t.calls++
	case "text":
		if text := block.Get("text").Text(); text != "" {
			delta.text("content", text)
			t.chunk(delta, rawjson.Null)
		}
	}
}

func (t *messagesToChunks) blockDelta(event rawjson.Value) {
	in := event.Get("delta")
	var out object
	switch in.Get("type").Text() {
	case "text_delta":
		out.raw("content", in.Get("text"))
	case "thinking_delta":
		out.raw("reasoning_content", in.Get("thinking"))
	case "input_json_delta":
		index, _ := event.Get("index").Int()
		number, ok := t.callOf[index]
		if !ok {
			return // the input of a tool of the upstream's own
		}
		var function, call object
		function.raw("arguments", in.Get("partial_json"))
		call.raw("function", function.close())
		t.callDelta(number, call.close())
		return
	default:
		return
	}
	t.chunk(out, rawjson.Null)
}
