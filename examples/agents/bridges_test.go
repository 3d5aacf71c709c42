package agents_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
)

// python is a Python with OpenTelemetry's SDK, and node the folder with what the
// agents in TypeScript import; they are made when there are none.
var (
	python = sync.OnceValues(func() (string, error) {
		if path := os.Getenv("AGLQ_DEMO_PYTHON"); path != "" {
			return path, nil
		}
		return script("get-python-env", "demo")
	})
	node = sync.OnceValues(func() (string, error) { return script("get-node-env", "agents") })
)

// script is what a script prints.
func script(name, argument string) (string, error) {
	cmd := exec.Command(filepath.Join("..", "..", "scripts", name), argument)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func must(t *testing.T, get func() (string, error)) string {
	t.Helper()
	text, err := get()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// typescript compiles the agents as npm run build does, and gives where they are.
func typescript(t *testing.T) string {
	t.Helper()
	dir, packages := t.TempDir(), filepath.Join(must(t, node), "node_modules")
	if err := os.CopyFS(dir, os.DirFS("typescript")); err != nil {
		t.Fatal(err)
	}
	_ = os.RemoveAll(filepath.Join(dir, "node_modules")) // whoever has tried it has some
	if err := os.Symlink(packages, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(packages, "typescript", "bin", "tsc"), "-p", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compiling: %v\n%s", err, out)
	}
	return filepath.Join(dir, "dist")
}

func execAgent(command ...string) worker.Handler {
	return worker.Exec(worker.ExecOptions{Command: command})
}

func poolAgent(t *testing.T, command ...string) worker.Handler {
	t.Helper()
	pool := worker.NewPool(worker.PoolOptions{ExecOptions: worker.ExecOptions{Command: command}, Logger: quiet})
	t.Cleanup(func() { pool.Close(context.Background()) })
	return pool.Handle
}

// httpAgent starts a server that says where it listens.
func httpAgent(t *testing.T, storeURL string, command ...string) worker.Handler {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="+storeURL+"/v1/traces")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	port, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on port ")
	if err != nil || !ok {
		t.Fatalf("the agent said %q: %v", line, err)
	}
	return worker.HTTP(worker.HTTPOptions{URL: "http://127.0.0.1:" + port + "/"})
}

var quiet = slog.New(slog.DiscardHandler)

// served is a store behind HTTP.
func served(t *testing.T) (*store.Store, string) {
	t.Helper()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: quiet}))
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, server.URL
}

func tasks(t *testing.T) (reqs []queue.Request) {
	t.Helper()
	text, err := os.ReadFile("tasks.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		reqs = append(reqs, queue.Request{Input: rawjson.Value(strings.TrimSpace(line))})
	}
	return reqs
}

// Each agent, by each way to run it, does the tasks under a worker: the rewards
// arrive, and the spans that it sends by itself are filed under their rollouts
// before these are finished.
func TestAgentsUnderAWorker(t *testing.T) {
	adder := filepath.Join(t.TempDir(), "adder")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", adder, "./go").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	added := []string{"1", "1", "1", "0"}
	type agent struct {
		handler func(t *testing.T, storeURL string) worker.Handler
		rewards []string
		spans   []string // beside the worker's
	}
	command := func(run func(*testing.T, ...string) worker.Handler, words ...string) func(*testing.T, string) worker.Handler {
		return func(t *testing.T, _ string) worker.Handler { return run(t, words...) }
	}
	once := func(_ *testing.T, words ...string) worker.Handler { return execAgent(words...) }
	inPython := func(run func(*testing.T, ...string) worker.Handler, file string) func(*testing.T, string) worker.Handler {
		return func(t *testing.T, _ string) worker.Handler { return run(t, must(t, python), "python/"+file) }
	}
	compiled := typescript(t)
	inNode := func(run func(*testing.T, ...string) worker.Handler, file string) func(*testing.T, string) worker.Handler {
		return command(run, "node", filepath.Join(compiled, file))
	}
	for name, a := range map[string]agent{
		"shell":           {command(once, "sh", "./echo.sh"), []string{"1", "1", "1", "1"}, nil},
		"go":              {command(once, adder), added, nil},
		"python":          {command(once, "python3", "python/agent.py"), added, []string{"add"}},
		"python otel":     {inPython(once, "otel_agent.py"), added, []string{"add"}},
		"python pool":     {inPython(poolAgent, "pool_agent.py"), added, []string{"add"}},
		"typescript":      {inNode(once, "agent.js"), added, []string{"add"}},
		"typescript pool": {inNode(poolAgent, "pool.js"), added, []string{"add"}},
		"python http": {func(t *testing.T, storeURL string) worker.Handler {
			return httpAgent(t, storeURL, must(t, python), "python/http_agent.py", "0")
		}, added, []string{"solve", "add"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := served(t)
			runAll(t, s, worker.Options{StoreURL: url, Concurrency: 2, Logger: quiet}, a.handler(t, url), a.rewards, a.spans)
		})
	}
}

func runAll(t *testing.T, s *store.Store, o worker.Options, h worker.Handler, rewards, spans []string) {
	t.Helper()
	rollouts, err := s.Enqueue(t.Context(), tasks(t))
	if err != nil {
		t.Fatal(err)
	}
	o.MaxRollouts = len(rollouts)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := worker.New(s, h, o).Run(ctx); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range rollouts {
		r, err := s.Rollout(t.Context(), rollouts[i].RolloutID)
		if err != nil || r.Status != queue.RolloutSucceeded {
			t.Fatalf("task %d: %s with %s, %v", i, r.Status, r.Attempt.Metadata, err)
		}
		page, err := s.Spans(t.Context(), queue.SpanQuery{
			RolloutID: r.RolloutID, AttemptID: &r.Attempt.AttemptID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1},
		})
		if err != nil {
			t.Fatal(err)
		}
		reward, ok := semconv.FinalReward(page.Items)
		if !ok {
			t.Errorf("task %d has no reward", i)
		}
		got = append(got, string(rawjson.AppendFloat(nil, reward)))
		checkSpans(t, page.Items, spans)
	}
	var want []string
	for _, r := range rewards {
		want = append(want, r+".0")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// checkSpans wants one span of each name, and those below a span of the worker in
// its trace where that one is told to the agent.
func checkSpans(t *testing.T, spans []queue.Span, names []string) {
	t.Helper()
	counts := map[string]int{}
	var parent, trace string
	for i := range spans {
		counts[spans[i].Name]++
		if spans[i].Name == "aglq.http" {
			parent, trace = spans[i].SpanID, spans[i].TraceID
		}
	}
	for _, name := range names {
		if counts[name] != 1 {
			t.Errorf("%d spans %s among %v", counts[name], name, counts)
		}
	}
	for i := range spans {
		if s := &spans[i]; s.Name == "solve" && (s.TraceID != trace || s.ParentID == nil || *s.ParentID != parent) {
			t.Errorf("the span %s is not below the worker's", s.Name)
		}
	}
}
