package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
)

func scrape(t *testing.T, r *Recorder) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/prometheus", nil))
	text, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	return string(text)
}

func TestPrometheusFamilies(t *testing.T) {
	r := New(Options{Prometheus: true})
	r.HTTP("/v1/agl/rollouts/{rollout_id}", "GET", 404, 3*time.Millisecond)
	end := 12.5
	r.Queue().RolloutFinished(&queue.Rollout{RolloutID: "ro-1", Status: queue.RolloutSucceeded, Mode: queue.ModeVal, StartTime: 10, EndTime: &end})
	r.Queue().RolloutFinished(&queue.Rollout{Status: queue.RolloutFailed})
	text := scrape(t, r)
	for _, want := range []string{
		`agl_http_total{method="GET",path="/v1/agl/rollouts/{rollout_id}",status="404"} 1`,
		`agl_http_latency_bucket{method="GET",path="/v1/agl/rollouts/{rollout_id}",status="404",le="0.003"} 1`,
		`agl_http_latency_bucket{method="GET",path="/v1/agl/rollouts/{rollout_id}",status="404",le="0.002"} 0`,
		`agl_rollouts_total{mode="val",status="succeeded"} 1`,
		`agl_rollouts_duration_sum{mode="val",status="succeeded"} 2.5`,
		`agl_rollouts_total{mode="unknown",status="failed"} 1`,
		"# HELP agl_rollouts_duration Histogram agl.rollouts.duration",
		"go_goroutines ", "process_start_time_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if n := strings.Count(text, `agl_rollouts_duration_bucket{mode="val",`); n != 45 {
		t.Errorf("%d buckets, want 44 and +Inf", n)
	}
}

// fakeStore answers every call with nothing and err.
type fakeStore struct {
	queue.Store
	err error
}

func (f fakeStore) Ready(context.Context) error { return f.err }

func (f fakeStore) Enqueue(context.Context, []queue.Request) ([]queue.Rollout, error) {
	return nil, f.err
}

func (f fakeStore) Claim(context.Context, queue.Claim) ([]queue.AttemptedRollout, error) {
	return nil, f.err
}

// span is what a fake store stores the first of.
var span = queue.Span{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "s"}

func (f fakeStore) AddSpan(context.Context, queue.Span) (*queue.Span, error) { return &span, f.err }

func (f fakeStore) AddSpans(_ context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	return queue.SpansAdded{Stored: spans[:1]}, f.err
}

func TestStoreCalls(t *testing.T) {
	r := New(Options{Prometheus: true})
	ctx := t.Context()
	r.Store(fakeStore{}).Claim(ctx, queue.Claim{Limit: 1})
	r.Store(fakeStore{}).Claim(ctx, queue.Claim{Limit: 2})
	r.Store(fakeStore{err: queue.Errorf(queue.Invalid, "no")}).Enqueue(ctx, make([]queue.Request, 1))
	text := scrape(t, r)
	for _, want := range []string{
		`agl_store_total{method="dequeue_rollout",status="OK",store_pubmeth="dequeue_rollout"} 1`,
		`agl_store_total{method="dequeue_many_rollouts",status="OK",store_pubmeth="dequeue_many_rollouts"} 1`,
		`agl_store_total{method="enqueue_rollout",status="ValueError",store_pubmeth="enqueue_rollout"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestStoreRecordsEveryMethod finds methods of queue.Store that the wrapper
// would hand through unseen: a nil inner store makes each call panic, after
// which the wrapper must have recorded it.
func TestStoreRecordsEveryMethod(t *testing.T) {
	methods := reflect.TypeFor[queue.Store]()
	name := regexp.MustCompile(`agl_store_total\{method="(\w+)"`)
	seen := map[string]bool{}
	for i := range methods.NumMethod() {
		r := New(Options{Prometheus: true})
		m := reflect.ValueOf(r.Store(fakeStore{})).MethodByName(methods.Method(i).Name)
		args := make([]reflect.Value, m.Type().NumIn())
		for j := range args {
			args[j] = reflect.Zero(m.Type().In(j))
		}
		args[0] = reflect.ValueOf(t.Context())
		func() {
			defer func() { recover() }()
			m.Call(args)
		}()
		match := name.FindStringSubmatch(scrape(t, r))
		if match == nil || seen[match[1]] {
			t.Errorf("%s is not recorded under a name of its own: %v", methods.Method(i).Name, match)
			continue
		}
		seen[match[1]] = true
	}
}

func TestErrorClass(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "OK"},
		{queue.ErrNoRollout("x"), "ValueError"},
		{queue.Errorf(queue.TooLarge, "x"), "DocumentTooLarge"},
		{queue.Errorf(queue.Unavailable, "x"), "ServerSelectionTimeoutError"},
		{context.Canceled, "CancelledError"},
		{errors.New("x"), "RuntimeError"},
	} {
		if got := errorClass(c.err); got != c.want {
			t.Errorf("class of %v is %s, want %s", c.err, got, c.want)
		}
	}
}

func TestConsoleRecord(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: noTime}))
	r := New(Options{ConsoleLog: log, Now: func() time.Time { return now }})
	r.HTTP("/b", "GET", 200, 5*time.Millisecond)
	want := `{"level":"INFO","msg":"metrics","per_second":{"agl.http.total{path=/b,method=GET}":0.1},` +
		`"seconds_p50_p95_p99":{"agl.http.latency{path=/b,method=GET}":[0.005,0.005,0.005]}}` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestConsole(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	r := New(Options{Console: &out, Now: func() time.Time { return now }})
	r.HTTP("/b", "GET", 200, 5*time.Millisecond)
	first := "agl.http.latency{path=/b,method=GET}=5.00ms,5.00ms,5.00ms  agl.http.total{path=/b,method=GET}=0.10/s\n"
	if diff := cmp.Diff(first, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	for i := range 100 {
		now = time.Unix(1001+int64(i%9), 0)
		r.HTTP("/b", "GET", 200+i%2, time.Duration(i)*time.Microsecond)
	}
	if out.Len() > 0 {
		t.Errorf("a line within ten seconds: %s", &out)
	}
	now = time.Unix(1020, 0)
	r.HTTP("/a", "POST", 500, 2*time.Second)
	second := "agl.http.latency{path=/a,method=POST}=2.00s,2.00s,2.00s  " +
		"agl.http.latency{path=/b,method=GET}=50.00µs,95.00µs,99.00µs  " +
		"agl.http.total{path=/a,method=POST}=0.10/s  agl.http.total{path=/b,method=GET}=5.05/s\n"
	if diff := cmp.Diff(second, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	now = time.Unix(1200, 0)
	r.HTTP("/a", "POST", 500, 20*time.Nanosecond)
	third := "agl.http.latency{path=/a,method=POST}=20.00ns,20.00ns,20.00ns  agl.http.total{path=/a,method=POST}=0.10/s\n"
	if diff := cmp.Diff(third, out.String()); diff != "" {
		t.Errorf("what is older than a minute should be gone: %s", diff)
	}
}
