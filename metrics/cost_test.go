package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// BenchmarkCost runs whole lives of rollouts through the handlers of two stores in
// memory in turn, one with metrics and one without, with eight spans sent one by
// one and no connection in between. It reports what a life takes of the
// processor's time in each, by the median, so that what else the machine does
// matters little. The difference is what metrics cost; over HTTP a life takes
// longer.
func BenchmarkCost(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	lives := [2]*life{newLife(b, false), newLife(b, true)}
	var took [2][]float64
	for turn := 0; b.Loop(); turn++ {
		for i := range lives {
			which := (i + turn) % 2
			began := threadTime(b)
			lives[which].run(b)
			took[which] = append(took[which], threadTime(b)-began)
		}
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	off, on := took[0][len(took[0])/2], took[1][len(took[1])/2]
	b.ReportMetric(off, "ns/life-without")
	b.ReportMetric(on, "ns/life-with")
	b.ReportMetric(on-off, "ns-cost/life")
}

// threadTime is the processor's time that the thread has had, in nanoseconds.
func threadTime(tb testing.TB) float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		tb.Fatal(err)
	}
	return float64(t.Nano())
}

// life drives lives of rollouts.
type life struct {
	handler http.Handler
	answer  answer
	spans   int
}

// answer keeps the last one.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header             { return a.header }
func (a *answer) WriteHeader(status int)          { a.status = status }
func (a *answer) Write(p []byte) (int, error)     { return a.body.Write(p) }
func (a *answer) SetReadDeadline(time.Time) error { return nil }

func newLife(tb testing.TB, on bool) *life {
	quiet := slog.New(slog.DiscardHandler)
	backend := memory.New(memory.Options{MaxBytes: 16 << 20, Logger: quiet})
	o := store.Options{ScanDebounce: time.Hour, Logger: quiet}
	web := httpapi.Options{Logger: quiet}
	var served httpapi.Store
	if on {
		r := metrics.New(metrics.Options{Prometheus: true})
		r.Watch(backend, metrics.WatchOptions{})
		o.Observer = r.Queue()
		web.Metrics, web.Observe = r.Handler(), r.HTTP
		s := store.New(backend, o)
		tb.Cleanup(func() { _ = s.Close(context.Background()) })
		served = r.Store(s)
	} else {
		s := store.New(backend, o)
		tb.Cleanup(func() { _ = s.Close(context.Background()) })
		served = s
	}
	return &life{handler: httpapi.New(served, web), answer: answer{header: http.Header{}}}
}

func (l *life) post(tb testing.TB, path, body string) []byte {
	r := httptest.NewRequest(http.MethodPost, path, io.NopCloser(strings.NewReader(body)))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Type", "application/json")
	clear(l.answer.header)
	l.answer.body.Reset()
	l.handler.ServeHTTP(&l.answer, r)
	if l.answer.status >= 300 {
		tb.Fatalf("%s: status %d: %s", path, l.answer.status, &l.answer.body)
	}
	return l.answer.body.Bytes()
}

func (l *life) run(tb testing.TB) {
	l.post(tb, "/v1/agl/queues/rollouts/enqueue", `{"rollouts":[{"input":{"question":"what is the answer?"},"mode":"train"}]}`)
	var claimed []struct {
		RolloutID string `json:"rollout_id"`
		Attempt   struct {
			AttemptID string `json:"attempt_id"`
		}
	}
	if err := json.Unmarshal(l.post(tb, "/v1/agl/queues/rollouts/dequeue", `{"limit":1,"worker_id":"w"}`), &claimed); err != nil || len(claimed) != 1 {
		tb.Fatal(claimed, err)
	}
	rollout, attempt := claimed[0].RolloutID, claimed[0].Attempt.AttemptID
	for i := range 8 {
		l.spans++
		l.post(tb, "/v1/agl/spans", fmt.Sprintf(`{"rollout_id":%q,"attempt_id":%q,"sequence_id":%d,"trace_id":"0af7651916cd43dd8448eb211c80319c",`+
			`"span_id":"%016x","parent_id":null,"name":"chat.completion","status":{"status_code":"OK","description":null},`+
			`"attributes":{"gen_ai.request.model":"m","gen_ai.usage.input_tokens":1200,"temperature":0.5,`+
			`"gen_ai.completion":"the model answered with a short text that says what it did next"},"events":[],"links":[],`+
			`"start_time":1790000000.0,"end_time":1790000000.25,"context":null,"parent":null,`+
			`"resource":{"attributes":{"service.name":"benchmark"},"schema_url":""}}`, rollout, attempt, i+1, l.spans))
	}
	l.post(tb, "/v1/agl/rollouts/"+rollout+"/attempts/"+attempt, `{"status":"succeeded"}`)
	l.post(tb, "/v1/agl/waits/rollouts", fmt.Sprintf(`{"rollout_ids":[%q],"timeout":0}`, rollout))
	l.post(tb, "/v1/agl/spans/search", fmt.Sprintf(`{"rollout_id":%q}`, rollout))
}
