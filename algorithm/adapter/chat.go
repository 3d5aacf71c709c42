package adapter

import (
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// partFields are the fields of the parts of contents, "type" aside, in the order
// in which chat's format declares them. An inner list are the fields of an object.
var partFields = map[string]struct {
	name   string
	inner  []string // nil for a text
	needed []string // of inner
}{
	"text":        {name: "text"},
	"refusal":     {name: "refusal"},
	"image_url":   {name: "image_url", inner: []string{"url", "detail"}, needed: []string{"url"}},
	"input_audio": {name: "input_audio", inner: []string{"data", "format"}, needed: []string{"data", "format"}},
	"file":        {name: "file", inner: []string{"file_data", "file_id", "filename"}},
}

// partTypes are the types of parts that the content of a role may have; a role
// that is not here is none of chat's.
var partTypes = map[string][]string{
	"system":    {"text"},
	"developer": {"text"},
	"user":      {"text", "image_url", "input_audio", "file"},
	"assistant": {"text", "refusal"},
	"tool":      {"text"},
}

// appendPrompt writes a message of a prompt.
func (m Messages) appendPrompt(dst []byte, msg rawjson.Value) ([]byte, error) {
	role := msg.Get("role").Text()
	calls := msg.Get("tool_calls")
	if role == "assistant" && calls != nil {
		list, err := appendToolCalls([]byte{'['}, calls)
		if err != nil {
			return nil, err
		}
		dst = append(append(dst, `{"role":"assistant","content":null,"tool_calls":`...), list...)
		return append(dst, ']', '}'), nil
	}
	types := partTypes[role]
	if types == nil {
		return nil, queue.Errorf(queue.Invalid, "a message has the role %s; it must be one of system, developer, user, assistant and tool",
			orNull(msg.Get("role")))
	}
	content, err := m.content(msg.Get("content"), types)
	if err != nil {
		return nil, err
	}
	if role == "assistant" { // whose fields chat's format declares in this order
		dst = append(append(dst, `{"role":"assistant","content":`...), content...)
		return append(dst, '}'), nil
	}
	dst = append(append(dst, `{"content":`...), content...)
	dst = rawjson.AppendString(append(dst, `,"role":`...), role)
	if role == "tool" {
		id := msg.Get("tool_call_id")
		if id.Kind() != rawjson.KindString {
			return nil, queue.Errorf(queue.Invalid, "a message of a tool has no tool_call_id that is a text")
		}
		dst = append(append(dst, `,"tool_call_id":`...), id...)
	}
	return append(dst, '}'), nil
}

// content checks the content of a message: a text, or parts of the given types.
func (m Messages) content(v rawjson.Value, types []string) (rawjson.Value, error) {
	switch v.Kind() {
	case rawjson.Invalid:
		return rawjson.Value(`""`), nil
	case rawjson.KindString:
		if m.Parts {
			if parts, ok := decodedParts(v.Text(), types); ok {
				return parts, nil
			}
		}
		return v, nil
	case rawjson.KindArray:
		return parts(v, types)
	}
	return nil, queue.Errorf(queue.Invalid, "a content is %.80s; it must be a text or a list of parts", v)
}

// decodedParts reads a list of parts out of a text.
func decodedParts(text string, types []string) (rawjson.Value, bool) {
	if len(text) == 0 || text[0] != '[' {
		return nil, false
	}
	v, err := rawjson.Parse([]byte(text))
	if err != nil || len(v) == len("[]") {
		return nil, false
	}
	v, err = parts(v, types)
	return v, err == nil
}

// parts brings a list of parts to chat's form, which drops what it does not know.
func parts(list rawjson.Value, types []string) (rawjson.Value, error) {
	dst := []byte{'['}
	for part := range list.Elements() {
		kind := part.Get("type").Text()
		f, known := partFields[kind]
		v := part.Get(f.name)
		if !known || !slices.Contains(types, kind) || v == nil {
			return nil, queue.Errorf(queue.Invalid, "a part of a content is %.80s; its type must be one of %s, and it must have its value", part, types)
		}
		dst = append(append(separate(dst), `{"`...), f.name...)
		dst = append(dst, '"', ':')
		switch {
		case f.inner == nil && v.Kind() == rawjson.KindString:
			dst = append(dst, v...)
		case f.inner != nil && v.Kind() == rawjson.KindObject:
			var ok bool
			if dst, ok = appendFields(dst, v, f.inner, f.needed); !ok {
				return nil, queue.Errorf(queue.Invalid, "a part of type %s lacks one of %s", kind, f.needed)
			}
		default:
			return nil, queue.Errorf(queue.Invalid, "a part of type %s has the value %.80s", kind, v)
		}
		dst = rawjson.AppendString(append(dst, `,"type":`...), kind)
		dst = append(dst, '}')
	}
	return append(dst, ']'), nil
}

// appendFields writes the named members of an object, in that order.
func appendFields(dst []byte, object rawjson.Value, names, needed []string) ([]byte, bool) {
	var out []byte
	for _, name := range names {
		v := object.Get(name)
		if v == nil && slices.Contains(needed, name) {
			return nil, false
		}
		if v != nil {
			out = rawjson.AppendMember(out, []byte(name), v)
		}
	}
	if out == nil {
		out = []byte{'{'}
	}
	return append(append(dst, out...), '}'), true
}
