package otlp

import (
	"encoding/hex"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Append appends an ExportTraceServiceRequest with the spans, those in a row
// that share a resource in one group. Each span gets the three filing attributes
// where its own do not say the same. OTLP has no room for a span's Extra and
// Parent, nor for ids that are not hex: those are left out. Times keep every
// digit a float64 has.
func Append(dst []byte, spans []queue.Span) []byte {
	for len(spans) > 0 {
		n := 1
		for n < len(spans) && string(spans[n].Resource) == string(spans[0].Resource) {
			n++
		}
		dst = appendGroup(dst, spans[:n])
		spans = spans[n:]
	}
	return dst
}

func appendGroup(dst []byte, spans []queue.Span) []byte {
	return appendMessage(dst, 1, func(dst []byte) []byte {
		resource := spans[0].Resource
		dst = appendMessage(dst, 1, func(dst []byte) []byte {
			return appendAttributes(dst, 1, resource.Get("attributes"))
		})
		dst = appendMessage(dst, 2, func(dst []byte) []byte {
			for i := range spans {
				dst = appendMessage(dst, 2, func(dst []byte) []byte { return appendSpan(dst, &spans[i]) })
			}
			return dst
		})
		return appendText(dst, 3, resource.Get("schema_url").Text())
	})
}

func appendSpan(dst []byte, s *queue.Span) []byte {
	dst = appendID(dst, 1, s.TraceID)
	dst = appendID(dst, 2, s.SpanID)
	if s.ParentID != nil {
		dst = appendID(dst, 4, *s.ParentID)
	}
	dst = appendText(dst, 5, s.Name)
	dst = appendTime(dst, 7, s.StartTime)
	dst = appendTime(dst, 8, s.EndTime)
	dst = appendAttributes(dst, 9, s.Attributes)
	dst = appendFiling(dst, s)
	for e := range s.Events.Elements() {
		dst = appendMessage(dst, 11, func(dst []byte) []byte {
			if t, ok := e.Get("timestamp").Float(); ok {
				dst = appendTime(dst, 1, &t)
			}
			dst = appendText(dst, 2, e.Get("name").Text())
			return appendAttributes(dst, 3, e.Get("attributes"))
		})
	}
	for l := range s.Links.Elements() {
		dst = appendMessage(dst, 13, func(dst []byte) []byte {
			context := l.Get("context")
			dst = appendID(dst, 1, context.Get("trace_id").Text())
			dst = appendID(dst, 2, context.Get("span_id").Text())
			return appendAttributes(dst, 4, l.Get("attributes"))
		})
	}
	return appendMessage(dst, 15, func(dst []byte) []byte {
		dst = appendText(dst, 2, s.Status.Get("description").Text())
		code := s.StatusCode()
		for n := range statusCodes {
			if n > 0 && statusCodes[n] == code {
				dst = protowire.AppendTag(dst, 3, protowire.VarintType)
				dst = protowire.AppendVarint(dst, uint64(n))
			}
		}
		return dst
	})
}

// appendFiling appends the filing attributes; a later one wins over an earlier.
func appendFiling(dst []byte, s *queue.Span) []byte {
	if s.Attribute(RolloutIDKey).Text() != s.RolloutID {
		dst = appendPair(dst, 9, RolloutIDKey, rawjson.AppendString(nil, s.RolloutID))
	}
	if s.Attribute(AttemptIDKey).Text() != s.AttemptID {
		dst = appendPair(dst, 9, AttemptIDKey, rawjson.AppendString(nil, s.AttemptID))
	}
	if n, ok := s.Attribute(SequenceIDKey).Int(); s.SequenceID != queue.NumberOnArrival && (!ok || n != s.SequenceID) {
		dst = appendPair(dst, 9, SequenceIDKey, rawjson.AppendInt(nil, s.SequenceID))
	}
	return dst
}

func appendAttributes(dst []byte, id protowire.Number, attributes rawjson.Value) []byte {
	for key, v := range attributes.Members() {
		dst = appendPair(dst, id, rawjson.Unescape(key), v)
	}
	return dst
}

func appendPair(dst []byte, id protowire.Number, key string, v rawjson.Value) []byte {
	return appendMessage(dst, id, func(dst []byte) []byte {
		dst = protowire.AppendTag(dst, 1, protowire.BytesType)
		dst = protowire.AppendString(dst, key)
		return appendMessage(dst, 2, func(dst []byte) []byte { return appendValue(dst, v) })
	})
}

// appendValue appends the contents of an AnyValue; those of null are empty.
func appendValue(dst []byte, v rawjson.Value) []byte {
	switch v.Kind() {
	case rawjson.KindString:
		dst = protowire.AppendTag(dst, stringValue, protowire.BytesType)
		return protowire.AppendString(dst, v.Text())
	case rawjson.KindBool:
		dst = protowire.AppendTag(dst, boolValue, protowire.VarintType)
		return protowire.AppendVarint(dst, protowire.EncodeBool(v.Bool()))
	case rawjson.KindInteger, rawjson.KindFloat, rawjson.KindNonFinite:
		if n, ok := v.Int(); ok {
			dst = protowire.AppendTag(dst, intValue, protowire.VarintType)
			return protowire.AppendVarint(dst, uint64(n))
		}
		f, _ := v.Float()
		dst = protowire.AppendTag(dst, doubleValue, protowire.Fixed64Type)
		return protowire.AppendFixed64(dst, math.Float64bits(f))
	case rawjson.KindArray:
		return appendMessage(dst, arrayValue, func(dst []byte) []byte {
			for e := range v.Elements() {
				dst = appendMessage(dst, 1, func(dst []byte) []byte { return appendValue(dst, e) })
			}
			return dst
		})
	case rawjson.KindObject:
		return appendMessage(dst, kvlistValue, func(dst []byte) []byte { return appendAttributes(dst, 1, v) })
	}
	return dst
}

// appendMessage appends a message field; its length is put in front afterwards.
func appendMessage(dst []byte, id protowire.Number, body func([]byte) []byte) []byte {
	dst = protowire.AppendTag(dst, id, protowire.BytesType)
	start := len(dst)
	dst = body(dst)
	n := len(dst) - start
	size := protowire.SizeVarint(uint64(n))
	for range size {
		dst = append(dst, 0)
	}
	copy(dst[start+size:], dst[start:start+n])
	protowire.AppendVarint(dst[start:start:start+size], uint64(n))
	return dst
}

func appendText(dst []byte, id protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	dst = protowire.AppendTag(dst, id, protowire.BytesType)
	return protowire.AppendString(dst, s)
}

func appendID(dst []byte, id protowire.Number, text string) []byte {
	if len(text)%2 == 1 {
		text = "0" + text
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, id, protowire.BytesType)
	return protowire.AppendBytes(dst, b)
}

// appendTime appends seconds as nanoseconds. Times within the first thousand
// seconds of 1970 lose their fraction: the receiver takes small counts for
// seconds.
func appendTime(dst []byte, id protowire.Number, t *float64) []byte {
	if t == nil || !(*t > 0) || *t >= math.MaxUint64/1e9 {
		return dst
	}
	whole, fraction := math.Modf(*t)
	ns := uint64(whole)*1e9 + uint64(math.Round(fraction*1e9))
	if ns <= 1e12 {
		ns = uint64(math.Round(*t))
	}
	dst = protowire.AppendTag(dst, id, protowire.Fixed64Type)
	return protowire.AppendFixed64(dst, ns)
}
