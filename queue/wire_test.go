package queue

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue/rawjson"
)

// The texts are those of the wire contract: every member, in its order.
const (
	rolloutWire   = `{"rollout_id":"ro-edf5656e289c","input":{"k":1},"start_time":1795239616.8496506,"end_time":null,"mode":"train","resources_id":null,"status":"preparing","config":{"timeout_seconds":null,"unresponsive_seconds":2.5,"max_attempts":2,"retry_condition":["failed","timeout"]},"metadata":{"m":1}}`
	attemptWire   = `{"rollout_id":"ro-edf5656e289c","attempt_id":"at-c1613ba9","sequence_id":1,"start_time":1795239616.8496506,"end_time":null,"status":"preparing","worker_id":"w1","last_heartbeat_time":null,"metadata":null}`
	workerWire    = `{"worker_id":"w2","status":"busy","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":1795239616.9304442,"last_busy_time":1795239616.9304442,"last_idle_time":null,"current_rollout_id":"ro-edf5656e289c","current_attempt_id":"at-2e2f8501"}`
	resourcesWire = `{"resources_id":"rs-3d8e4926c0f4","create_time":1795240012.09,"update_time":1795240013.0,"version":1,"resources":{"main":{"resource_type":"llm","endpoint":"http://x/v1","model":"m","api_key":null,"sampling_parameters":{}}}}`
	spanWire      = `{"rollout_id":"ro-1","attempt_id":"at-1","sequence_id":-1,"trace_id":"01010101010101010101010101010101","span_id":"0202020202020202","parent_id":"0303030303030303","name":"first","status":{"status_code":"ERROR","description":"boom","x":1},"attributes":{"s":"x","i":7,"d":1.0,"arr":["a","b"]},"events":[{"name":"ev","attributes":{"k":1},"timestamp":1700000000.25}],"links":[],"start_time":1700000000.1234567,"end_time":1700000001.5,"context":{"trace_id":"01","span_id":"02","is_remote":false,"trace_state":{}},"parent":null,"resource":{"attributes":{"service.name":"svc"},"schema_url":""},"extra":{"a":1},"_id":"kept"}`
)

func sampleRollout() Rollout {
	return Rollout{
		RolloutID: "ro-edf5656e289c", Input: rawjson.Value(`{"k":1}`), StartTime: 1795239616.8496506, Mode: ModeTrain,
		Status:   RolloutPreparing,
		Config:   Config{UnresponsiveSeconds: ptr(2.5), MaxAttempts: 2, RetryCondition: []AttemptStatus{AttemptFailed, AttemptTimeout}},
		Metadata: rawjson.Value(`{"m":1}`),
	}
}

func sampleAttempt() Attempt {
	return Attempt{
		RolloutID: "ro-edf5656e289c", AttemptID: "at-c1613ba9", SequenceID: 1, StartTime: 1795239616.8496506,
		Status: AttemptPreparing, WorkerID: ptr("w1"),
	}
}

func TestWireForm(t *testing.T) {
	rollout, attempt := sampleRollout(), sampleAttempt()
	attempted := AttemptedRollout{Rollout: rollout, Attempt: &attempt}
	bare := AttemptedRollout{Rollout: rollout}
	worker := Worker{
		WorkerID: "w2", Status: WorkerBusy, LastDequeueTime: ptr(1795239616.9304442), LastBusyTime: ptr(1795239616.9304442),
		CurrentRolloutID: ptr("ro-edf5656e289c"), CurrentAttemptID: ptr("at-2e2f8501"),
	}
	resources := ResourcesUpdate{
		ResourcesID: "rs-3d8e4926c0f4", CreateTime: 1795240012.09, UpdateTime: 1795240013, Version: 1,
		Resources: rawjson.Value(`{"main":{"resource_type":"llm","endpoint":"http://x/v1","model":"m","api_key":null,"sampling_parameters":{}}}`),
	}
	span := DecodeSpan(rawjson.Value(spanWire))
	empty := Rollout{Config: DefaultConfig()}
	tests := []struct {
		name      string
		got, want string
	}{
		{"rollout", string(rollout.AppendJSON(nil)), rolloutWire},
		{"appended", string(rollout.AppendJSON([]byte("x"))), "x" + rolloutWire},
		{"attempt", string(attempt.AppendJSON(nil)), attemptWire},
		{"attempted rollout", string(attempted.AppendJSON(nil)), strings.TrimSuffix(rolloutWire, "}") + `,"attempt":` + attemptWire + "}"},
		{"rollout without attempt", string(bare.AppendJSON(nil)), rolloutWire},
		{"worker", string(worker.AppendJSON(nil)), workerWire},
		{"open worker", string(worker.AppendOpen(nil)) + "}", workerWire},
		{"resources", string(resources.AppendJSON(nil)), resourcesWire},
		{"span", string(span.AppendJSON(nil)), spanWire},
		{"span by json.Marshal", marshal(t, span), spanWire},
		{"empty rollout", string(empty.AppendJSON(nil)), `{"rollout_id":"","input":null,"start_time":0.0,"end_time":null,"mode":null,"resources_id":null,"status":"","config":{"timeout_seconds":null,"unresponsive_seconds":null,"max_attempts":1,"retry_condition":[]},"metadata":null}`},
		{"empty span", string((&Span{}).AppendJSON(nil)), `{"rollout_id":"","attempt_id":"","sequence_id":0,"trace_id":"","span_id":"","parent_id":null,"name":"","status":null,"attributes":null,"events":null,"links":null,"start_time":null,"end_time":null,"context":null,"parent":null,"resource":null}`},
	}
	for _, tt := range tests {
		if got := tt.got; got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
		if v, err := rawjson.Parse([]byte(strings.TrimPrefix(tt.got, "x"))); err != nil || v.String() != strings.TrimPrefix(tt.got, "x") {
			t.Errorf("%s is not canonical JSON: %v\n%s", tt.name, err, tt.got)
		}
	}
}

func marshal(t *testing.T, x any) string {
	t.Helper()
	out, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestWireOrderIsDeclarationOrder ties the hand-written encoders to the struct
// tags, which the decoders of the client follow.
func TestWireOrderIsDeclarationOrder(t *testing.T) {
	rollout, attempt := sampleRollout(), sampleAttempt()
	tests := []struct {
		typ  reflect.Type
		wire []byte
	}{
		{reflect.TypeFor[Rollout](), rollout.AppendJSON(nil)},
		{reflect.TypeFor[Config](), rollout.Config.AppendJSON(nil)},
		{reflect.TypeFor[Attempt](), attempt.AppendJSON(nil)},
		{reflect.TypeFor[Worker](), (&Worker{}).AppendJSON(nil)},
		{reflect.TypeFor[ResourcesUpdate](), (&ResourcesUpdate{}).AppendJSON(nil)},
	}
	for _, tt := range tests {
		var want, got []string
		for _, f := range reflect.VisibleFields(tt.typ) {
			if tag := f.Tag.Get("json"); tag != "-" {
				want = append(want, tag)
			}
		}
		for key := range rawjson.Value(tt.wire).Members() {
			got = append(got, string(key))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-declared +wire):\n%s", tt.typ, diff)
		}
	}
	var got []string
	for key := range rawjson.Value((&Span{}).AppendJSON(nil)).Members() {
		got = append(got, string(key))
	}
	if diff := cmp.Diff(spanFields[:], got); diff != "" {
		t.Errorf("span (-declared +wire):\n%s", diff)
	}
}

func TestWireRoundTrip(t *testing.T) {
	rollout, attempt := sampleRollout(), sampleAttempt()
	attempt.Metadata = rawjson.Null // what an absent one is read back as
	attempted := AttemptedRollout{Rollout: rollout, Attempt: &attempt}
	var back AttemptedRollout
	if err := json.Unmarshal(attempted.AppendJSON(nil), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attempted, back); diff != "" {
		t.Errorf("attempted rollout (-sent +read):\n%s", diff)
	}
	var worker Worker
	if err := json.Unmarshal([]byte(workerWire), &worker); err != nil || string(worker.AppendJSON(nil)) != workerWire {
		t.Errorf("worker came back as %s, %v", worker.AppendJSON(nil), err)
	}
	var resources ResourcesUpdate
	if err := json.Unmarshal([]byte(resourcesWire), &resources); err != nil || string(resources.AppendJSON(nil)) != resourcesWire {
		t.Errorf("resources came back as %s, %v", resources.AppendJSON(nil), err)
	}
}

// TestSpanRoundTrip reads random spans back from their wire form.
func TestSpanRoundTrip(t *testing.T) {
	values := rapid.SampledFrom([]string{`null`, `{}`, `[]`, `{"a.b":[1,1.0,"$x"],"":{"c":null}}`, `{"é":"\u0000"}`, `[{"n":1e300}]`})
	value := rapid.Custom(func(t *rapid.T) rawjson.Value {
		v, err := rawjson.Parse([]byte(values.Draw(t, "json")))
		if err != nil {
			t.Fatal(err)
		}
		return v
	})
	keys := rapid.SampledFrom([]string{"x", "", "_id", "a\"b", "é", "rollout_id ", "\x00"})
	rapid.Check(t, func(t *rapid.T) {
		s := Span{
			RolloutID: rapid.String().Draw(t, "rollout"), AttemptID: rapid.String().Draw(t, "attempt"),
			SequenceID: rapid.Int64().Draw(t, "sequence"), TraceID: rapid.String().Draw(t, "trace"),
			SpanID: rapid.String().Draw(t, "span"), ParentID: rapid.Ptr(rapid.String(), true).Draw(t, "parent_id"),
			Name: rapid.String().Draw(t, "name"), Status: value.Draw(t, "status"), Attributes: value.Draw(t, "attributes"),
			Events: value.Draw(t, "events"), Links: value.Draw(t, "links"),
			StartTime: rapid.Ptr(rapid.Float64(), true).Draw(t, "start"), EndTime: rapid.Ptr(rapid.Float64(), true).Draw(t, "end"),
			Context: value.Draw(t, "context"), Parent: value.Draw(t, "parent"), Resource: value.Draw(t, "resource"),
		}
		for _, key := range rapid.SliceOfDistinct(keys, rapid.ID).Draw(t, "extra") {
			quoted := rawjson.AppendString(nil, key)
			s.Extra = rawjson.AppendMember(s.Extra, quoted[1:len(quoted)-1], value.Draw(t, "extra value"))
		}
		if s.Extra != nil {
			s.Extra = append(s.Extra, '}')
		}
		wire := s.AppendJSON(nil)
		v, err := rawjson.Parse(wire)
		if err != nil {
			t.Fatalf("%v in %s", err, wire)
		}
		if back := DecodeSpan(v); string(back.AppendJSON(nil)) != string(v) {
			t.Fatalf("came back as %s\nwas %s", back.AppendJSON(nil), v)
		}
		// Canonical form differs only where a float has an exponent or text is
		// not UTF-8; neither is here but for floats.
		if diff := cmp.Diff(s, DecodeSpan(v)); diff != "" {
			t.Fatalf("(-sent +read):\n%s", diff)
		}
	})
}

func TestDecodeSpanTakesWrongTypesAsAbsent(t *testing.T) {
	s := DecodeSpan(rawjson.Value(`{"rollout_id":1,"sequence_id":"x","parent_id":7,"start_time":"now","end_time":null}`))
	if s.RolloutID != "" || s.SequenceID != 0 || s.ParentID != nil || s.StartTime != nil || s.EndTime != nil {
		t.Errorf("decoded %+v", s)
	}
	if s := DecodeSpan(rawjson.Value(`[1]`)); s.Extra != nil || s.Status != nil {
		t.Errorf("an array decoded to %+v", s)
	}
}

func TestSpanAccessors(t *testing.T) {
	s := DecodeSpan(rawjson.Value(spanWire))
	if s.StatusCode() != "ERROR" || s.Attribute("i").String() != "7" || s.Attribute("none") != nil {
		t.Errorf("status %q, attributes %s and %s", s.StatusCode(), s.Attribute("i"), s.Attribute("none"))
	}
	if n := s.Size(); n < len(spanWire)/2 {
		t.Errorf("size %d of a span with %d bytes of text", n, len(spanWire))
	}
}
