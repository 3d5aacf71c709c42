package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Tests{M: m}) }

func newStore(t testing.TB) *store.Store {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newServer(t testing.TB, o httpapi.Options) *httpapi.Server {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	return httpapi.New(newStore(t), o)
}

func send(t testing.TB, h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestOpenAPIListsTheRoutesThatAreServed(t *testing.T) {
	s := newServer(t, httpapi.Options{})
	var description struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(send(t, s, "GET", "/openapi.json", "").Body.Bytes(), &description); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for path, methods := range description.Paths {
		for method := range methods {
			listed[strings.ToUpper(method)+" "+path] = true
		}
		// The Allow header comes from the router, which must agree.
		w := send(t, s, "TRACE", strings.NewReplacer("{", "", "}", "").Replace(path), "")
		for _, allowed := range strings.Split(w.Header().Get("Allow"), ", ") {
			if w.Code != 405 || (methods[strings.ToLower(allowed)] == nil && !strings.HasSuffix(path, "/search") && !strings.HasSuffix(path, "/latest")) {
				t.Errorf("%s: %d, Allow %q, but %s is not described", path, w.Code, w.Header().Get("Allow"), allowed)
			}
		}
	}
	if got := httpapi.RouteNames(s); !cmp.Equal(got, listed) {
		t.Errorf("described and served routes differ: %s", cmp.Diff(got, listed))
	}
}

func TestErrors(t *testing.T) {
	s := newServer(t, httpapi.Options{MaxBody: 100})
	tests := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/agl/rollouts/none", "", 200, `null`},
		{"POST", "/v1/agl/rollouts/none", "{}", 404, `{"detail":"Rollout none not found"}`},
		{"PUT", "/v1/traces", "", 405, `{"detail":"Method Not Allowed"}`},
		{"GET", "/v1/nothing", "", 404, `{"detail":"Not Found"}`},
		{"POST", "/v1/agl/rollouts/", "{}", 405, `{"detail":"Method Not Allowed"}`},
		{"POST", "/v1/agl/resources", strings.Repeat(" ", 101), 413, `{"detail":"request body is larger than 100 bytes"}`},
		{"POST", "/v1/agl/resources", "\xff", 400, `{"detail":"There was an error parsing the body"}`},
		{"POST", "/v1/agl/resources", "[,", 422,
			`{"detail":[{"type":"json_invalid","loc":["body",1],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting value"}}]}`},
		{"POST", "/v1/agl/rollouts/x", `{"status":null,"config":null}`, 400, `{"detail":"status is invalid; it cannot be a null value."}`},
		{"GET", "/v1/agl/rollouts?limit=0&offset=-1", "", 400, `{"detail":"Limit must be greater than 0 or -1 for no limit"}`},
	}
	for _, tt := range tests {
		w := send(t, s, tt.method, tt.path, tt.body)
		if w.Code != tt.status || w.Body.String() != tt.want {
			t.Errorf("%s %s: %d %s\nwant %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

func TestNestingTooDeep(t *testing.T) {
	s := newServer(t, httpapi.Options{})
	body := func(depth int) string {
		return `{"input":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
	}
	if w := send(t, s, "POST", "/v1/agl/rollouts", body(512)); w.Code != 201 {
		t.Errorf("512 levels: %d %.200s", w.Code, w.Body)
	}
	want := `{"detail":[{"type":"json_invalid","loc":["body",0],"msg":"JSON decode error","input":{},"ctx":{"error":"JSON nests deeper than 512 levels"}}]}`
	if w := send(t, s, "POST", "/v1/agl/rollouts", body(513)); w.Code != 422 || w.Body.String() != want {
		t.Errorf("513 levels: %d %.200s", w.Code, w.Body)
	}
	if got := send(t, s, "GET", "/v1/agl/statistics", "").Body.String(); !strings.Contains(got, `"total_rollouts":1,`) {
		t.Errorf("afterwards: %s", got)
	}
}

func TestStatistics(t *testing.T) {
	s := newServer(t, httpapi.Options{})
	send(t, s, "POST", "/v1/agl/queues/rollouts/enqueue", `{"rollouts":[{"input":1},{"input":2}]}`)
	send(t, s, "POST", "/v1/agl/queues/rollouts/dequeue", "")
	got := send(t, s, "GET", "/v1/agl/statistics", "").Body.String()
	_, ours, ok := strings.Cut(got, `,"rollouts_by_status":`)
	want := `{"queuing":1,"preparing":1,"running":0,"failed":0,"succeeded":0,"cancelled":0,"requeuing":0},"evicted_spans":0}`
	if !ok || ours != want {
		t.Errorf("got %s\nwant …%s", got, want)
	}
}

// A store that gives workers a lease says so.
func TestStatisticsTellTheLease(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{WorkerTTL: 12500 * time.Millisecond, Logger: quiet})
	defer s.Close(t.Context())
	got := send(t, httpapi.New(s, httpapi.Options{Logger: quiet}), "GET", "/v1/agl/statistics", "").Body.String()
	if !strings.HasSuffix(got, `,"worker_ttl_seconds":12.5}`) {
		t.Errorf("got %s", got)
	}
}

// broken is a store whose backend is away.
type broken struct{ *store.Store }

func (broken) Ready(context.Context) error { return errors.New("no route to host") }
func (broken) Statistics(context.Context) (queue.Statistics, error) {
	return queue.Statistics{}, queue.Errorf(queue.Unavailable, "the backend is away")
}
func (broken) Worker(context.Context, string) (*queue.Worker, error) { panic("bug") }

func TestFailuresOfTheStore(t *testing.T) {
	var label string
	s := httpapi.New(broken{newStore(t)}, httpapi.Options{
		Logger:  slog.New(slog.DiscardHandler),
		Observe: func(route, _ string, _ int, _ time.Duration) { label = route },
	})
	for _, path := range []string{"/v1/agl/ready", "/v1/agl/statistics"} {
		if w := send(t, s, "GET", path, ""); w.Code != 503 || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	w := send(t, s, "GET", "/v1/agl/workers/w", "")
	if w.Code != 500 || strings.Contains(w.Body.String(), "bug") || label != "/v1/agl/workers/{worker_id}" {
		t.Errorf("panic: %d %s, label %s", w.Code, w.Body, label)
	}
}

func TestDashboard(t *testing.T) {
	s := newServer(t, httpapi.Options{Dashboard: fstest.MapFS{
		"index.html": {Data: []byte("<html>")}, "assets/app.js": {Data: []byte("let a")},
		"assets/a.css": {}, "assets/a.svg": {}, "assets/a.html": {},
	}})
	tests := []struct {
		method, path string
		headers      []string
		status       int
		header, want string
	}{
		{"GET", "/", nil, 200, "Cache-Control", "no-cache"},
		{"GET", "/runners", nil, 200, "Content-Type", "text/html; charset=utf-8"},
		{"GET", "/v1", nil, 200, "Cache-Control", "no-cache"},
		{"HEAD", "/", nil, 200, "Content-Length", "6"},
		{"GET", "/assets/app.js", nil, 200, "Cache-Control", "public, max-age=31536000, immutable"},
		{"GET", "/assets/app.js", []string{"Range", "bytes=0-1"}, 206, "Content-Range", "bytes 0-1/5"},
		{"GET", "/assets/app.js", nil, 200, "Content-Type", "text/javascript; charset=utf-8"},
		{"GET", "/assets/a.css", nil, 200, "Content-Type", "text/css; charset=utf-8"},
		{"GET", "/assets/a.svg", nil, 200, "Content-Type", "image/svg+xml"},
		{"GET", "/assets/a.html", nil, 200, "Content-Type", "text/html; charset=utf-8"},
		{"GET", "/assets/none", nil, 404, "Content-Type", "application/json"},
		{"GET", "/assets/", nil, 404, "Content-Type", "application/json"},
		{"POST", "/", nil, 405, "Allow", "GET, HEAD"},
	}
	for _, tt := range tests {
		w := send(t, s, tt.method, tt.path, "", tt.headers...)
		if w.Code != tt.status || w.Header().Get(tt.header) != tt.want {
			t.Errorf("%s %s: %d %v", tt.method, tt.path, w.Code, w.Header())
		}
	}
	etag := send(t, s, "GET", "/assets/app.js", "").Header().Get("Etag")
	if w := send(t, s, "GET", "/assets/app.js", "", "If-None-Match", etag); w.Code != 304 {
		t.Errorf("conditional GET: %d", w.Code)
	}
}

func TestAuthToken(t *testing.T) {
	s := newServer(t, httpapi.Options{AuthToken: "secret"})
	for _, tt := range []struct {
		path, header string
		status       int
	}{
		{"/v1/agl/health", "", 200},
		{"/v1/agl/workers", "", 401},
		{"/v1/agl/workers", "Bearer wrong", 401},
		{"/v1/agl/workers", "Bearer secret", 200},
	} {
		if w := send(t, s, "GET", tt.path, "", "Authorization", tt.header); w.Code != tt.status {
			t.Errorf("%s with %q: %d, want %d", tt.path, tt.header, w.Code, tt.status)
		}
	}
}

// TestServeEndsOpenWaits stops a server while a wait and a long poll are open:
// both are answered, and Serve returns.
func TestServeEndsOpenWaits(t *testing.T) {
	s := newServer(t, httpapi.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	base := "http://" + l.Addr().String() + "/v1/agl"
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func(path, body string) string {
		resp, err := client.Post(base+path, "application/json", strings.NewReader(body))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return string(text)
	}
	var started struct {
		ID string `json:"rollout_id"`
	}
	if err := json.Unmarshal([]byte(post("/rollouts", `{"input":1}`)), &started); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 2)
	go func() { answers <- post("/waits/rollouts", `{"rollout_ids":["`+started.ID+`"]}`) }()
	go func() { answers <- post("/queues/rollouts/dequeue", `{"worker_id":"w","wait_seconds":60}`) }()
	for !strings.Contains(post("/workers/search", "{}"), `"worker_id":"w"`) {
		time.Sleep(time.Millisecond)
	}
	stop()
	for range 2 {
		if got := <-answers; got != "[]" && !strings.Contains(got, "refused") {
			t.Errorf("open wait got %s", got)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

const spanBody = `{"rollout_id":"RO","attempt_id":"AT","sequence_id":1,"trace_id":"01010101010101010101010101010101","span_id":"0202020202020202","parent_id":null,"name":"n","status":{"status_code":"OK","x":1},"attributes":{"a":[1,2.5],"s":"x"},"events":[{"name":"e","attributes":{}}],"links":[],"start_time":1.5,"end_time":null,"context":null,"parent":null,"resource":{"attributes":{},"schema_url":"","gone":1},"extra":NaN}`

func FuzzBodies(f *testing.F) {
	posts := []string{
		"/v1/agl/queues/rollouts/enqueue", "/v1/agl/queues/rollouts/dequeue", "/v1/agl/rollouts", "/v1/agl/rollouts/search",
		"/v1/agl/rollouts/r", "/v1/agl/rollouts/r/attempts", "/v1/agl/rollouts/r/attempts/search", "/v1/agl/rollouts/r/attempts/a",
		"/v1/agl/workers/search", "/v1/agl/workers/w", "/v1/agl/resources", "/v1/agl/resources/x", "/v1/agl/spans",
		"/v1/agl/spans/search", "/v1/agl/spans/next", "/v1/traces",
	}
	f.Add(spanBody)
	f.Add(`{"rollouts":[{"input":1,"config":{"max_attempts":"2","timeout_seconds":NaN}}],"input":null,"rollout_id":"a"}`)
	f.Add(`{"a":{"resource_type":"llm","endpoint":"e","model":"m"},"limit":1e999,"sort_by":"x"}`)
	s := newServer(f, httpapi.Options{})
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range posts {
			w := send(t, s, "POST", path, body)
			if w.Code >= 500 || (w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) && path != "/v1/traces") {
				t.Errorf("%s %q: %d %s", path, body, w.Code, w.Body)
			}
		}
	})
}

func FuzzQueries(f *testing.F) {
	f.Add("limit=1&sort_by=start_time&status_in=x&rollout_id=r&attempt_id=latest&filter_logic=or&name_contains=%ff")
	s := newServer(f, httpapi.Options{})
	f.Fuzz(func(t *testing.T, query string) {
		for _, path := range []string{"rollouts", "workers", "resources", "spans", "rollouts/r/attempts"} {
			r := httptest.NewRequest("GET", "/v1/agl/"+path, nil)
			r.URL.RawQuery = query
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s?%s: %d %s", path, query, w.Code, w.Body)
			}
		}
	})
}

// TestQueryStrings reads query strings as the reference does: only & separates, and a
// stray % stands for itself.
func TestQueryStrings(t *testing.T) {
	s := newServer(t, httpapi.Options{})
	for _, id := range []string{"a;b", "100%", "%zz", "plain"} {
		if w := send(t, s, "POST", "/v1/agl/workers/"+url.PathEscape(id), `{}`); w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
	}
	for query, want := range map[string]string{
		"worker_id_contains=a;b":                      "a;b",
		"worker_id_contains=%":                        "%zz 100%",
		"worker_id_contains=%zz":                      "%zz",
		"worker_id_contains=0%&limit=1":               "100%",
		"worker_id_contains=%25zz":                    "%zz",
		"worker_id_contains=none;worker_id_contains=": "",
		"&&worker_id_contains=pl%61in&":               "plain",
	} {
		w := send(t, s, "GET", "/v1/agl/workers?sort_by=worker_id&"+query, "")
		var page struct {
			Items []struct {
				ID string `json:"worker_id"`
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			t.Fatal(w.Code, w.Body, err)
		}
		var got []string
		for _, item := range page.Items {
			got = append(got, item.ID)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s lists %q, want %q", query, got, want)
		}
	}
	if w := send(t, s, "GET", "/v1/agl/workers?limit=1;offset=2", ""); w.Code != 422 {
		t.Errorf("a limit of 1;offset=2 is answered %d: %s", w.Code, w.Body)
	}
}

func BenchmarkSpans(b *testing.B) {
	s := newServer(b, httpapi.Options{})
	var started queue.AttemptedRollout
	if err := json.Unmarshal(send(b, s, "POST", "/v1/agl/rollouts", `{"input":1}`).Body.Bytes(), &started); err != nil {
		b.Fatal(err)
	}
	body := strings.NewReplacer("RO", started.RolloutID, "AT", started.Attempt.AttemptID, "NaN", `"`+strings.Repeat("x", 400)+`"`).Replace(spanBody)
	b.ReportAllocs()
	for b.Loop() {
		// The same span again is refused by the store, which keeps it small.
		if w := send(b, s, "POST", "/v1/agl/spans", body); w.Code != 201 {
			b.Fatal(w.Code, w.Body)
		}
	}
}

func BenchmarkDequeueEmpty(b *testing.B) {
	s := newServer(b, httpapi.Options{})
	b.ReportAllocs()
	for b.Loop() {
		if w := send(b, s, "POST", "/v1/agl/queues/rollouts/dequeue", `{"limit":1}`); w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
