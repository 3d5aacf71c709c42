package benchmarks

import (
	"bytes"
	"fmt"
	"strconv"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Stand-ins for the ids of a rollout, of the length that stores give theirs.
const (
	standInRollout = "ro-ffffffffffff"
	standInAttempt = "at-ffffffff"
)

// spanStart is when every span of the driver begins, in nanoseconds.
const spanStart = 1_790_000_000_000_000_000

// template is a request body with places for a rollout's ids, so that a body
// is made by overwriting bytes.
type template struct {
	text               []byte
	rollouts, attempts []int
}

func newTemplate(text []byte) *template {
	return &template{
		text:     text,
		rollouts: places(text, standInRollout),
		attempts: places(text, standInAttempt),
	}
}

func places(text []byte, id string) (at []int) {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(id))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(id)
	}
}

// clone returns a template with bytes of its own, for another goroutine.
func (t *template) clone() *template {
	return &template{text: bytes.Clone(t.text), rollouts: t.rollouts, attempts: t.attempts}
}

// fill writes the ids into the template and returns its bytes, valid until the
// next fill.
func (t *template) fill(rollout, attempt string) []byte {
	for _, at := range t.rollouts {
		copy(t.text[at:], rollout)
	}
	for _, at := range t.attempts {
		copy(t.text[at:], attempt)
	}
	return t.text
}

// bodies are the requests of one rollout's life.
type bodies struct {
	spans  []*template // one a span as JSON, or one for all as OTLP
	finish []byte
	wait   *template
	query  *template
}

// newBodies renders the requests for rollouts of n spans with attrs attributes
// each.
func newBodies(n, attrs int, otlp bool) (*bodies, error) {
	b := &bodies{
		finish: []byte(`{"status":"succeeded"}`),
		wait:   newTemplate([]byte(`{"rollout_ids":["` + standInRollout + `"],"timeout":0.0}`)),
		query: newTemplate([]byte(`{"limit":-1,"offset":0,"filter_logic":"and","rollout_id":"` + standInRollout +
			`","attempt_id":"latest","sort_by":"sequence_id","sort_order":"asc"}`)),
	}
	if otlp {
		body, err := otlpBody(standInRollout, standInAttempt, 0, n, attrs)
		if err != nil {
			return nil, err
		}
		b.spans = []*template{newTemplate(body)}
		return b, nil
	}
	for i := range n {
		b.spans = append(b.spans, newTemplate(jsonSpan(i, attrs)))
	}
	return b, nil
}

func (b *bodies) clone() *bodies {
	c := &bodies{finish: b.finish, wait: b.wait.clone(), query: b.query.clone()}
	for _, s := range b.spans {
		c.spans = append(c.spans, s.clone())
	}
	return c
}

// enqueueBody is a request for n rollouts, numbered from first.
func enqueueBody(dst []byte, first, n int) []byte {
	dst = append(dst, `{"rollouts":[`...)
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"input":{"task":`...)
		dst = strconv.AppendInt(dst, int64(first+i), 10)
		dst = append(dst, `,"question":"What is the sum of the first hundred primes?","options":{"temperature":0.7,"tools":["search","python"]}},`...)
		dst = append(dst, `"mode":"train","resources_id":null,"config":null,"metadata":{"source":"benchmark"}}`...)
	}
	return append(dst, `]}`...)
}

func attributeKey(i int) string { return "gen_ai.request.attribute_" + strconv.Itoa(i) }

func attributeText(i int) string {
	return fmt.Sprintf("value %d: the model answered with a short text that says what it did next", i)
}

func spanName(i int) string { return "chat.completion." + strconv.Itoa(i) }

func spanID(i int) []byte {
	return []byte{0xb7, 0xad, 0x6b, byte(i >> 32), byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
}

var traceID = []byte{0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c}

// jsonSpan is the i-th span of a rollout as POST /v1/agl/spans takes it.
func jsonSpan(i, attrs int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"rollout_id":"%s","attempt_id":"%s","sequence_id":%d,"trace_id":"%x","span_id":"%x","parent_id":`,
		standInRollout, standInAttempt, i+1, traceID, spanID(i))
	if i == 0 {
		b.WriteString("null")
	} else {
		fmt.Fprintf(&b, `"%x"`, spanID(0))
	}
	fmt.Fprintf(&b, `,"name":"%s","status":{"status_code":"OK","description":null},"attributes":{`, spanName(i))
	for a := range attrs {
		if a > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%s":`, attributeKey(a))
		switch a % 4 {
		case 0:
			fmt.Fprintf(&b, `%d`, 1000+a)
		case 1:
			fmt.Fprintf(&b, `%d.5`, a)
		default:
			fmt.Fprintf(&b, `"%s"`, attributeText(a))
		}
	}
	fmt.Fprintf(&b, `},"events":[],"links":[],"start_time":%d.0,"end_time":%d.25,"context":{"trace_id":"%x","span_id":"%x","is_remote":false,"trace_state":{}},"parent":null,`,
		spanStart/1_000_000_000, spanStart/1_000_000_000, traceID, spanID(i))
	b.WriteString(`"resource":{"attributes":{"service.name":"benchmark"},"schema_url":""}}`)
	return b.Bytes()
}

// otlpBody is an OTLP export of n spans of one attempt, numbered from first.
// TracesData has the wire form of an export request without its gRPC imports.
func otlpBody(rollout, attempt string, first, n, attrs int) ([]byte, error) {
	spans := make([]*trace.Span, n)
	for i := range spans {
		spans[i] = otlpSpan(first+i, attrs)
	}
	body, err := proto.Marshal(&trace.TracesData{ResourceSpans: []*trace.ResourceSpans{{
		Resource: &resource.Resource{Attributes: []*common.KeyValue{
			text("service.name", "benchmark"),
			text("agentlightning.rollout_id", rollout),
			text("agentlightning.attempt_id", attempt),
		}},
		ScopeSpans: []*trace.ScopeSpans{{Scope: &common.InstrumentationScope{Name: "benchmark"}, Spans: spans}},
	}}})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the spans: %w", err)
	}
	return body, nil
}

func otlpSpan(i, attrs int) *trace.Span {
	s := &trace.Span{
		TraceId: traceID, SpanId: spanID(i), Name: spanName(i), Kind: trace.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: spanStart, EndTimeUnixNano: spanStart + 250_000_000,
		Status: &trace.Status{Code: trace.Status_STATUS_CODE_OK},
	}
	if i > 0 {
		s.ParentSpanId = spanID(0)
	}
	for a := range attrs {
		kv := text(attributeKey(a), attributeText(a))
		switch a % 4 {
		case 0:
			kv.Value = &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(1000 + a)}}
		case 1:
			kv.Value = &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: float64(a) + 0.5}}
		}
		s.Attributes = append(s.Attributes, kv)
	}
	return s
}

func text(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}
