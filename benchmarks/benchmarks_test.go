package benchmarks

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canned is what a store would answer about one rollout.
func canned() *Record {
	const rollout = `{"rollout_id":"ro-0123456789ab","status":"succeeded","attempt":{"attempt_id":"at-01234567"}}`
	answer := func(status int, body string) Answer { return Answer{Status: status, Body: []byte(body)} }
	return &Record{Answers: map[string]Answer{
		"enqueue": answer(201, `[`+rollout+`]`),
		"claim":   answer(200, `[`+rollout+`]`),
		"spans":   answer(201, `{}`),
		"finish":  answer(200, `{}`),
		"wait":    answer(200, `[`+rollout+`]`),
		"query":   answer(200, `{"items":[],"limit":-1,"offset":0,"total":2}`),
	}}
}

func serve(t *testing.T, h http.Handler) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func TestLifecycleMakesEachCall(t *testing.T) {
	url := serve(t, Ceiling(canned()))
	report, err := Lifecycle(t.Context(), LifecycleOptions{
		URL: url, Rollouts: 20, Workers: 3, Batch: 6, Spans: 2, PIDs: []int{os.Getpid()}, Canned: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for _, c := range report.Calls {
		calls[c.Call] = c.Count
	}
	want := map[string]int{"enqueue": 4, "claim": 20, "spans": 40, "finish": 20, "wait": 20, "query": 20}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if report.PeakRSS <= 0 || report.RolloutsPerSecond <= 0 {
		t.Errorf("report %+v measured nothing", report)
	}
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), "20 rollouts of 2 spans (json)") {
		t.Errorf("text is %q, error %v", text.String(), err)
	}
}

// TestLifecycleFindsFaults drives stores that go wrong in one way each.
func TestLifecycleFindsFaults(t *testing.T) {
	tests := []struct {
		name, call, body, want string
		status, rollouts       int
	}{
		{name: "a rollout claimed twice", want: "claimed twice", rollouts: 2},
		{name: "a wait that misses the end", call: "wait", body: `[]`, status: 200, want: "a wait for rollout", rollouts: 1},
		{name: "a span lost", call: "query", body: `{"items":[],"total":1}`, status: 200, want: "are not 2", rollouts: 1},
		{name: "a span refused", call: "spans", body: `null`, status: 201, want: "duplicate", rollouts: 1},
		{name: "an enqueue that stores too little", call: "enqueue", body: `[]`, status: 201, want: "enqueue of 1", rollouts: 1},
		{name: "an error", call: "finish", body: `{}`, status: 500, want: "answered 500", rollouts: 1},
		{name: "a rollout gone afterwards", want: "afterwards", rollouts: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			record := canned()
			if test.call != "" {
				record.Answers[test.call] = Answer{Status: test.status, Body: []byte(test.body)}
			}
			ceiling := Ceiling(record)
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/rollouts/search") {
					fmt.Fprint(w, `{"items":[]}`)
					return
				}
				ceiling.ServeHTTP(w, r)
			}))
			_, err := Lifecycle(t.Context(), LifecycleOptions{URL: url, Rollouts: test.rollouts, Workers: 1, Batch: 1, Spans: 2})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestConnReadsAnswers(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunked":
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, "first ")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, long)
		case "/empty":
		default:
			fmt.Fprint(w, "short")
		}
	}))
	c, err := Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, test := range []struct {
		path, body string
		status     int
	}{{"/", "short", 200}, {"/chunked", "first " + long, 202}, {"/empty", "", 200}, {"/", "short", 200}} {
		status, body, err := c.Do("POST", test.path, "text/plain", []byte("x"))
		if err != nil || status != test.status || string(body) != test.body {
			t.Errorf("%s: %d, %d bytes, %v; want %d, %d bytes", test.path, status, len(body), err, test.status, len(test.body))
		}
	}
}

func TestOTLPBodyNamesItsAttempt(t *testing.T) {
	b, err := newBodies(3, 4, true)
	if err != nil {
		t.Fatal(err)
	}
	var data trace.TracesData
	if err := proto.Unmarshal(b.spans[0].fill("ro-0123456789ab", "at-01234567"), &data); err != nil {
		t.Fatal(err)
	}
	group := data.ResourceSpans[0]
	ids := []string{group.Resource.Attributes[1].Value.GetStringValue(), group.Resource.Attributes[2].Value.GetStringValue()}
	if diff := cmp.Diff([]string{"ro-0123456789ab", "at-01234567"}, ids); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	if n := len(group.ScopeSpans[0].Spans); n != 3 {
		t.Errorf("%d spans, want 3", n)
	}
}

func TestLatency(t *testing.T) {
	var times []time.Duration
	for i := 100; i > 0; i-- {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	want := Latency{Call: "claim", Count: 100, P50: 51, P95: 96, P99: 100, Max: 100}
	if diff := cmp.Diff(want, LatencyOf("claim", times)); diff != "" {
		t.Errorf("latency (-want +got):\n%s", diff)
	}
}

func TestStartServerTellsWhyNot(t *testing.T) {
	script := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no such flag >&2\nexit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := StartServer(t.Context(), []string{script, "{port}"}, "/"); err == nil || !strings.Contains(err.Error(), "no such flag") {
		t.Errorf("error is %v, want one with the server's own words", err)
	}
}
