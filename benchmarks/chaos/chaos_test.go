// Package chaos kills parts of aglq under load, with kill -9, and checks that
// what was acknowledged is there afterwards and that each rollout ends once.
package chaos

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue/client"
)

// patience bounds each test. None takes a tenth of it on an idle machine, but a
// busy one may need long to start a mongod.
const patience = 2 * time.Minute

// aglq is the binary under test, built once.
var aglq string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "aglq-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	aglq = filepath.Join(dir, "aglq")
	if out, err := exec.Command("go", "build", "-o", aglq, "../../cmd/aglq").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building aglq: %v\n%s", err, out)
		return 1
	}
	return mongotest.Main(m)
}

func TestKillStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	store := newServer(t, "--backend", "mongo", "--mongo-uri", mongotest.URI(t), "--mongo-database", mongotest.Database(t))
	store.start(ctx, t)
	l := newLoad(t, store.url, 200, 40, 110)
	loaded := inBackground(func() error { return l.run(ctx) })
	for _, n := range []int{40, 110} {
		l.reached(ctx, t, n)
		store.kill(t)
		store.start(ctx, t)
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	l.verify(ctx, t)
}

func TestKillMongod(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mongod := mongotest.Start(t)
	store := newServer(t, "--backend", "mongo", "--mongo-uri", mongod.URI())
	store.start(ctx, t)
	l := newLoad(t, store.url, 200, 60)
	loaded := inBackground(func() error { return l.run(ctx) })
	l.reached(ctx, t, 60)
	mongod.Kill()
	mongod.Restart(t)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	l.verify(ctx, t)
}

// TestFailover has a set of three members lose its primary under load, first by
// a step-down and then with kill -9.
func TestFailover(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	set := mongotest.StartSet(t, 3)
	store := newServer(t, "--backend", "mongo", "--mongo-uri", set.URI())
	store.start(ctx, t)
	l := newLoad(t, store.url, 200, 40, 110)
	loaded := inBackground(func() error { return l.run(ctx) })
	l.reached(ctx, t, 40)
	if err := set.StepDown(ctx, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	l.reached(ctx, t, 110)
	primary, err := set.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	set.Kill(primary)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	l.verify(ctx, t)
}

func inBackground(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// server is an aglq store that is killed and started again on one port.
type server struct {
	url     string
	command []string
	cmd     *exec.Cmd
}

func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	s := &server{
		url:     "http://127.0.0.1:" + port,
		command: append([]string{"store", "--host", "127.0.0.1", "--port", port, "--log-level", "WARNING"}, args...),
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill(t)
		}
	})
	return s
}

// start returns when the store answers.
func (s *server) start(ctx context.Context, t *testing.T) {
	t.Helper()
	s.cmd = command(t, s.command...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := client.New(s.url, client.Options{Patience: patience})
	defer c.Close()
	if err := until(ctx, func() bool { return c.Healthy(ctx) == nil }); err != nil {
		t.Fatalf("the store does not come up: %v", err)
	}
}

// kill ends the store at once and waits for its end.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	s.cmd.Wait() // says "killed"
	s.cmd = nil
}

// command is an aglq process that ends with the test process.
func command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.Command(aglq, args...)
	out := &testLog{t: t, name: args[0]}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// testLog passes a process's output on to the test.
type testLog struct {
	t    *testing.T
	name string
}

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s: %s", l.name, p)
	return len(p), nil
}

// until polls a condition.
func until(ctx context.Context, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
