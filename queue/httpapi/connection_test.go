package httpapi_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
)

// serve serves a store on a port of its own until the test ends.
func serve(t *testing.T, s httpapi.Store, o httpapi.Options) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Logger = slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- httpapi.New(s, o).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// wire is a client that speaks HTTP by hand.
type wire struct {
	*net.TCPConn
	in *bufio.Reader
}

func dial(t *testing.T, address string) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // some tests close it themselves
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{TCPConn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
}

func (w *wire) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads one response.
func (w *wire) answer(t *testing.T) (status int, body string, closes bool) {
	t.Helper()
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Close
}

// ended waits until the server has closed the connection.
func (w *wire) ended(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(w.in); err != nil && !strings.Contains(err.Error(), "reset") || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func post(path, body string, headers ...string) string {
	text := "POST /v1/agl" + path + " HTTP/1.1\r\nHost: store\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	return text + "\r\n" + body
}

// eventually asks until the answer is wanted.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ask(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestClientGoneDuringLongPoll(t *testing.T) {
	s := newStore(t)
	gone := dial(t, serve(t, s, httpapi.Options{}))
	gone.say(t, post("/queues/rollouts/dequeue", `{"worker_id":"gone","wait_seconds":60}`))
	ctx := context.Background()
	eventually(t, "the claim never began", func() bool {
		w, err := s.Worker(ctx, "gone")
		return err == nil && w != nil
	})
	_ = gone.Close()
	if _, err := s.Enqueue(ctx, []queue.Request{{Input: []byte(`1`)}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rollout went to a client that was gone", func() bool {
		claimed, err := s.Claim(ctx, queue.Claim{Limit: 1})
		return err == nil && len(claimed) == 1 && claimed[0].Attempt.SequenceID == 1
	})
}

// hangsUp is a store whose client goes away between a claim and its answer.
type hangsUp struct {
	httpapi.Store
	client *wire
}

func (h *hangsUp) Claim(ctx context.Context, c queue.Claim) ([]queue.AttemptedRollout, error) {
	claimed, err := h.Store.Claim(ctx, c)
	_ = h.client.Close()
	<-ctx.Done()
	return claimed, err
}

func TestClientGoneRightAfterClaim(t *testing.T) {
	for _, tt := range []struct {
		name, header  string
		queued, begun int64
	}{
		{"gives the claim back", "X-Nothing: 1", 1, 0},
		{"but not one that can be asked for again", "Idempotency-Key: k", 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			ctx := context.Background()
			if _, err := s.Enqueue(ctx, []queue.Request{{Input: []byte(`1`)}}); err != nil {
				t.Fatal(err)
			}
			observed := make(chan int, 1)
			h := &hangsUp{Store: s}
			address := serve(t, h, httpapi.Options{Observe: func(_, _ string, status int, _ time.Duration) { observed <- status }})
			h.client = dial(t, address)
			h.client.say(t, post("/queues/rollouts/dequeue", `{"worker_id":"w"}`, tt.header))
			if status := <-observed; status != 499 {
				t.Errorf("status %d, want 499", status)
			}
			st, err := s.Statistics(ctx)
			if err != nil || st.ByStatus[queue.RolloutQueuing] != tt.queued || st.Attempts != tt.begun {
				t.Errorf("%+v, %v; want %d queued, %d attempts", st, err, tt.queued, tt.begun)
			}
		})
	}
}

func TestStalledBody(t *testing.T) {
	c := dial(t, serve(t, newStore(t), httpapi.Options{BodyStall: 100 * time.Millisecond}))
	c.say(t, "POST /v1/agl/resources HTTP/1.1\r\nHost: store\r\nContent-Length: 100\r\n\r\n{\"a\":")
	if status, body, closes := c.answer(t); status != http.StatusRequestTimeout || !closes || !strings.HasPrefix(body, `{"detail":"reading the request body`) {
		t.Errorf("%d %s, closes %t", status, body, closes)
	}
	c.ended(t)
}

func TestBrokenChunks(t *testing.T) {
	c := dial(t, serve(t, newStore(t), httpapi.Options{}))
	c.say(t, "POST /v1/agl/resources HTTP/1.1\r\nHost: store\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")
	if status, body, closes := c.answer(t); status != http.StatusBadRequest || !closes {
		t.Errorf("%d %s, closes %t", status, body, closes)
	}
	c.ended(t)
}

// TestSlowBody sends a body that takes longer than a stall, and makes progress.
func TestSlowBody(t *testing.T) {
	const stall = 400 * time.Millisecond
	c := dial(t, serve(t, newStore(t), httpapi.Options{BodyStall: stall}))
	body := `{"input":"slow but alive"}`
	head, _, _ := strings.Cut(post("/rollouts", body), body)
	c.say(t, head)
	pace := time.NewTicker(stall / 10)
	defer pace.Stop()
	for _, b := range body {
		<-pace.C
		c.say(t, string(b))
	}
	if status, got, _ := c.answer(t); status != http.StatusCreated {
		t.Errorf("%d %s", status, got)
	}
}

func TestSlowHeaders(t *testing.T) {
	c := dial(t, serve(t, newStore(t), httpapi.Options{BodyStall: 100 * time.Millisecond}))
	c.say(t, "POST /v1/agl/resources HTTP/1.1\r\nHost: st")
	c.ended(t)
}

func TestHalfClosedConnection(t *testing.T) {
	c := dial(t, serve(t, newStore(t), httpapi.Options{}))
	c.say(t, post("/rollouts", `{"input":1}`))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if status, body, _ := c.answer(t); status != http.StatusCreated || !strings.Contains(body, `"status":"preparing"`) {
		t.Errorf("%d %s", status, body)
	}
	c.ended(t)
}

// TestHalfClosedLongPoll closes the client's side while its claim waits. It is
// taken for gone, and told so.
func TestHalfClosedLongPoll(t *testing.T) {
	c := dial(t, serve(t, newStore(t), httpapi.Options{}))
	c.say(t, post("/queues/rollouts/dequeue", `{"wait_seconds":60}`))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if status, body, closes := c.answer(t); status != 499 || !closes {
		t.Errorf("%d %s, closes %t", status, body, closes)
	}
	c.ended(t)
}

func TestGarbageAfterRequest(t *testing.T) {
	c := dial(t, serve(t, newStore(t), httpapi.Options{}))
	c.say(t, post("/rollouts", `{"input":1}`)+"\x00\x01 garbage\r\n\r\n")
	if status, body, _ := c.answer(t); status != http.StatusCreated {
		t.Errorf("%d %s", status, body)
	}
	if status, _, closes := c.answer(t); status != http.StatusBadRequest || !closes {
		t.Errorf("garbage: %d, closes %t", status, closes)
	}
	c.ended(t)
}

func TestIdempotencyKey(t *testing.T) {
	routes := []struct{ path, body string }{
		{"/v1/agl/queues/rollouts/enqueue", `{"rollouts":[{"input":1},{"input":2}]}`},
		{"/v1/agl/queues/rollouts/dequeue", `{"worker_id":"w"}`},
		{"/v1/agl/rollouts", `{"input":1,"worker_id":"w"}`},
		{"/v1/agl/rollouts/RO/attempts", `{"worker_id":"w"}`},
		{"/v1/agl/resources", `{"a":{"resource_type":"llm","endpoint":"e","model":"m"}}`},
	}
	uptime := regexp.MustCompile(`"uptime":[0-9.e-]+`)
	for i, route := range routes {
		t.Run(route.path, func(t *testing.T) {
			h := httpapi.New(newStore(t), httpapi.Options{Logger: slog.New(slog.DiscardHandler)})
			first := send(t, h, "POST", "/v1/agl/queues/rollouts/enqueue", `{"rollouts":[{"input":1},{"input":2}]}`).Body.String()
			id := regexp.MustCompile(`ro-[0-9a-f]{12}`).FindString(first)
			call := func(key string) (int, string) {
				w := send(t, h, "POST", strings.Replace(route.path, "RO", id, 1), route.body, "Idempotency-Key", key)
				return w.Code, w.Body.String()
			}
			stored := func() string {
				return uptime.ReplaceAllString(send(t, h, "GET", "/v1/agl/statistics", "").Body.String(), "")
			}
			status, want := call("k")
			before := stored()
			if again, got := call("k"); again != status || got != want || status >= 300 {
				t.Errorf("first  %d %s\nsecond %d %s", status, want, again, got)
			}
			if got := stored(); got != before {
				t.Errorf("the second call changed the store from %s\nto %s", before, got)
			}
			other := routes[(i+1)%len(routes)]
			w := send(t, h, "POST", strings.Replace(other.path, "RO", id, 1), other.body, "Idempotency-Key", "k")
			if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "another operation") {
				t.Errorf("the key for %s: %d %s", other.path, w.Code, w.Body)
			}
			if _, got := call("k2"); got == want {
				t.Errorf("another key gave the first answer: %s", got)
			}
			before = stored()
			if status, got := call(strings.Repeat("k", 256)); status != http.StatusBadRequest || stored() != before {
				t.Errorf("a key of 256 bytes: %d %s", status, got)
			}
		})
	}
}

func TestHeartbeatRenewsAttempts(t *testing.T) {
	s := newStore(t)
	h := httpapi.New(s, httpapi.Options{Logger: slog.New(slog.DiscardHandler)})
	worker := "w"
	ctx := context.Background()
	started, err := s.Start(ctx, queue.Request{Input: []byte(`1`)}, &worker)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"heartbeat_stats":{"cpu":0.5},"attempts":[{"rollout_id":"RO","attempt_id":"AT"},{"rollout_id":"RO","attempt_id":"at-none"},{"rollout_id":"ro-none","attempt_id":"x"}]}`
	ids := strings.NewReplacer("RO", started.RolloutID, "AT", started.Attempt.AttemptID)
	w := send(t, h, "POST", "/v1/agl/workers/w", ids.Replace(body))
	want := ids.Replace(`,"attempts":[{"rollout_id":"RO","attempt_id":"AT","held":true,"rollout_status":"preparing"},` +
		`{"rollout_id":"RO","attempt_id":"at-none","held":false,"rollout_status":"preparing"},` +
		`{"rollout_id":"ro-none","attempt_id":"x","held":false,"rollout_status":""}]}`)
	if got := w.Body.String(); w.Code != 200 || !strings.HasPrefix(got, `{"worker_id":"w",`) || !strings.HasSuffix(got, want) {
		t.Errorf("%d %s\nwant …%s", w.Code, got, want)
	}
	a, err := s.LatestAttempt(ctx, started.RolloutID)
	if err != nil || a.LastHeartbeatTime == nil {
		t.Errorf("the attempt was not renewed: %+v, %v", a, err)
	}
	for _, wrong := range []string{`{"attempts":[{"rollout_id":"x"}]}`, `{"attempts":1}`, `{"attempts":[1]}`} {
		if w := send(t, h, "POST", "/v1/agl/workers/w", wrong); w.Code != 422 {
			t.Errorf("%s: %d %s", wrong, w.Code, w.Body)
		}
	}
}

func TestHeadAndOptions(t *testing.T) {
	plain := newServer(t, httpapi.Options{})
	open := newServer(t, httpapi.Options{CORSOrigins: []string{"*"}})
	preflight := []string{"Origin", "http://a", "Access-Control-Request-Method", "POST"}
	for _, tt := range []struct {
		h            http.Handler
		method, path string
		headers      []string
		status       int
		header, want string
	}{
		{plain, "HEAD", "/v1/agl/rollouts", nil, 405, "Allow", "GET, POST"},
		{plain, "OPTIONS", "/v1/agl/spans/next", nil, 405, "Allow", "POST"},
		{plain, "OPTIONS", "/v1/agl/rollouts", preflight, 405, "Access-Control-Allow-Origin", ""},
		{open, "OPTIONS", "/v1/agl/rollouts", preflight, 200, "Access-Control-Allow-Origin", "http://a"},
		{open, "OPTIONS", "/v1/agl/rollouts", nil, 405, "Allow", "GET, POST"},
		{open, "HEAD", "/v1/agl/health", []string{"Origin", "http://a"}, 405, "Access-Control-Allow-Origin", "http://a"},
	} {
		w := send(t, tt.h, tt.method, tt.path, "", tt.headers...)
		if w.Code != tt.status || w.Header().Get(tt.header) != tt.want {
			t.Errorf("%s %s: %d %v, want %d and %s %q", tt.method, tt.path, w.Code, w.Header(), tt.status, tt.header, tt.want)
		}
	}
}
