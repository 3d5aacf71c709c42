package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
)

func TestHTTPAnswers(t *testing.T) {
	cases := map[string]struct {
		status               int
		body, value, failure string // the failure after the agent's address
	}{
		"reward":      {body: `{"reward": 0.5}`, value: "0.5"},
		"rewards":     {body: `{"rewards": {"a": 1, "b": 2}, "primary": "b"}`, value: "2.0"},
		"number":      {body: "3\n", value: "3.0"},
		"not finite":  {body: "nan", value: `"NaN"`},
		"created":     {status: 201, body: `{"reward": 1}`, value: "1.0"},
		"nothing":     {},
		"no content":  {status: 204},
		"object":      {body: `{}`},
		"error":       {body: `{"error": "no luck"}`, failure: "no luck"},
		"text":        {body: `done`, failure: "the agent's answer is malformed: it is no JSON"},
		"list":        {body: `[1]`, failure: "the agent's answer is malformed: it is neither a number nor an object: [1]"},
		"too long":    {body: `"` + strings.Repeat("x", 9<<20) + `"`, failure: "the agent's answer is malformed: it is longer than 8 MiB"},
		"not found":   {status: 404, body: "no such path\n", failure: "answered 404 Not Found: no such path"},
		"broken":      {status: 500, body: "Traceback\n  line 1", failure: "answered 500 Internal Server Error: Traceback"},
		"unavailable": {status: 503, failure: "answered 503 Service Unavailable"},
		"moved":       {status: 307, failure: "answered 307 Temporary Redirect; it is now at /elsewhere"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if c.status == 307 {
					w.Header().Set("Location", "/elsewhere")
				}
				if c.status != 0 {
					w.WriteHeader(c.status)
				}
				_, _ = io.WriteString(w, c.body)
			}))
			s := newStore(t)
			id := enqueue(t, s, nil, "1")[0]
			start(t, s, worker.HTTP(worker.HTTPOptions{URL: url + "/rollout"}), worker.Options{})
			r, spans := finished(t, s, id), spansOf(t, s, id)
			want := queue.RolloutSucceeded
			if c.failure != "" {
				want = queue.RolloutFailed
			}
			if got := r.Attempt.Metadata.Get("error").Text(); r.Status != want || !strings.Contains(got, c.failure) {
				t.Fatalf("status %s with the error %q, want %s with %q", r.Status, got, want, c.failure)
			}
			if c.value != "" {
				if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.0.value"); got != c.value {
					t.Errorf("reward %s, want %s", got, c.value)
				}
			}
			if got := attribute(t, spans, "aglq.http", "url.full"); got != fmt.Sprintf("%q", url+"/rollout") {
				t.Errorf("the span tells of %s", got)
			}
			if name == "broken" {
				if got := attribute(t, spans, "agentlightning.exception", "exception.stacktrace"); got != `"Traceback\n  line 1"` {
					t.Errorf("the exception has %s", got)
				}
				if got := r.Attempt.Metadata.Get("http_status").String(); got != "500" {
					t.Errorf("metadata %s", r.Attempt.Metadata)
				}
			}
		})
	}
}

func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 1)
	bodies := make(chan []byte, 1)
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- r
		bodies <- body
	}))
	s := newStore(t)
	id := enqueue(t, s, nil, `{"a":1}`)[0]
	withPassword := strings.Replace(url, "http://", "http://me:secret@", 1)
	start(t, s, worker.HTTP(worker.HTTPOptions{URL: withPassword}), worker.Options{StoreURL: "http://store:1"})
	attempt := finished(t, s, id).Attempt.AttemptID
	r := <-requests
	if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
		t.Errorf("authorization %s", r.Header.Get("Authorization"))
	}
	var span queue.Span
	for _, s := range spansOf(t, s, id) {
		if s.Name == "aglq.http" {
			span = s
		}
	}
	if strings.Contains(span.Attributes.String(), "secret") {
		t.Errorf("the span tells the password: %s", span.Attributes)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Rollout-Id": id, "X-Attempt-Id": attempt,
		"Traceparent": "00-" + span.TraceID + "-" + span.SpanID + "-01",
		"Baggage":     "agentlightning.rollout_id=" + id + ",agentlightning.attempt_id=" + attempt,
	} {
		if got := r.Header.Get(name); r.Method != http.MethodPost || got != want {
			t.Errorf("%s with %s: %q, want %q", r.Method, name, got, want)
		}
	}
	var m struct {
		ID    string
		Input json.RawMessage
		Env   map[string]string
	}
	if err := json.Unmarshal(<-bodies, &m); err != nil || m.ID != id+"/"+attempt || string(m.Input) != `{"a":1}` || m.Env["AGL_STORE_URL"] != "http://store:1" {
		t.Errorf("message %+v: %v", m, err)
	}
}

func TestHTTPUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := newStore(t)
	id := enqueue(t, s, nil, "1")[0]
	start(t, s, worker.HTTP(worker.HTTPOptions{URL: "http://me:secret@" + address}), worker.Options{})
	r := finished(t, s, id)
	if got := r.Attempt.Metadata.Get("error").Text(); !strings.Contains(got, "cannot be asked: dial tcp") || strings.Contains(got, "secret") {
		t.Errorf("error %q", got)
	}
	attribute(t, spansOf(t, s, id), "agentlightning.exception", "exception.message")
}

func TestHTTPBreaksOff(t *testing.T) {
	t.Parallel()
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"reward":`)
	}))
	s := newStore(t)
	id := enqueue(t, s, nil, "1")[0]
	start(t, s, worker.HTTP(worker.HTTPOptions{URL: url}), worker.Options{})
	if got := finished(t, s, id).Attempt.Metadata.Get("error").Text(); !strings.Contains(got, "broke off: unexpected EOF") {
		t.Errorf("error %q", got)
	}
}

// The request ends with the task: by its time, and by the rollout's cancellation.
func TestHTTPCancellation(t *testing.T) {
	t.Parallel()
	var begun, ended atomic.Int32
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server sees the end of a request once it has read it
		begun.Add(1)
		<-r.Context().Done()
		ended.Add(1)
	}))
	s := newStore(t)
	limit := 0.3
	config := queue.DefaultConfig()
	config.TimeoutSeconds = &limit
	timed, cancelled := enqueue(t, s, &config, "1")[0], enqueue(t, s, nil, "2")[0]
	start(t, s, worker.HTTP(worker.HTTPOptions{URL: url}), worker.Options{Concurrency: 2, HeartbeatInterval: 20 * time.Millisecond})
	until(t, "both requests", func() bool { return begun.Load() == 2 })
	if _, err := s.UpdateRollout(context.Background(), cancelled, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
		t.Fatal(err)
	}
	if r := finished(t, s, timed); r.Attempt.Status != queue.AttemptTimeout {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
	until(t, "the end of both requests", func() bool { return ended.Load() == 2 })
}
