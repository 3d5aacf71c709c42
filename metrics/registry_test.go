package metrics

import (
	"context"
	"errors"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"go.mongodb.org/mongo-driver/v2/event"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmproxy"
)

// everything is a recorder of which every series has a member.
func everything(t *testing.T) *Recorder {
	t.Helper()
	r := New(Options{Prometheus: true})
	r.SetDatabase("aglq")
	r.Watch(memory.New(memory.Options{}), WatchOptions{})
	r.HTTP("/v1/agl/health", "GET", 200, time.Millisecond)
	q := r.Queue()
	s := r.Store(fakeStore{})
	_, _ = s.AddSpans(t.Context(), []queue.Span{span, span})
	op := q.As("add_span")
	op.Operation(collections.OpAtomic, time.Millisecond, nil)
	op.SectionRan(3)
	end := 3.0
	rollout := &queue.Rollout{RolloutID: "ro-1", Status: queue.RolloutFailed, StartTime: 1, EndTime: &end}
	q.Claimed(rollout, &queue.Attempt{SequenceID: 1, StartTime: 2})
	q.AttemptEnded(rollout, &queue.Attempt{Status: queue.AttemptFailed}, time.Second)
	q.Requeued(rollout, store.RequeuedWorkerLost)
	q.RolloutFinished(rollout)
	q.Committed(store.Lanes[0], 7, time.Millisecond)
	q.woken(wokenClaim, time.Hour, queue.Seconds(time.Now())-1)
	m := r.Mongo()
	m.Commands().Succeeded(t.Context(), &event.CommandSucceededEvent{CommandFinishedEvent: event.CommandFinishedEvent{CommandName: "find"}})
	m.Commands().Failed(t.Context(), &event.CommandFailedEvent{CommandFinishedEvent: event.CommandFinishedEvent{CommandName: "insert"}})
	for _, kind := range []string{event.ConnectionCreated, event.ConnectionCheckedOut, event.ConnectionCheckedIn, event.ConnectionCreated, event.ConnectionClosed} {
		m.Pool().Event(&event.PoolEvent{Type: kind, Duration: time.Microsecond})
	}
	m.Pool().Event(&event.PoolEvent{Type: event.ConnectionPoolCreated, PoolOptions: &event.MonitorPoolOptions{MaxPoolSize: 100}})
	m.Pool().Event(&event.PoolEvent{Type: event.ConnectionCheckOutFailed, Reason: event.ReasonTimedOut})
	w := r.Worker()
	w.WorkerStarted("w", 4, true)
	w.HeartbeatAnswered("w")
	r.Queue().Purged(1, 2)
	w.TaskStarted()
	w.TaskStarted()
	w.TaskEnded("ro-1", worker.NotHeld, time.Second)
	w.SpansDropped(3, worker.Refused)
	w.StoreFailed(worker.CallClaim)
	a := r.Algorithm()
	a.Enqueued(3, time.Millisecond)
	a.Harvested(1, time.Millisecond)
	reward := .5
	a.Delivered(&algorithm.Result{Rollout: queue.Rollout{RolloutID: "ro-1", Status: queue.RolloutSucceeded}, Reward: &reward})
	a.Delivered(&algorithm.Result{Rollout: queue.Rollout{Status: queue.RolloutSucceeded}})
	a.BatchEnded(time.Minute)
	return r
}

// everyLLM is an LLM of which every series has a member.
func everyLLM() *LLM {
	l := NewLLM(nil)
	l.Observe(llmproxy.Observation{Model: "m", Status: 200, Outcome: "ok", PromptTokens: 1, Took: time.Second, FirstByte: time.Millisecond})
	l.Dropped(1)
	return l
}

func gather(t *testing.T, r *Recorder) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

// TestEverySeriesIsDefined finds each definition in the registry, as it is
// defined, and no series besides.
func TestEverySeriesIsDefined(t *testing.T) {
	families := gather(t, everything(t))
	maps.Copy(families, gather(t, everyLLM().recorder))
	for _, d := range Definitions() {
		f := families[d.Name]
		if f == nil {
			t.Errorf("%s is defined and not in the registry", d.Name)
			continue
		}
		delete(families, d.Name)
		if kind := Kind(strings.ToLower(f.GetType().String())); kind != d.Kind || f.GetHelp() != d.Help {
			t.Errorf("%s is a %s: %s", d.Name, kind, f.GetHelp())
		}
		var names []string
		for _, l := range f.Metric[0].Label {
			names = append(names, l.GetName())
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(d.Labels)), names); diff != "" {
			t.Errorf("labels of %s: %s", d.Name, diff)
		}
		if d.Kind != Histogram {
			continue
		}
		h := f.Metric[0].Histogram
		var bounds []float64
		for _, b := range h.Bucket {
			bounds = append(bounds, b.GetUpperBound())
		}
		if diff := cmp.Diff(d.Buckets, bounds); diff != "" {
			t.Errorf("buckets of %s: %s", d.Name, diff)
		}
		if len(h.PositiveSpan) == 0 && h.GetZeroCount() == 0 {
			t.Errorf("%s has no native buckets", d.Name)
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "agl") {
			t.Errorf("%s is in the registry and not defined", name)
		}
	}
}

func TestPromlint(t *testing.T) {
	all := gather(t, everything(t))
	maps.Copy(all, gather(t, everyLLM().recorder))
	families := slices.Collect(maps.Values(all))
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "agl") })
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestValues(t *testing.T) {
	text := scrape(t, everything(t))
	for _, want := range []string{
		`agl_collections_total{collection="router",database="aglq",operation="atomic",status="OK",store_privmeth="add_span",store_pubmeth="add_span"} 1`,
		`aglq_txn_retries_total{operation="add_span"} 2`,
		`aglq_txn_retries_total{operation="dequeue_rollout"} 0`,
		`aglq_queue_wait_seconds_sum 1`,
		`aglq_attempt_duration_seconds_sum{mode="unknown",status="failed"} 1`,
		`aglq_requeues_total{reason="worker_lost"} 1`,
		`aglq_requeues_total{reason="timeout"} 0`,
		`aglq_commit_batch_size_sum{lane="changes"} 7`,
		`aglq_spans_ingested_total{result="duplicate"} 1`,
		`aglq_spans_ingested_total{result="stored"} 1`,
		`aglq_mongo_pool_connections{state="in_use"} 0`,
		`aglq_mongo_pool_connections{state="open"} 1`,
		`aglq_mongo_pool_failures_total{reason="timeout"} 1`,
		`aglq_worker_inflight 1`,
		`aglq_worker_slots 4`,
		`aglq_worker_spans_dropped_total{reason="refused"} 3`,
		`aglq_algorithm_inflight 1`,
		`aglq_algorithm_reward_sum 0.5`,
		`aglq_algorithm_unrewarded_total 1`,
		`aglq_backend_up 1`,
		`aglq_queue_depth{status="queuing"} 0`,
		`aglq_workers{status="silent"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestExemplars(t *testing.T) {
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	w := httptest.NewRecorder()
	everything(t).Handler().ServeHTTP(w, req)
	for _, name := range []string{
		"agl_rollouts_duration", "aglq_queue_wait_seconds", "aglq_attempt_duration_seconds",
		"aglq_worker_task_seconds", "aglq_algorithm_reward",
	} {
		found := false
		for line := range strings.Lines(w.Body.String()) {
			found = found || strings.HasPrefix(line, name+"_bucket") && strings.Contains(line, `# {rollout_id="ro-1"}`)
		}
		if !found {
			t.Errorf("%s has no exemplar", name)
		}
	}
}

// TestExemplarsOfAnyID takes ids that exemplars cannot hold.
func TestExemplarsOfAnyID(t *testing.T) {
	r := New(Options{Prometheus: true})
	for _, id := range []string{"", "\xff", strings.Repeat("x", 200), strings.Repeat("ö", 118)} {
		q, rollout := r.Queue(), &queue.Rollout{RolloutID: id, Status: queue.RolloutFailed}
		q.Claimed(rollout, &queue.Attempt{SequenceID: 1})
		q.RolloutFinished(rollout)
	}
	if text := scrape(t, r); !strings.Contains(text, "aglq_queue_wait_seconds_count 4\n") {
		t.Error(text)
	}
}

// TestSidesApart shows a worker nothing of a store.
func TestSidesApart(t *testing.T) {
	r := New(Options{Prometheus: true})
	r.Worker()
	for _, d := range Definitions() {
		if _, is := gather(t, r)[d.Name]; is && d.Side != WorkerSide {
			t.Errorf("a worker shows %s", d.Name)
		}
	}
}

func TestMethodsAreBounded(t *testing.T) {
	r := New(Options{Prometheus: true})
	r.HTTP("other", "BREW", 405, time.Millisecond)
	if text := scrape(t, r); !strings.Contains(text, `agl_http_total{method="other",path="other",status="405"} 1`) {
		t.Error(text)
	}
}

func TestBackendErrorClass(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "OK"},
		{driver.CommandError{Code: 112, Labels: []string{"TransientTransactionError"}}, "OperationFailure-112-Transient"},
		{queue.Wrap(queue.Internal, driver.CommandError{Code: 13}, "x"), "OperationFailure-13"},
		{queue.Errorf(queue.Unavailable, "x"), "ServerSelectionTimeoutError"},
		{errors.New("x"), "RuntimeError"},
	} {
		if got := backendErrorClass(c.err); got != c.want {
			t.Errorf("class of %v is %s, want %s", c.err, got, c.want)
		}
	}
}

// downBackend answers nothing.
type downBackend struct{ Watched }

func (downBackend) QueryRollouts(context.Context, queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	return queue.Page[*queue.Record]{}, queue.Errorf(queue.Unavailable, "down")
}

func TestWatchOfABackendThatIsDown(t *testing.T) {
	r := New(Options{Prometheus: true})
	r.Watch(downBackend{}, WatchOptions{})
	text := scrape(t, r)
	if !strings.Contains(text, "aglq_backend_up 0\n") || strings.Contains(text, "aglq_queue_depth{") {
		t.Error(text)
	}
}

func TestWatch(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	clock := func() time.Time { return now }
	b := memory.New(memory.Options{})
	s := store.New(b, store.Options{Now: clock})
	defer s.Close(t.Context())
	r := New(Options{Prometheus: true})
	r.Watch(b, WatchOptions{Now: clock})
	for range 3 {
		if _, err := s.Enqueue(t.Context(), make([]queue.Request, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"dead", "quiet", "alive"} {
		if _, err := s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: id}); err != nil {
			t.Fatal(err)
		}
	}
	dead := "dead"
	if _, err := s.Claim(t.Context(), queue.Claim{Limit: 1, WorkerID: &dead}); err != nil {
		t.Fatal(err)
	}
	// The store writes what a claim means for its worker a little later, at the
	// latest when somebody looks at the workers.
	if _, err := s.Workers(t.Context(), queue.WorkerQuery{Paging: queue.All}); err != nil {
		t.Fatal(err)
	}
	now = now.Add((queue.WorkerSilence + 1) * time.Second)
	if _, err := s.Heartbeat(t.Context(), queue.Heartbeat{WorkerID: "alive"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Workers(t.Context(), queue.WorkerQuery{Paging: queue.All}); err != nil {
		t.Fatal(err)
	}
	wanted := []string{
		`aglq_queue_depth{status="queuing"} 2`, `aglq_queue_depth{status="preparing"} 1`, `aglq_queue_depth{status="requeuing"} 0`,
		`aglq_queue_oldest_age_seconds{status="queuing"} 91`, `aglq_queue_oldest_age_seconds{status="running"} 0`,
		`aglq_workers{status="silent"} 1`, `aglq_workers{status="gone"} 1`, `aglq_workers{status="unknown"} 1`, `aglq_workers{status="busy"} 0`,
	}
	check := func() {
		t.Helper()
		text := scrape(t, r)
		for _, want := range wanted {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
	}
	check()
	// Within two seconds the backend is not asked again.
	if _, err := s.Enqueue(t.Context(), make([]queue.Request, 1)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	wanted = []string{`aglq_queue_depth{status="queuing"} 2`}
	check()
	now = now.Add(time.Second)
	wanted = []string{`aglq_queue_depth{status="queuing"} 3`}
	check()
}

// TestWakeups tells a claim that was woken from one that found work.
func TestWakeups(t *testing.T) {
	r := New(Options{Prometheus: true})
	q := r.Queue()
	now := queue.Seconds(time.Now())
	got := []queue.AttemptedRollout{{Rollout: queue.Rollout{StartTime: now - 5}}}
	q.claimed(queue.Claim{Wait: time.Minute}, 10*time.Second, got, nil)
	q.claimed(queue.Claim{Wait: time.Minute}, time.Second, got, nil)
	q.claimed(queue.Claim{}, 10*time.Second, got, nil)
	end := now - 1
	q.waited(1, 10*time.Second, []queue.Rollout{{EndTime: &end}})
	q.waited(2, 10*time.Second, []queue.Rollout{{EndTime: &end}})
	text := scrape(t, r)
	for _, want := range []string{
		`aglq_wakeup_seconds_count{call="claim"} 1`, `aglq_wakeup_seconds_count{call="wait"} 1`, `aglq_claims_total{result="work"} 3`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestWatchGoesByTheLease counts a worker as the store does: by the lease where
// that is shorter, and by its own word when it ends.
func TestWatchGoesByTheLease(t *testing.T) {
	seen := func(status queue.WorkerStatus, stats string) *queue.Worker {
		w := queue.NewWorker("w")
		w.Beat(rawjson.Value(stats), 100)
		w.Status = status
		return w
	}
	for _, tt := range []struct {
		worker *queue.Worker
		ttl    time.Duration
		after  float64
		want   string
	}{
		{seen(queue.WorkerIdle, "{}"), 0, 90, "idle"},
		{seen(queue.WorkerIdle, "{}"), 0, 91, workerGone},
		{seen(queue.WorkerBusy, "{}"), 10 * time.Second, 10, "busy"},
		{seen(queue.WorkerBusy, "{}"), 10 * time.Second, 11, workerSilent},
		{seen(queue.WorkerIdle, "{}"), time.Hour, 91, workerGone},
		{seen(queue.WorkerIdle, `{"stopped":true}`), 0, 1, workerGone},
	} {
		w := watch{options: WatchOptions{WorkerTTL: tt.ttl}}
		if got := w.stateOf(tt.worker, 100+tt.after); got != tt.want {
			t.Errorf("%s %s, silent for %v s under a lease of %s: %s, want %s",
				tt.worker.Status, tt.worker.HeartbeatStats, tt.after, tt.ttl, got, tt.want)
		}
	}
}
