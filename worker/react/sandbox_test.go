package react_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// sandboxServer is a sandbox as HTTPSandbox expects it, which notes what it is asked.
type sandboxServer struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
	open map[string]bool
	fail map[string]bool // requests that go wrong, after they had their effect
}

func newSandboxServer(t tester) *sandboxServer {
	s := &sandboxServer{open: map[string]bool{}, fail: map[string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *sandboxServer) serve(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	body := rawjson.Value(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	what := r.Method + " " + strings.Join(strings.Split(r.URL.Path, "/")[:2], "/")
	switch what {
	case "POST /sessions":
		s.open[body.Get("session_id").Text()] = true
		s.seen = append(s.seen, "open "+body.Get("files").String())
	case "POST /execute":
		s.seen = append(s.seen, "execute "+body.Get("tool").Text()+" "+body.Get("args").String())
		if !s.open[body.Get("session_id").Text()] {
			http.Error(w, "no session", http.StatusNotFound)
			return
		}
		switch body.Get("tool").Text() {
		case "bad":
			io.WriteString(w, `{"error":"not today"}`)
		case "json":
			io.WriteString(w, `{"result":{"n":1}}`)
		case "nonsense":
			io.WriteString(w, `[]`)
		default:
			io.WriteString(w, `{"result":"fine"}`)
		}
		return
	case "DELETE /sessions":
		delete(s.open, strings.TrimPrefix(r.URL.Path, "/sessions/"))
		s.seen = append(s.seen, "close")
	}
	if s.fail[what] {
		http.Error(w, "broken", http.StatusInternalServerError)
	}
}

func (s *sandboxServer) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) > 0 {
		return append(s.seen, "still open")
	}
	return s.seen
}

func TestHTTPSandbox(t *testing.T) {
	t.Parallel()
	s := newSandboxServer(t)
	tool := func(name string) react.Tool { return react.Tool{Name: name} }
	o := newRig(t, sequence(calls("a", "good", `{}`), calls("b", "bad", `{}`), calls("c", "json", `{}`), calls("d", "nonsense", `{}`), says("done")),
		react.Options{Sandbox: react.HTTPSandbox{URL: s.URL + "/"}, Tools: []react.Tool{tool("good"), tool("bad"), tool("json"), tool("nonsense")}}).
		succeed(`{"question":"go","files":{"a.txt":"x"}}`)
	var got []string
	for _, step := range o.conv.Turns[0].Steps {
		for _, c := range step.Calls {
			got = append(got, c.Result)
		}
	}
	want := []string{"fine", "Error: not today", `{"n":1}`, `Error: the sandbox answered "[]"; it must be an object with result or error`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	seen := []string{`open {"a.txt":"x"}`, "execute good {}", "execute bad {}", "execute json {}", "execute nonsense {}", "close"}
	if diff := cmp.Diff(seen, s.log()); diff != "" {
		t.Error(diff)
	}
}

// However a task ends, its session is closed, once.
func TestSessionsAreClosed(t *testing.T) {
	model := sequence(calls("a", "good", `{}`), says("done"))
	hang := func(fakellm.Request) fakellm.Answer {
		return fakellm.Answer{Wait: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}}
	}
	for name, c := range map[string]struct {
		script fakellm.Script
		opts   react.Options
		worker worker.Options
		fail   string
		cancel bool
		want   []string
		error  string // what the attempt's error has in it
	}{
		"success":     {script: model, want: []string{"open {}", "execute good {}", "close"}},
		"model fails": {script: sequence(fakellm.Answer{Status: 500, Error: "down"}), want: []string{"open {}", "close"}, error: "down"},
		"panic": {
			script: model, want: []string{"open {}", "execute good {}", "close"}, error: "at the disco",
			opts: react.Options{Grade: func(context.Context, *worker.Task, *react.Conversation) (worker.Result, error) { panic("at the disco") }},
		},
		"timeout": {script: hang, worker: worker.Options{TaskTimeout: 2 * time.Second}, want: []string{"open {}", "close"}, error: "task timed out"},
		"cancel":  {script: hang, cancel: true, want: []string{"open {}", "close"}},
		"opening fails": {
			script: model, fail: "POST /sessions", want: []string{"open {}", "close"}, error: "opening the sandbox: the sandbox: 500 Internal Server Error: broken",
		},
		"closing fails": {script: model, fail: "DELETE /sessions", want: []string{"open {}", "execute good {}", "close"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandboxServer(t)
			s.fail[c.fail] = true
			c.opts.Sandbox, c.opts.Tools = react.HTTPSandbox{URL: s.URL}, []react.Tool{{Name: "good"}}
			r := newRig(t, c.script, c.opts)
			r.worker = c.worker
			if c.cancel {
				r.worker.HeartbeatInterval, r.worker.Jitter = 10*time.Millisecond, -1
				go func() {
					until(t, "an open session", func() bool { return len(r.model.Requests()) > 0 })
					page, _ := r.store.Rollouts(context.Background(), queue.RolloutQuery{Paging: queue.All})
					_, _ = r.store.UpdateRollout(context.Background(), page.Items[0].RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)})
				}()
			}
			o := r.run(`"go"`)[0]
			if diff := cmp.Diff(c.want, s.log()); diff != "" {
				t.Error(diff)
			}
			if got := o.Attempt.Metadata.Get("error").Text(); !strings.Contains(got, c.error) || c.error == "" && got != "" {
				t.Errorf("the attempt is %s: %s", o.Attempt.Status, o.Attempt.Metadata)
			}
			if name == "closing fails" {
				found := false
				for _, span := range o.spans {
					found = found || strings.HasPrefix(span.Attribute("exception.message").Text(), "closing the sandbox: ")
				}
				if !found {
					t.Error("nothing tells that the session could not be closed")
				}
			}
		})
	}
}

// stuck is a sandbox that never answers.
type stuck struct{ opening bool }

func (s stuck) Open(ctx context.Context, _ react.Opening) (*react.Session, error) {
	if s.opening {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &react.Session{Close: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}, nil
}

func TestASandboxThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	opts := react.Options{Sandbox: stuck{opening: true}, SandboxTimeout: 50 * time.Millisecond}
	if got := newRig(t, sequence(says("done")), opts).fail(`"go"`); got != "opening the sandbox: the sandbox was not open within 50ms" {
		t.Error(got)
	}
	opts.Sandbox = stuck{}
	newRig(t, sequence(says("done")), opts).succeed(`"go"`)
}

func TestFolder(t *testing.T) {
	t.Parallel()
	out := t.TempDir() + "/out"
	opts := react.Options{
		Sandbox: react.Folder{
			Setup:    []string{"sh", "-c", "echo set up > state"},
			Execute:  []string{"sh", "-c", "cat >> state; cat state seed/a"},
			Teardown: []string{"sh", "-c", "cat state > " + out + "; pwd >> " + out},
		},
		Tools: []react.Tool{{Name: "look", Parameters: rawjson.Value(`{"type":"object"}`)}},
		Grade: react.GradeProgram([]string{"sh", "-c", "grep -c 'set up' state"}),
	}
	o := newRig(t, sequence(calls("a", "look", `{"x":1}`), says("done")), opts).succeed(`{"question":"go","files":{"seed/a":"A"}}`)
	call := o.conv.Turns[0].Steps[0].Calls[0]
	state := "set up\n" + `{"session_id":"` + o.conv.Session.ID + `","tool":"look","args":{"x":1}}`
	if call.Result != state+"A" {
		t.Errorf("%+v", call)
	}
	text, err := os.ReadFile(out)
	must(t, err)
	if string(text) != state+o.conv.Session.Dir+"\n" {
		t.Errorf("%q", text)
	}
	if _, err := os.Stat(o.conv.Session.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if reward, _ := rewardOf(o.spans); reward != 1 {
		t.Errorf("the grader did not see the folder: reward %g", reward)
	}
}

func TestFilesStayInTheFolder(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, name := range []string{"../evil", "/tmp/evil", "a/../../evil", ""} {
		text, err := rawjson.Marshal(map[string]any{"question": "go", "files": map[string]string{name: "x"}})
		must(t, err)
		if got := newRig(t, sequence(says("done")), react.Options{Sandbox: react.Folder{}}).fail(string(text)); !strings.Contains(got, "opening the sandbox") {
			t.Errorf("%q: %s", name, got)
		}
	}
	setup := react.Folder{Setup: []string{"sh", "-c", "echo no good >&2; exit 1"}}
	if got := newRig(t, sequence(says("done")), react.Options{Sandbox: setup}).fail(`"go"`); !strings.Contains(got, "exit status 1: no good") {
		t.Error(got)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	must(t, err)
	for _, f := range left {
		if strings.HasPrefix(f.Name(), "aglq-session-") {
			t.Errorf("%s is left", f.Name())
		}
	}
}

// A worker that is killed leaves neither the session's folder nor tools that run.
func TestAKilledWorkerLeavesNothing(t *testing.T) {
	t.Parallel()
	model := httptest.NewServer(fakellm.New(sequence(calls("a", "wait", `{}`))))
	t.Cleanup(model.Close)
	file := t.TempDir() + "/pids"
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerProcess+"="+model.URL+"/v1", "PIDS="+file, "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	dir, pids := family(t, file)
	if _, err := os.Stat(dir + "/seed"); err != nil {
		t.Error(err)
	}
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
	for _, pid := range pids {
		until(t, "the end of a killed worker's tool", func() bool { return !alive(pid) })
	}
	until(t, "the end of the folder", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})
}
