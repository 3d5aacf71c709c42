package llmproxy

import (
	"slices"

	"github.com/aglq/aglq/queue/rawjson"
)

// chatAssembler puts together chat.completion.chunk objects, or the chunks of
// the older completions where text is set.
type chatAssembler struct {
	text bool

	top       object // id, created, model … of the first chunk
	hasTop    bool
	usage     rawjson.Value
	promptIDs rawjson.Value
	choices   []*chatChoice
	err       rawjson.Value
	ended     bool
}

// chatChoice is one choice of a chat in the making.
type chatChoice struct {
	index        int64
	role         string
	content      []byte
	hasContent   bool
	reasoning    []byte
	refusal      []byte
	calls        []*chatCall
	finish       rawjson.Value
	stop         rawjson.Value
	tokenIDs     array
	promptIDs    rawjson.Value
	logprobs     array // chat: the content list
	refusalProbs array
	textProbs    [4]array // completions: in the order of textProbNames
}

var textProbNames = [4]string{"tokens", "token_logprobs", "top_logprobs", "text_offset"}

// chatCall is one tool call in the making.
type chatCall struct {
	index     int64
	id, name  string
	arguments []byte
}

// maxChoices bounds the numbers that an upstream gives its choices and calls.
const maxChoices = 1024

// placeIn is the number of a choice, a call or a block, 0 where it has none.
func placeIn(item rawjson.Value) (index int64, ok bool) {
	v := present(item.Get("index"))
	if v == nil {
		return 0, true
	}
	index, ok = v.Int()
	return index, ok && index >= 0 && index < maxChoices
}

func (a *chatAssembler) done() { a.ended = true }

func (a *chatAssembler) failure() rawjson.Value { return a.err }

// complete wants the closing mark, or a reason of every choice to have ended.
func (a *chatAssembler) complete() bool {
	if a.err != nil {
		return false
	}
	if a.ended {
		return true
	}
	for _, c := range a.choices {
		if c == nil || c.finish == nil {
			return false
		}
	}
	return len(a.choices) > 0
}

func (a *chatAssembler) add(_ string, chunk rawjson.Value) {
	if err := present(chunk.Get("error")); err != nil {
		a.err = err.Clone()
		return
	}
	if !a.hasTop {
		a.hasTop = true
		for key, val := range chunk.Members() {
			switch string(key) {
			case "choices", "usage", "prompt_token_ids", "object":
			default:
				a.top.raw(rawjson.Unescape(key), val)
			}
		}
	}
	if ids := present(chunk.Get("prompt_token_ids")); ids != nil && a.promptIDs == nil {
		a.promptIDs = ids.Clone()
	}
	if usage := present(chunk.Get("usage")); usage != nil {
		a.usage = usage.Clone()
	}
	for item := range chunk.Get("choices").Elements() {
		a.addChoice(item)
	}
}

func (a *chatAssembler) addChoice(item rawjson.Value) {
	index, ok := placeIn(item)
	if !ok {
		return
	}
	for int64(len(a.choices)) <= index {
		a.choices = append(a.choices, &chatChoice{index: int64(len(a.choices))})
	}
	c := a.choices[index]
	if a.text {
		c.content = append(c.content, item.Get("text").Text()...)
		c.addTextProbs(item.Get("logprobs"))
	} else {
		c.addDelta(item.Get("delta"))
		c.logprobs.extend(item.Get("logprobs").Get("content"))
		c.refusalProbs.extend(item.Get("logprobs").Get("refusal"))
	}
	c.tokenIDs.extend(item.Get("token_ids"))
	if ids := present(item.Get("prompt_token_ids")); ids != nil && c.promptIDs == nil {
		c.promptIDs = ids.Clone()
	}
	if v := present(item.Get("finish_reason")); v != nil {
		c.finish = v.Clone()
	}
	if v := present(item.Get("stop_reason")); v != nil {
		c.stop = v.Clone()
	}
}

func (c *chatChoice) addTextProbs(probs rawjson.Value) {
	for i, name := range textProbNames {
		c.textProbs[i].extend(probs.Get(name))
	}
}

func (c *chatChoice) addDelta(delta rawjson.Value) {
	if role := delta.Get("role").Text(); role != "" {
		c.role = role
	}
	if v := delta.Get("content"); v.Kind() == rawjson.KindString {
		c.hasContent = true
		c.content = append(c.content, v.Text()...)
	}
	c.reasoning = append(c.reasoning, reasoningOf(delta)...)
	c.refusal = append(c.refusal, delta.Get("refusal").Text()...)
	for item := range delta.Get("tool_calls").Elements() {
		c.addCall(item)
	}
}

// reasoningOf is the thought in a message or a delta, by either of its names.
func reasoningOf(v rawjson.Value) string {
	if text := v.Get("reasoning_content").Text(); text != "" {
		return text
	}
	return v.Get("reasoning").Text()
}

func (c *chatChoice) addCall(item rawjson.Value) {
	index, ok := placeIn(item)
	if !ok {
		return
	}
	for int64(len(c.calls)) <= index {
		c.calls = append(c.calls, &chatCall{index: int64(len(c.calls))})
	}
	call := c.calls[index]
	if id := item.Get("id").Text(); id != "" {
		call.id = id
	}
	function := item.Get("function")
	if name := function.Get("name").Text(); name != "" {
		call.name = name
	}
	call.arguments = append(call.arguments, function.Get("arguments").Text()...)
}

func (a *chatAssembler) response() rawjson.Value {
	if !a.hasTop {
		return nil
	}
	out := object{buf: slices.Clone(a.top.buf)}
	kind := "chat.completion"
	if a.text {
		kind = "text_completion"
	}
	out.text("object", kind)
	choices := array{buf: []byte{'['}}
	for i, c := range a.choices {
		if i > 0 {
			choices.buf = append(choices.buf, ',')
		}
		choices.buf = append(choices.buf, c.close(a.text)...)
	}
	out.raw("choices", choices.close())
	out.raw("usage", a.usage)
	out.raw("prompt_token_ids", a.promptIDs)
	return out.close()
}

func (c *chatChoice) close(text bool) rawjson.Value {
	var out object
	out.int("index", c.index)
	if text {
		out.text("text", string(c.content))
		var probs object
		for i, name := range textProbNames {
			probs.raw(name, c.textProbs[i].close())
		}
		if probs.buf != nil {
			out.raw("logprobs", probs.close())
		}
	} else {
		out.raw("message", c.message())
		var probs object
		probs.raw("content", c.logprobs.close())
		probs.raw("refusal", c.refusalProbs.close())
		if probs.buf != nil {
			out.raw("logprobs", probs.close())
		}
	}
	if c.finish == nil {
		out.raw("finish_reason", rawjson.Null)
	}
	out.raw("finish_reason", c.finish)
	out.raw("stop_reason", c.stop)
	out.raw("prompt_token_ids", c.promptIDs)
	out.raw("token_ids", c.tokenIDs.close())
	return out.close()
}

func (c *chatChoice) message() rawjson.Value {
	var m object
	role := c.role
	if role == "" {
		role = "assistant"
	}
	m.text("role", role)
	if c.hasContent {
		m.text("content", string(c.content))
	} else {
		m.raw("content", rawjson.Null)
	}
	if len(c.reasoning) > 0 {
		m.text("reasoning_content", string(c.reasoning))
	}
	if len(c.refusal) > 0 {
		m.text("refusal", string(c.refusal))
	}
	var calls array
	for _, call := range c.calls {
		calls.add(toolCall(call.id, call.name, string(call.arguments)))
	}
	m.raw("tool_calls", calls.close())
	return m.close()
}

// toolCall is a call of a function as OpenAI writes it.
func toolCall(id, name, arguments string) rawjson.Value {
	var function, call object
	function.text("name", name)
	function.text("arguments", arguments)
	call.text("id", id)
	call.text("type", "function")
	call.raw("function", function.close())
	return call.close()
}
