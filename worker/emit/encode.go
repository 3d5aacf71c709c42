package emit

import (
	"cmp"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// encode writes a value as JSON text as json.Marshal does, save that a float is
// written as Python writes it: always as one (1.0, not 1), and maybe NaN or
// infinite. Attributes tell integers and floats apart. Errors have the kind Invalid.
func encode(x any) (rawjson.Value, error) {
	text, err := appendValue(nil, reflect.ValueOf(x), 0)
	if err == nil {
		text, _, err = rawjson.Compact(nil, text)
	}
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, fmt.Sprintf("writing a %T as JSON", x))
	}
	return text, nil
}

var (
	rawValue      = reflect.TypeFor[rawjson.Value]()
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func appendValue(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > rawjson.MaxDepth {
		return nil, rawjson.ErrTooDeep
	}
	if !v.IsValid() {
		return append(dst, "null"...), nil
	}
	switch t := v.Type(); {
	case t == rawValue && v.Len() > 0:
		return append(dst, v.Bytes()...), nil
	case v.Kind() == reflect.Pointer && v.IsNil():
		return append(dst, "null"...), nil
	case t.Implements(jsonMarshaler), t.Implements(textMarshaler):
		return appendMarshaled(dst, v)
	}
	switch v.Kind() {
	case reflect.Bool, reflect.String:
		return appendMarshaled(dst, v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return rawjson.AppendInt(dst, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Append(dst, v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return appendFloat(dst, v), nil
	case reflect.Pointer, reflect.Interface:
		return appendValue(dst, v.Elem(), depth+1)
	case reflect.Slice:
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return rawjson.AppendString(dst, base64.StdEncoding.EncodeToString(v.Bytes())), nil
		}
		return appendList(dst, v, depth)
	case reflect.Array:
		return appendList(dst, v, depth)
	case reflect.Map:
		return appendMap(dst, v, depth)
	case reflect.Struct:
		return appendStruct(dst, v, depth)
	}
	return nil, fmt.Errorf("a %s has no JSON form", v.Type())
}

func appendMarshaled(dst []byte, v reflect.Value) ([]byte, error) {
	text, err := json.Marshal(v.Interface())
	return append(dst, text...), err
}

func appendFloat(dst []byte, v reflect.Value) []byte {
	f := v.Float()
	if v.Kind() == reflect.Float32 && !math.IsInf(f, 0) && !math.IsNaN(f) {
		// The shortest text of a float32 is not that of the same float64.
		fmt.Sscan(fmt.Sprint(float32(f)), &f)
	}
	return semconv.AppendPythonFloat(dst, f)
}

func appendList(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	dst = append(dst, '[')
	for i := range v.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(dst, v.Index(i), depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendMap(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("a %s has keys that are no texts", v.Type())
	}
	if v.IsNil() {
		return append(dst, "null"...), nil
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	dst = append(dst, '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(rawjson.AppendString(dst, key.String()), ':')
		var err error
		if dst, err = appendValue(dst, v.MapIndex(key), depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// appendStruct writes the exported fields under their json names, those of embedded
// structs among them.
func appendStruct(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	dst = append(dst, '{')
	first := true
	for _, f := range reflect.VisibleFields(v.Type()) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || tag == "-" && options == "" || f.Anonymous && tag == "" && structured(f.Type) {
			continue
		}
		val, err := v.FieldByIndexErr(f.Index)
		if err != nil { // within an embedded pointer that is nil
			continue
		}
		if omitted(val, options) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(rawjson.AppendString(dst, cmp.Or(tag, f.Name)), ':')
		if dst, err = appendValue(dst, val, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func structured(t reflect.Type) bool {
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct
}

// omitted tells what omitempty and omitzero leave out.
func omitted(v reflect.Value, options string) bool {
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitzero":
			if v.IsZero() {
				return true
			}
		case "omitempty":
			switch v.Kind() {
			case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
				if v.Len() == 0 {
					return true
				}
			case reflect.Struct:
			default:
				if v.IsZero() {
					return true
				}
			}
		}
	}
	return false
}
