package llmproxy

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/aglq/aglq/queue/rawjson"
)

// object writes a JSON object. The zero object is empty.
type object struct{ buf []byte }

// raw adds a member; an absent value adds nothing.
func (o *object) raw(key string, v rawjson.Value) {
	if len(v) == 0 {
		return
	}
	o.key(key)
	o.buf = append(o.buf, v...)
}

func (o *object) text(key, val string) {
	o.key(key)
	o.buf = rawjson.AppendString(o.buf, val)
}

func (o *object) int(key string, n int64) {
	o.key(key)
	o.buf = rawjson.AppendInt(o.buf, n)
}

func (o *object) float(key string, f float64) {
	o.key(key)
	o.buf = rawjson.AppendFloat(o.buf, f)
}

func (o *object) key(key string) {
	if o.buf == nil {
		o.buf = append(o.buf, '{')
	} else {
		o.buf = append(o.buf, ',')
	}
	o.buf = rawjson.AppendString(o.buf, key)
	o.buf = append(o.buf, ':')
}

func (o *object) close() rawjson.Value {
	if o.buf == nil {
		return rawjson.EmptyObject
	}
	return append(o.buf, '}')
}

// array writes a JSON array. The zero array is empty.
type array struct{ buf []byte }

func (a *array) add(v rawjson.Value) {
	if a.buf == nil {
		a.buf = append(a.buf, '[')
	} else {
		a.buf = append(a.buf, ',')
	}
	a.buf = append(a.buf, v...)
}

// extend adds the elements of another array; anything else adds nothing.
func (a *array) extend(v rawjson.Value) {
	if v.Kind() != rawjson.KindArray || len(v) <= len("[]") {
		return
	}
	a.add(v[1 : len(v)-1])
}

func (a *array) empty() bool { return a.buf == nil }

// list is what the array holds so far, an empty array too; more may be added.
func (a *array) list() rawjson.Value {
	if a.buf == nil {
		return rawjson.EmptyArray
	}
	return append(a.buf[:len(a.buf):len(a.buf)], ']')
}

// close gives nil for an array that nothing was added to.
func (a *array) close() rawjson.Value {
	if a.buf == nil {
		return nil
	}
	return append(a.buf, ']')
}

// quote is s as JSON.
func quote(s string) rawjson.Value { return rawjson.AppendString(nil, s) }

// merge is base with the members of over in place of its own or behind them.
func merge(base, over rawjson.Value) rawjson.Value {
	if len(over) <= len("{}") {
		return base
	}
	out := make([]byte, 0, len(base)+len(over))
	out = append(out, '{')
	for key, val := range base.Members() {
		if over.Get(rawjson.Unescape(key)) != nil {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, key...)
		out = append(out, '"', ':')
		out = append(out, val...)
	}
	if len(out) > 1 {
		out = append(out, ',')
	}
	return append(out, over[1:]...)
}

// without is v less some members.
func without(v rawjson.Value, names ...string) rawjson.Value {
	var o object
	for key, val := range v.Members() {
		if name := rawjson.Unescape(key); !slices.Contains(names, name) {
			o.raw(name, val)
		}
	}
	return o.close()
}

// parseForeign parses what an upstream sent. Bytes that are no UTF-8, as halves of
// a character that a tokenizer has cut, become U+FFFD.
func parseForeign(text []byte) (rawjson.Value, error) {
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	}
	return rawjson.Parse(text)
}

// present is v, absent when null.
func present(v rawjson.Value) rawjson.Value {
	if v.IsNull() {
		return nil
	}
	return v
}

// first is the first element of an array, absent without one.
func first(v rawjson.Value) rawjson.Value {
	for e := range v.Elements() {
		return e
	}
	return nil
}

// count is the number of elements of an array.
func count(v rawjson.Value) (n int) {
	for range v.Elements() {
		n++
	}
	return n
}

// pythonLiteral is v as Python would write it, which differs from JSON in three
// words. Text stays as it is: readers of spans take a string for itself.
func pythonLiteral(v rawjson.Value) string {
	if v.Kind() == rawjson.KindString {
		return v.Text()
	}
	out := make([]byte, 0, len(v)+len(v)/16)
	quoted := false
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case quoted && c == '\\':
			out = append(out, c, v[i+1])
			i++
			continue
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == 't':
			out = append(out, "True"...)
			i += len("true") - 1
			continue
		case c == 'f':
			out = append(out, "False"...)
			i += len("false") - 1
			continue
		case c == 'n':
			out = append(out, "None"...)
			i += len("null") - 1
			continue
		}
		out = append(out, c)
	}
	return string(out)
}
