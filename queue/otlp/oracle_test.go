package otlp

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func value(x any) *common.AnyValue {
	switch x := x.(type) {
	case string:
		return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: x}}
	case bool:
		return &common.AnyValue{Value: &common.AnyValue_BoolValue{BoolValue: x}}
	case int:
		return &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(x)}}
	case float64:
		return &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: x}}
	case []byte:
		return &common.AnyValue{Value: &common.AnyValue_BytesValue{BytesValue: x}}
	case []any:
		list := &common.ArrayValue{}
		for _, e := range x {
			list.Values = append(list.Values, value(e))
		}
		return &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: list}}
	case []*common.KeyValue:
		return &common.AnyValue{Value: &common.AnyValue_KvlistValue{KvlistValue: &common.KeyValueList{Values: x}}}
	}
	return &common.AnyValue{}
}

func kv(pairs ...any) (out []*common.KeyValue) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, &common.KeyValue{Key: pairs[i].(string), Value: value(pairs[i+1])})
	}
	return out
}

// request is one span, filed by its resource.
func request(attributes []*common.KeyValue) *trace.TracesData {
	return &trace.TracesData{ResourceSpans: []*trace.ResourceSpans{{
		Resource:  &resource.Resource{Attributes: kv(RolloutIDKey, "ro-1", AttemptIDKey, "at-1", "service.name", "svc")},
		SchemaUrl: "https://schema",
		ScopeSpans: []*trace.ScopeSpans{{
			Scope: &common.InstrumentationScope{Name: "lib", Version: "1"},
			Spans: []*trace.Span{{
				TraceId: []byte{1, 2}, SpanId: []byte{3}, ParentSpanId: []byte{4}, Name: "näme", Attributes: attributes,
				StartTimeUnixNano: 1700000000123456789, EndTimeUnixNano: 5, Kind: trace.Span_SPAN_KIND_CLIENT,
				Status: &trace.Status{Code: trace.Status_STATUS_CODE_ERROR, Message: "boom"},
				Events: []*trace.Span_Event{{Name: "ev", TimeUnixNano: 1700000000250000000, Attributes: kv("k", 1)}},
				Links:  []*trace.Span_Link{{TraceId: []byte{5}, SpanId: []byte{6}}, {Attributes: kv("l", true)}},
			}},
		}},
	}}}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestDecodeMapsASpan(t *testing.T) {
	batch, err := Decode(marshal(t, request(kv("s", "x", "i", 7, SequenceIDKey, " 12 "))))
	if err != nil || len(batch.Spans) != 1 {
		t.Fatalf("Decode = %+v, %v", batch, err)
	}
	want := `{"rollout_id":"ro-1","attempt_id":"at-1","sequence_id":12,` +
		`"trace_id":"00000000000000000000000000000102","span_id":"0000000000000003","parent_id":"0000000000000004","name":"näme",` +
		`"status":{"status_code":"ERROR","description":"boom"},"attributes":{"s":"x","i":7,"agentlightning.span_sequence_id":" 12 "},` +
		`"events":[{"name":"ev","attributes":{"k":1},"timestamp":1700000000.25}],` +
		`"links":[{"context":{"trace_id":"00000000000000000000000000000005","span_id":"0000000000000006","is_remote":false,"trace_state":{}},"attributes":null},` +
		`{"context":{"trace_id":"00000000000000000000000000000000","span_id":"0000000000000000","is_remote":false,"trace_state":{}},"attributes":{"l":true}}],` +
		`"start_time":1700000000.1234567,"end_time":5.0,` +
		`"context":{"trace_id":"00000000000000000000000000000102","span_id":"0000000000000003","is_remote":false,"trace_state":{}},"parent":null,` +
		`"resource":{"attributes":{"agentlightning.rollout_id":"ro-1","agentlightning.attempt_id":"at-1","service.name":"svc"},"schema_url":"https://schema"}}`
	if diff := cmp.Diff(want, string(batch.Spans[0].AppendJSON(nil))); diff != "" {
		t.Errorf("span (-want +got):\n%s", diff)
	}
}

func TestAttributeValues(t *testing.T) {
	tests := []struct {
		in   any
		want string // "" for left out
	}{
		{"a\"b", `"a\"b"`},
		{true, "true"},
		{math.MaxInt64, "9223372036854775807"},
		{5.0, "5.0"},
		{math.NaN(), `"NaN"`},
		{math.Inf(-1), `"-Infinity"`},
		{[]byte{0xAB, 0}, `"ab00"`},
		{[]any{}, "[]"},
		{[]any{1, 2}, "[1,2]"},
		{[]any{"a", []byte{1}}, `["a","01"]`},
		{[]any{1, "a", true, 1.5, nil}, `["1","a","True","1.5"]`},
		{[]any{1, 2.5, nil, 3}, "[1.0,2.5,3.0]"},
		{[]any{2.5, 1}, "[2.5,1.0]"},
		{[]any{1.5, math.NaN()}, `["1.5","NaN"]`},
		{[]any{[]any{1}}, `["[1]"]`},
		{kv("a", 1, "b", []any{nil, math.NaN()}, "a", 2), `"{\"a\":2,\"b\":[null,null]}"`},
		{nil, ""},
	}
	for _, tt := range tests {
		batch, err := Decode(marshal(t, request(kv("k", "old", "k", tt.in))))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(batch.Spans[0].Attribute("k")); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestIDs(t *testing.T) {
	tests := []struct {
		name       string
		attributes []*common.KeyValue
		rollout    string // "" for a dropped span
		sequence   int64
	}{
		{"of the resource", nil, "ro-1", queue.NumberOnArrival},
		{"the span's win", kv(RolloutIDKey, "ro-2", SequenceIDKey, 0), "ro-2", 0},
		{"integers are text", kv(RolloutIDKey, 5), "5", queue.NumberOnArrival},
		{"empty is missing", kv(RolloutIDKey, ""), "ro-1", queue.NumberOnArrival},
		{"negative number", kv(SequenceIDKey, -1), "ro-1", queue.NumberOnArrival},
		{"float number", kv(SequenceIDKey, 1.0), "ro-1", queue.NumberOnArrival},
		{"boolean number", kv(SequenceIDKey, true), "ro-1", queue.NumberOnArrival},
		{"no number", kv(SequenceIDKey, "x"), "ro-1", queue.NumberOnArrival},
	}
	for _, tt := range tests {
		batch, err := Decode(marshal(t, request(tt.attributes)))
		if err != nil || len(batch.Spans) != 1 {
			t.Fatalf("%s: %+v, %v", tt.name, batch, err)
		}
		if s := batch.Spans[0]; s.RolloutID != tt.rollout || s.SequenceID != tt.sequence {
			t.Errorf("%s: got %s %d", tt.name, s.RolloutID, s.SequenceID)
		}
	}
	none := request(nil)
	none.ResourceSpans[0].Resource = nil
	if batch, err := Decode(marshal(t, none)); err != nil || len(batch.Spans) != 0 || batch.Dropped != 1 {
		t.Errorf("no ids: %+v, %v", batch, err)
	}
}

func TestSecondsRoundLikeExactDivision(t *testing.T) {
	check := func(ns uint64) {
		want, _ := new(big.Rat).SetFrac(new(big.Int).SetUint64(ns), big.NewInt(1e9)).Float64()
		if got := seconds(ns); got != want {
			t.Errorf("%d ns = %v, want %v", ns, got, want)
		}
	}
	x := uint64(1)
	for range 20000 {
		x = x*6364136223846793005 + 1442695040888963407
		check(1e12 + 1 + x%(math.MaxUint64-1e12-1))
		check(1600000000000000000 + x%400000000000000000)
	}
	check(math.MaxUint64)
	check(1e12 + 1)
}

func TestNestingIsBounded(t *testing.T) {
	v := any("x")
	for range 300 {
		v = []any{v}
	}
	if _, err := Decode(marshal(t, request(kv("deep", v)))); queue.KindOf(err) != queue.Invalid {
		t.Errorf("err = %v, want Invalid", err)
	}
}

func TestAppendRoundTrip(t *testing.T) {
	first, err := Decode(marshal(t, request(kv("s", "x", "list", []any{1, 2}, RolloutIDKey, "ro-1", AttemptIDKey, "at-1", SequenceIDKey, 3))))
	if err != nil {
		t.Fatal(err)
	}
	spans := append(first.Spans, first.Spans[0])
	again, err := Decode(Append(nil, spans))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spans, again.Spans); diff != "" {
		t.Errorf("after a round trip (-want +got):\n%s", diff)
	}
	var message trace.TracesData
	if err := proto.Unmarshal(Append(nil, spans), &message); err != nil {
		t.Error(err)
	}
}

func TestDecodeJSON(t *testing.T) {
	body := `{"resourceSpans":[{"resource":{"attributes":[{"key":"agentlightning.rollout_id","value":{"stringValue":"ro-1"}},
		{"key":"agentlightning.attempt_id","value":{"string_value":"at-1"}}]},"scopeSpans":[{"spans":[{"traceId":"0102","spanId":"AB",
		"name":"n","startTimeUnixNano":"1700000000500000000","endTimeUnixNano":1700000001000000000,"status":{"code":"STATUS_CODE_OK"},
		"unknown":{"a":1},"attributes":[{"key":"i","value":{"intValue":"7"}},{"key":"d","value":{"doubleValue":"NaN"}},
		{"key":"b","value":{"bytesValue":"qwA="}},{"key":"l","value":{"arrayValue":{"values":[{"intValue":1}]}}}]}]}]}]}`
	batch, err := DecodeJSON([]byte(body))
	if err != nil || len(batch.Spans) != 1 {
		t.Fatalf("DecodeJSON = %+v, %v", batch, err)
	}
	s := batch.Spans[0]
	if got, want := string(s.Attributes), `{"i":7,"d":"NaN","b":"ab00","l":[1]}`; got != want {
		t.Errorf("attributes = %s, want %s", got, want)
	}
	if s.SpanID != "00000000000000ab" || *s.StartTime != 1700000000.5 || s.StatusCode() != "OK" || s.RolloutID != "ro-1" {
		t.Errorf("span = %+v", s)
	}
	for _, bad := range []string{"", "[]", "{", `{"resourceSpans":1}`, `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}`} {
		if _, err := DecodeJSON([]byte(bad)); queue.KindOf(err) != queue.Invalid {
			t.Errorf("%q: err = %v, want Invalid", bad, err)
		}
	}
}

// FuzzDecode compares with the generated types: what they take is taken, and
// means the same.
func FuzzDecode(f *testing.F) {
	f.Add(marshal(f, request(kv("a", "x", "b", []any{1, "y"}, "c", kv("d", nil)))))
	f.Add([]byte{0x0a, 0x02, 0x12, 0x00})
	f.Fuzz(func(t *testing.T, body []byte) {
		batch, err := Decode(body)
		var message trace.TracesData
		if proto.Unmarshal(body, &message) != nil {
			return // some faults lie in fields that Decode skips
		}
		if err != nil {
			if strings.Contains(err.Error(), errDepth.Error()) {
				return
			}
			t.Fatalf("Decode: %v, but the oracle reads it", err)
		}
		want := 0
		for _, rs := range message.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				want += len(ss.Spans)
			}
		}
		if got := len(batch.Spans) + batch.Dropped; got != want {
			t.Fatalf("%d spans, the oracle has %d", got, want)
		}
		if batch.Dropped > 0 {
			return
		}
		i := 0
		for _, rs := range message.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					same(t, batch.Spans[i], s)
					i++
				}
			}
		}
	})
}

func same(t *testing.T, got queue.Span, want *trace.Span) {
	t.Helper()
	text := got.AppendJSON(nil)
	if !json.Valid(text) {
		t.Fatalf("no JSON: %s", text)
	}
	events, links := 0, 0
	for range got.Events.Elements() {
		events++
	}
	for range got.Links.Elements() {
		links++
	}
	if got.Name != want.Name || !strings.HasSuffix(got.TraceID, hex.EncodeToString(want.TraceId)) ||
		events != len(want.Events) || links != len(want.Links) ||
		got.Status.Get("description").Text() != want.GetStatus().GetMessage() {
		t.Fatalf("got %s, want %v", text, want)
	}
	last := map[string]*common.AnyValue{}
	for _, p := range want.Attributes {
		last[p.Key] = p.Value
	}
	for key, v := range last {
		found := got.Attributes.Get(key)
		switch v := v.GetValue().(type) {
		case nil:
			if found != nil {
				t.Fatalf("%q: got %s for no value", key, found)
			}
		case *common.AnyValue_StringValue:
			if found.Text() != v.StringValue {
				t.Fatalf("%q: got %s, want %q", key, found, v.StringValue)
			}
		case *common.AnyValue_IntValue:
			if string(found) != strconv.FormatInt(v.IntValue, 10) {
				t.Fatalf("%q: got %s, want %d", key, found, v.IntValue)
			}
		case *common.AnyValue_DoubleValue:
			if f, ok := found.Float(); ok && f != v.DoubleValue {
				t.Fatalf("%q: got %s, want %v", key, found, v.DoubleValue)
			}
		case *common.AnyValue_BytesValue:
			if found.Text() != hex.EncodeToString(v.BytesValue) {
				t.Fatalf("%q: got %s", key, found)
			}
		default:
			if found.Kind() == rawjson.Invalid {
				t.Fatalf("%q is missing", key)
			}
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"a","value":{"intValue":"1"}}]}]}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		batch, err := DecodeJSON(body)
		if err != nil && queue.KindOf(err) != queue.Invalid {
			t.Fatal(err)
		}
		for i := range batch.Spans {
			if text := batch.Spans[i].AppendJSON(nil); !json.Valid(text) {
				t.Fatalf("no JSON: %s", text)
			}
		}
	})
}

func BenchmarkDecode8Spans(b *testing.B) {
	req := request(kv("gen_ai.system", "openai", "gen_ai.request.model", "m", "tokens", 512, "temperature", 0.7, "prompt", strings.Repeat("word ", 100)))
	for range 7 {
		req.ResourceSpans[0].ScopeSpans[0].Spans = append(req.ResourceSpans[0].ScopeSpans[0].Spans, req.ResourceSpans[0].ScopeSpans[0].Spans[0])
	}
	body := marshal(b, req)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}
