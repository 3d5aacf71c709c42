package react_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// TestMain makes the test binary, where it is asked to be, an MCP server or a worker
// that is going to be killed.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(mcpServerProcess) != "":
		os.Exit(serveMCP())
	case os.Getenv(workerProcess) != "":
		os.Exit(runWorkerProcess())
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		os.Exit(code)
	}))
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// patience is how long tests wait for what must happen.
const patience = 30 * time.Second

func until(t tester, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// tester is what a test, and one with drawn values, has.
type tester interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sequence answers calls by their numbers; those after the last get the last one.
func sequence(answers ...fakellm.Answer) fakellm.Script {
	return func(r fakellm.Request) fakellm.Answer { return answers[min(r.N, len(answers))-1] }
}

func says(text string) fakellm.Answer { return fakellm.Answer{Text: text} }

// calls is an answer that calls tools: id, name, arguments, and so on.
func calls(words ...string) fakellm.Answer {
	var a fakellm.Answer
	for c := range slices.Chunk(words, 3) {
		a.ToolCalls = append(a.ToolCalls, fakellm.ToolCall{ID: c[0], Name: c[1], Arguments: c[2]})
	}
	return a
}

// rig is a store, a model and the conversations that were held.
type rig struct {
	t      tester
	store  *store.Store
	model  *fakellm.Server
	opts   react.Options
	worker worker.Options
	config queue.Config

	mu   sync.Mutex
	held []*react.Conversation // in the order in which they ended
}

func newRig(t tester, script fakellm.Script, opts react.Options) *rig {
	t.Helper()
	r := &rig{t: t, model: fakellm.New(script), opts: opts, config: queue.DefaultConfig()}
	server := httptest.NewServer(r.model)
	t.Cleanup(server.Close)
	r.store = store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	t.Cleanup(func() { _ = r.store.Close(context.Background()) })
	llm := fmt.Sprintf(`{"main":{"resource_type":"llm","endpoint":%q,"model":"m","api_key":"x","sampling_parameters":{}}}`, server.URL+"/v1")
	_, err := r.store.AddResources(context.Background(), rawjson.Value(llm))
	must(t, err)
	return r
}

// agent makes the rig's agent, whose conversations the rig keeps.
func (r *rig) agent() *react.Agent {
	r.t.Helper()
	opts := r.opts
	grade := opts.Grade
	if grade == nil {
		grade = react.ToolSuccess
	}
	opts.Grade = func(ctx context.Context, t *worker.Task, c *react.Conversation) (worker.Result, error) {
		r.mu.Lock()
		r.held = append(r.held, c)
		r.mu.Unlock()
		return grade(ctx, t, c)
	}
	a, err := react.New(context.Background(), opts)
	must(r.t, err)
	return a
}

// outcome is how a task ended.
type outcome struct {
	queue.AttemptedRollout
	spans []queue.Span
	conv  *react.Conversation // nil where it was not graded
}

// run runs tasks, one after another.
func (r *rig) run(inputs ...string) []outcome {
	r.t.Helper()
	a := r.agent()
	defer a.Close()
	return r.runWith(a.Handle, inputs...)
}

func (r *rig) runWith(h worker.Handler, inputs ...string) []outcome {
	r.t.Helper()
	ctx := context.Background()
	ids := r.enqueue(inputs...)
	opts := r.worker
	opts.Logger, opts.LongPoll, opts.ExitWhenIdle, opts.PollInterval = quiet, -1, time.Millisecond, time.Millisecond
	if r.config.MaxAttempts == 1 {
		opts.MaxRollouts = len(inputs)
	}
	must(r.t, worker.New(r.store, h, opts).Run(ctx))
	var out []outcome
	for i, id := range ids {
		o := outcome{AttemptedRollout: r.rollout(id), spans: r.spans(id)}
		if len(r.held) == len(ids) {
			o.conv = r.held[i]
		}
		out = append(out, o)
	}
	return out
}

func (r *rig) enqueue(inputs ...string) (ids []string) {
	r.t.Helper()
	var reqs []queue.Request
	for _, in := range inputs {
		reqs = append(reqs, queue.Request{Input: rawjson.Value(in), Config: &r.config})
	}
	rollouts, err := r.store.Enqueue(context.Background(), reqs)
	must(r.t, err)
	for _, q := range rollouts {
		ids = append(ids, q.RolloutID)
	}
	return ids
}

func (r *rig) rollout(id string) queue.AttemptedRollout {
	r.t.Helper()
	got, err := r.store.Rollout(context.Background(), id)
	must(r.t, err)
	return *got
}

func (r *rig) spans(id string) []queue.Span {
	r.t.Helper()
	page, err := r.store.Spans(context.Background(), queue.SpanQuery{RolloutID: id, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	must(r.t, err)
	return page.Items
}

// succeed runs one task, which must succeed.
func (r *rig) succeed(input string) outcome {
	r.t.Helper()
	o := r.run(input)[0]
	if o.Status != queue.RolloutSucceeded || o.conv == nil {
		r.t.Fatalf("the task is %s: %s", o.Status, o.Attempt.Metadata)
	}
	return o
}

// fail runs one task, which must fail, and gives the error.
func (r *rig) fail(input string) string {
	r.t.Helper()
	o := r.run(input)[0]
	if o.Status != queue.RolloutFailed {
		r.t.Fatalf("the task is %s", o.Status)
	}
	return o.Attempt.Metadata.Get("error").Text()
}

// named are the operations of a name.
func (o *outcome) named(name string) (out []queue.Span) {
	for _, s := range o.spans {
		if s.Attribute("agentlightning.operation.name").Text() == name {
			out = append(out, s)
		}
	}
	return out
}

// lines writes messages readably, a line each.
func lines(messages []llmclient.Message) (out []string) {
	for _, m := range messages {
		text := m.Role + ": " + m.Content
		if m.Role == "tool" {
			text = "tool " + m.ToolCallID + ": " + m.Content
		}
		for _, c := range m.ToolCalls {
			text += fmt.Sprintf("[%s %s %s]", c.ID, c.Function.Name, c.Function.Arguments)
		}
		out = append(out, text)
	}
	return out
}

// counter is a tool that says how often it was called, after its argument.
func counter(t tester) (react.Tool, *sync.Map) {
	t.Helper()
	var seen sync.Map // key to count
	var mu sync.Mutex
	tool, err := react.Func("count", "counts", func(_ context.Context, in struct {
		Key  string `json:"key"`
		More int    `json:"more,omitempty"`
	}) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		n, _ := seen.LoadOrStore(in.Key, 0)
		seen.Store(in.Key, n.(int)+1)
		return fmt.Sprintf("%s %d", in.Key, n.(int)+1), nil
	})
	must(t, err)
	return tool, &seen
}

func decoded(t tester, v rawjson.Value) (out any) {
	t.Helper()
	must(t, json.Unmarshal(v, &out))
	return out
}

// family waits for what the tool waiting leaves: its folder and its processes.
func family(t tester, file string) (dir string, pids []int) {
	t.Helper()
	until(t, "pids in "+file, func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	text, err := os.ReadFile(file)
	must(t, err)
	pids = []int{0, 0}
	if _, err := fmt.Sscan(string(text), &dir, &pids[0], &pids[1]); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return dir, pids
}

// alive reports whether a process runs, which a zombie does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}
