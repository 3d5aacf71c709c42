package dataset

import (
	"fmt"
	"strings"

	"github.com/aglq/aglq/queue/rawjson"
)

// The roles of messages.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
	Tool      = "tool"
)

// Message is one message of a conversation.
type Message struct {
	Role string
	// Content is the text, without white space around it save for tools' answers;
	// "" for an assistant that only calls tools.
	Content string
	// Parts is the content as a list, in the form of OpenAI's chats, where it is
	// more than text; nil otherwise. Content is the text in it.
	Parts      rawjson.Value
	ToolCalls  []ToolCall // of an assistant
	ToolCallID string     // of a tool's answer: the call that it answers
}

// ToolCall is an assistant's call of a function.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string // JSON text, unless the model wrote something else
}

// NewHistory brings the items of a conversation to messages that chat templates
// take. Items are those that frameworks keep: messages with a role, with or without
// tool_calls, and items of OpenAI's Responses API of the types function_call and
// function_call_output. Skipped counts items that are no part of a conversation, such
// as reasoning, or that are nothing at all: an empty message, an answer to no call,
// something that is no object.
//
// The calls that directly follow an assistant's text are part of its message, as is
// a text between a call and its answer. The answers follow the message with their
// calls, whatever came between. A call without an id gets one, and so does its
// answer; what has no text form is JSON. Developers' messages are the system's.
func NewHistory(items rawjson.Value) (messages []Message, skipped int) {
	h := history{ids: map[string]bool{}, open: map[string][]*pending{}}
	for item := range items.Elements() {
		h.reserve(item)
	}
	i := 0
	for item := range items.Elements() {
		if !h.add(item, i) {
			skipped++
		}
		i++
	}
	return h.messages(), skipped
}

// turn is a message with the answers to its calls.
type turn struct {
	Message
	answers []Message
}

// pending is a call that may still be answered.
type pending struct {
	turn     *turn
	id, name string
	named    bool // the id is its own
	answered bool
}

type history struct {
	turns []*turn
	ids   map[string]bool       // of all calls
	open  map[string][]*pending // by id
	order []*pending            // all, in order
	first int                   // before it in order, all are answered
}

// reserve keeps the ids that calls have from being given to others.
func (h *history) reserve(item rawjson.Value) {
	h.ids[callID(item)] = true
	for call := range item.Get("tool_calls").Elements() {
		h.ids[call.Get("id").Text()] = true
	}
}

// callID is the id of the call that an item of the Responses API is or answers.
func callID(item rawjson.Value) string {
	if id := item.Get("call_id").Text(); id != "" {
		return id
	}
	if item.Get("type").Text() == "function_call" {
		return item.Get("id").Text()
	}
	return ""
}

// add takes the item at a place; false skips it.
func (h *history) add(item rawjson.Value, at int) bool {
	if item.Kind() != rawjson.KindObject {
		return false
	}
	switch role := item.Get("role").Text(); role {
	case System, "developer":
		return h.message(System, item.Get("content"))
	case User:
		return h.message(User, item.Get("content"))
	case Assistant:
		return h.assistant(item, at)
	case Tool, "function":
		return h.answer(item.Get("tool_call_id").Text(), item.Get("name").Text(), answerText(item.Get("content")))
	}
	switch item.Get("type").Text() {
	case "function_call":
		h.call(newCall(callID(item), item), at)
		return true
	case "function_call_output":
		return h.answer(callID(item), "", outputText(item.Get("output")))
	}
	return false
}

// message takes a message of the system or of a user.
func (h *history) message(role string, content rawjson.Value) bool {
	text, parts := contentOf(content)
	if text == "" && parts == nil {
		return false
	}
	h.turns = append(h.turns, &turn{Message: Message{Role: role, Content: text, Parts: parts}})
	return true
}

func (h *history) assistant(item rawjson.Value, at int) bool {
	text, _ := contentOf(item.Get("content"))
	var calls []ToolCall
	for call := range item.Get("tool_calls").Elements() {
		c := call
		if f := call.Get("function"); f != nil {
			c = f
		}
		if c.Kind() == rawjson.KindObject {
			calls = append(calls, newCall(call.Get("id").Text(), c))
		}
	}
	switch t := h.unanswered(); {
	case text == "" && calls == nil:
		return false
	case t != nil && calls == nil:
		t.Content = strings.TrimPrefix(t.Content+"\n"+text, "\n")
		return true
	}
	h.turns = append(h.turns, &turn{Message: Message{Role: Assistant, Content: text}})
	for _, c := range calls {
		h.call(c, at)
	}
	return true
}

// unanswered is the last message, if it is an assistant's whose calls have no
// answer yet; nil otherwise.
func (h *history) unanswered() *turn {
	if len(h.turns) == 0 {
		return nil
	}
	t := h.turns[len(h.turns)-1]
	if len(t.ToolCalls) == 0 || len(t.answers) > 0 {
		return nil
	}
	return t
}

// newCall reads the name and the arguments of a call.
func newCall(id string, v rawjson.Value) ToolCall {
	c := ToolCall{ID: id, Name: v.Get("name").Text(), Arguments: "{}"}
	switch arguments := v.Get("arguments"); {
	case arguments.Kind() == rawjson.KindString:
		c.Arguments = arguments.Text()
	case !arguments.IsNull():
		c.Arguments = string(arguments)
	}
	return c
}

// call adds a call to the last message, if that is an assistant's that was not
// answered, or to a new one.
func (h *history) call(c ToolCall, at int) {
	p := &pending{name: c.Name, id: c.ID, named: c.ID != ""}
	if !p.named {
		p.id = h.newID(at)
		c.ID = p.id
	}
	if n := len(h.turns); n > 0 && h.turns[n-1].Role == Assistant && len(h.turns[n-1].answers) == 0 {
		p.turn = h.turns[n-1]
	} else {
		p.turn = &turn{Message: Message{Role: Assistant}}
		h.turns = append(h.turns, p.turn)
	}
	p.turn.ToolCalls = append(p.turn.ToolCalls, c)
	h.open[p.id] = append(h.open[p.id], p)
	h.order = append(h.order, p)
}

// newID makes an id that no call of the conversation has.
func (h *history) newID(at int) string {
	for i := 0; ; i++ {
		id := fmt.Sprintf("call_%d", at)
		if i > 0 {
			id = fmt.Sprintf("call_%d_%d", at, i)
		}
		if !h.ids[id] {
			h.ids[id] = true
			return id
		}
	}
}

// answer files an answer with its call; false when there is no such call.
func (h *history) answer(id, name, content string) bool {
	p := h.answered(id, name)
	if p == nil {
		return false
	}
	p.answered = true
	p.turn.answers = append(p.turn.answers, Message{Role: Tool, Content: content, ToolCallID: p.id})
	return true
}

// answered finds the call that an answer is for: the last one of its id, else the
// first one that had no id either, else the first one. A name, if there is one, must
// be the call's.
func (h *history) answered(id, name string) *pending {
	if id != "" {
		list := h.open[id]
		for len(list) > 0 && list[len(list)-1].answered {
			list = list[:len(list)-1]
		}
		h.open[id] = list
		if len(list) == 0 {
			return nil
		}
		return list[len(list)-1]
	}
	for h.first < len(h.order) && h.order[h.first].answered {
		h.first++
	}
	var found *pending
	for i, p := range h.order[h.first:] {
		if i == lookAhead {
			break
		}
		if p.answered || name != "" && p.name != name {
			continue
		}
		if !p.named {
			return p
		}
		if found == nil {
			found = p
		}
	}
	return found
}

// lookAhead is how many calls are looked at for an answer without an id: more than
// any model makes at once.
const lookAhead = 128

func (h *history) messages() []Message {
	var messages []Message
	for _, t := range h.turns {
		messages = append(append(messages, t.Message), t.answers...)
	}
	return messages
}

// outputText is what a tool answered, as text: JSON where it is none.
func outputText(v rawjson.Value) string {
	switch {
	case v.Kind() == rawjson.KindString:
		return v.Text()
	case v.IsNull():
		return ""
	}
	return string(v)
}

// answerText is outputText for a message, whose parts, if all are text, are text.
func answerText(v rawjson.Value) string {
	for part := range v.Elements() {
		if _, ok := partText(part); !ok {
			return outputText(v)
		}
	}
	if v.Kind() == rawjson.KindArray {
		text, _ := contentOf(v)
		return text
	}
	return outputText(v)
}

// contentOf reads the content of a message: its text, and its parts where it is more
// than that. The content may be parts that were recorded as JSON text.
func contentOf(v rawjson.Value) (text string, parts rawjson.Value) {
	if v.Kind() == rawjson.KindString {
		text = strings.TrimSpace(v.Text())
		list := recordedParts(text)
		if list == nil {
			return text, nil
		}
		v = list
	}
	var texts []string
	list, more := []byte{'['}, false
	for part := range v.Elements() {
		t, ok := partText(part)
		if ok && t == "" {
			continue
		}
		if len(list) > 1 {
			list = append(list, ',')
		}
		if ok {
			texts = append(texts, t)
			list = rawjson.AppendString(append(list, `{"type":"text","text":`...), t)
			list = append(list, '}')
			continue
		}
		before := len(list)
		if list = appendPart(list, part); len(list) > before {
			more = true
		} else if len(list) > 1 {
			list = list[:len(list)-1] // its comma
		}
	}
	text = strings.TrimSpace(strings.Join(texts, " "))
	if more {
		parts = append(list, ']')
	}
	return text, parts
}

// partText is the text of a part; ok is false when it is no text.
func partText(part rawjson.Value) (text string, ok bool) {
	if part.Kind() == rawjson.KindString {
		return part.Text(), true
	}
	switch part.Get("type").Text() {
	case "text", "input_text", "output_text":
		return part.Get("text").Text(), true
	}
	return "", false
}

// appendPart writes a part that is no text in the form of OpenAI's chats; parts that
// chats do not have are left out.
func appendPart(dst []byte, part rawjson.Value) []byte {
	switch kind := part.Get("type").Text(); kind {
	case "image_url", "input_audio", "file":
		if part.Get(kind) != nil {
			return append(dst, part...)
		}
	case "input_image":
		if url := part.Get("image_url"); url.Kind() == rawjson.KindString {
			dst = append(append(dst, `{"type":"image_url","image_url":{"url":`...), url...)
			return append(dst, '}', '}')
		}
	}
	return dst
}

// recordedParts reads a list of parts that was recorded as JSON text; nil when the
// text is something else.
func recordedParts(text string) rawjson.Value {
	if !strings.HasPrefix(text, `[{`) {
		return nil
	}
	list, err := rawjson.Parse([]byte(text))
	if err != nil {
		return nil
	}
	for part := range list.Elements() {
		if _, ok := partText(part); !ok && len(appendPart(nil, part)) == 0 {
			return nil
		}
	}
	return list
}
