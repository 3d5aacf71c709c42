package verify

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// echo is a server that answers each line with itself, behind a proxy.
func echo(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	p, err := newProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close(); l.Close(); <-ended })
	return p
}

type talk struct {
	net.Conn
	in *bufio.Reader
}

func dialProxy(t *testing.T, p *proxy) talk {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return talk{conn, bufio.NewReader(conn)}
}

// say sends a line and reads the answer, for so long.
func (c talk) say(text string, within time.Duration) (string, error) {
	if _, err := c.Write([]byte(text + "\n")); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	line, err := c.in.ReadString('\n')
	return line, err
}

func TestProxy(t *testing.T) {
	p := echo(t)
	c := dialProxy(t, p)
	heard := func(c talk) {
		t.Helper()
		if got, err := c.say("hello", time.Minute); err != nil || got != "hello\n" {
			t.Fatalf("it answers %q, %v", got, err)
		}
	}
	heard(c)

	p.hang()
	if _, err := c.say("hello", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it hangs it answers: %v", err)
	}
	fresh := dialProxy(t, p)
	if _, err := fresh.say("hello", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it hangs it answers a new connection: %v", err)
	}
	p.heal()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := c.in.ReadString('\n'); err != nil || got != "hello\n" {
		t.Errorf("after that it answers %q, %v", got, err)
	}
	heard(c)

	p.cut()
	if _, err := c.say("hello", time.Minute); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that was cut answers: %v", err)
	}
	c = dialProxy(t, p)
	heard(c)

	p.cutAnswers(1)
	if got, err := c.say("hello", time.Minute); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || got == "hello\n" {
		t.Errorf("an answer that was cut is %q, %v", got, err)
	}
	p.heal()
	p.slow(30 * time.Millisecond)
	began := time.Now()
	heard(dialProxy(t, p))
	if took := time.Since(began); took < 60*time.Millisecond { // there and back
		t.Errorf("a slow answer comes after %v", took)
	}
}

// TestProxySpares leaves the connections alone that it is told to.
func TestProxySpares(t *testing.T) {
	p := echo(t)
	p.spares = func(first []byte) bool { return bytes.HasPrefix(first, []byte("peer")) }
	peer, other := dialProxy(t, p), dialProxy(t, p)
	for _, c := range []talk{peer, other} {
		text := "peer"
		if c == other {
			text = "other"
		}
		if _, err := c.say(text, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	p.cut()
	if _, err := peer.say("hello", time.Minute); err != nil {
		t.Errorf("a connection that was to be spared is cut: %v", err)
	}
	if _, err := other.say("hello", time.Minute); err == nil {
		t.Error("the other connection is not cut")
	}
}

func TestSchedule(t *testing.T) {
	plan := func(seed uint64) []planned {
		return schedule(rand.New(rand.NewPCG(seed, 0)), FaultKinds, 5*time.Minute)
	}
	one := plan(1)
	if !slices.Equal(one, plan(1)) || slices.Equal(one, plan(2)) {
		t.Error("the schedule does not follow from the seed")
	}
	var total, calm time.Duration
	kinds := map[FaultKind]int{}
	for _, f := range one {
		total += f.after + f.length
		kinds[f.kind]++
		if f.after > promptness {
			calm++
		}
	}
	if total > 5*time.Minute || len(kinds) < len(FaultKinds) || calm == 0 {
		t.Errorf("%d faults of %d kinds take %v, with %d gaps of calm", len(one), len(kinds), total, calm)
	}
	if got := schedule(rand.New(rand.NewPCG(1, 0)), nil, time.Minute); got != nil {
		t.Errorf("without kinds there are faults: %v", got)
	}
}
