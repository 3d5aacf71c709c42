package dataset

import (
	"strings"

	"github.com/aglq/aglq/queue/rawjson"
)

// AppendJSON appends the message in the form of OpenAI's chats. An assistant that
// only calls tools has the content "", which chat templates take.
func (m *Message) AppendJSON(dst []byte) []byte { return m.append(dst, true) }

// append leaves an empty content out where it may.
func (m *Message) append(dst []byte, empty bool) []byte {
	dst = rawjson.AppendString(append(dst, `{"role":`...), m.Role)
	switch {
	case m.Parts != nil:
		dst = append(append(dst, `,"content":`...), m.Parts...)
	case m.Content != "" || empty || len(m.ToolCalls) == 0:
		dst = rawjson.AppendString(append(dst, `,"content":`...), m.Content)
	}
	if len(m.ToolCalls) > 0 {
		dst = append(dst, `,"tool_calls":[`...)
		for i, c := range m.ToolCalls {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = rawjson.AppendString(append(dst, `{"id":`...), c.ID)
			dst = rawjson.AppendString(append(dst, `,"type":"function","function":{"name":`...), c.Name)
			dst = rawjson.AppendString(append(dst, `,"arguments":`...), c.Arguments)
			dst = append(dst, '}', '}')
		}
		dst = append(dst, ']')
	}
	if m.ToolCallID != "" {
		dst = rawjson.AppendString(append(dst, `,"tool_call_id":`...), m.ToolCallID)
	}
	return append(dst, '}')
}

// MarshalJSON implements json.Marshaler.
func (m Message) MarshalJSON() ([]byte, error) { return m.AppendJSON(nil), nil }

func appendMessages(dst []byte, messages []Message) []byte {
	dst = append(dst, '[')
	for i := range messages {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = messages[i].AppendJSON(dst)
	}
	return append(dst, ']')
}

// TextOnly leaves out tools: their answers, the calls, and messages that have
// nothing else. What has no text is left out too.
func TextOnly(messages []Message) []Message {
	var out []Message
	for _, m := range messages {
		if m.Role != Tool && (m.Content != "" || m.Parts != nil) {
			m.ToolCalls = nil
			out = append(out, m)
		}
	}
	return out
}

// WithoutSystem leaves out the messages of the system.
func WithoutSystem(messages []Message) []Message {
	var out []Message
	for _, m := range messages {
		if m.Role != System {
			out = append(out, m)
		}
	}
	return out
}

// speakers are how prompts name the roles.
var speakers = map[string]string{System: "System", User: "User", Assistant: "Assistant"}

// PromptCompletion makes a prompt of all messages up to the last one of a user, a
// paragraph "User: …" for each, and takes the text of the last assistant's message as
// its completion. Tools do not occur in it. Without a user, without an answer after
// the last one, or with a prompt that is more than text, there is none, and why says so.
func PromptCompletion(messages []Message) (prompt, completion string, why Reason) {
	lastUser, lastAssistant := -1, -1
	for i := range messages {
		switch m := &messages[i]; {
		case m.Role == User:
			lastUser = i
		case m.Role == Assistant:
			lastAssistant = i
		}
	}
	switch {
	case lastUser < 0:
		return "", "", NoUser
	case lastAssistant < lastUser || messages[lastAssistant].Content == "":
		return "", "", NoAnswer
	}
	var b strings.Builder
	for i := range messages[:lastUser+1] {
		m := &messages[i]
		if m.Parts != nil {
			return "", "", NotText
		}
		if speaker := speakers[m.Role]; speaker != "" && m.Content != "" {
			if b.Len() > 0 {
				b.WriteString("\n\n")
			}
			b.WriteString(speaker + ": " + m.Content)
		}
	}
	return b.String(), messages[lastAssistant].Content, ""
}
