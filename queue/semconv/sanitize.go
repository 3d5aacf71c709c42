package semconv

import (
	"math"
	"strconv"
	"unicode/utf16"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Sanitize makes each value of a flat object one that a span attribute may have:
// scalars stay, so do lists of one type; a list of numbers and booleans becomes
// one of integers or of floats; null and all else becomes its JSON text.
func Sanitize(flat rawjson.Value) rawjson.Value {
	var dst []byte
	for key, val := range flat.Members() {
		dst = rawjson.AppendMember(dst, key, sanitized(val))
	}
	if dst == nil {
		return rawjson.EmptyObject
	}
	return rawjson.ReplaceNonFinite(nil, append(dst, '}'), true)
}

// Check reports an Invalid error when a value of a flat object is none that a
// span attribute may have: null, an object, or a list of several types.
func Check(flat rawjson.Value) error {
	for key, val := range flat.Members() {
		if scalarKind(val) != rawjson.Invalid {
			continue
		}
		if val.Kind() == rawjson.KindArray && listOf(val) != rawjson.Invalid {
			continue
		}
		return queue.Errorf(queue.Invalid, "attribute %q is %.80s; it must be a text, a number, a boolean or a list of one of these",
			rawjson.Unescape(key), val)
	}
	return nil
}

func sanitized(v rawjson.Value) rawjson.Value {
	if scalarKind(v) != rawjson.Invalid {
		return v
	}
	if v.Kind() == rawjson.KindArray {
		switch listOf(v) {
		case rawjson.KindString, rawjson.KindBool:
			return v
		case rawjson.KindInteger:
			return numbers(v, false)
		case rawjson.KindFloat:
			return numbers(v, true)
		}
	}
	return rawjson.AppendText(nil, AppendPythonJSON(nil, v))
}

// listOf is the type that all elements of a list can be given without losing
// anything, KindString of an empty one, Invalid when there is none.
func listOf(list rawjson.Value) rawjson.Kind {
	seen := map[rawjson.Kind]bool{}
	for item := range list.Elements() {
		seen[scalarKind(item)] = true
	}
	switch {
	case seen[rawjson.Invalid], seen[rawjson.KindString] && len(seen) > 1:
		return rawjson.Invalid
	case seen[rawjson.KindFloat]:
		return rawjson.KindFloat
	case seen[rawjson.KindInteger]:
		return rawjson.KindInteger
	case seen[rawjson.KindBool]:
		return rawjson.KindBool
	}
	return rawjson.KindString
}

// numbers writes a list of numbers and booleans as one of integers or floats.
func numbers(list rawjson.Value, floats bool) rawjson.Value {
	dst := []byte{'['}
	for item := range list.Elements() {
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		switch kind := item.Kind(); {
		case kind == rawjson.KindBool:
			n := int64(0)
			if item.Bool() {
				n = 1
			}
			dst = rawjson.AppendInt(dst, n)
			if floats {
				dst = append(dst, ".0"...)
			}
		case kind == rawjson.KindInteger && floats:
			f, _ := item.Float()
			dst = rawjson.AppendFloat(dst, f)
		default:
			dst = append(dst, item...)
		}
	}
	return append(dst, ']')
}

// AppendPythonJSON appends v as Python's json.dumps writes it by default: a
// space after commas and colons, and nothing but ASCII.
func AppendPythonJSON(dst []byte, v rawjson.Value) []byte {
	switch v.Kind() {
	case rawjson.KindObject:
		dst = append(dst, '{')
		first := true
		for key, val := range v.Members() {
			if !first {
				dst = append(dst, ", "...)
			}
			first = false
			dst = appendASCII(dst, rawjson.Unescape(key))
			dst = append(dst, ": "...)
			dst = AppendPythonJSON(dst, val)
		}
		return append(dst, '}')
	case rawjson.KindArray:
		dst = append(dst, '[')
		first := true
		for item := range v.Elements() {
			if !first {
				dst = append(dst, ", "...)
			}
			first = false
			dst = AppendPythonJSON(dst, item)
		}
		return append(dst, ']')
	case rawjson.KindString:
		return appendASCII(dst, v.Text())
	case rawjson.KindFloat:
		f, _ := v.Float()
		return AppendPythonFloat(dst, f)
	}
	return append(dst, v...)
}

// AppendPythonFloat appends f as Python's repr writes it; what is no finite
// number is NaN, Infinity or -Infinity, as in JSON text.
func AppendPythonFloat(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	return rawjson.AppendFloat(dst, f)
}

const hexDigits = "0123456789abcdef"

// appendASCII appends a JSON string in which all beyond ASCII is escaped.
func appendASCII(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"', r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\r':
			dst = append(dst, '\\', 'r')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case r == '\b':
			dst = append(dst, '\\', 'b')
		case r == '\f':
			dst = append(dst, '\\', 'f')
		case r >= ' ' && r <= '~':
			dst = append(dst, byte(r))
		case r < 0x10000:
			dst = appendUnit(dst, uint16(r))
		default:
			high, low := utf16.EncodeRune(r)
			dst = appendUnit(appendUnit(dst, uint16(high)), uint16(low))
		}
	}
	return append(dst, '"')
}

func appendUnit(dst []byte, u uint16) []byte {
	return append(dst, '\\', 'u', hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}
