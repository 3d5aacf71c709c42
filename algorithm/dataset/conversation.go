package dataset

import (
	"hash/maphash"
	"slices"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// HistoryTag marks an object span whose value is the items of a conversation, or an
// object with them as messages: agents whose calls of models have no spans tell their
// conversations so.
const HistoryTag = "history"

// Conversation is what was said in an attempt, up to one answer of a model.
type Conversation struct {
	Messages   []Message
	Tools      rawjson.Value // the definitions of the tools on offer, a list; nil for none
	SpanID     string        // of the call
	SequenceID int64         // of the call's span
	ResponseID string        // "" where it is not known
	Whole      bool          // an agent told all of it by a span with semconv.WholeTag
}

// Conversations finds the conversations in the spans of an attempt: one for each
// answer of each call of a model, and one for each object span with the tag
// [HistoryTag]. A call that has the response id of an earlier one is the same, seen by
// another tracer. Malformed spans are an Invalid error.
func Conversations(spans []queue.Span) ([]Conversation, error) {
	var found []Conversation
	seen := map[string]bool{}
	for call, err := range adapter.Calls(spans) {
		if err != nil {
			return nil, err
		}
		c := Conversation{SpanID: call.Span.SpanID, SequenceID: call.Span.SequenceID}
		if id := adapter.ResponseID(call.Span); id != nil {
			c.ResponseID = *id
		}
		if len(call.Completion) <= len("[]") || c.ResponseID != "" && seen[c.ResponseID] {
			continue
		}
		seen[c.ResponseID] = true
		tags, err := semconv.SpanTags(call.Span)
		if err != nil {
			return nil, err
		}
		c.Whole = slices.Contains(tags, semconv.WholeTag)
		tools, err := call.Functions()
		if err != nil {
			return nil, err
		}
		if len(tools) > len("[]") && !tools.IsNull() {
			c.Tools = tools
		}
		for answer := range call.Completion.Elements() {
			c.Messages, _ = NewHistory(appendAnswer(call.Prompt, answer, call.Tools))
			found = append(found, c)
		}
	}
	told, err := toldHistories(spans)
	return append(found, told...), err
}

// appendAnswer makes items of a prompt and one of its answers. The tools that the
// answer called have spans of their own, or are recorded with it.
func appendAnswer(prompt, answer rawjson.Value, tools []rawjson.Value) rawjson.Value {
	items := []byte{'['}
	for item := range prompt.Elements() {
		items = append(append(items, item...), ',')
	}
	items = append(items, `{"role":"assistant","content":`...)
	if content := answer.Get("content"); content != nil {
		items = append(items, content...)
	} else {
		items = append(items, rawjson.Null...)
	}
	if calls := answer.Get("tool_calls"); calls.Kind() == rawjson.KindArray && len(tools) == 0 {
		items = append(append(items, `,"tool_calls":`...), calls...)
	}
	items = append(items, '}')
	for _, tool := range tools {
		items = append(items, `,{"type":"function_call"`...)
		for _, m := range []struct {
			name string
			v    rawjson.Value
		}{{"call_id", tool.Get("call").Get("id")}, {"name", tool.Get("name")}, {"arguments", tool.Get("parameters")}} {
			if m.v != nil {
				items = append(append(items, `,"`+m.name+`":`...), m.v...)
			}
		}
		items = append(items, '}')
	}
	return append(items, ']')
}

// toldHistories reads the conversations that agents told themselves.
func toldHistories(spans []queue.Span) (found []Conversation, err error) {
	for i := range spans {
		s := &spans[i]
		if s.Name != semconv.ObjectSpan {
			continue
		}
		if !slices.Contains(tagsOf(s), HistoryTag) {
			continue
		}
		v, err := rawjson.Parse([]byte(s.Attribute(semconv.ObjectJSON).Text()))
		if err != nil {
			return nil, queue.Wrap(queue.Invalid, err, "reading the conversation in span "+s.SpanID)
		}
		c := Conversation{SpanID: s.SpanID, SequenceID: s.SequenceID}
		items := v
		if v.Kind() == rawjson.KindObject {
			items = v.Get("messages")
			if tools := v.Get("tools"); tools.Kind() == rawjson.KindArray && len(tools) > len("[]") {
				c.Tools = tools
			}
		}
		if items.Kind() != rawjson.KindArray {
			return nil, queue.Errorf(queue.Invalid, "the conversation in span %s is %.80s; it must be a list of items, or an object with them as messages", s.SpanID, v)
		}
		c.Messages, _ = NewHistory(items)
		found = append(found, c)
	}
	return found, nil
}

// Longest leaves out conversations that others, which come later, begin with: an agent
// that calls a model again and again says all of it each time. Where there are whole
// conversations, it leaves out all others.
func Longest(conversations []Conversation) []Conversation {
	if slices.ContainsFunc(conversations, func(c Conversation) bool { return c.Whole }) {
		conversations = slices.DeleteFunc(slices.Clone(conversations), func(c Conversation) bool { return !c.Whole })
	}
	seed := maphash.MakeSeed()
	beginnings := map[uint64]bool{} // of those that come later
	keep := make([]bool, len(conversations))
	var text []byte
	for i, c := range slices.Backward(conversations) {
		var h maphash.Hash
		h.SetSeed(seed)
		sums := make([]uint64, len(c.Messages))
		for j := range c.Messages {
			text = c.Messages[j].AppendJSON(text[:0])
			h.Write(text)
			sums[j] = h.Sum64()
		}
		if n := len(sums); n > 0 {
			keep[i] = !beginnings[sums[n-1]]
			for _, sum := range sums {
				beginnings[sum] = true
			}
		}
	}
	var longest []Conversation
	for i, c := range conversations {
		if keep[i] {
			longest = append(longest, c)
		}
	}
	return longest
}
