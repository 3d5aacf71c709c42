package leader

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/internal/child"
)

// leadAt, in the environment, makes the test program a member that serves calls
// until it is killed.
const leadAt = "AGLQ_TEST_LEAD_AT"

func TestMain(m *testing.M) {
	if path := os.Getenv(leadAt); path != "" {
		Join(path, &echo{role: func(bool) { os.Stdout.WriteString("role\n") }}, quiet)
		select {}
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// echo answers a call with its body, and notes what happens.
type echo struct {
	serve func(ctx context.Context, from *Follower, kind byte, body []byte) []byte
	hear  func(kind byte, body []byte, sentAt func(uint64) time.Time)
	role  func(follows bool)
}

func (e *echo) Serve(ctx context.Context, from *Follower, kind byte, body []byte) []byte {
	if e.serve != nil {
		return e.serve(ctx, from, kind, body)
	}
	return body
}

func (e *echo) Hear(kind byte, body []byte, sentAt func(uint64) time.Time) {
	if e.hear != nil {
		e.hear(kind, body, sentAt)
	}
}

func (e *echo) Followed(there bool) {
	if e.role != nil {
		e.role(there)
	}
}

// roles is a handler whose member's roles can be waited for.
func roles() (*echo, chan bool) {
	follows := make(chan bool, 100)
	return &echo{role: func(there bool) { follows <- there }}, follows
}

func await(t *testing.T, follows chan bool, want bool) {
	t.Helper()
	for {
		select {
		case got := <-follows:
			if got == want {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no news of a member that follows: %t", want)
		}
	}
}

func group(t *testing.T) string { return filepath.Join(t.TempDir(), "g") }

func TestCallsAreServedByTheLeader(t *testing.T) {
	path := group(t)
	h, leads := roles()
	h.serve = func(_ context.Context, from *Follower, kind byte, body []byte) []byte {
		from.Send(kind+1, append([]byte("told "), body...))
		return append([]byte{kind}, body...)
	}
	leader := Join(path, h, quiet)
	defer leader.Close()
	await(t, leads, false)
	if _, err := leader.Call(t.Context(), FirstKind, nil); !errors.Is(err, ErrNone) {
		t.Errorf("the leader's own call: %v", err)
	}

	f, follows := roles()
	heard := make(chan string, 100)
	f.hear = func(kind byte, body []byte, _ func(uint64) time.Time) { heard <- string(append([]byte{kind}, body...)) }
	follower := Join(path, f, quiet)
	defer follower.Close()
	await(t, follows, true)
	var calls sync.WaitGroup
	for i := range 50 {
		calls.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, i*1000)
			answer, err := follower.Call(t.Context(), FirstKind+7, body)
			if err != nil || answer[0] != FirstKind+7 || !bytes.Equal(answer[1:], body) {
				t.Errorf("call %d: %d bytes, %v", i, len(answer), err)
			}
		})
	}
	calls.Wait()
	for range 50 {
		if got := <-heard; got[0] != FirstKind+8 || got[1:6] != "told " {
			t.Errorf("heard %.20q", got)
		}
	}
}

// TestWhatTheLeaderKnowsOf has the leader say which call it had last: it was sent
// no later than the leader says so.
func TestWhatTheLeaderKnowsOf(t *testing.T) {
	path := group(t)
	h, leads := roles()
	h.serve = func(_ context.Context, from *Follower, _ byte, _ []byte) []byte {
		from.Send(FirstKind, []byte{byte(from.Received())})
		return nil
	}
	leader := Join(path, h, quiet)
	defer leader.Close()
	await(t, leads, false)
	f, follows := roles()
	sent := make(chan time.Time, 2)
	f.hear = func(_ byte, body []byte, sentAt func(uint64) time.Time) {
		sent <- sentAt(uint64(body[0]))
		sent <- sentAt(1 << 40)
	}
	follower := Join(path, f, quiet)
	defer follower.Close()
	await(t, follows, true)
	before := time.Now()
	if _, err := follower.Call(t.Context(), FirstKind, nil); err != nil {
		t.Fatal(err)
	}
	if at := <-sent; at.Before(before) || at.After(time.Now()) {
		t.Errorf("sent at %v, called at %v", at, before)
	}
	if at := <-sent; !at.IsZero() {
		t.Errorf("a call that was never made was sent at %v", at)
	}
}

func TestAnotherLeads(t *testing.T) {
	path := group(t)
	h, leads := roles()
	release := make(chan struct{})
	served := make(chan struct{}, 1)
	h.serve = func(ctx context.Context, _ *Follower, _ byte, _ []byte) []byte {
		served <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	leader := Join(path, h, quiet)
	await(t, leads, false)
	f, follows := roles()
	follower := Join(path, f, quiet)
	defer follower.Close()
	await(t, follows, true)
	lost := make(chan error, 1)
	go func() {
		_, err := follower.Call(t.Context(), FirstKind, nil)
		lost <- err
	}()
	<-served
	leader.Close()
	if err := <-lost; !errors.Is(err, ErrLost) {
		t.Errorf("a call that was being served: %v", err)
	}
	await(t, follows, false) // the leader is lost
	await(t, follows, false) // and followed by its follower
	third, thirds := roles()
	member := Join(path, third, quiet)
	defer member.Close()
	await(t, thirds, true)
	if _, err := member.Call(t.Context(), FirstKind, nil); err != nil {
		t.Errorf("a call to the next leader: %v", err)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	path := group(t)
	h, leads := roles()
	h.serve = func(ctx context.Context, _ *Follower, _ byte, _ []byte) []byte { <-ctx.Done(); return nil }
	leader := Join(path, h, quiet)
	defer leader.Close()
	await(t, leads, false)
	f, follows := roles()
	follower := Join(path, f, quiet)
	defer follower.Close()
	await(t, follows, true)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := follower.Call(ctx, FirstKind, nil); !errors.Is(err, ErrLost) {
		t.Errorf("a call that nobody waited for any longer: %v", err)
	}
}

// TestLeaderProcessEnds kills and stops the process that leads.
func TestLeaderProcessEnds(t *testing.T) {
	for name, signal := range map[string]os.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			path := group(t)
			leader := lead(t, path)
			f, follows := roles()
			follower := Join(path, f, quiet)
			defer follower.Close()
			await(t, follows, true)
			if answer, err := follower.Call(t.Context(), FirstKind, []byte("x")); string(answer) != "x" || err != nil {
				t.Fatalf("answered %q, %v", answer, err)
			}
			if err := leader.Signal(signal); err != nil {
				t.Fatal(err)
			}
			for { // until the kernel has told
				_, err := follower.Call(t.Context(), FirstKind, nil)
				if errors.Is(err, ErrLost) || errors.Is(err, ErrNone) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := follower.Call(t.Context(), FirstKind, nil); !errors.Is(err, ErrNone) {
				t.Errorf("a call after the leader was lost: %v", err)
			}
			leader.Kill()
			await(t, follows, false)
			second := lead(t, path+"2") // shows that the first group's files are free
			second.Kill()
		})
	}
}

// lead starts a process that leads.
func lead(t *testing.T, path string) *child.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), leadAt+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := child.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "role\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return p
}

func TestPathIsOfThisUserAlone(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	path, err := Path("g")
	if err != nil || path != filepath.Join(dir, "aglq", "g") {
		t.Fatalf("%s, %v", path, err)
	}
	if err := os.Chmod(filepath.Join(dir, "aglq"), 0o777); err != nil {
		t.Fatal(err)
	}
	if path, err := Path("g"); err == nil {
		t.Errorf("%s is open to others", path)
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, string(bytes.Repeat([]byte("x"), 100))))
	if path, err := Path("g"); err == nil {
		t.Errorf("%s is longer than a socket's path", path)
	}
}

func FuzzFrame(f *testing.F) {
	var w bytes.Buffer
	w.Write([]byte{0, 0, 0, 10, FirstKind, 0, 0, 0, 0, 0, 0, 0, 7, 'x'})
	f.Add(w.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		from := bytes.NewReader(in)
		for {
			fr, err := read(from)
			if err != nil {
				if from.Len() > 0 && errors.Is(err, io.EOF) {
					t.Errorf("the end before the end: %v", err)
				}
				return
			}
			if len(fr.body) > len(in) {
				t.Errorf("%d bytes read from %d", len(fr.body), len(in))
			}
		}
	})
}
