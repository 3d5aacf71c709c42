package grafana

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

func TestMain(m *testing.M) { os.Exit(mongotest.Main(m)) }

// program is the path of one of Prometheus's programs, which lie beside the one
// that AGLQ_PROMETHEUS names, in the cache of scripts/get-prometheus, or on PATH.
func program(t *testing.T, name string) string {
	t.Helper()
	var folders []string
	if path := os.Getenv("AGLQ_PROMETHEUS"); path != "" {
		folders = append(folders, filepath.Dir(path))
	}
	if cache, err := os.UserCacheDir(); err == nil {
		folders = append(folders, filepath.Join(cache, "aglq", "prometheus"))
	}
	for _, folder := range folders {
		if path := filepath.Join(folder, name); executable(path) {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("there is no %s: run scripts/get-prometheus once, or set AGLQ_PROMETHEUS to a prometheus with it beside", name)
	}
	return path
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, &log)
		}
	})
}

// eventually polls until done says nothing more is missing.
func eventually(t *testing.T, limit time.Duration, done func() (missing string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		missing := done()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", limit, missing)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func serve(t *testing.T, h http.Handler) (addr string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// deployment is a store with a worker and an algorithm at work, each with its
// metrics at an address.
type deployment struct {
	store, worker, algorithm, proxy string
}

// deploy starts one on a backend. They work until the test ends.
func deploy(t *testing.T, open func(r *metrics.Recorder) collections.Backend) deployment {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	stores := metrics.New(metrics.Options{Prometheus: true})
	backend := open(stores)
	s := store.New(backend, store.Options{
		ScanDebounce: time.Second, ScanInterval: 100 * time.Millisecond, WorkerTTL: 30 * time.Second,
		RetainSpans: 20 * time.Second, Purged: stores.Queue().Purged,
		Observer: stores.Queue(), Logger: quiet,
	})
	stores.Watch(backend, metrics.WatchOptions{WorkerTTL: 30 * time.Second})
	api := httpapi.New(stores.Store(s), httpapi.Options{Metrics: stores.Handler(), Observe: stores.HTTP, Logger: quiet})
	server := httptest.NewServer(api)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	workers, algorithms := metrics.New(metrics.Options{Prometheus: true}), metrics.New(metrics.Options{Prometheus: true})
	toStore := func() *client.Client {
		c := client.New(server.URL, client.Options{})
		t.Cleanup(c.Close)
		return c
	}
	w := worker.New(toStore(), agent, worker.Options{
		Concurrency: 4, Observer: workers.Worker(), HeartbeatInterval: 500 * time.Millisecond, Logger: quiet,
	})
	running.Go(func() { _ = w.Run(ctx) }) // ends with ctx
	running.Go(func() { search(ctx, t, toStore(), algorithms.Algorithm()) })
	running.Go(func() { blunder(ctx, t, toStore()) })
	calls := metrics.NewLLM(nil)
	proxy := serveProxy(t, toStore(), calls)
	running.Go(func() { converse(ctx, t, "http://"+proxy) })
	return deployment{
		store: server.Listener.Addr().String(), worker: serve(t, workers.Handler()), algorithm: serve(t, algorithms.Handler()), proxy: proxy,
	}
}

// serveProxy starts an LLM proxy before a model that says what it hears.
func serveProxy(t *testing.T, s queue.Store, calls *metrics.LLM) (addr string) {
	t.Helper()
	models, err := llmproxy.ParseModels(fmt.Appendf(nil,
		`[{"model_name": "echo", "litellm_params": {"model": "hosted_vllm/echo", "api_base": "http://%s/v1"}}]`, serve(t, fakellm.New(nil))))
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := llmproxy.New(s, llmproxy.Options{
		Models: models, Observe: calls.Observe, Dropped: calls.Dropped, Metrics: calls.Handler(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return serve(t, proxy)
}

// converse calls the model again and again.
func converse(ctx context.Context, t *testing.T, url string) {
	const body = `{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "hello there"}]}`
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		_ = sleep.For(ctx, 100*time.Millisecond) // the loop ends with ctx
	}
}

// agent rewards an even input and fails at others, some of them once.
func agent(ctx context.Context, t *worker.Task) (worker.Result, error) {
	n, _ := t.Input.Int()
	switch n % 4 {
	case 1:
		return worker.Result{}, errors.New("an odd input")
	case 3:
		if t.Attempt.SequenceID == 1 {
			return worker.Result{}, errors.New("an odd input at first")
		}
		return worker.Result{}, nil
	}
	return worker.Reward(float64(n) / 10), nil
}

// search runs batch after batch.
func search(ctx context.Context, t *testing.T, s queue.Store, observer algorithm.Observer) {
	c := algorithm.New(s, algorithm.Options{Observer: observer, Poll: 10 * time.Millisecond})
	config := queue.DefaultConfig()
	config.MaxAttempts, config.RetryCondition = 2, []queue.AttemptStatus{queue.AttemptFailed}
	for round := 0; ctx.Err() == nil; round++ {
		tasks := make([]algorithm.Task, 8)
		for i := range tasks {
			tasks[i].Input = rawjson.Value(fmt.Sprint(i))
		}
		b, err := c.EnqueueBatch(ctx, tasks, algorithm.BatchOptions{Mode: queue.Modes[round%len(queue.Modes)], Config: &config})
		if err == nil {
			_, err = b.All(ctx)
		}
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
	}
}

// blunder makes every kind of mistake, so that the panels of errors have
// something to show.
func blunder(ctx context.Context, t *testing.T, s *client.Client) {
	for ctx.Err() == nil {
		// No such rollout: an error of the store, and a 404.
		if _, err := s.UpdateRollout(ctx, "ro-none", queue.RolloutUpdate{}); err == nil {
			t.Error("a rollout that does not exist was changed")
		}
		// A number that leaves none above it: an error of the backend.
		held, err := s.Start(ctx, queue.Request{}, nil)
		if err == nil {
			_, err = s.AddSpans(ctx, []queue.Span{{
				RolloutID: held.RolloutID, AttemptID: held.Attempt.AttemptID, SequenceID: 1<<63 - 1,
				TraceID: strings.Repeat("1", 32), SpanID: strings.Repeat("2", 16), Name: "last",
			}})
		}
		if err == nil {
			if _, err := s.NextSequence(ctx, held.RolloutID, 1); err == nil {
				t.Error("a number was issued above the last one")
			}
			_, err = s.UpdateRollout(ctx, held.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)})
		}
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		_ = sleep.For(ctx, 100*time.Millisecond) // the loop ends with ctx
	}
}

func onMemory(*metrics.Recorder) collections.Backend {
	return memory.New(memory.Options{MaxBytes: 64 << 10, Logger: slog.New(slog.DiscardHandler)})
}

func onMongo(t *testing.T) func(r *metrics.Recorder) collections.Backend {
	return func(r *metrics.Recorder) collections.Backend {
		b, err := mongo.Open(t.Context(), mongo.Options{
			URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: slog.New(slog.DiscardHandler),
			Commands: r.Mongo().Commands(), Pool: r.Mongo().Pool(),
		})
		if err != nil {
			t.Fatal(err)
		}
		r.SetDatabase(b.Database())
		return b
	}
}

// serverStatus stands in for Percona's mongodb_exporter, which is not to be had
// here: it writes what a real server says of itself in that exporter's form.
type serverStatus struct{ client *driver.Client }

func newServerStatus(t *testing.T) *serverStatus {
	t.Helper()
	c, err := driver.Connect(options.Client().ApplyURI(mongotest.URI(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return &serverStatus{c}
}

// ServeHTTP implements http.Handler.
func (s *serverStatus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, err := s.client.Database("admin").RunCommand(r.Context(), bson.D{{Key: "serverStatus", Value: 1}}).Raw()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeStatus(w, nil, status)
}

// labelled are the documents whose members are one series with a label.
var labelled = map[string]string{
	"asserts": "assert_type", "connections": "conn_type", "globalLock.currentQueue": "count_type",
	"metrics.cursor.open": "csr_type", "metrics.document": "doc_op_type", "opcounters": "legacy_op_type",
}

func writeStatus(w http.ResponseWriter, path []string, document bson.Raw) {
	members, _ := document.Elements()
	for _, m := range members {
		here := append(path[:len(path):len(path)], m.Key())
		if sub, ok := m.Value().DocumentOK(); ok {
			writeStatus(w, here, sub)
			continue
		}
		value, ok := m.Value().AsFloat64OK()
		if whole, is := m.Value().AsInt64OK(); is {
			value, ok = float64(whole), true
		}
		if !ok {
			continue
		}
		labels := ""
		if label := labelled[strings.Join(path, ".")]; label != "" {
			here, labels = path, fmt.Sprintf("{%s=%q}", label, m.Key())
		} else if len(here) == 3 && here[0] == "opLatencies" {
			here, labels = []string{here[0], here[2]}, fmt.Sprintf("{op_type=%q}", here[1])
		}
		fmt.Fprintf(w, "%s%s %g\n", exporterName(here), labels, value)
	}
}

func exporterName(path []string) string {
	if path[0] == "wiredTiger" {
		path = append([]string{"wt"}, path[1:]...)
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.Join(path, "_"))
	for strings.Contains(name, "__") {
		name = strings.ReplaceAll(name, "__", "_")
	}
	return "mongodb_ss_" + strings.Trim(name, "_")
}
