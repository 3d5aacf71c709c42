package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aglq/aglq/collections/mongo/mongotest"
)

func storeArgs(more ...string) []string {
	return append([]string{"store", "--host", "127.0.0.1", "--port", "0"}, more...)
}

func TestStoreEndsBySignal(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
		t.Run(c.signal.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, nil, storeArgs()...)
			url := p.url()
			p.logged("msg=healthy")
			if code, body := get(t, url+"/v1/agl/health"); code != 200 || !strings.Contains(body, "ok") {
				t.Errorf("health is %d %s", code, body)
			}
			if code, _ := get(t, url+"/v1/prometheus"); code != 404 {
				t.Errorf("metrics without a tracker: status %d", code)
			}
			p.signal(c.signal)
			p.exit(c.code)
		})
	}
}

func TestStoreSaysWhereItListens(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "store", "--port", "0", "--log-format", "json")
	var line struct{ Msg, Address, URL, Dashboard, Backend string }
	until(t, "the listening line", func() bool {
		for _, text := range lines(p.log.String()) {
			if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "listening" {
				return true
			}
		}
		return false
	})
	host, port, err := net.SplitHostPort(strings.TrimPrefix(line.URL, "http://"))
	if err != nil || net.ParseIP(host) == nil || net.ParseIP(host).IsUnspecified() || line.Backend != "memory" {
		t.Errorf("listening line %+v: %v", line, err)
	}
	if !strings.HasSuffix(line.Address, ":"+port) || line.Dashboard != line.URL+"/" {
		t.Errorf("listening line %+v", line)
	}
}

func TestStorePortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	p := start(t, nil, "store", "--host", "127.0.0.1", "--port", port)
	p.exit(1)
	if text := p.log.String(); !strings.Contains(text, "address already in use") || !strings.Contains(text, "give a free port") {
		t.Errorf("said: %s", text)
	}
}

func TestStoreTrackers(t *testing.T) {
	t.Parallel()
	p := start(t, nil, storeArgs("--tracker", "console", "prometheus")...)
	url := p.url()
	aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(2)))
	for _, path := range []string{"/v1/prometheus", "/v1/prometheus/"} {
		code, text := get(t, url+path)
		if code != 200 {
			t.Fatalf("%s: status %d", path, code)
		}
		for _, want := range []string{
			`agl_http_total{method="POST",path="/v1/agl/queues/rollouts/enqueue",status="201"} 1`,
			`agl_store_total{method="enqueue_many_rollouts",status="OK",store_pubmeth="enqueue_many_rollouts"} 1`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in\n%.3000s", path, want, text)
			}
		}
	}
	p.logged("agl.http.total{path=")
	p = start(t, nil, "run", "--tracker", "console", "--log-format", "json", "--log-level", "WARNING",
		"--tasks", write(t, "tasks.jsonl", tasks(1)), "--", "echo", "1")
	p.exit(0)
	if text := p.log.String(); !strings.Contains(text, `"msg":"metrics","part":"metrics","per_second":{"agl.`) {
		t.Errorf("said: %s", text)
	}
}

// TestWorkerDrains ends a worker in the middle of a task, which must end well.
func TestWorkerDrains(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	dir := t.TempDir()
	id := strings.TrimSpace(aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(1))))
	agent := fmt.Sprintf("touch %[1]s/begun; until [ -e %[1]s/end ]; do sleep 0.05; done; echo 1", dir)
	w := start(t, nil, "worker", "--store-url", url, "--", "sh", "-c", agent)
	until(t, "the agent to begin", func() bool { return exists(filepath.Join(dir, "begun")) })
	w.signal(syscall.SIGTERM)
	more := strings.TrimSpace(aglq(t, url, "enqueue", write(t, "more.jsonl", tasks(1))))
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	w.exit(143)
	if text := aglq(t, url, "rollouts", "show", id, "--json"); !strings.Contains(text, `"status":"succeeded"`) {
		t.Errorf("the drained rollout: %s", text)
	}
	if text := aglq(t, url, "rollouts", "show", more, "--json"); !strings.Contains(text, `"status":"queuing"`) {
		t.Errorf("a rollout enqueued while the worker drains: %s", text)
	}
}

// TestWorkerStopsAtOnce gives the second signal: the agent and its children end.
func TestWorkerStopsAtOnce(t *testing.T) {
	for _, bridge := range []string{"exec", "pool"} {
		t.Run(bridge, func(t *testing.T) {
			t.Parallel()
			workerStopsAtOnce(t, bridge)
		})
	}
}

func workerStopsAtOnce(t *testing.T, bridge string) {
	url := start(t, nil, storeArgs()...).url()
	dir := t.TempDir()
	aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(1)))
	agent := fmt.Sprintf("sleep 600 & echo $! > %[1]s/pid.new; mv %[1]s/pid.new %[1]s/pid; wait", dir)
	w := start(t, nil, "worker", "--store-url", url, "--bridge", bridge, "--", "sh", "-c", agent)
	until(t, "the agent to begin", func() bool { return exists(filepath.Join(dir, "pid")) })
	w.signal(syscall.SIGINT)
	w.signal(syscall.SIGTERM)
	until(t, "the second signal", func() bool { // the first may not have been taken yet
		if !w.ended() {
			_ = w.cmd.Process.Signal(syscall.SIGTERM)
		}
		return w.ended()
	})
	if code := w.cmd.ProcessState.ExitCode(); code != 130 && code != 143 {
		t.Errorf("exit status %d, want 130 or 143:\n%s", code, w.log)
	}
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the agent's child to end", func() bool { return gone(pid) })
}

// TestWorkerDrainsAPool ends a worker whose agent stays: the task ends well, and so
// does the agent, by the end of its input.
func TestWorkerDrainsAPool(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	dir := t.TempDir()
	id := strings.TrimSpace(aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(1))))
	agent := fmt.Sprintf(`while read -r line; do id=${line#*\"id\":\"}; id=${id%%%%\"*}; touch %[1]s/begun
until [ -e %[1]s/end ]; do sleep 0.05; done; echo "{\"id\":\"$id\",\"reward\":1}"; done; touch %[1]s/over`, dir)
	w := start(t, nil, "worker", "--store-url", url, "--bridge", "pool", "--", "sh", "-c", agent)
	until(t, "the agent to begin", func() bool { return exists(filepath.Join(dir, "begun")) })
	w.signal(syscall.SIGTERM)
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	w.exit(143)
	if text := aglq(t, url, "rollouts", "show", id, "--json"); !strings.Contains(text, `"status":"succeeded"`) {
		t.Errorf("the drained rollout: %s", text)
	}
	if !exists(filepath.Join(dir, "over")) {
		t.Error("the agent did not see the end of its input")
	}
}

// TestOnceIsInterrupted ends the agent of a single task by the first signal.
func TestOnceIsInterrupted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "begun")
	w := start(t, nil, "worker", "--once", "--input", "1", "--", "sh", "-c", "echo $$ > "+file+"; sleep 600")
	until(t, "the agent to begin", func() bool { return exists(file) })
	w.signal(syscall.SIGINT)
	w.exit(130)
	if text := w.out.String(); !strings.Contains(text, "error: worker stopped") {
		t.Errorf("said: %s", text)
	}
}

// gone reports whether a process has ended, reaped or not.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestDeadWorkerIsReplaced kills a worker: the lease gives its rollout away.
func TestDeadWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs("--worker-ttl", "1", "--scan-interval", "0.1")...).url()
	dir := t.TempDir()
	id := strings.TrimSpace(aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(1))))
	agent := fmt.Sprintf("[ -e %[1]s/begun ] && exec echo 0.25; touch %[1]s/begun; sleep 600", dir)
	args := []string{"worker", "--store-url", url, "--heartbeat-interval", "0.3", "--", "sh", "-c", agent}
	first := start(t, nil, args...)
	until(t, "the agent to begin", func() bool { return exists(filepath.Join(dir, "begun")) })
	first.signal(syscall.SIGKILL)
	start(t, nil, args...)
	until(t, "the rollout to succeed", func() bool {
		return strings.Contains(aglq(t, url, "rollouts", "show", id, "--json"), `"status":"succeeded"`)
	})
	if text := aglq(t, url, "attempts", id); len(lines(text)) != 3 {
		t.Errorf("attempts:\n%s", text)
	}
}

// results reads the file that aglq run --out writes.
func results(t *testing.T, path string) []resultLine {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []resultLine
	for _, line := range lines(string(text)) {
		var r resultLine
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

const squareAgent = `read -r task
n=${task#*:}; n=${n%\}}
if [ "$n" = 3 ]; then echo "three is not for me" >&2; exit 7; fi
grep -q '"prompt"' "$AGL_RESOURCES_FILE" || exit 9
echo "thinking about $n"
echo "{\"reward\": $((n * n))}"
`

func TestRunEndToEnd(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "results.jsonl")
	resources := write(t, "resources.json", `{"prompt": {"resource_type": "prompt_template", "template": "x", "engine": "jinja"}}`)
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", tasks(6)), "--resources", resources, "--n-runners", "2",
		"--max-attempts", "2", "--out", out, "--", "sh", write(t, "agent.sh", squareAgent))
	p.exit(1)
	all := results(t, out)
	if len(all) != 6 {
		t.Fatalf("%d results, want 6", len(all))
	}
	for _, r := range all {
		var task struct{ N float64 }
		if err := json.Unmarshal(r.Input, &task); err != nil {
			t.Fatal(err)
		}
		switch {
		case task.N == 3:
			if r.Status != "failed" || r.Attempts != 2 || r.Reward != nil || r.Error == nil || !strings.Contains(*r.Error, "three is not for me") {
				t.Errorf("failing task: %+v %v", r, r.Error)
			}
		case r.Status != "succeeded" || r.Reward == nil || *r.Reward != task.N*task.N || r.Error != nil:
			t.Errorf("task %v: %+v", task.N, r)
		}
	}
	p.logged("6 of 6 rollouts done")
	p.logged("5 succeeded, 1 failed, mean reward 9.2")
}

// TestRunnersWorkTogether has agents that end only when two of them run.
func TestRunnersWorkTogether(t *testing.T) {
	t.Parallel()
	agent := fmt.Sprintf(`: > %[1]s/$AGL_ROLLOUT_ID; until [ $(ls %[1]s | wc -l) -ge 2 ]; do sleep 0.05; done; echo 1`, t.TempDir())
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", tasks(2)), "--n-runners", "2", "--", "sh", "-c", agent)
	p.exit(0)
	for _, message := range []string{"worker starts", "worker ends"} {
		if n := strings.Count(p.log.String(), `msg="`+message+`"`); n != 2 {
			t.Errorf("the log says %q %d times, want 2", message, n)
		}
	}
	if text := p.log.String(); strings.Contains(text, "<nil>") {
		t.Errorf("the log has errors that are none:\n%s", text)
	}
}

// TestAlgorithmOutlastsTheStore takes the store away for longer than a client
// tries by itself.
func TestAlgorithmOutlastsTheStore(t *testing.T) {
	t.Parallel()
	store := start(t, nil, storeArgs()...).url()
	address, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	var refused atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(address)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	p := start(t, nil, "run", "--role", "algorithm", "--managed-store", "false", "--store-url", front.URL,
		"--tasks", write(t, "tasks.jsonl", tasks(1)))
	until(t, "the task in the queue", func() bool { return aglq(t, store, "rollouts", "--json") != "" })
	down.Store(true)
	front.CloseClientConnections()
	until(t, "many refused requests", func() bool { return refused.Load() >= 20 || p.ended() })
	down.Store(false)
	start(t, nil, "worker", "--store-url", store, "--max-rollouts", "1", "--", "echo", "1").exit(0)
	p.exit(0)
}

func TestRunPrintsResults(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", `{"input": 1, "mode": "val"}`+"\n2\n"), "--", "echo", "0.5")
	p.exit(0)
	for _, line := range lines(p.out.String()) {
		if !strings.HasPrefix(line, "ro-") || !strings.Contains(line, " succeeded reward=0.5 ") {
			t.Errorf("result line %q", line)
		}
	}
	if n := len(lines(p.out.String())); n != 2 {
		t.Errorf("%d result lines, want 2", n)
	}
}

// TestRunEndsBySignal lets what runs end, and cancels what waits.
func TestRunEndsBySignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "results.jsonl")
	agent := fmt.Sprintf("touch %[1]s/begun; until [ -e %[1]s/end ]; do sleep 0.05; done; echo 1", dir)
	p := start(t, nil, "run", "--tasks", write(t, "tasks.jsonl", tasks(3)), "--out", out, "--", "sh", "-c", agent)
	until(t, "the agent to begin", func() bool { return exists(filepath.Join(dir, "begun")) })
	p.signal(syscall.SIGINT)
	p.logged("stopping")
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	p.exit(130)
	by := map[string]int{}
	for _, r := range results(t, out) {
		by[string(r.Status)]++
	}
	if by["succeeded"] != 1 || by["cancelled"] != 2 {
		t.Errorf("results %v, want 1 succeeded and 2 cancelled", by)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// TestRolesSplit gives two processes one command line and different roles.
func TestRolesSplit(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "results.jsonl")
	env := []string{"AGL_SERVER_HOST=127.0.0.1", "AGL_SERVER_PORT=" + freePort(t)}
	args := []string{
		"run", "--tasks", write(t, "tasks.jsonl", tasks(4)), "--out", out, "--concurrency", "2",
		"--exit-when-store-gone", "1", "--", "sh", "-c", "echo 0.75",
	}
	runner := start(t, append(env, "AGL_CURRENT_ROLE=runner"), args...)
	algorithm := start(t, append(env, "AGL_CURRENT_ROLE=algorithm"), args...)
	algorithm.exit(0)
	all := results(t, out)
	if len(all) != 4 || all[0].Reward == nil || *all[0].Reward != 0.75 {
		t.Errorf("results %+v", all)
	}
	if runner.ended() {
		t.Error("the runner ended with the algorithm; it should wait for the next one")
	}
	runner.signal(syscall.SIGTERM)
	runner.exit(143)
}

// TestUnmanagedStore runs against a store that is there already.
func TestUnmanagedStore(t *testing.T) {
	t.Parallel()
	store := start(t, append([]string{}, "AGL_CURRENT_ROLE=store", "AGL_SERVER_PORT=0", "AGL_SERVER_HOST=127.0.0.1"), "run")
	url := store.url()
	p := start(t, []string{"AGL_MANAGED_STORE=0", "AGL_STORE_URL=" + url}, "run",
		"--tasks", write(t, "tasks.jsonl", tasks(2)), "--", "sh", "-c", "echo 1")
	p.exit(0)
	if text := aglq(t, url, "rollouts", "--status", "succeeded", "--json"); len(lines(text)) != 2 {
		t.Errorf("rollouts in the store:\n%s", text)
	}
	store.signal(syscall.SIGTERM)
	store.exit(143)
}

// TestAlgorithms runs both against a store with one worker.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	start(t, nil, "worker", "--store-url", url, "--concurrency", "2", "--", "sh", "-c",
		`read -r task; x=${task#*'"x":'}; echo "${x%%[,\}]*}"`)
	b := start(t, []string{"AGL_STORE_URL=" + url}, "algorithm", "baseline", "--polling-interval", "0.05",
		"--train", write(t, "train.jsonl", "{\"x\":0.5}\n{\"x\":1}\n"), "--val", write(t, "val.jsonl", "{\"x\":0}\n"))
	b.exit(0)
	b.logged("3 of 3 rollouts done")
	b.logged("mean reward 0.5")

	space := write(t, "space.json", `{"parameters": [{"name": "x", "type": "float", "low": 0, "high": 1}]}`)
	text := aglq(t, url, "algorithm", "cem", "--space", space, "--rounds", "3", "--population", "4", "--seed", "7")
	all := lines(text)
	if len(all) < 5 || !strings.Contains(all[0], "ROUND") || !strings.Contains(text, "best reward 0.") {
		t.Errorf("cem printed:\n%s", text)
	}
	var last struct {
		Round int
		Best  *struct{ Reward float64 }
	}
	text = aglq(t, url, "algorithm", "cem", "--space", space, "--rounds", "1", "--population", "3", "--json")
	all = lines(text)
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil || last.Round != 1 || last.Best == nil {
		t.Errorf("cem --json printed (%v):\n%s", err, text)
	}
}

// TestMongoStoreKeepsItsData kills a store; the next one has all of it.
func TestMongoStoreKeepsItsData(t *testing.T) {
	t.Parallel()
	env := []string{"AGL_MONGO_URI=" + mongotest.URI(t), "AGL_MONGO_DATABASE=" + mongotest.Database(t)}
	args := storeArgs("--backend", "mongo", "--n-workers", "2")
	first := start(t, env, args...)
	ids := lines(aglq(t, first.url(), "enqueue", write(t, "tasks.jsonl", tasks(3))))
	first.signal(syscall.SIGKILL)
	first.exit(-1)
	second := start(t, env, args...)
	second.logged("one process serves all")
	url := second.url()
	for _, id := range ids {
		if text := aglq(t, url, "rollouts", "show", id, "--json"); !strings.Contains(text, `"status":"queuing"`) {
			t.Errorf("rollout %s after the restart: %s", id, text)
		}
	}
	other := start(t, env, storeArgs("--backend", "mongo", "--partition-id", "other")...)
	if text := aglq(t, other.url(), "rollouts", "--json"); text != "" {
		t.Errorf("another partition has rollouts:\n%s", text)
	}
	p := start(t, env, "run", "--backend", "mongo", "--partition-id", "run", "--tasks", write(t, "run.jsonl", tasks(3)),
		"--concurrency", "3", "--", "echo", "0.5")
	p.exit(0)
	p.logged("3 succeeded")
}

func TestEmptyPortVariable(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"AGL_SERVER_PORT="}, "run", "--tasks", write(t, "tasks.jsonl", tasks(1)), "--", "true")
	p.exit(2)
	if text := p.log.String(); !strings.Contains(text, "AGL_SERVER_PORT is empty") {
		t.Errorf("said: %s", text)
	}
}

// TestRunRefusesBadTasks reads tasks as they come: what came before the fault
// must not stay in the queue of a store that outlives the run.
func TestRunRefusesBadTasks(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	cmd := exec.Command("aglq", "run", "--managed-store", "no", "--tasks", "-", "--", "sleep", "600")
	cmd.Env = cleanEnv("AGL_STORE_URL=" + url)
	cmd.Stdin = strings.NewReader(strings.Repeat("1\n", enqueueMost+1) + "{oops\n")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "standard input:502: a task must be JSON") {
		t.Errorf("%v:\n%s", err, out)
	}
	if text := aglq(t, url, "rollouts", "--status", "queuing,requeuing,preparing,running", "--json"); text != "" {
		t.Errorf("left in the queue:\n%.500s", text)
	}
}
