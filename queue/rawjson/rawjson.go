// Package rawjson keeps JSON that callers own as text, so that it leaves the
// store as it came in: key order, 1 beside 1.0, integers of any size, dotted,
// empty and "$" keys.
//
// [Compact] is the only door in: it checks foreign text once and brings it to
// one canonical form (no white space, each key once, strings escaped no more
// than JSON demands). Everything else in the package trusts that form and
// never fails on it. Python's json writer emits the bare tokens NaN, Infinity
// and -Infinity; Compact accepts them and reports them, and [ReplaceNonFinite]
// turns them into JSON before they are stored or sent.
package rawjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strconv"
	"unicode/utf8"
)

// Value is one JSON value in canonical form. A nil Value means "absent";
// JSON null is the four-byte Value [Null]. Values are immutable: many holders
// share one backing array.
type Value []byte

// Values that need no parsing.
var (
	Null        = Value("null")
	EmptyObject = Value("{}")
	EmptyArray  = Value("[]")
)

// Kind is the JSON type of a Value.
type Kind byte

// The kinds. Integer and Float are told apart by the text: a number with a
// point or an exponent is a Float. NonFinite is one of Python's three tokens.
const (
	Invalid Kind = iota
	KindNull
	KindBool
	KindInteger
	KindFloat
	KindNonFinite
	KindString
	KindArray
	KindObject
)

// Kind tells the type of v; Invalid when v is absent.
func (v Value) Kind() Kind {
	if len(v) == 0 {
		return Invalid
	}
	switch v[0] {
	case 'n':
		return KindNull
	case 't', 'f':
		return KindBool
	case '"':
		return KindString
	case '[':
		return KindArray
	case '{':
		return KindObject
	case 'N', 'I':
		return KindNonFinite
	}
	if len(v) > 1 && v[1] == 'I' {
		return KindNonFinite
	}
	for _, c := range v {
		if c == '.' || c == 'e' || c == 'E' {
			return KindFloat
		}
	}
	return KindInteger
}

// IsNull reports whether v is absent or null.
func (v Value) IsNull() bool { return len(v) == 0 || v[0] == 'n' }

// Bool reports whether v is the literal true.
func (v Value) Bool() bool { return len(v) > 0 && v[0] == 't' }

// Text decodes a string Value; other kinds give "".
func (v Value) Text() string {
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	return Unescape(v[1 : len(v)-1])
}

// Float gives a number or non-finite token as float64; ok is false for other
// kinds.
func (v Value) Float() (f float64, ok bool) {
	switch v.Kind() {
	case KindInteger, KindFloat:
		// A number too large for float64 gives ±Inf, as Python's float() does.
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil || math.IsInf(f, 0)
	case KindNonFinite:
		switch v[0] {
		case 'N':
			return math.NaN(), true
		case 'I':
			return math.Inf(1), true
		}
		return math.Inf(-1), true
	}
	return 0, false
}

// Int gives an integer Value that fits int64.
func (v Value) Int() (n int64, ok bool) {
	if v.Kind() != KindInteger {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil
}

// Any gives a Value as languages of expressions and templates know it: nil, bool, int,
// float64, string, []any or map[string]any. An integer too large for int is a float64.
func (v Value) Any() any {
	switch v.Kind() {
	case KindBool:
		return v.Bool()
	case KindInteger, KindFloat, KindNonFinite:
		if n, ok := v.Int(); ok {
			return int(n)
		}
		f, _ := v.Float()
		return f
	case KindString:
		return v.Text()
	case KindArray:
		list := []any{}
		for item := range v.Elements() {
			list = append(list, item.Any())
		}
		return list
	case KindObject:
		object := map[string]any{}
		for key, item := range v.Members() {
			object[Unescape(key)] = item.Any()
		}
		return object
	}
	return nil
}

// TextOrNil is Text of a string, nil of anything else.
func (v Value) TextOrNil() *string {
	if v.Kind() != KindString {
		return nil
	}
	s := v.Text()
	return &s
}

// FloatOrNil is Float of what has one, nil of anything else.
func (v Value) FloatOrNil() *float64 {
	f, ok := v.Float()
	if !ok {
		return nil
	}
	return &f
}

// Members walks an object in order. The key is the canonical text between the
// quotes, so plain names compare directly; [Unescape] decodes it. Other kinds
// yield nothing.
func (v Value) Members() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		if len(v) < 2 || v[0] != '{' {
			return
		}
		for i := 1; v[i] != '}'; {
			if v[i] == ',' {
				i++
			}
			end := i + skip(v[i:])
			key := v[i+1 : end-1]
			i = end + 1
			end = i + skip(v[i:])
			if !yield(key, v[i:end:end]) {
				return
			}
			i = end
		}
	}
}

// Elements walks an array in order. Other kinds yield nothing.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if len(v) < 2 || v[0] != '[' {
			return
		}
		for i := 1; v[i] != ']'; {
			if v[i] == ',' {
				i++
			}
			end := i + skip(v[i:])
			if !yield(v[i:end:end]) {
				return
			}
			i = end
		}
	}
}

// Get returns the member named name, nil when v has none or is no object.
func (v Value) Get(name string) Value {
	for key, val := range v.Members() {
		if string(key) == name {
			return val
		}
		if bytes.IndexByte(key, '\\') >= 0 && Unescape(key) == name {
			return val
		}
	}
	return nil
}

// AppendMember appends a member to an object that is still open; a nil dst
// begins one. Key is escaped text, as [Value.Members] gives it.
func AppendMember(dst, key []byte, v Value) []byte {
	if dst == nil {
		dst = append(dst, '{')
	} else {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, key...)
	dst = append(dst, '"', ':')
	return append(dst, v...)
}

// Clone copies v into memory of its own.
func (v Value) Clone() Value { return bytes.Clone(v) }

// MarshalJSON implements json.Marshaler; an absent Value is null.
func (v Value) MarshalJSON() ([]byte, error) {
	if len(v) == 0 {
		return Null, nil
	}
	return v, nil
}

// UnmarshalJSON implements json.Unmarshaler, keeping the text.
func (v *Value) UnmarshalJSON(text []byte) error {
	out, err := Parse(text)
	if err != nil {
		return err
	}
	*v = out
	return nil
}

// String implements fmt.Stringer with the JSON text.
func (v Value) String() string { return string(v) }

// Parse checks text and returns its canonical form in new memory, non-finite
// numbers replaced by null.
func Parse(text []byte) (Value, error) {
	out, nonFinite, err := Compact(make([]byte, 0, len(text)), text)
	if err != nil {
		return nil, err
	}
	if nonFinite {
		return ReplaceNonFinite(nil, out, false), nil
	}
	return out, nil
}

// Marshal is json.Marshal into a Value.
func Marshal(x any) (Value, error) {
	text, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("encoding %T as JSON: %w", x, err)
	}
	return Parse(text)
}

// skip returns the length of the canonical value that v begins with.
func skip(v []byte) int {
	switch v[0] {
	case '"':
		return skipString(v)
	case '{', '[':
		depth := 0
		for i := 0; ; {
			switch v[i] {
			case '"':
				i += skipString(v[i:])
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
	}
	for i, c := range v {
		if c == ',' || c == '}' || c == ']' || c == ':' {
			return i
		}
	}
	return len(v)
}

func skipString(v []byte) int {
	for i := 1; ; {
		i += bytes.IndexByte(v[i:], '"')
		n := 0
		for v[i-1-n] == '\\' {
			n++
		}
		i++
		if n%2 == 0 {
			return i
		}
	}
}

// Unescape decodes the text between the quotes of a canonical JSON string.
func Unescape(key []byte) string {
	at := bytes.IndexByte(key, '\\')
	if at < 0 {
		return string(key)
	}
	out := append(make([]byte, 0, len(key)), key[:at]...)
	for i := at; i < len(key); i++ {
		if key[i] != '\\' {
			out = append(out, key[i])
			continue
		}
		i++
		switch key[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			n, _ := strconv.ParseUint(string(key[i+1:i+5]), 16, 16)
			out = utf8.AppendRune(out, rune(n))
			i += 4
		default:
			out = append(out, key[i])
		}
	}
	return string(out)
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a canonical JSON string; bytes that are not UTF-8
// become U+FFFD.
func AppendString(dst []byte, s string) []byte { return appendText(dst, s) }

// AppendText is AppendString for text in bytes.
func AppendText(dst, text []byte) []byte { return appendText(dst, text) }

func appendText[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			var char [utf8.UTFMax]byte
			if r, n := utf8.DecodeRune(char[:copy(char[:], s[i:])]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
		} else {
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, c)
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// AppendFloat appends f with the fewest digits that read back as f, always
// recognisable as a float (5 is written 5.0). A non-finite f is null.
func AppendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	abs := math.Abs(f)
	if abs != 0 && (abs < 1e-5 || abs >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	n := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if bytes.IndexByte(dst[n:], '.') < 0 {
		dst = append(dst, '.', '0')
	}
	return dst
}

// AppendInt appends n.
func AppendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// ReplaceNonFinite appends v with each NaN and infinity replaced: by null, or,
// with asStrings, by the strings "NaN", "Infinity" and "-Infinity", which stay
// valid span attribute values.
func ReplaceNonFinite(dst []byte, v Value, asStrings bool) Value {
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == '"':
			n := skipString(v[i:])
			dst = append(dst, v[i:i+n]...)
			i += n
		case c == 'N' || c == 'I' || (c == '-' && i+1 < len(v) && v[i+1] == 'I'):
			n := skip(v[i:])
			if asStrings {
				dst = append(dst, '"')
				dst = append(dst, v[i:i+n]...)
				dst = append(dst, '"')
			} else {
				dst = append(dst, "null"...)
			}
			i += n
		default:
			dst = append(dst, c)
			i++
		}
	}
	return dst
}
