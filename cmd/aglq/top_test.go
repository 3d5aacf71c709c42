package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// pseudo is a pseudo-terminal with a command on it.
type pseudo struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	before *term.State // of the slave
	cmd    *exec.Cmd
	done   chan struct{}

	mu   sync.Mutex
	seen bytes.Buffer
}

// onTerminal starts aglq on a terminal of its own.
func onTerminal(t *testing.T, width, height uint16, args ...string) *pseudo {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	must(err)
	number := 0
	p := &pseudo{t: t, master: master, done: make(chan struct{})}
	p.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) })
	p.control(func(fd int) (err error) { number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); return err })
	p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(err)
	p.before, err = term.GetState(int(p.slave.Fd()))
	must(err)
	p.resize(width, height)
	p.cmd = exec.Command("aglq", args...)
	p.cmd.Env = cleanEnv("TERM=xterm")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(p.cmd.Start())
	var reading sync.WaitGroup
	reading.Go(p.read)
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		p.slave.Close()
		p.master.Close()
		reading.Wait()
		if t.Failed() {
			t.Logf("on the terminal: %q", p.text())
		}
	})
	return p
}

func (p *pseudo) control(do func(fd int) error) {
	p.t.Helper()
	conn, err := p.master.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil || failed != nil {
		p.t.Fatal(err, failed)
	}
}

// resize tells the processes on the terminal, too.
func (p *pseudo) resize(width, height uint16) {
	p.t.Helper()
	p.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
}

func (p *pseudo) read() {
	b := make([]byte, 4096)
	for {
		n, err := p.master.Read(b)
		p.mu.Lock()
		p.seen.Write(b[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *pseudo) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// shows waits until a picture drawn from now on satisfies a condition.
func (p *pseudo) shows(what string, condition func(picture string) bool) {
	p.t.Helper()
	from := len(p.text())
	until(p.t, what, func() bool {
		pictures := strings.Split(p.text()[from:], "\x1b[H")
		for i := 1; i < len(pictures); i++ { // the first is the end of an older one
			if picture, whole := strings.CutSuffix(pictures[i], "\x1b[J"); whole && condition(picture) {
				return true
			}
		}
		return false
	})
}

func has(text string) func(string) bool {
	return func(picture string) bool { return strings.Contains(picture, text) }
}

func fits(width, height int) func(string) bool {
	return func(picture string) bool {
		lines := strings.Split(picture, "\r\n")
		for _, line := range lines {
			if len([]rune(strings.TrimPrefix(line, "\x1b[K"))) > width {
				return false
			}
		}
		return len(lines) <= height
	}
}

// TestTop runs the live view on a terminal: it follows the store, a resize, and
// the store's death, and leaves the terminal as it was.
func TestTop(t *testing.T) {
	t.Parallel()
	store := start(t, nil, storeArgs()...)
	url := store.url()
	p := onTerminal(t, 100, 30, "top", "--store-url", url, "--interval", "0.1")
	p.shows("an empty queue", has("0 rollouts, 0 queuing"))
	enqueue := exec.Command("aglq", "enqueue", "--store-url", url, "-")
	enqueue.Stdin = strings.NewReader("{}\n{}\n{}\n")
	if out, err := enqueue.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.shows("three rollouts", has("3 rollouts, 3 queuing"))
	p.resize(30, 8)
	p.shows("a small picture", fits(30, 8))
	p.resize(3, 1)
	p.shows("a tiny picture", fits(3, 1))
	p.resize(100, 30)
	p.shows("a large picture", has("WORKER  DOES"))
	store.signal(syscall.SIGKILL)
	p.shows("the store's death", func(picture string) bool {
		return strings.Contains(picture, "no answer from store") && strings.Contains(picture, "3 rollouts")
	})
	if _, err := p.master.WriteString("xq"); err != nil {
		t.Fatal(err)
	}
	if code := p.ends(); code != 0 {
		t.Errorf("it ended with status %d", code)
	}
	after, err := term.GetState(int(p.slave.Fd()))
	if err != nil || *after != *p.before {
		t.Errorf("the terminal was %+v and is %+v, %v", p.before, after, err)
	}
}

// ends waits until the process has ended with the old screen back, which may be read
// a little later, and returns its status.
func (p *pseudo) ends() int {
	p.t.Helper()
	until(p.t, "the end", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	until(p.t, "the old screen", func() bool { return strings.HasSuffix(p.text(), leaveScreen) })
	return p.cmd.ProcessState.ExitCode()
}

// TestTopEndsBySignal gives the terminal back, and has Ctrl-C be the signal that it
// is elsewhere.
func TestTopEndsBySignal(t *testing.T) {
	t.Parallel()
	store := start(t, nil, storeArgs()...)
	url := store.url()
	for _, tt := range []struct {
		name string
		end  func(p *pseudo) error
		code int
	}{
		{"SIGTERM", func(p *pseudo) error { return p.cmd.Process.Signal(syscall.SIGTERM) }, 143},
		{"SIGINT", func(p *pseudo) error { return p.cmd.Process.Signal(syscall.SIGINT) }, 130},
		{"Ctrl-C", func(p *pseudo) error { _, err := p.master.WriteString("\x03"); return err }, 130},
		{"Ctrl-D", func(p *pseudo) error { _, err := p.master.WriteString("\x04"); return err }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := onTerminal(t, 80, 24, "top", "--store-url", url)
			p.shows("the queue", has("0 rollouts"))
			if err := tt.end(p); err != nil {
				t.Fatal(err)
			}
			if code := p.ends(); code != tt.code {
				t.Errorf("it ended with status %d, want %d", code, tt.code)
			}
		})
	}
}
