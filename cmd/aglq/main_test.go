package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aglq/aglq/collections/mongo/mongotest"
)

// TestMain puts the command itself, as aglq, into the PATH of scripts and of
// the tests that start processes, and an agent.
func TestMain(m *testing.M) {
	testscript.Main(mongotest.Tests{M: m}, map[string]func(){"aglq": main, "solver": solver})
}

// patience is how long tests wait for what must happen.
const patience = 2 * time.Minute

// process is a running aglq.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *watched // standard error
	out  *watched // standard output
	done chan struct{}
}

// watched is output that can be waited for.
type watched struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// cleanEnv is the environment without what would configure aglq.
func cleanEnv(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AGL_") && !strings.HasPrefix(v, "OTEL_") {
			env = append(env, v)
		}
	}
	return append(env, more...)
}

// start runs aglq with a command line; it is killed at the end of the test.
func start(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	return startReading(t, nil, env, args...)
}

// startReading is start with a standard input.
func startReading(t testing.TB, stdin *os.File, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command("aglq", args...), log: &watched{}, out: &watched{}, done: make(chan struct{})}
	p.cmd.Env = cleanEnv(env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.log
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("aglq %s\n%s%s", strings.Join(args, " "), p.out, p.log)
		}
	})
	return p
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

var listening = regexp.MustCompile(`msg=listening .*address=(\S+) url=(\S+)`)

// url waits for the line that says where the store listens.
func (p *process) url() string {
	p.t.Helper()
	var m []string
	until(p.t, "the listening line", func() bool {
		m = listening.FindStringSubmatch(p.log.String())
		return m != nil || p.ended()
	})
	if m == nil {
		p.t.Fatalf("aglq ended without listening:\n%s", p.log)
	}
	return m[2]
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and checks the status.
func (p *process) exit(want int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("aglq did not end:\n%s", p.log)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.t.Fatalf("exit status %d, want %d:\n%s%s", got, want, p.out, p.log)
	}
}

func (p *process) logged(text string) {
	p.t.Helper()
	until(p.t, "the log to say "+text, func() bool { return strings.Contains(p.log.String(), text) || p.ended() })
	if !strings.Contains(p.log.String(), text) {
		p.t.Fatalf("aglq ended without logging %q:\n%s", text, p.log)
	}
}

// aglq runs a command to its end and returns its standard output.
func aglq(t testing.TB, url string, args ...string) string {
	t.Helper()
	p := start(t, []string{"AGL_STORE_URL=" + url}, args...)
	p.exit(0)
	return p.out.String()
}

// write makes a file and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o777); err != nil {
		t.Fatal(err)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestScripts runs testdata/script. Beyond testscript's commands there are
//
//	exits CODE aglq ARG…   runs a command that must end with this status
//	store ARG…             starts a store on a free port, as AGL_STORE_URL
//
// exits leaves standard output and standard error in the files out and err.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits,
			"store": scriptStore,
		},
	})
}

func scriptEnv(ts *testscript.TestScript) []string {
	env := []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	for _, name := range []string{
		"AGL_STORE_URL", "AGL_SERVER_HOST", "AGL_SERVER_PORT", "AGL_CURRENT_ROLE", "AGL_MANAGED_STORE", "AGL_LOG_LEVEL",
		"AGL_STORE_N_WORKERS", "AGL_N_RUNNERS",
	} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND …")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args[2:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), scriptEnv(ts), &out, &errs
	err = cmd.Run()
	ts.Check(os.WriteFile(ts.MkAbs("out"), out.Bytes(), 0o666))
	ts.Check(os.WriteFile(ts.MkAbs("err"), errs.Bytes(), 0o666))
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		ts.Check(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit status %d, want %d\n[stdout]\n%s[stderr]\n%s", got, want, &out, &errs)
	}
}

func scriptStore(ts *testscript.TestScript, neg bool, args []string) {
	log := &watched{}
	path, err := exec.LookPath("aglq")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"store", "--host", "127.0.0.1", "--port", "0"}, args...)...)
	cmd.Env, cmd.Stderr = scriptEnv(ts), log
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if m := listening.FindStringSubmatch(log.String()); m != nil {
			ts.Setenv("AGL_STORE_URL", m[2])
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the store does not listen:\n%s", log)
		}
	}
}

// lines splits output into lines.
func lines(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func tasks(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"n\":%d}\n", i)
	}
	return b.String()
}
