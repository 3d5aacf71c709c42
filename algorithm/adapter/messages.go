package adapter

import (
	"bytes"
	"iter"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// Conversation is what one LLM call was given and answered, as OpenAI's chat
// format writes it.
type Conversation struct {
	Messages   rawjson.Value // a list
	Tools      rawjson.Value // a list, or null
	SpanID     string        // of the call
	SequenceID int64         // of the call's span
}

// MarshalJSON implements json.Marshaler.
func (c Conversation) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

// AppendJSON appends the messages and the tools.
func (c *Conversation) AppendJSON(dst []byte) []byte {
	dst = append(append(dst, `{"messages":`...), c.Messages...)
	dst = append(append(dst, `,"tools":`...), c.Tools...)
	return append(dst, '}')
}

// Messages makes a conversation of each span that has attributes of an LLM call
// (gen_ai.prompt, completion, request or response), in the order of spans. Calls
// by graders are among them.
//
// The tool calls of an answer are the spans right below the call that have tool.*
// attributes. Where there are none, they are those recorded with the answer, as
// tracers do for streamed answers; the reference loses these.
type Messages struct {
	// OnlyToolSpans leaves out tool calls that have no span of their own, as the
	// reference does.
	OnlyToolSpans bool
	// Parts turns contents of several parts that were recorded as JSON text, such
	// as those with images, back into lists of parts.
	Parts bool
}

// Call is an LLM call as its span recorded it, before it is brought to any form.
type Call struct {
	Span       *queue.Span
	Prompt     rawjson.Value   // a list of messages; nil when none were recorded
	Completion rawjson.Value   // a list of answers, which are alternatives; nil when none were recorded
	Request    rawjson.Value   // an object of the other parameters; nil when none were recorded
	Tools      []rawjson.Value // the tool.* attributes of each span right below, objects
}

// Adapt implements Adapter. Attributes that cannot be a conversation are an error:
// messages without a role or with one that chat has not, contents that are no
// text and no parts, tools without a name.
func (m Messages) Adapt(spans []queue.Span) ([]Conversation, error) {
	var conversations []Conversation
	for call, err := range Calls(spans) {
		if err != nil {
			return nil, err
		}
		c, err := m.conversation(call)
		if err != nil {
			return nil, queue.Wrap(queue.Invalid, err, "reading the messages of span "+call.Span.SpanID)
		}
		c.SpanID, c.SequenceID = call.Span.SpanID, call.Span.SequenceID
		conversations = append(conversations, c)
	}
	return conversations, nil
}

// Calls finds the LLM calls among the spans of an attempt, in their order: each
// span that has attributes gen_ai.prompt, completion, request or response. A span
// whose attributes cannot be nested comes as an Invalid error with its span alone;
// the loop may go on.
func Calls(spans []queue.Span) iter.Seq2[Call, error] {
	return func(yield func(Call, error) bool) {
		below := map[string][]*queue.Span{}
		for i := range spans {
			if parent := spans[i].ParentID; parent != nil {
				below[*parent] = append(below[*parent], &spans[i])
			}
		}
		for i := range spans {
			s := &spans[i]
			if !bytes.Contains(s.Attributes, []byte(`"`+semconv.GenAI)) {
				continue // as most spans; it saves looking at each attribute
			}
			call, ok, err := recordedCall(s, below[s.SpanID])
			if err != nil {
				call = Call{Span: s}
			}
			if (ok || err != nil) && !yield(call, err) {
				return
			}
		}
	}
}

// recordedCall reads the attributes of a span; ok is false when it is no LLM call.
func recordedCall(s *queue.Span, below []*queue.Span) (call Call, ok bool, err error) {
	call.Span = s
	var response rawjson.Value
	for _, part := range []struct {
		prefix string
		kind   rawjson.Kind
		into   *rawjson.Value
	}{
		{semconv.GenAIPrompt, rawjson.KindArray, &call.Prompt},
		{semconv.GenAICompletion, rawjson.KindArray, &call.Completion},
		{semconv.GenAIRequest, rawjson.KindObject, &call.Request},
		{semconv.GenAIResponse, rawjson.KindObject, &response},
	} {
		v, err := group(s.Attributes, part.prefix)
		if err != nil {
			return call, false, err
		}
		if v != nil && v.Kind() != part.kind {
			return call, false, queue.Errorf(queue.Invalid, "attributes %s.… of span %s make %.80s; they must be numbered for a list and named for an object",
				part.prefix, s.SpanID, v)
		}
		ok = ok || v != nil
		*part.into = v
	}
	if !ok {
		return call, false, nil
	}
	for _, child := range below {
		tool, err := group(child.Attributes, "tool")
		if err != nil {
			return call, false, err
		}
		switch tool.Kind() {
		case rawjson.Invalid:
		case rawjson.KindObject:
			call.Tools = append(call.Tools, tool)
		default:
			return call, false, queue.Errorf(queue.Invalid, "attributes tool.… of span %s make a list; they must be named", child.SpanID)
		}
	}
	return call, true, nil
}

// Functions are the definitions of the tools that the call offered, in chat's
// form; null when it offered none. Tools without a name are an Invalid error.
func (c *Call) Functions() (rawjson.Value, error) { return toolDefinitions(c.Request.Get("functions")) }

func (m Messages) conversation(call Call) (Conversation, error) {
	list := []byte{'['}
	for msg := range call.Prompt.Elements() {
		var err error
		if list, err = m.appendPrompt(separate(list), msg); err != nil {
			return Conversation{}, err
		}
	}
	for msg := range call.Completion.Elements() {
		if msg.Kind() != rawjson.KindObject {
			return Conversation{}, queue.Errorf(queue.Invalid, "a completion is %.80s; it must be an object", msg)
		}
		if msg.Get("role").Text() != "assistant" {
			continue
		}
		var err error
		if list, err = m.appendCompletion(separate(list), msg, call.Tools); err != nil {
			return Conversation{}, err
		}
	}
	tools, err := call.Functions()
	return Conversation{Messages: append(list, ']'), Tools: tools}, err
}

// separate adds a comma after an element of a list.
func separate(list []byte) []byte {
	if len(list) > 1 {
		list = append(list, ',')
	}
	return list
}

// appendCompletion writes an answer.
func (m Messages) appendCompletion(dst []byte, msg rawjson.Value, tools []rawjson.Value) ([]byte, error) {
	dst = append(append(dst, `{"role":"assistant","content":`...), orNull(msg.Get("content"))...)
	calls := []byte{'['}
	var err error
	for _, tool := range tools {
		if calls, err = appendToolCall(separate(calls), tool); err != nil {
			return nil, err
		}
	}
	if len(tools) == 0 && !m.OnlyToolSpans {
		if calls, err = appendToolCalls(calls, msg.Get("tool_calls")); err != nil {
			return nil, err
		}
	}
	if len(calls) > 1 {
		dst = append(append(dst, `,"tool_calls":`...), append(calls, ']')...)
	}
	return append(dst, '}'), nil
}

// appendToolCall writes a tool call that has a span of its own.
func appendToolCall(dst []byte, tool rawjson.Value) ([]byte, error) {
	id, kind := tool.Get("call").Get("id"), tool.Get("call").Get("type")
	name, arguments := tool.Get("name"), tool.Get("parameters")
	if id == nil || kind == nil || name == nil || arguments == nil {
		return nil, queue.Errorf(queue.Invalid, "a tool call lacks call.id, call.type, name or parameters: %.80s", tool)
	}
	return appendFunctionCall(dst, id, kind, name, arguments), nil
}

func appendFunctionCall(dst []byte, id, kind, name, arguments rawjson.Value) []byte {
	dst = append(append(dst, `{"id":`...), id...)
	dst = append(append(dst, `,"type":`...), kind...)
	dst = append(append(dst, `,"function":{"name":`...), name...)
	dst = append(append(dst, `,"arguments":`...), arguments...)
	return append(dst, '}', '}')
}

// functionType is the type of a tool call that does not say one.
var functionType = rawjson.Value(`"function"`)

// appendToolCalls writes tool calls that were recorded with a message, to a list.
func appendToolCalls(list []byte, calls rawjson.Value) ([]byte, error) {
	if calls != nil && calls.Kind() != rawjson.KindArray {
		return nil, queue.Errorf(queue.Invalid, "tool_calls is %.80s; it must be a list", calls)
	}
	for call := range calls.Elements() {
		name, arguments := call.Get("name"), call.Get("arguments")
		if f := call.Get("function"); f != nil {
			name, arguments = f.Get("name"), f.Get("arguments")
		}
		id := call.Get("id")
		if id == nil || name == nil || arguments == nil {
			return nil, queue.Errorf(queue.Invalid, "a tool call lacks id, name or arguments: %.80s", call)
		}
		list = appendFunctionCall(separate(list), id, functionType, name, arguments)
	}
	return list, nil
}

// toolDefinitions writes the tools that a request offered; null when it offered
// none.
func toolDefinitions(functions rawjson.Value) (rawjson.Value, error) {
	if functions == nil {
		return rawjson.Null, nil
	}
	if functions.Kind() != rawjson.KindArray {
		return nil, queue.Errorf(queue.Invalid, "the request's functions are %.80s; they must be a list", functions)
	}
	list := []byte{'['}
	for f := range functions.Elements() {
		name, description, parameters := f.Get("name"), f.Get("description"), f.Get("parameters")
		if name == nil || parameters == nil {
			return nil, queue.Errorf(queue.Invalid, "a tool lacks name or parameters: %.80s", f)
		}
		if description == nil {
			description = rawjson.Value(`""`)
		}
		if parameters.Kind() == rawjson.KindString {
			var err error
			if parameters, err = rawjson.Parse([]byte(parameters.Text())); err != nil {
				return nil, queue.Wrap(queue.Invalid, err, "reading the parameters of tool "+name.Text())
			}
		}
		list = append(append(separate(list), `{"type":"function","function":{"name":`...), name...)
		list = append(append(list, `,"description":`...), description...)
		list = append(append(list, `,"parameters":`...), parameters...)
		list = append(list, '}', '}')
	}
	return append(list, ']'), nil
}
