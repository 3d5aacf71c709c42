package llmproxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// rig is a proxy between a store and an upstream.
type rig struct {
	t        *testing.T
	store    *store.Store
	upstream *fakellm.Server
	base     string // of the upstream, with /v1
	proxy    *llmproxy.Proxy
	url      string
	ref      queue.AttemptRef
	client   *http.Client
}

// fake serves a script until the test ends, and gives its URL.
func fake(t *testing.T, script fakellm.Script) (*fakellm.Server, string) {
	t.Helper()
	f := fakellm.New(script)
	server := httptest.NewServer(f)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	t.Cleanup(server.Close)
	return f, server.URL + "/v1"
}

func entries(t *testing.T, text string) []llmproxy.Entry {
	t.Helper()
	out, err := llmproxy.ParseModels([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// table has one model of each protocol at one upstream: "m" of chats, "claude" of
// messages, "native" of responses.
func table(base string) string {
	return fmt.Sprintf(`[
		{"model_name": "m", "litellm_params": {"model": "hosted_vllm/real-m", "api_base": %[1]q}},
		{"model_name": "claude", "litellm_params": {"model": "anthropic/real-claude", "api_base": %[1]q, "api_key": "sk-ant"}},
		{"model_name": "native", "litellm_params": {"model": "hosted_vllm/real-native", "api_base": %[1]q}, "model_info": {"supported_endpoints": ["/v1/responses"]}}]`, base)
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newRig starts everything; options may change what they are given.
func newRig(t *testing.T, script fakellm.Script, change func(*llmproxy.Options)) *rig {
	t.Helper()
	r := &rig{t: t, store: newStore(t), client: newClient(t)}
	r.upstream, r.base = fake(t, script)
	o := llmproxy.Options{Models: entries(t, table(r.base)), Logger: quiet, ReloadInterval: 5 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	started, err := r.store.Start(t.Context(), queue.Request{Input: rawjson.Value("1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.ref = queue.AttemptRef{RolloutID: started.RolloutID, AttemptID: started.Attempt.AttemptID}
	if r.proxy, err = llmproxy.New(r.store, o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.proxy.Serve(ctx, l) }()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := r.proxy.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// prefix is the path that names the rig's attempt.
func (r *rig) prefix() string {
	return "/rollout/" + r.ref.RolloutID + "/attempt/" + r.ref.AttemptID
}

// answer is what came back of a call.
type answer struct {
	status int
	header http.Header
	text   string
	err    error // of reading the body
}

func (a answer) json(t *testing.T) rawjson.Value {
	t.Helper()
	v, err := rawjson.Parse([]byte(a.text))
	if err != nil {
		t.Fatalf("the answer is not JSON: %v\n%s", err, a.text)
	}
	return v
}

// events are the data of a stream's events.
func (a answer) events(t *testing.T) []rawjson.Value {
	t.Helper()
	var out []rawjson.Value
	for line := range strings.Lines(a.text) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		v, err := rawjson.Parse([]byte(data))
		if err != nil {
			t.Fatalf("event %q: %v", data, err)
		}
		out = append(out, v)
	}
	return out
}

func (r *rig) request(ctx context.Context, method, path, body string, headers ...string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

func (r *rig) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	resp, err := r.client.Do(r.request(r.t.Context(), method, path, body, headers...))
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, text: string(text), err: err}
}

// call posts to the API on behalf of the attempt.
func (r *rig) call(path, body string, headers ...string) answer {
	r.t.Helper()
	return r.do("POST", r.prefix()+path, body, headers...)
}

// spans are those of the attempt, in the order of their numbers, when all calls
// that have ended are stored.
func (r *rig) spans() []queue.Span {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.proxy.Flush(ctx); err != nil {
		r.t.Fatal(err)
	}
	page, err := r.store.Spans(ctx, queue.SpanQuery{RolloutID: r.ref.RolloutID, AttemptID: &r.ref.AttemptID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		r.t.Fatal(err)
	}
	return page.Items
}

// call's two spans, which must be the only ones.
func (r *rig) twoSpans() (conversation, raw queue.Span) {
	r.t.Helper()
	spans := r.spans()
	if len(spans) != 2 {
		r.t.Fatalf("%d spans, want 2: %+v", len(spans), spans)
	}
	i := slices.IndexFunc(spans, func(s queue.Span) bool { return s.Name == "raw_gen_ai_request" })
	if i < 0 {
		r.t.Fatalf("no raw_gen_ai_request among %s and %s", spans[0].Name, spans[1].Name)
	}
	conversation, raw = spans[1-i], spans[i]
	if raw.ParentID == nil || *raw.ParentID != conversation.SpanID || raw.TraceID != conversation.TraceID {
		r.t.Errorf("the raw span is not below the other: %+v", raw)
	}
	return conversation, raw
}

// eventually asks until the answer is wanted.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ask(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

// wantAttributes compares attributes with their JSON.
func wantAttributes(t *testing.T, s queue.Span, want map[string]string) {
	t.Helper()
	for key, text := range want {
		if got := string(s.Attribute(key)); got != text {
			t.Errorf("%s: attribute %s is %s, want %s", s.Name, key, got, text)
		}
	}
}

// noAttributes wants none below the prefixes.
func noAttributes(t *testing.T, s queue.Span, prefixes ...string) {
	t.Helper()
	for key, val := range s.Attributes.Members() {
		for _, p := range prefixes {
			if strings.HasPrefix(string(key), p) {
				t.Errorf("%s: has attribute %s = %s", s.Name, key, val)
			}
		}
	}
}

// gate lets a stream of the fake go on piece by piece.
type gate struct {
	reached chan int
	pass    chan struct{}
	once    sync.Once
}

func newGate() *gate { return &gate{reached: make(chan int, 1000), pass: make(chan struct{})} }

func (g *gate) wait(ctx context.Context, piece int) error {
	g.reached <- piece
	select {
	case <-g.pass:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) open() { g.once.Do(func() { close(g.pass) }) }

// ids are the token ids of texts, one after the other.
func ids(texts ...string) string {
	var out []string
	for _, text := range texts {
		for _, id := range fakellm.IDs(text) {
			out = append(out, fmt.Sprint(id))
		}
	}
	return "[" + strings.Join(out, ",") + "]"
}

func newClient(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}
