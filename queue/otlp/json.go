package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// DecodeJSON reads an ExportTraceServiceRequest in OTLP/JSON: ids in hex, 64-bit
// integers as text or numbers, enumerations as numbers or names, members in
// camel or snake case. Errors have the kind queue.Invalid.
func DecodeJSON(body []byte) (Batch, error) {
	request, _, err := rawjson.Compact(make([]byte, 0, len(body)), body)
	if err == nil && request.Kind() != rawjson.KindObject {
		err = fmt.Errorf("the request is no JSON object")
	}
	if err != nil {
		return Batch{}, queue.Wrap(queue.Invalid, err, "decoding an OTLP trace request")
	}
	wire, err := requestShape.append(nil, request, 0)
	if err != nil {
		return Batch{}, queue.Wrap(queue.Invalid, err, "decoding an OTLP trace request")
	}
	return Decode(wire)
}

// shape tells how a JSON object is written as a protobuf message.
type shape map[string]member

// member is one field of a shape: a list of messages, one message, or a scalar
// that write appends.
type member struct {
	id    protowire.Number
	list  bool
	shape func() shape // nil for scalars
	write func(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error)
}

func text(id protowire.Number) member  { return member{id: id, write: writeText} }
func hexID(id protowire.Number) member { return member{id: id, write: writeHex} }
func nanos(id protowire.Number) member { return member{id: id, write: writeFixed64} }
func messages(id protowire.Number, s *shape) member {
	return member{id: id, list: true, shape: func() shape { return *s }}
}
func message(id protowire.Number, s *shape) member {
	return member{id: id, shape: func() shape { return *s }}
}

// The shapes hold what Decode reads; other members are ignored, as unknown
// fields are.
var requestShape, resourceSpansShape, resourceShape, scopeSpansShape, spanShape, eventShape, linkShape,
	statusShape, pairShape, valueShape, arrayShape, kvlistShape shape

func init() {
	requestShape = shape{"resourceSpans": messages(1, &resourceSpansShape)}
	resourceSpansShape = shape{
		"resource": message(1, &resourceShape), "scopeSpans": messages(2, &scopeSpansShape), "schemaUrl": text(3),
	}
	resourceShape = shape{"attributes": messages(1, &pairShape)}
	scopeSpansShape = shape{"spans": messages(2, &spanShape)}
	spanShape = shape{
		"traceId": hexID(1), "spanId": hexID(2), "parentSpanId": hexID(4), "name": text(5),
		"startTimeUnixNano": nanos(7), "endTimeUnixNano": nanos(8), "attributes": messages(9, &pairShape),
		"events": messages(11, &eventShape), "links": messages(13, &linkShape), "status": message(15, &statusShape),
	}
	eventShape = shape{"timeUnixNano": nanos(1), "name": text(2), "attributes": messages(3, &pairShape)}
	linkShape = shape{"traceId": hexID(1), "spanId": hexID(2), "attributes": messages(4, &pairShape)}
	statusShape = shape{"message": text(2), "code": {id: 3, write: writeStatusCode}}
	pairShape = shape{"key": text(1), "value": message(2, &valueShape)}
	valueShape = shape{
		"stringValue": text(stringValue), "boolValue": {id: boolValue, write: writeBool},
		"intValue": {id: intValue, write: writeInt}, "doubleValue": {id: doubleValue, write: writeDouble},
		"arrayValue": message(arrayValue, &arrayShape), "kvlistValue": message(kvlistValue, &kvlistShape),
		"bytesValue": {id: bytesValue, write: writeBase64},
	}
	arrayShape = shape{"values": messages(1, &valueShape)}
	kvlistShape = shape{"values": messages(1, &pairShape)}
}

// append appends the message that object stands for.
func (s shape) append(dst []byte, object rawjson.Value, depth int) ([]byte, error) {
	if object.Kind() != rawjson.KindObject {
		return dst, fmt.Errorf("expected an object, got %.40s", object)
	}
	if depth > 4*MaxDepth {
		return dst, errDepth
	}
	for key, v := range object.Members() {
		m, ok := s[camel(rawjson.Unescape(key))]
		if !ok || v.IsNull() {
			continue
		}
		var err error
		if dst, err = m.append(dst, v, depth); err != nil {
			return dst, fmt.Errorf("%s: %w", key, err)
		}
	}
	return dst, nil
}

func (m member) append(dst []byte, v rawjson.Value, depth int) ([]byte, error) {
	if m.shape == nil {
		return m.write(dst, m.id, v)
	}
	var err error
	one := func(v rawjson.Value) {
		dst = appendMessage(dst, m.id, func(dst []byte) []byte {
			var e error
			if dst, e = m.shape().append(dst, v, depth+1); e != nil && err == nil {
				err = e
			}
			return dst
		})
	}
	if !m.list {
		one(v)
		return dst, err
	}
	if v.Kind() != rawjson.KindArray {
		return dst, fmt.Errorf("expected an array, got %.40s", v)
	}
	for e := range v.Elements() {
		if one(e); err != nil {
			break
		}
	}
	return dst, err
}

// camel turns trace_id into traceId.
func camel(name string) string {
	if strings.IndexByte(name, '_') < 0 {
		return name
	}
	out := make([]byte, 0, len(name))
	upper := false
	for _, c := range []byte(name) {
		switch {
		case c == '_':
			upper = true
			continue
		case upper && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		}
		upper = false
		out = append(out, c)
	}
	return string(out)
}

func writeText(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	if v.Kind() != rawjson.KindString {
		return dst, fmt.Errorf("expected a string, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.BytesType)
	return protowire.AppendString(dst, v.Text()), nil
}

func writeHex(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	b, err := hex.DecodeString(v.Text())
	if err != nil || v.Kind() != rawjson.KindString {
		return dst, fmt.Errorf("expected hex digits, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.BytesType)
	return protowire.AppendBytes(dst, b), nil
}

func writeBase64(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	text := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(v.Text()), "=")
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || v.Kind() != rawjson.KindString {
		return dst, fmt.Errorf("expected base64, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.BytesType)
	return protowire.AppendBytes(dst, b), nil
}

// digits is a number, or the text of one.
func digits(v rawjson.Value) string {
	if v.Kind() == rawjson.KindString {
		return v.Text()
	}
	return string(v)
}

func writeInt(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	n, err := strconv.ParseInt(digits(v), 10, 64)
	if err != nil {
		return dst, fmt.Errorf("expected a 64-bit integer, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.VarintType)
	return protowire.AppendVarint(dst, uint64(n)), nil
}

func writeFixed64(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	n, err := strconv.ParseUint(digits(v), 10, 64)
	if err != nil {
		return dst, fmt.Errorf("expected a time in nanoseconds, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.Fixed64Type)
	return protowire.AppendFixed64(dst, n), nil
}

func writeDouble(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	f, err := strconv.ParseFloat(digits(v), 64)
	if err != nil && !math.IsInf(f, 0) {
		return dst, fmt.Errorf("expected a number, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.Fixed64Type)
	return protowire.AppendFixed64(dst, math.Float64bits(f)), nil
}

func writeBool(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	if v.Kind() != rawjson.KindBool {
		return dst, fmt.Errorf("expected true or false, got %.40s", v)
	}
	dst = protowire.AppendTag(dst, id, protowire.VarintType)
	return protowire.AppendVarint(dst, protowire.EncodeBool(v.Bool())), nil
}

func writeStatusCode(dst []byte, id protowire.Number, v rawjson.Value) ([]byte, error) {
	for n, name := range statusCodes {
		if v.Text() == "STATUS_CODE_"+name {
			return writeInt(dst, id, rawjson.AppendInt(nil, int64(n)))
		}
	}
	return writeInt(dst, id, v)
}
