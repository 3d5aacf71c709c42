package worker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/limit"
)

func slots(t *testing.T) *limit.Server {
	t.Helper()
	s, err := limit.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func limits(t *testing.T, rules ...string) *limit.Set {
	t.Helper()
	s, err := limit.Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// most counts how many are inside at a time.
type most struct{ now, peak atomic.Int32 }

func (m *most) enter() {
	n := m.now.Add(1)
	for p := m.peak.Load(); n > p && !m.peak.CompareAndSwap(p, n); p = m.peak.Load() {
	}
}

func (m *most) leave() { m.now.Add(-1) }

// Two workers share the limits: of all tasks, and of what handlers name. What a
// handler keeps is returned at its end, also when it panics.
func TestLimitsOfHandlers(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ids := enqueue(t, s, nil, strings.Split(strings.Repeat("1,", 19)+"1", ",")...)
	var tasks, calls most
	handler := func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		tasks.enter()
		defer tasks.leave()
		leave, err := task.Limit(ctx, "llm")
		if err != nil {
			return worker.Result{}, err
		}
		calls.enter()
		time.Sleep(time.Millisecond) // so that they meet
		calls.leave()
		if task.Rollout.RolloutID == ids[0] {
			panic("with the slot")
		}
		if task.Rollout.RolloutID != ids[1] { // that one keeps it
			leave()
		}
		_, err = task.Limit(ctx, "no such group")
		return worker.Result{}, err
	}
	shared := limits(t, "llm=2", "task=5")
	for range 2 {
		start(t, s, handler, worker.Options{Concurrency: 6, Limits: shared})
	}
	for i, id := range ids {
		want := queue.RolloutSucceeded
		if i == 0 {
			want = queue.RolloutFailed
		}
		if r := finished(t, s, id); r.Status != want {
			t.Errorf("%s with %s", r.Status, r.Attempt.Metadata)
		}
	}
	if tasks.peak.Load() > 5 || calls.peak.Load() > 2 {
		t.Errorf("%d tasks and %d calls at a time, want at most 5 and 2", tasks.peak.Load(), calls.peak.Load())
	}
}

// A task that waits for a slot ends with its time.
func TestLimitWaitEnds(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, "1")[0]
	shared := limits(t, "task=1")
	leave, err := shared.Group("task").Take(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	start(t, s, shell("echo 1"), worker.Options{Limits: shared, TaskTimeout: 50 * time.Millisecond})
	if r := finished(t, s, id); r.Attempt.Status != queue.AttemptTimeout {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
}

// Programs take slots over HTTP; one that is killed with its slot leaves it to the
// others.
func TestLimitsOfPrograms(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ids := enqueue(t, s, nil, `"die"`, `"keep"`, `"return"`, `"return"`, `"keep"`)
	file := filepath.Join(t.TempDir(), "log")
	const program = `import json, os, sys, urllib.request
def ask(method, path):
    with urllib.request.urlopen(urllib.request.Request(os.environ["AGL_LIMITS_URL"] + path, method=method)) as answer:
        return answer.read().decode().strip()
def note(what):
    with open(sys.argv[1], "a") as log:
        log.write(what + "\n")
task = json.load(sys.stdin)
slot = ask("POST", "/tool:x")
note("in")
if task == "die":
    note("out")
    os.kill(os.getpid(), 9)
note("out")
if task == "return":
    ask("DELETE", "/tool:x/" + slot)`
	start(t, s, worker.Exec(worker.ExecOptions{Command: []string{"python3", "-c", program, file}}),
		worker.Options{Concurrency: 5, Limits: limits(t, "tool:x=1"), Slots: slots(t)})
	for i, id := range ids {
		want := queue.RolloutSucceeded
		if i == 0 {
			want = queue.RolloutFailed
		}
		if r := finished(t, s, id); r.Status != want {
			t.Errorf("%s with %s", r.Status, r.Attempt.Metadata)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Repeat("in\nout\n", 5), string(text)); diff != "" {
		t.Error(diff)
	}
}

func TestHooks(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	config := queue.DefaultConfig()
	ids := enqueue(t, s, &config, `"good"`, `"bad"`)
	var log []string
	note := func(text string) { log = append(log, text) }
	hook := func(name string) worker.TaskHook {
		return func(ctx context.Context, task *worker.Task) error {
			note(name)
			return task.Message(ctx, name)
		}
	}
	first := worker.Hooks{
		OnRolloutStart: hook("rollout start"),
		OnTraceStart:   func(context.Context, *worker.Task) error { panic("a hook") },
		OnTraceEnd:     hook("trace end"),
		OnRolloutEnd: func(ctx context.Context, task *worker.Task, end worker.End) error {
			spans, err := task.Spans(ctx)
			if err != nil {
				return err
			}
			var names []string
			for i := range spans {
				names = append(names, spans[i].Name)
			}
			r, err := s.Rollout(ctx, task.Rollout.RolloutID)
			if err != nil {
				return err
			}
			note(fmt.Sprintf("rollout end: %s, %v, %s, stored %s, while %s", end.Status, end.Err, task.Input, strings.Join(names, " "), r.Status))
			return nil
		},
	}
	second := worker.Hooks{
		OnRolloutStart: func(context.Context, *worker.Task) error { note("second start"); return fmt.Errorf("no matter") },
		OnTraceStart:   func(context.Context, *worker.Task) error { note("second trace start"); return nil },
		OnRolloutEnd:   func(context.Context, *worker.Task, worker.End) error { note("second end"); panic("at the end") },
	}
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		note("handler")
		if task.Input.Text() == "bad" {
			return worker.Result{}, fmt.Errorf("no luck")
		}
		return worker.Reward(1), nil
	}, worker.Options{Hooks: []worker.Hooks{first, second}})
	for i, want := range []queue.RolloutStatus{queue.RolloutSucceeded, queue.RolloutFailed} {
		if r := finished(t, s, ids[i]); r.Status != want {
			t.Errorf("%s with %s", r.Status, r.Attempt.Metadata)
		}
	}
	const before = "agentlightning.message agentlightning.message"
	want := []string{
		"rollout start", "second start", "second trace start", "handler", "trace end",
		`rollout end: succeeded, <nil>, "good", stored ` + before + ` agentlightning.annotation, while running`, "second end",
		"rollout start", "second start", "second trace start", "handler", "trace end",
		`rollout end: failed, no luck, "bad", stored ` + before + ` agentlightning.exception, while running`, "second end",
	}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Error(diff)
	}
}

// A task that the worker loses has an end too.
func TestHooksOfALostTask(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, "1")[0]
	ended := make(chan worker.End, 1)
	start(t, s, func(ctx context.Context, _ *worker.Task) (worker.Result, error) {
		if _, err := s.UpdateRollout(ctx, id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return worker.Result{}, nil
	}, worker.Options{HeartbeatInterval: 20 * time.Millisecond, Hooks: []worker.Hooks{{
		OnRolloutEnd: func(_ context.Context, _ *worker.Task, end worker.End) error { ended <- end; return nil },
	}}})
	if end := <-ended; end.Status != "" || end.Err != worker.ErrNotHeld {
		t.Errorf("the end is %+v", end)
	}
}

func TestStep(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	waiting := enqueue(t, s, nil, "1")[0]
	set, err := s.AddResources(t.Context(), []byte(`{"p":{"resource_type":"prompt_template","template":"hi","engine":"f-string"}}`))
	if err != nil {
		t.Fatal(err)
	}
	step := func(ctx context.Context, script string) (queue.AttemptedRollout, error) {
		return worker.New(s, shell(script), options(worker.Options{})).Step(ctx, queue.Request{
			Input: []byte("7"), Mode: queue.ModeVal, ResourcesID: &set.ResourcesID,
		})
	}
	r, err := step(t.Context(), `grep -q hi "$AGL_RESOURCES_FILE" && cat`)
	if err != nil || r.Status != queue.RolloutSucceeded || r.Mode != queue.ModeVal || r.Attempt.Status != queue.AttemptSucceeded {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := attribute(t, spansOf(t, s, r.RolloutID), "agentlightning.annotation", "agentlightning.reward.0.value"); got != "7.0" {
		t.Errorf("reward %s", got)
	}
	if r, err := step(t.Context(), `exit 3`); err != nil || r.Status != queue.RolloutFailed {
		t.Errorf("%s, %v", r.Status, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if r, err := step(ctx, `sleep 1000`); err != context.DeadlineExceeded || r.Attempt.Metadata.Get("error").Text() != "worker stopped" {
		t.Errorf("%s with %s, %v", r.Status, r.Attempt.Metadata, err)
	}
	if r, err := s.Rollout(t.Context(), waiting); err != nil || r.Status != queue.RolloutQueuing {
		t.Errorf("the queue was touched: %s, %v", r.Status, err)
	}
}
