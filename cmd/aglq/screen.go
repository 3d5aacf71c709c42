package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen is standard error with, on a terminal, a live line at its bottom. What
// is written goes above the line. It is safe for concurrent use.
type screen struct {
	out      io.Writer
	terminal int // file descriptor, -1 for none

	mu   sync.Mutex
	line string
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, terminal: -1}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.terminal = int(f.Fd())
	}
	return s
}

const eraseLine = "\r\x1b[K"

// Write implements io.Writer; p should be whole lines.
func (s *screen) Write(p []byte) (int, error) { return s.writeTo(s.out, p) }

func (s *screen) writeTo(out io.Writer, p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return out.Write(p)
	}
	io.WriteString(s.out, eraseLine)
	n, err := out.Write(p)
	io.WriteString(s.out, s.line)
	return n, err
}

// above is standard output, where that is the same terminal as the screen.
type above struct {
	screen *screen
	out    io.Writer
}

// Write implements io.Writer; p should be whole lines.
func (a above) Write(p []byte) (int, error) { return a.screen.writeTo(a.out, p) }

// share makes out, standard output, go above the live line.
func (s *screen) share(out io.Writer) io.Writer {
	if f, ok := out.(*os.File); ok && s.terminal >= 0 && term.IsTerminal(int(f.Fd())) {
		return above{s, out}
	}
	return out
}

// show puts line in the place of the live line; "" takes it away.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" && line == "" {
		return
	}
	s.line = line
	io.WriteString(s.out, eraseLine+line)
}

func (s *screen) width() int {
	width, _, err := term.GetSize(s.terminal)
	if err != nil || width < 20 {
		return 80
	}
	return width - 1
}

// How often a live line is drawn anew, and how often the log tells of progress
// where there is no terminal.
const (
	liveInterval = 200 * time.Millisecond
	logInterval  = 5 * time.Second
)

// status is how far something is, as a live line of so many columns (0 is no
// bound) and for the log.
type status interface {
	line(width int) string
	attrs() []any
}

// report shows what look sees until ctx ends: as a live line on a terminal,
// else in the log. It is for one goroutine.
func (a *app) report(ctx context.Context, log *slog.Logger, look func() status) {
	s := a.stderr.(*screen)
	interval := logInterval
	if s.terminal >= 0 {
		interval = liveInterval
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			s.show("")
			return
		case <-ticks.C:
		}
		if s.terminal >= 0 {
			s.show(look().line(s.width()))
		} else {
			log.Info("progress", look().attrs()...)
		}
	}
}
