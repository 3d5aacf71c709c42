package llmproxy

import (
	"slices"

	"github.com/aglq/aglq/queue/rawjson"
)

// messageAssembler puts together the stream of Anthropic's messages.
type messageAssembler struct {
	start   rawjson.Value // the message as it began
	usage   rawjson.Value
	delta   rawjson.Value // stop_reason, stop_sequence
	blocks  []*messageBlock
	err     rawjson.Value
	stopped bool
}

// messageBlock is one block of content in the making.
type messageBlock struct {
	start     rawjson.Value
	text      []byte // of text and thinking
	signature []byte
	input     []byte // the JSON text of a tool's input
	citations array
}

func (a *messageAssembler) done() {}

func (a *messageAssembler) complete() bool { return a.stopped && a.err == nil }

func (a *messageAssembler) failure() rawjson.Value { return a.err }

func (a *messageAssembler) add(_ string, event rawjson.Value) {
	switch event.Get("type").Text() {
	case "message_start":
		a.start = event.Get("message").Clone()
		a.usage = a.start.Get("usage")
	case "content_block_start":
		if b := a.block(event); b != nil {
			b.start = event.Get("content_block").Clone()
		}
	case "content_block_delta":
		if b := a.block(event); b != nil {
			b.add(event.Get("delta"))
		}
	case "message_delta":
		a.delta = event.Get("delta").Clone()
		if usage := present(event.Get("usage")); usage != nil {
			a.usage = merge(withoutNull(a.usage), withoutNull(usage))
		}
	case "message_stop":
		a.stopped = true
	case "error":
		a.err = event.Get("error").Clone()
	}
}

func (a *messageAssembler) block(event rawjson.Value) *messageBlock {
	index, ok := placeIn(event)
	if !ok {
		return nil
	}
	for int64(len(a.blocks)) <= index {
		a.blocks = append(a.blocks, &messageBlock{})
	}
	return a.blocks[index]
}

func (b *messageBlock) add(delta rawjson.Value) {
	switch delta.Get("type").Text() {
	case "text_delta":
		b.text = append(b.text, delta.Get("text").Text()...)
	case "thinking_delta":
		b.text = append(b.text, delta.Get("thinking").Text()...)
	case "signature_delta":
		b.signature = append(b.signature, delta.Get("signature").Text()...)
	case "input_json_delta":
		b.input = append(b.input, delta.Get("partial_json").Text()...)
	case "citations_delta":
		b.citations.add(delta.Get("citation"))
	}
}

func (b *messageBlock) close() rawjson.Value {
	var over object
	switch b.start.Get("type").Text() {
	case "text":
		over.text("text", b.start.Get("text").Text()+string(b.text))
		over.raw("citations", b.citations.close())
	case "thinking":
		over.text("thinking", b.start.Get("thinking").Text()+string(b.text))
		over.text("signature", b.start.Get("signature").Text()+string(b.signature))
	default: // the ways to use tools
		if len(b.input) > 0 {
			over.raw("input", jsonOrText(string(b.input)))
		}
	}
	return merge(b.start, over.close())
}

func (a *messageAssembler) response() rawjson.Value {
	if a.start == nil {
		return nil
	}
	var content array
	for _, b := range a.blocks {
		if b.start != nil {
			content.add(b.close())
		}
	}
	over := object{buf: slices.Clone(openObject(a.delta))}
	if content.empty() {
		over.raw("content", rawjson.EmptyArray)
	}
	over.raw("content", content.close())
	over.raw("usage", a.usage)
	return merge(a.start, over.close())
}

// openObject is an object without its closing brace, nil where it is empty.
func openObject(v rawjson.Value) []byte {
	if v.Kind() != rawjson.KindObject || len(v) == len("{}") {
		return nil
	}
	return v[:len(v)-1]
}

// withoutNull is an object less the members that are null.
func withoutNull(v rawjson.Value) rawjson.Value {
	var o object
	for key, val := range v.Members() {
		o.raw(rawjson.Unescape(key), present(val))
	}
	return o.close()
}

// jsonOrText is text as the JSON it holds, and as a string when it holds none.
func jsonOrText(text string) rawjson.Value {
	if v, err := rawjson.Parse([]byte(text)); err == nil {
		return v
	}
	return quote(text)
}

// responsesAssembler keeps the whole answer that closes a stream of OpenAI's
// responses, or what has come of it.
type responsesAssembler struct {
	last    rawjson.Value // the response as last seen
	text    []byte
	err     rawjson.Value
	stopped bool
}

func (a *responsesAssembler) done() {}

func (a *responsesAssembler) complete() bool { return a.stopped && a.err == nil }

func (a *responsesAssembler) failure() rawjson.Value { return a.err }

func (a *responsesAssembler) add(_ string, event rawjson.Value) {
	if r := present(event.Get("response")); r != nil {
		a.last = r.Clone()
	}
	switch event.Get("type").Text() {
	case "response.output_text.delta":
		a.text = append(a.text, event.Get("delta").Text()...)
	case "response.completed", "response.incomplete":
		a.stopped = true
	case "response.failed":
		a.err = a.last.Get("error")
		if a.err == nil {
			a.err = quote("response.failed")
		}
	case "error":
		a.err = event.Clone()
	}
}

func (a *responsesAssembler) response() rawjson.Value {
	if a.stopped || len(a.text) == 0 || a.last == nil {
		return a.last
	}
	var part, item, over object
	part.text("type", "output_text")
	part.text("text", string(a.text))
	item.text("type", "message")
	item.text("role", "assistant")
	item.raw("content", rawjson.Value("["+string(part.close())+"]"))
	over.raw("output", rawjson.Value("["+string(item.close())+"]"))
	return merge(a.last, over.close())
}
