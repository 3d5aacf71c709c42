package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// sink is a response that goes nowhere.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(status int) {
	s.status = status
}
func (s *sink) Write(p []byte) (int, error)     { s.bytes += len(p); return len(p), nil }
func (s *sink) Flush()                          {}
func (s *sink) SetReadDeadline(time.Time) error { return nil }

// poster posts to a handler without a connection: what it measures is the
// handler's own.
type poster struct {
	handler http.Handler
	request *http.Request
	body    bytes.Reader
	sink    sink
}

func newPoster(h http.Handler, path, contentType string) *poster {
	p := &poster{handler: h, request: httptest.NewRequest(http.MethodPost, path, nil), sink: sink{header: http.Header{}}}
	p.request.Header.Set("Content-Type", contentType)
	p.request.Body = io.NopCloser(&p.body)
	return p
}

func (p *poster) post(tb testing.TB, body []byte, want int) {
	p.body.Reset(body)
	p.request.ContentLength = int64(len(body))
	clear(p.sink.header)
	p.handler.ServeHTTP(&p.sink, p.request)
	if p.sink.status != want {
		tb.Fatalf("status %d, want %d", p.sink.status, want)
	}
}

// empty is the least that a handler can do: read the request, answer.
func empty(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, "[]")
}

// bench is a server over memory with an attempt to file spans under.
type bench struct {
	*httpapi.Server
	store            *store.Store
	rollout, attempt string
}

func newBench(tb testing.TB, queued int) *bench {
	tb.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{ScanDebounce: time.Hour, Logger: quiet})
	tb.Cleanup(func() { _ = s.Close(context.Background()) })
	ctx := context.Background()
	started, err := s.Start(ctx, queue.Request{Input: rawjson.EmptyObject}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	reqs := make([]queue.Request, queued)
	for i := range reqs {
		reqs[i].Input = rawjson.Value(`{"task":` + strconv.Itoa(i) + `}`)
	}
	if _, err := s.Enqueue(ctx, reqs); err != nil {
		tb.Fatal(err)
	}
	return &bench{Server: httpapi.New(s, httpapi.Options{Logger: quiet}), store: s, rollout: started.RolloutID, attempt: started.Attempt.AttemptID}
}

// spanBodies makes spans that differ in their ids, as a body with a place to
// write the id at.
func (b *bench) spanBody() (body []byte, id []byte) {
	body = fmt.Appendf(nil, `{"rollout_id":%q,"attempt_id":%q,"sequence_id":1,"trace_id":"0af7651916cd43dd8448eb211c80319c",`+
		`"span_id":"b7ad6b7100000000","parent_id":null,"name":"chat.completion","status":{"status_code":"OK","description":null},`+
		`"attributes":{"gen_ai.request.model":"m","gen_ai.usage.input_tokens":1200,"temperature":0.5,`+
		`"gen_ai.completion":"the model answered with a short text that says what it did next"},"events":[],"links":[],`+
		`"start_time":1790000000.0,"end_time":1790000000.25,"context":{"trace_id":"0af7651916cd43dd8448eb211c80319c",`+
		`"span_id":"b7ad6b7100000000","is_remote":false,"trace_state":{}},"parent":null,`+
		`"resource":{"attributes":{"service.name":"benchmark"},"schema_url":""}}`, b.rollout, b.attempt)
	at := bytes.Index(body, []byte("b7ad6b71")) + 8
	return body, body[at : at+8]
}

// otlpBody is an export of eight spans; the last four bytes of each span's id
// are at ids.
func (b *bench) otlpBody(tb testing.TB) (body []byte, ids [][]byte) {
	tb.Helper()
	text := func(key, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	var spans []*tracepb.Span
	for i := range 8 {
		spans = append(spans, &tracepb.Span{
			TraceId: bytes.Repeat([]byte{7}, 16), SpanId: []byte{0xb7, 0xad, 0x6b, byte(i), 0, 0, 0, 0}, Name: "chat.completion",
			StartTimeUnixNano: 1_790_000_000_000_000_000, EndTimeUnixNano: 1_790_000_000_250_000_000,
			Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_OK},
			Attributes: []*commonpb.KeyValue{
				text("gen_ai.request.model", "m"),
				text("gen_ai.completion", "the model answered with a short text that says what it did next"),
				{Key: "gen_ai.usage.input_tokens", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 1200}}},
				{Key: "temperature", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}}},
			},
		})
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			text("agentlightning.rollout_id", b.rollout), text("agentlightning.attempt_id", b.attempt),
		}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}},
	}}})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range 8 {
		at := bytes.Index(body, []byte{0xb7, 0xad, 0x6b, byte(i)}) + 4
		ids = append(ids, body[at:at+4])
	}
	return body, ids
}

// The four posts that a rollout's life is made of, as functions to call again
// and again.

func (b *bench) postSpan(tb testing.TB) func() {
	p := newPoster(b, "/v1/agl/spans", "application/json")
	body, id := b.spanBody()
	n := 0
	return func() {
		n++
		for i := range id { // eight hex digits of n
			id[i] = "0123456789abcdef"[n>>(4*(7-i))&15]
		}
		p.post(tb, body, http.StatusCreated)
	}
}

func (b *bench) postOTLP(tb testing.TB) func() {
	p := newPoster(b, "/v1/traces", "application/x-protobuf")
	body, ids := b.otlpBody(tb)
	n := 0
	return func() {
		n++
		for _, id := range ids {
			id[0], id[1], id[2], id[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		}
		p.post(tb, body, http.StatusOK)
	}
}

func (b *bench) postClaim(tb testing.TB) func() {
	p := newPoster(b, "/v1/agl/queues/rollouts/dequeue", "application/json")
	body := []byte(`{"limit":1,"worker_id":"w"}`)
	return func() {
		before := p.sink.bytes
		p.post(tb, body, http.StatusOK)
		if p.sink.bytes-before < 10 {
			tb.Fatal("nothing was claimed")
		}
	}
}

func (b *bench) postFinish(tb testing.TB, attempts []queue.AttemptedRollout) func() {
	p := newPoster(b, "/", "application/json")
	body := []byte(`{"status":"succeeded"}`)
	n := 0
	return func() {
		a := attempts[n].Attempt
		n++
		p.request.URL = &url.URL{Path: "/v1/agl/rollouts/" + a.RolloutID + "/attempts/" + a.AttemptID}
		p.post(tb, body, http.StatusOK)
	}
}

func (b *bench) claimAll(tb testing.TB, n int) []queue.AttemptedRollout {
	tb.Helper()
	worker := "w"
	claimed, err := b.store.Claim(context.Background(), queue.Claim{Limit: n, WorkerID: &worker})
	if err != nil || len(claimed) != n {
		tb.Fatalf("claimed %d of %d: %v", len(claimed), n, err)
	}
	return claimed
}

func loop(b *testing.B, f func()) {
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

// loopOver is loop for calls of which a store that is prepared anew takes only
// a number.
func loopOver(b *testing.B, prepare func(calls int) func()) {
	const calls = 1000
	var f func()
	left := 0
	loop(b, func() {
		if left == 0 {
			b.StopTimer()
			f, left = prepare(calls), calls
			b.StartTimer()
		}
		left--
		f()
	})
}

func BenchmarkEmpty(b *testing.B) {
	p := newPoster(http.HandlerFunc(empty), "/v1/agl/spans", "application/json")
	body := bytes.Repeat([]byte("x"), 800)
	loop(b, func() { p.post(b, body, http.StatusOK) })
}

func BenchmarkPostSpan(b *testing.B) { loop(b, newBench(b, 0).postSpan(b)) }
func BenchmarkPostOTLP(b *testing.B) { loop(b, newBench(b, 0).postOTLP(b)) }

func BenchmarkClaim(b *testing.B) {
	loopOver(b, func(calls int) func() { return newBench(b, calls).postClaim(b) })
}

func BenchmarkFinish(b *testing.B) {
	loopOver(b, func(calls int) func() {
		s := newBench(b, calls)
		return s.postFinish(b, s.claimAll(b, calls))
	})
}
