package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// terminal is a terminal that is drawn on as a whole, with the keys that are
// pressed on it.
type terminal struct {
	out   *os.File
	keys  *os.File
	state *term.State // to go back to
}

// terminalOf is the terminal that out writes to, false for none.
func terminalOf(out io.Writer) (*os.File, bool) {
	if shared, ok := out.(above); ok {
		out = shared.out
	}
	f, ok := out.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// openTerminal takes the terminal over. The caller must close it.
func openTerminal(out *os.File) (*terminal, error) {
	// Opened anew, so that waiting for a key can be ended without changing what
	// the shell shares with us.
	keys, err := os.Open("/dev/tty")
	if err != nil {
		return nil, fmt.Errorf("no keys can be read from the terminal: %w; use --once", err)
	}
	t := &terminal{out: out, keys: keys}
	if err := t.control(func(fd int) (err error) { t.state, err = term.MakeRaw(fd); return err }); err != nil {
		keys.Close()
		return nil, fmt.Errorf("the terminal cannot be taken over: %w; use --once", err)
	}
	_, err = io.WriteString(out, enterScreen)
	if err != nil {
		t.close()
	}
	return t, err
}

// control runs do on the descriptor of the keys. Their Fd method would make
// reading them impossible to interrupt.
func (t *terminal) control(do func(fd int) error) error {
	conn, err := t.keys.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

// close gives the terminal back as it was.
func (t *terminal) close() {
	_, _ = io.WriteString(t.out, leaveScreen) // it may be gone
	_ = t.control(func(fd int) error { return term.Restore(fd, t.state) })
	t.keys.Close()
}

// size is that of the terminal now, in columns and lines, both 1 or more.
func (t *terminal) size() (width, height int) {
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// draw shows lines, no more than the terminal has and none wider.
func (t *terminal) draw(lines []string) error {
	const home, eraseRest, eraseBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	var b strings.Builder
	b.WriteString(home)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(eraseRest) // first: behind a full line it would take the last column
		b.WriteString(line)
	}
	b.WriteString(eraseBelow)
	_, err := io.WriteString(t.out, b.String())
	return err
}

// readKeys sends keys until endKeys or ctx ends it; 0 says that the terminal is
// gone.
func (t *terminal) readKeys(ctx context.Context, keys chan<- byte) {
	var b [1]byte
	for {
		n, err := t.keys.Read(b[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil || n == 0:
			b[0] = 0
		}
		select {
		case keys <- b[0]:
		case <-ctx.Done():
			return
		}
	}
}

// endKeys makes readKeys return.
func (t *terminal) endKeys() { _ = t.keys.SetReadDeadline(time.Unix(1, 0)) }
