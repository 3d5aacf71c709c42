package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/otlp"
	"github.com/aglq/aglq/queue/rawjson"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is a request as the scripted server got it.
type seen struct{ method, path, body, key, kind string }

// script is a server that answers each request as told, in order; health has
// answers of its own.
type script struct {
	*httptest.Server
	mu      sync.Mutex
	answers []http.HandlerFunc
	health  []int // status codes; 200 when they are used up
	got     []seen
	probes  int
}

func serve(t *testing.T, answers ...http.HandlerFunc) *script {
	t.Helper()
	s := &script{answers: answers}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/agl/health" {
		s.mu.Lock()
		s.probes++
		code := http.StatusOK
		if len(s.health) > 0 {
			code, s.health = s.health[0], s.health[1:]
		}
		s.mu.Unlock()
		w.WriteHeader(code)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, seen{r.Method, r.URL.RequestURI(), string(body),
		r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type")})
	if len(s.answers) == 0 {
		s.mu.Unlock()
		http.Error(w, "the script is over", http.StatusTeapot)
		return
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	s.mu.Unlock()
	answer(w, r)
}

func (s *script) requests() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.got...)
}

// answers of a script
func says(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

func header(name, val string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, val)
		next(w, r)
	}
}

func drops(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func truncates(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `[{"rollout_id":`)
}

func stalls(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func html(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, "<h1>some other server</h1>")
}

// quick is the usual client with its pauses shortened.
func quick(t *testing.T, url string, adjust ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{
		Retry:          []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond},
		Probe:          []time.Duration{0, time.Millisecond},
		RequestTimeout: 5 * time.Second,
	}
	for _, f := range adjust {
		f(&o)
	}
	c := client.New(url, o)
	t.Cleanup(c.Close)
	return c
}

const (
	rolloutJSON = `{"rollout_id":"ro-1","input":{"b":1.0,"a":9007199254740993},"start_time":1.5,"end_time":null,"mode":"train","resources_id":null,"status":"queuing","config":{"timeout_seconds":null,"unresponsive_seconds":2,"max_attempts":3,"retry_condition":["failed"]},"metadata":{},"future":1}`
	attemptJSON = `{"rollout_id":"ro-1","attempt_id":"at-1","sequence_id":1,"start_time":2.0,"end_time":null,"status":"preparing","worker_id":"w","last_heartbeat_time":null,"metadata":null}`
)

func begunJSON(status string) string {
	return strings.Replace(strings.TrimSuffix(rolloutJSON, "}"), `"queuing"`, `"`+status+`"`, 1) + `,"attempt":` + attemptJSON + "}"
}

// A call that fails in a way that may pass is repeated, with the same key.
func TestRepeats(t *testing.T) {
	ok := says(http.StatusCreated, "["+rolloutJSON+"]")
	failures := map[string]http.HandlerFunc{
		"dropped after the commit": drops,
		"truncated":                truncates,
		"500":                      says(500, `{"detail":"Internal server error","error_type":"RuntimeError"}`),
		"503":                      says(503, `{"detail":"database away"}`),
		"408":                      says(408, `{}`),
		"wrong content type":       html,
	}
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, fail, fail, fail, ok)
			got, err := quick(t, s.URL).Enqueue(t.Context(), []queue.Request{{Input: rawjson.Value(`{"x":1}`)}})
			if err != nil || len(got) != 1 || got[0].Input.String() != `{"b":1.0,"a":9007199254740993}` {
				t.Fatalf("got %v, %v", got, err)
			}
			requests := s.requests()
			// One that was dropped may be sent again by net/http, without a probe.
			if len(requests) != 4 || s.probes < 2 {
				t.Fatalf("%d requests and %d probes", len(requests), s.probes)
			}
			for _, r := range requests {
				if r != requests[0] || r.key == "" {
					t.Errorf("a repetition differs: %v from %v", r, requests[0])
				}
			}
			want := `{"rollouts":[{"input":{"x":1},"mode":null,"resources_id":null,"config":null,"metadata":null}]}`
			if requests[0].body != want {
				t.Errorf("body %s", requests[0].body)
			}
		})
	}
}

func TestGivesUp(t *testing.T) {
	t.Run("after the last repetition", func(t *testing.T) {
		fail := says(503, `{"detail":"database away"}`)
		s := serve(t, fail, fail, fail, fail, fail)
		_, err := quick(t, s.URL).Claim(t.Context(), queue.Claim{Limit: 1})
		if queue.KindOf(err) != queue.Unavailable || err.Error() != "database away" || len(s.requests()) != 4 {
			t.Errorf("%v after %d requests", err, len(s.requests()))
		}
	})
	t.Run("when unwell", func(t *testing.T) {
		s := serve(t, says(500, `{}`))
		s.health = []int{503, 503}
		if _, err := quick(t, s.URL).Claim(t.Context(), queue.Claim{Limit: 1}); err == nil || len(s.requests()) != 1 {
			t.Errorf("%v after %d requests", err, len(s.requests()))
		}
	})
	t.Run("when nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		c := quick(t, "http://"+l.Addr().String())
		if _, err := c.Statistics(t.Context()); queue.KindOf(err) != queue.Unavailable {
			t.Errorf("%v", err)
		}
		if err := c.Healthy(t.Context()); queue.KindOf(err) != queue.Unavailable {
			t.Errorf("healthy: %v", err)
		}
	})
	t.Run("when the caller ends", func(t *testing.T) {
		s := serve(t, stalls)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := quick(t, s.URL).Claim(ctx, queue.Claim{Limit: 1})
		if !errors.Is(err, context.DeadlineExceeded) || len(s.requests()) != 1 {
			t.Errorf("%v after %d requests", err, len(s.requests()))
		}
	})
}

func TestTimeoutIsRepeated(t *testing.T) {
	s := serve(t, stalls, says(200, "[]"))
	c := quick(t, s.URL, func(o *client.Options) { o.RequestTimeout = 50 * time.Millisecond })
	if _, err := c.Claim(t.Context(), queue.Claim{Limit: 1}); err != nil || len(s.requests()) != 2 {
		t.Errorf("%v after %d requests", err, len(s.requests()))
	}
}

// Patience outlasts an unwell store and the list of pauses.
func TestPatience(t *testing.T) {
	fail := says(503, `{}`)
	s := serve(t, fail, fail, fail, fail, fail, fail, says(200, "[]"))
	s.health = []int{503, 503, 503, 503, 503, 503}
	c := quick(t, s.URL, func(o *client.Options) { o.Patience = time.Minute })
	if _, err := c.Claim(t.Context(), queue.Claim{Limit: 1}); err != nil {
		t.Error(err)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	s := serve(t, header("Retry-After", "1", says(503, `{}`)), says(200, "[]"))
	began := time.Now()
	if _, err := quick(t, s.URL).Claim(t.Context(), queue.Claim{Limit: 1}); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("repeated after %v", waited)
	}
}

func TestRefusals(t *testing.T) {
	cases := map[string]struct {
		answer http.HandlerFunc
		kind   queue.Kind
		text   string
	}{
		"404":         {says(404, `{"detail":"Rollout x not found"}`), queue.NotFound, "Rollout x not found"},
		"400":         {says(400, `{"detail":"status is invalid"}`), queue.Invalid, "status is invalid"},
		"409":         {says(409, `{"detail":"key in use"}`), queue.Conflict, "key in use"},
		"413":         {says(413, `{"detail":"too large"}`), queue.TooLarge, "too large"},
		"422":         {says(422, `{"detail":[{"type":"missing","loc":["body","rollouts",0,"input"],"msg":"Field required"}]}`), queue.Invalid, "body.rollouts.0.input: Field required"},
		"reference":   {says(500, `{"detail":"Internal server error","error_type":"ValueError","traceback":"Traceback:\n  x\nValueError: Rollout x not found\n"}`), queue.NotFound, "Rollout x not found"},
		"no detail":   {says(404, `nonsense`), queue.NotFound, "the store answered with status 404 Not Found"},
		"redirection": {header("Location", "/elsewhere", says(307, "")), queue.Internal, "the store answered with status 307 Temporary Redirect"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.answer)
			_, err := quick(t, s.URL).UpdateRollout(t.Context(), "x", queue.RolloutUpdate{})
			if queue.KindOf(err) != c.kind || err == nil || err.Error() != c.text || len(s.requests()) != 1 {
				t.Errorf("%v (%v) after %d requests", err, queue.KindOf(err), len(s.requests()))
			}
		})
	}
}

func TestAnswersThatAreWrong(t *testing.T) {
	for name, body := range map[string]string{
		"no list": `{}`, "no rollout": `[1]`, "no id": `[{"status":"queuing"}]`, "no attempt": `[` + rolloutJSON + `]`,
		"new status": `[{"rollout_id":"a","status":"sleeping"}]`, "no JSON": `[{]`, "empty": ``,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, says(200, body))
			if got, err := quick(t, s.URL).Claim(t.Context(), queue.Claim{Limit: 1}); err == nil {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		s := serve(t, says(200, strings.Repeat(" ", 2000)+"[]"))
		c := quick(t, s.URL, func(o *client.Options) { o.MaxAnswer = 1000 })
		if _, err := c.Claim(t.Context(), queue.Claim{Limit: 1}); queue.KindOf(err) != queue.TooLarge {
			t.Error(err)
		}
	})
}

func TestIdempotencyKeyOfTheCaller(t *testing.T) {
	s := serve(t, says(200, "[]"), says(200, "[]"))
	c := quick(t, s.URL)
	ctx := queue.WithIdempotencyKey(t.Context(), "mine")
	worker := "w"
	for range 2 {
		if _, err := c.Claim(ctx, queue.Claim{Limit: 2, WorkerID: &worker}); err != nil {
			t.Fatal(err)
		}
	}
	want := seen{"POST", "/v1/agl/queues/rollouts/dequeue", `{"limit":2,"worker_id":"w"}`, "mine", "application/json"}
	if diff := cmp.Diff([]seen{want, want}, s.requests(), cmp.AllowUnexported(seen{})); diff != "" {
		t.Error(diff)
	}
}

func TestRequests(t *testing.T) {
	text := func(s string) *string { return &s }
	page := `{"items":[],"limit":-1,"offset":0,"total":0}`
	cases := map[string]struct {
		call   func(context.Context, *client.Client) error
		answer string
		want   string // method, path, body
	}{
		"rollouts": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Rollouts(ctx, queue.RolloutQuery{Statuses: []queue.RolloutStatus{"queuing"}, IDs: []string{}, Logic: queue.Or, Paging: queue.Paging{SortBy: "mode", Descending: true, Limit: 5}})
			return err
		}, page, `POST /v1/agl/rollouts/search {"status_in":["queuing"],"rollout_id_in":[],"filter_logic":"or","limit":5,"offset":0,"sort_by":"mode","sort_order":"desc"}`},
		"spans": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Spans(ctx, queue.SpanQuery{RolloutID: "r", AttemptID: text("latest"), Name: queue.TextMatch{Contains: text("x")}, Paging: queue.All})
			return err
		}, page, `POST /v1/agl/spans/search {"rollout_id":"r","attempt_id":"latest","name_contains":"x","limit":-1,"offset":0,"sort_by":null}`},
		"resources": {func(ctx context.Context, c *client.Client) error {
			_, err := c.QueryResources(ctx, queue.ResourcesQuery{IDContains: text("a b"), Paging: queue.All})
			return err
		}, page, `GET /v1/agl/resources?limit=-1&offset=0&resources_id_contains=a+b `},
		"path": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Rollout(ctx, "a b/ü:..")
			return err
		}, "null", `GET /v1/agl/rollouts/a%20b%2F%C3%BC:.. `},
		"dots": {func(ctx context.Context, c *client.Client) error { _, err := c.Worker(ctx, ".."); return err },
			"null", `GET /v1/agl/workers/%2E%2E `},
		"attempt": {func(ctx context.Context, c *client.Client) error {
			_, err := c.UpdateAttempt(ctx, "r", "latest", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded), Metadata: queue.Set(rawjson.Value(`{"a":1}`))})
			return err
		}, attemptJSON, `POST /v1/agl/rollouts/r/attempts/latest {"status":"succeeded","metadata":{"a":1}}`},
		"rollout": {func(ctx context.Context, c *client.Client) error {
			_, err := c.UpdateRollout(ctx, "r", queue.RolloutUpdate{Mode: queue.Set(queue.Mode("")), ResourcesID: queue.Set(text(""))})
			return err
		}, rolloutJSON, `POST /v1/agl/rollouts/r {"mode":null,"resources_id":""}`},
		"attempt without a worker": {func(ctx context.Context, c *client.Client) error {
			_, err := c.StartAttempt(ctx, "r", nil)
			return err
		}, begunJSON("preparing"), `POST /v1/agl/rollouts/r/attempts `},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := serve(t, says(200, c.answer))
			if err := c.call(t.Context(), quick(t, s.URL)); err != nil {
				t.Fatal(err)
			}
			r := s.requests()[0]
			if got := r.method + " " + r.path + " " + r.body; got != c.want {
				t.Errorf("sent %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAuthToken(t *testing.T) {
	var got string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		says(200, "null")(w, r)
	})
	c := quick(t, s.URL, func(o *client.Options) { o.AuthToken = "secret" })
	if _, err := c.LatestResources(t.Context()); err != nil || got != "Bearer secret" {
		t.Errorf("sent %q, %v", got, err)
	}
}

func TestUnknownRolloutOfTheReference(t *testing.T) {
	s := serve(t, says(500, `{"detail":"Internal server error","error_type":"ResponseValidationError","traceback":""}`))
	if r, err := quick(t, s.URL).Rollout(t.Context(), "x"); r != nil || err != nil {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestNoNumbersAreRefusedAsByTheStore(t *testing.T) {
	srv := serve(t)
	c := client.New(srv.URL, client.Options{})
	defer c.Close()
	for _, n := range []int{0, -1} {
		if _, err := c.NextSequence(t.Context(), "ro-1", n); queue.KindOf(err) != queue.Invalid {
			t.Errorf("%d numbers: %v", n, err)
		}
	}
	if len(srv.got) > 0 {
		t.Errorf("the store was asked: %v", srv.got)
	}
}

func TestHeartbeat(t *testing.T) {
	held := queue.AttemptRef{RolloutID: "ro-1", AttemptID: "at-1"}
	worker := `{"worker_id":"w","status":"busy","heartbeat_stats":null,"last_heartbeat_time":77.5,"last_dequeue_time":null,"last_busy_time":null,"last_idle_time":null,"current_rollout_id":null,"current_attempt_id":null`
	beat := queue.Heartbeat{WorkerID: "w", Held: []queue.AttemptRef{held}}
	t.Run("aglq", func(t *testing.T) {
		s := serve(t, says(200, worker+`,"attempts":[{"rollout_id":"ro-1","attempt_id":"at-1","held":false,"rollout_status":"cancelled"}]}`))
		got, err := quick(t, s.URL).Heartbeat(t.Context(), beat)
		if err != nil || len(got.Held) != 1 || got.Held[0].Held || got.Held[0].RolloutStatus != queue.RolloutCancelled {
			t.Errorf("got %v, %v", got, err)
		}
		if body := s.requests()[0].body; body != `{"attempts":[{"rollout_id":"ro-1","attempt_id":"at-1"}]}` {
			t.Errorf("sent %s", body)
		}
	})
	t.Run("reference, held", func(t *testing.T) {
		s := serve(t, says(200, worker+"}"), says(200, begunJSON("preparing")), says(200, attemptJSON))
		got, err := quick(t, s.URL).Heartbeat(t.Context(), beat)
		if err != nil || len(got.Held) != 1 || !got.Held[0].Held {
			t.Fatalf("got %v, %v", got, err)
		}
		if r := s.requests()[2]; r.path != "/v1/agl/rollouts/ro-1/attempts/at-1" || r.body != `{"last_heartbeat_time":77.5}` {
			t.Errorf("renewed by %v", r)
		}
	})
	t.Run("reference, cancelled", func(t *testing.T) {
		s := serve(t, says(200, worker+"}"), says(200, begunJSON("cancelled")))
		got, err := quick(t, s.URL).Heartbeat(t.Context(), beat)
		if err != nil || len(got.Held) != 1 || got.Held[0].Held || len(s.requests()) != 2 {
			t.Errorf("got %v, %v after %d requests", got, err, len(s.requests()))
		}
	})
}

func TestWait(t *testing.T) {
	done := strings.Replace(rolloutJSON, "queuing", "succeeded", 1)
	t.Run("store waits", func(t *testing.T) {
		s := serve(t, says(200, "["+done+"]"))
		got, err := quick(t, s.URL).Wait(t.Context(), []string{"ro-1"}, time.Minute)
		if err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
		if body := s.requests()[0].body; body != `{"rollout_ids":["ro-1"],"timeout":30.0}` {
			t.Errorf("sent %s", body)
		}
	})
	t.Run("store refuses", func(t *testing.T) {
		open := says(200, `{"items":[],"limit":1,"offset":0,"total":1}`)
		s := serve(t, says(400, `{"detail":"timeout must be 0.1 at most"}`), says(200, "[]"), open, says(200, "["+done+"]"))
		got, err := quick(t, s.URL).Wait(t.Context(), []string{"ro-1"}, -1)
		if err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
	})
	t.Run("unknown ids", func(t *testing.T) {
		s := serve(t, says(200, "["+done+"]"), says(200, `{"items":[],"limit":1,"offset":0,"total":0}`))
		got, err := quick(t, s.URL).Wait(t.Context(), []string{"ro-1", "nobody"}, time.Minute)
		if err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
	})
	t.Run("no time", func(t *testing.T) {
		s := serve(t, says(200, "[]"))
		if got, err := quick(t, s.URL).Wait(t.Context(), []string{"ro-1"}, 0); err != nil || len(got) != 0 || len(s.requests()) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func protobuf(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		io.WriteString(w, body)
	}
}

func span(n int) queue.Span {
	return queue.Span{
		RolloutID: "ro-1", AttemptID: "at-1", SequenceID: queue.NumberOnArrival,
		TraceID: strings.Repeat("ab", 16), SpanID: fmt.Sprintf("%016x", n+1), Name: "step",
		Attributes: rawjson.Value(`{"text":"` + strings.Repeat("x", 1000) + `"}`),
	}
}

func TestSpansTravelAsOTLP(t *testing.T) {
	var spans []queue.Span
	for n := range 100 {
		spans = append(spans, span(n))
	}
	var body []byte
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { protobuf("\x0a\x08\x08\x03\x12\x04gone")(w, r) })
	got, err := quick(t, s.URL).AddSpans(t.Context(), spans)
	if err != nil || got.Rejected != 3 || got.Reason != "gone" {
		t.Fatalf("got %v, %v", got, err)
	}
	r := s.requests()[0]
	if r.path != "/v1/traces" || r.kind != "application/x-protobuf" {
		t.Errorf("sent %s as %s", r.path, r.kind)
	}
	z, err := gzip.NewReader(strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if body, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	batch, err := otlp.Decode(body)
	if err != nil || len(batch.Spans) != len(spans) {
		t.Errorf("%d spans arrive, %v", len(batch.Spans), err)
	}
}

func TestSmallBatchIsNotCompressed(t *testing.T) {
	s := serve(t, protobuf(""))
	if _, err := quick(t, s.URL).AddSpans(t.Context(), []queue.Span{span(0)}); err != nil {
		t.Fatal(err)
	}
	if body := s.requests()[0].body; !bytes.Contains([]byte(body), []byte("step")) {
		t.Errorf("sent %q", body)
	}
}

// What OTLP cannot carry goes as JSON.
func TestSpanWithForeignIDs(t *testing.T) {
	odd := span(0)
	odd.SpanID = "0199-uuid"
	odd.SequenceID = 4
	s := serve(t, says(201, "null"))
	if got, err := quick(t, s.URL).AddSpans(t.Context(), []queue.Span{odd}); err != nil || got.Rejected != 0 {
		t.Fatalf("got %v, %v", got, err)
	}
	if r := s.requests()[0]; r.path != "/v1/agl/spans" || r.key == "" || !strings.Contains(r.body, `"events":[],"links":[]`) {
		t.Errorf("sent %v", r)
	}
}

func TestOTLPRefusal(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(400)
		io.WriteString(w, "\x12\x07no good")
	})
	_, err := quick(t, s.URL).AddSpans(t.Context(), []queue.Span{span(0)})
	if queue.KindOf(err) != queue.Invalid || err == nil || err.Error() != "no good" {
		t.Error(err)
	}
}

// The protocol cannot take a claim back, so the rollout is queued again.
func TestUnclaimWithoutARoute(t *testing.T) {
	s := serve(t, says(200, begunJSON("preparing")), says(200, rolloutJSON), says(200, begunJSON("running")))
	c := quick(t, s.URL)
	ref := queue.AttemptRef{RolloutID: "ro-1", AttemptID: "at-1"}
	if err := c.Unclaim(t.Context(), []queue.AttemptRef{ref, ref}); err != nil {
		t.Fatal(err)
	}
	requests := s.requests()
	if len(requests) != 3 || requests[1].body != `{"status":"queuing"}` {
		t.Errorf("sent %v", requests)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte("[" + begunJSON("preparing") + "]"))
	f.Add([]byte(`[{"attempt":{"status":1}}]`))
	f.Add([]byte(`{"items":[],"limit":1e400}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		answer := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(body)
		}
		c := client.New("http://store", client.Options{Retry: []time.Duration{}, Transport: direct(answer)})
		got, err := c.Claim(context.Background(), queue.Claim{Limit: 1})
		for _, r := range got {
			if err == nil && (r.RolloutID == "" || r.Attempt == nil) {
				t.Errorf("half a claim: %v", r)
			}
		}
		_, _ = c.Rollouts(context.Background(), queue.RolloutQuery{})
		_, _ = c.Spans(context.Background(), queue.SpanQuery{})
		_, _ = c.Statistics(context.Background())
		_, _ = c.Heartbeat(context.Background(), queue.Heartbeat{})
	})
}

// direct is a transport that calls a handler.
type direct http.HandlerFunc

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d(w, r)
	return w.Result(), nil
}
