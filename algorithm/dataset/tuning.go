package dataset

import (
	"regexp"

	"github.com/aglq/aglq/queue/rawjson"
)

// TuningRow is a row of the format openai-ft: an example as OpenAI's supervised
// fine-tuning of chat models takes it.
type TuningRow struct {
	Conversation
	LastOnly bool // the last answer alone is learned
}

// AppendJSON implements Row. An assistant that only calls tools has no content, and
// answers that are not to be learned have the weight 0.
func (r *TuningRow) AppendJSON(dst []byte) []byte {
	last := len(r.Messages) - 1
	dst = append(dst, `{"messages":[`...)
	for i := range r.Messages {
		if i > 0 {
			dst = append(dst, ',')
		}
		m := &r.Messages[i]
		dst = m.append(dst, false)
		if r.LastOnly && m.Role == Assistant {
			dst = append(dst[:len(dst)-1], `,"weight":0}`...)
			if i == last {
				dst[len(dst)-2] = '1'
			}
		}
	}
	dst = append(dst, ']')
	if r.Tools != nil {
		dst = append(append(dst, `,"tools":`...), r.Tools...)
	}
	return append(dst, '}')
}

func (r *TuningRow) responseID() string { return r.ResponseID }

// functionName is what OpenAI takes as the name of a function.
var functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// CheckTuning says why OpenAI's fine-tuning would refuse a conversation; "" when it
// would not. It must end with an answer of the assistant and have a message of a user.
// Messages of the system come first. Every call is answered right after the message
// that makes it, once, save for those of the last message, and has JSON arguments and
// the name of a function that is among the tools, if there are any.
func CheckTuning(c Conversation) Reason {
	n := len(c.Messages)
	if n == 0 || c.Messages[n-1].Role != Assistant {
		return NoAnswer
	}
	functions := map[string]bool{}
	for tool := range c.Tools.Elements() {
		name := tool.Get("function").Get("name").Text()
		if !functionName.MatchString(name) {
			return BadTools
		}
		functions[name] = true
	}
	users, others := 0, 0
	var open map[string]bool // calls without an answer
	for i := range c.Messages {
		m := &c.Messages[i]
		if m.Role != Tool && len(open) > 0 {
			return BadTools
		}
		switch m.Role {
		case System:
			if others > 0 {
				return BadRoles
			}
			if m.Parts != nil {
				return NotText
			}
			continue
		case User:
			users++
		case Tool:
			if !open[m.ToolCallID] {
				return BadTools
			}
			delete(open, m.ToolCallID)
		case Assistant:
			var ok bool
			if open, ok = openCalls(m.ToolCalls, functions); !ok {
				return BadTools
			}
		}
		others++
	}
	if users == 0 {
		return NoUser
	}
	return ""
}

// openCalls are the ids of calls; ok is false when they cannot be OpenAI's.
func openCalls(calls []ToolCall, functions map[string]bool) (ids map[string]bool, ok bool) {
	ids = make(map[string]bool, len(calls))
	for _, c := range calls {
		_, err := rawjson.Parse([]byte(c.Arguments))
		if err != nil || !functionName.MatchString(c.Name) || ids[c.ID] || len(functions) > 0 && !functions[c.Name] {
			return nil, false
		}
		ids[c.ID] = true
	}
	return ids, true
}
