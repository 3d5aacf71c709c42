package llmclient

import (
	"bytes"
	"slices"

	"github.com/aglq/aglq/queue/rawjson"
)

// events yields the data of server-sent events; those of several lines are joined.
func events(stream []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		var data []byte
		for len(stream) > 0 {
			line, rest, _ := bytes.Cut(stream, []byte{'\n'})
			stream = rest
			line = bytes.TrimSuffix(line, []byte{'\r'})
			if len(line) == 0 {
				if len(data) > 0 && !yield(data) {
					return
				}
				data = nil
				continue
			}
			if text, ok := bytes.CutPrefix(line, []byte("data:")); ok {
				if data != nil {
					data = append(data, '\n')
				}
				data = append(data, bytes.TrimPrefix(text, []byte{' '})...)
			}
		}
		if len(data) > 0 {
			yield(data)
		}
	}
}

// assemble makes of a stream of chunks the response that it stands for; done is
// whether the stream came to its end.
func assemble(stream []byte) (response rawjson.Value, done bool) {
	a := assembly{}
	for data := range events(stream) {
		if string(data) == "[DONE]" {
			done = true
			break
		}
		if chunk, err := rawjson.Parse(data); err == nil {
			a.add(chunk)
		}
	}
	return a.response(), done
}

// assembly is a response of which chunks were read.
type assembly struct {
	head    []byte // an open object: what chunks say once
	tokens  rawjson.Value
	usage   rawjson.Value
	failure rawjson.Value
	choices []*choice
}

type choice struct {
	index                       int64
	role                        string
	content, refusal, reasoning []byte
	finish                      rawjson.Value
	tokens, logprobs            []rawjson.Value
	calls                       []*toolCall
}

type toolCall struct {
	index     int64
	id, name  string
	arguments []byte
}

func (a *assembly) add(chunk rawjson.Value) {
	if a.head == nil {
		for _, name := range []string{"id", "created", "model"} {
			if v := chunk.Get(name); !v.IsNull() {
				a.head = rawjson.AppendMember(a.head, []byte(name), v)
			}
		}
	}
	if v := chunk.Get("usage"); !v.IsNull() {
		a.usage = v
	}
	if v := chunk.Get("prompt_token_ids"); !v.IsNull() {
		a.tokens = v
	}
	if v := chunk.Get("error"); !v.IsNull() {
		a.failure = v
	}
	for item := range chunk.Get("choices").Elements() {
		a.choice(item).add(item)
	}
}

func (a *assembly) choice(item rawjson.Value) *choice {
	index, _ := item.Get("index").Int()
	for _, c := range a.choices {
		if c.index == index {
			return c
		}
	}
	c := &choice{index: index, role: "assistant"}
	a.choices = append(a.choices, c)
	return c
}

func (c *choice) add(item rawjson.Value) {
	delta := item.Get("delta")
	if role := delta.Get("role").Text(); role != "" {
		c.role = role
	}
	c.content = append(c.content, delta.Get("content").Text()...)
	c.refusal = append(c.refusal, delta.Get("refusal").Text()...)
	c.reasoning = append(c.reasoning, delta.Get("reasoning_content").Text()...)
	for part := range delta.Get("tool_calls").Elements() {
		call := c.call(part)
		f := part.Get("function")
		if id := part.Get("id").Text(); id != "" {
			call.id = id
		}
		call.name += f.Get("name").Text()
		call.arguments = append(call.arguments, f.Get("arguments").Text()...)
	}
	if v := item.Get("finish_reason"); !v.IsNull() {
		c.finish = v
	}
	c.tokens = slices.AppendSeq(c.tokens, item.Get("token_ids").Elements())
	c.logprobs = slices.AppendSeq(c.logprobs, item.Get("logprobs").Get("content").Elements())
}

func (c *choice) call(part rawjson.Value) *toolCall {
	index, _ := part.Get("index").Int()
	for _, call := range c.calls {
		if call.index == index {
			return call
		}
	}
	call := &toolCall{index: index}
	c.calls = append(c.calls, call)
	return call
}

// response is the object that the chunks amount to.
func (a *assembly) response() rawjson.Value {
	w := writer{dst: a.head}
	if a.failure != nil {
		w.raw("error", a.failure)
	}
	w.raw("object", rawjson.Value(`"chat.completion"`))
	w.raw("usage", a.usage)
	w.raw("prompt_token_ids", a.tokens)
	slices.SortStableFunc(a.choices, func(a, b *choice) int { return int(a.index - b.index) })
	var list []rawjson.Value
	for _, c := range a.choices {
		list = append(list, c.object())
	}
	w.raw("choices", array(list))
	return append(w.dst, '}')
}

func (c *choice) object() rawjson.Value {
	m := writer{}
	m.text("role", c.role)
	for _, part := range []struct {
		name string
		text []byte
	}{{"content", c.content}, {"refusal", c.refusal}, {"reasoning_content", c.reasoning}} {
		if len(part.text) > 0 {
			m.raw(part.name, rawjson.AppendText(nil, part.text))
		}
	}
	var calls []rawjson.Value
	for _, call := range c.calls {
		f, t := writer{}, writer{}
		f.text("name", call.name)
		f.raw("arguments", rawjson.AppendText(nil, call.arguments))
		t.text("id", call.id)
		t.text("type", "function")
		t.raw("function", append(f.dst, '}'))
		calls = append(calls, append(t.dst, '}'))
	}
	if calls != nil {
		m.raw("tool_calls", array(calls))
	}
	w := writer{}
	w.raw("index", rawjson.AppendInt(nil, c.index))
	w.raw("message", append(m.dst, '}'))
	w.raw("finish_reason", c.finish)
	if c.tokens != nil {
		w.raw("token_ids", array(c.tokens))
	}
	if c.logprobs != nil {
		w.raw("logprobs", append(append([]byte(`{"content":`), array(c.logprobs)...), '}'))
	}
	return append(w.dst, '}')
}

func array(list []rawjson.Value) rawjson.Value {
	dst := []byte{'['}
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return append(dst, ']')
}
