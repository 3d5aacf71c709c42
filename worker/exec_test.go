package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
)

func shell(script string) worker.Handler {
	return worker.Exec(worker.ExecOptions{Command: []string{"sh", "-c", script}, Grace: 200 * time.Millisecond})
}

// runShell runs one task with a shell script.
func runShell(t *testing.T, script, input string) (queue.AttemptedRollout, []queue.Span) {
	t.Helper()
	s := newStore(t)
	id := enqueue(t, s, nil, input)[0]
	start(t, s, shell(script), worker.Options{MaxRollouts: 1})
	return finished(t, s, id), spansOf(t, s, id)
}

func TestExecRewards(t *testing.T) {
	cases := map[string]struct{ script, value string }{
		"number":            {`echo 0.25`, "0.25"},
		"object":            {`echo '{"reward": 3}'`, "3.0"},
		"boolean":           {`echo '{"reward": true}'`, "1.0"},
		"rewards":           {`echo '{"rewards":{"a":1,"b":2},"primary":"b"}'`, "2.0"},
		"one of rewards":    {`echo '{"rewards":{"a":1}}'`, "1.0"},
		"last counts":       {`echo 1; echo 2`, "2.0"},
		"text after":        {`echo 7; echo done`, "7.0"},
		"log line after":    {`echo 7; echo '{"level":"info"}'`, "7.0"},
		"no newline":        {`printf 4`, "4.0"},
		"blank lines":       {`echo 5; echo; echo '   '`, "5.0"},
		"not a number":      {`echo nan`, `"NaN"`},
		"exponent":          {`echo 1e3`, "1000.0"},
		"from input":        {`cat`, "42.0"},
		"input never read":  {`exec 0<&-; echo 1`, "1.0"},
		"bytes not UTF-8":   {`printf '\377\376\n9\n'`, "9.0"},
		"windows line ends": {`printf '6\r\n'`, "6.0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, spans := runShell(t, c.script, "42")
			if r.Status != queue.RolloutSucceeded {
				t.Fatalf("status %s: %s", r.Status, r.Attempt.Metadata)
			}
			if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.0.value"); got != c.value {
				t.Errorf("reward %s, want %s", got, c.value)
			}
		})
	}
}

func TestExecWithoutReward(t *testing.T) {
	for name, script := range map[string]string{
		"nothing": `true`, "text": `echo hello`, "object": `echo '{"answer":1}'`, "broken": `echo '{"reward":'`,
		"date": `echo 2026-01-02`, "version": `echo 1.2.3`, "wrong type": `echo '{"reward":"high"}'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, spans := runShell(t, script, "{}")
			if r.Status != queue.RolloutSucceeded || len(spans) != 1 {
				t.Errorf("status %s with %d spans", r.Status, len(spans))
			}
		})
	}
}

func TestExecSpans(t *testing.T) {
	t.Parallel()
	_, spans := runShell(t, `echo '{"spans":[{"name":"step","attributes":{"n":1}}],"reward":2}'`, "{}")
	if got := attribute(t, spans, "step", "n"); got != "1" {
		t.Errorf("attribute %s", got)
	}
	if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.0.value"); got != "2.0" {
		t.Errorf("reward %s", got)
	}
}

func TestExecFailures(t *testing.T) {
	cases := map[string]struct{ script, status, errorText string }{
		"exit status": {`echo 1; echo oh no >&2; exit 3`, "3", "exit status 3: oh no"},
		"signal":      {`kill -9 $$`, "137", "killed by signal killed"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, spans := runShell(t, c.script, "{}")
			meta := r.Attempt.Metadata
			if r.Status != queue.RolloutFailed || meta.Get("exit_status").String() != c.status || meta.Get("error").Text() != c.errorText {
				t.Errorf("status %s with %s", r.Status, meta)
			}
			if got := attribute(t, spans, "agentlightning.exception", "exception.message"); got != strconv.Quote(c.errorText) {
				t.Errorf("exception says %s", got)
			}
			attribute(t, spans, "aglq.exec", "aglq.stderr.tail")
			for _, s := range spans {
				if s.Name == "agentlightning.annotation" {
					t.Error("a failed program has a reward")
				}
			}
		})
	}
}

func TestExecPython(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal("no python3 in PATH: install Python 3.11 or newer")
	}
	s := newStore(t)
	id := enqueue(t, s, nil, `{"a":6,"b":7}`)[0]
	const program = `import json, os, sys
task = json.load(sys.stdin)
assert json.load(open(os.environ["AGL_TASK_FILE"]))["attempt_id"] == os.environ["AGL_ATTEMPT_ID"]
assert json.load(open(os.environ["AGL_RESOURCES_FILE"])) == {}
sys.stdout.buffer.write(b"\xff\xfe noise\n")
print(json.dumps({"rewards": {"product": task["a"] * task["b"], "nan": float("nan")}, "primary": "product"}))`
	start(t, s, worker.Exec(worker.ExecOptions{Command: []string{"python3", "-c", program}}), worker.Options{})
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded {
		t.Fatalf("status %s: %s", r.Status, r.Attempt.Metadata)
	}
	spans := spansOf(t, s, id)
	if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.0.value"); got != "42.0" {
		t.Errorf("reward %s", got)
	}
	if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.1.value"); got != `"NaN"` {
		t.Errorf("second reward %s", got)
	}
}

func TestExecNoSuchProgram(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	start(t, s, worker.Exec(worker.ExecOptions{Command: []string{"no-such-program"}}), worker.Options{})
	if r := finished(t, s, id); !strings.Contains(r.Attempt.Metadata.String(), "no-such-program") {
		t.Errorf("metadata %s", r.Attempt.Metadata)
	}
}

func TestExecFloodKeepsTails(t *testing.T) {
	t.Parallel()
	script := `yes noise | head -c 20000000; yes trouble | head -c 3000000 >&2; printf '%09000000d' 0; echo; echo 0.5`
	r, spans := runShell(t, script, `"`+strings.Repeat("x", 1<<20)+`"`)
	if r.Status != queue.RolloutSucceeded {
		t.Fatalf("status %s: %s", r.Status, r.Attempt.Metadata)
	}
	if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.0.value"); got != "0.5" {
		t.Errorf("reward %s", got)
	}
	if n := len(attribute(t, spans, "aglq.exec", "aglq.stdout.tail")); n > 20<<10 {
		t.Errorf("the tail has %d bytes", n)
	}
	if got := attribute(t, spans, "aglq.exec", "aglq.stdout.bytes"); got != "29000005" {
		t.Errorf("%s bytes counted", got)
	}
}

func TestExecEnvironment(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,agentlightning.rollout_id=stale")
	s := newStore(t)
	if _, err := s.AddResources(t.Context(), rawjson.Value(
		`{"main":{"resource_type":"proxy_llm","endpoint":"http://proxy:1/v1/","model":"m","api_key":"k","sampling_parameters":{}}}`)); err != nil {
		t.Fatal(err)
	}
	id := enqueue(t, s, nil, `{"a":1.0}`)[0]
	dir := t.TempDir()
	start(t, s, worker.Exec(worker.ExecOptions{
		Command: []string{"sh", "-c", `env > env; cat > input; cp "$AGL_TASK_FILE" task; cp "$AGL_RESOURCES_FILE" resources`},
		Dir:     dir,
	}), worker.Options{StoreURL: "http://store:4747", Slots: slots(t)})
	r := finished(t, s, id)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := read("input"); got != `{"a":1.0}` {
		t.Errorf("standard input %s", got)
	}
	var task struct {
		RolloutID string                     `json:"rollout_id"`
		AttemptID string                     `json:"attempt_id"`
		Input     json.RawMessage            `json:"input"`
		Resources map[string]json.RawMessage `json:"resources"`
	}
	if err := json.Unmarshal([]byte(read("task")), &task); err != nil || task.RolloutID != id ||
		task.AttemptID != r.Attempt.AttemptID || string(task.Input) != `{"a":1.0}` || task.Resources["main"] == nil {
		t.Errorf("task file %s: %v", read("task"), err)
	}
	if !strings.HasPrefix(read("resources"), `{"main":`) {
		t.Errorf("resources file %s", read("resources"))
	}
	endpoint := "http://proxy:1/rollout/" + id + "/attempt/" + r.Attempt.AttemptID + "/v1"
	env := "\n" + read("env")
	for _, line := range []string{
		"AGL_ROLLOUT_ID=" + id, "AGL_ATTEMPT_ID=" + r.Attempt.AttemptID, "AGL_MODE=", "AGL_STORE_URL=http://store:4747",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://store:4747/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
		"OTEL_RESOURCE_ATTRIBUTES=service.name=mine,agentlightning.rollout_id=" + id + ",agentlightning.attempt_id=" + r.Attempt.AttemptID,
		"AGL_LLM_BASE_URL=" + endpoint, "OPENAI_BASE_URL=" + endpoint, "OPENAI_API_BASE=" + endpoint, "OPENAI_API_KEY=k",
	} {
		if !strings.Contains(env, "\n"+line+"\n") {
			t.Errorf("the environment lacks %s", line)
		}
	}
	for _, v := range worker.Variables {
		if !strings.Contains(env, "\n"+v.Name+"=") {
			t.Errorf("the documented variable %s is not set", v.Name)
		}
	}
	if file := strings.Split(strings.SplitN(env, "AGL_TASK_FILE=", 2)[1], "\n")[0]; exists(file) {
		t.Errorf("%s is left behind", file)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// pidsIn waits for a file with n process ids.
func pidsIn(t *testing.T, path string, n int) (pids []int) {
	t.Helper()
	until(t, "pids in "+path, func() bool {
		pids = nil
		text, _ := os.ReadFile(path)
		for _, f := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return false
			}
			pids = append(pids, pid)
		}
		return len(pids) == n && strings.HasSuffix(string(text), "\n")
	})
	return pids
}

// family starts a grandchild that ignores SIGTERM and leaves both pids behind.
const family = `(trap "" TERM; while :; do sleep 1; done) & echo $$ $! > %s; wait`

func TestExecTimeoutEndsTheWholeFamily(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	file := filepath.Join(t.TempDir(), "pids")
	start(t, s, shell(fmt.Sprintf(family, file)), worker.Options{TaskTimeout: 400 * time.Millisecond})
	r := finished(t, s, id)
	if r.Attempt.Status != queue.AttemptTimeout {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
	for _, pid := range pidsIn(t, file, 2) {
		until(t, "the end of a child", func() bool { return !alive(pid) })
	}
}

func TestExecLeavesNoGrandchildren(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	r, _ := runShell(t, `sleep 1000 & echo $! > `+file+`; echo 1`, "{}")
	if r.Status != queue.RolloutSucceeded {
		t.Errorf("status %s: %s", r.Status, r.Attempt.Metadata)
	}
	for _, pid := range pidsIn(t, file, 1) {
		until(t, "the end of a grandchild", func() bool { return !alive(pid) })
	}
}

func TestExecCancellationReachesTheProgram(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	dir := t.TempDir()
	script := fmt.Sprintf(`trap 'echo bye > %s/term; exit 0' TERM; echo $$ > %s/pids; while :; do sleep 0.02; done`, dir, dir)
	_, stop := start(t, s, worker.Exec(worker.ExecOptions{Command: []string{"sh", "-c", script}}), // with time to say bye
		worker.Options{HeartbeatInterval: 20 * time.Millisecond})
	pidsIn(t, filepath.Join(dir, "pids"), 1)
	if _, err := s.UpdateRollout(t.Context(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
		t.Fatal(err)
	}
	until(t, "SIGTERM in the program", func() bool { return exists(filepath.Join(dir, "term")) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if r := finished(t, s, id); r.Status != queue.RolloutCancelled {
		t.Errorf("status %s", r.Status)
	}
}

// workerProcess makes the test binary a worker whose one task leaves its pids in
// the file that it names, by the bridge that workerBridge names.
const (
	workerProcess = "AGLQ_TEST_WORKER_PIDS"
	workerBridge  = "AGLQ_TEST_WORKER_BRIDGE"
)

func runWorkerProcess() int {
	ctx := context.Background()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	if _, err := s.Enqueue(ctx, []queue.Request{{Input: rawjson.Null}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	script := fmt.Sprintf(family, os.Getenv(workerProcess))
	handler := shell(script)
	if os.Getenv(workerBridge) == "pool" {
		handler = worker.NewPool(worker.PoolOptions{ExecOptions: worker.ExecOptions{Command: poolLoop(script)}, Logger: quiet}).Handle
	}
	w := worker.New(s, handler, options(worker.Options{}))
	_ = w.Run(ctx) // until killed
	return 0
}

func TestKilledWorkerLeavesNoProgram(t *testing.T) {
	for _, bridge := range []string{"exec", "pool"} {
		t.Run(bridge, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pids")
			cmd := exec.Command(os.Args[0])
			temp := t.TempDir()
			cmd.Env = append(os.Environ(), workerProcess+"="+file, workerBridge+"="+bridge, "TMPDIR="+temp)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pids := pidsIn(t, file, 2)
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			for _, pid := range pids {
				until(t, "the end of a killed worker's program", func() bool { return !alive(pid) })
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
