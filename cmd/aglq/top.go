package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/operator"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) topCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "show live what a store does: the queue, the workers, what is slow and what fails",
		Flags: []cli.Flag{
			storeURLFlag(),
			&secondsFlag{Name: "interval", Value: 2 * time.Second, Usage: "`SECONDS` between two looks, 0.1 or more", Validator: atLeast(100 * time.Millisecond)},
			&cli.BoolFlag{Name: "once", Usage: "print once and end, as it does where there is no terminal"},
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			url, err := storeURL(cmd)
			if err != nil {
				return err
			}
			// What one look misses the next one sees, so nothing is tried again.
			s := client.New(url, client.Options{RequestTimeout: 10 * time.Second, Retry: []time.Duration{}, Probe: []time.Duration{}})
			defer s.Close()
			return a.top(ctx, cmd, s)
		}),
	}
}

// onceWindow is what rates are measured over where there is one picture only.
const onceWindow = time.Second

func (a *app) top(ctx context.Context, cmd *cli.Command, s *client.Client) error {
	top := operator.NewTop(s, nil)
	view, err := top.Look(ctx)
	if err != nil {
		return err
	}
	out, live := terminalOf(a.stdout)
	if cmd.Bool("once") || !live {
		select {
		case <-time.After(onceWindow):
		case <-ctx.Done():
			return ctx.Err()
		}
		if view, err = top.Look(ctx); err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, strings.Join(view.Lines(0, 0), "\n"))
		return err
	}
	t, err := openTerminal(out)
	if err != nil {
		return err
	}
	defer t.close()
	l := liveTop{terminal: t, top: top, view: view, title: "aglq top  " + s.URL() + "  q quits", looks: make(chan look), keys: make(chan byte)}
	return l.run(ctx, cmd.Duration("interval"))
}

// liveTop is the view on a terminal.
type liveTop struct {
	terminal *terminal
	top      *operator.Top
	title    string
	view     operator.View
	err      error // of the last look, nil when view is what it saw
	looks    chan look
	keys     chan byte
}

type look struct {
	view operator.View
	err  error
}

// run draws until a key or ctx ends it.
func (l *liveTop) run(ctx context.Context, interval time.Duration) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer l.terminal.endKeys()
	defer cancel()
	running.Go(func() { l.follow(ctx, interval) })
	running.Go(func() { l.terminal.readKeys(ctx, l.keys) })
	for {
		if err := l.draw(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case seen := <-l.looks:
			if l.err = seen.err; seen.err == nil {
				l.view = seen.view
			}
		case key := <-l.keys:
			switch {
			case key == interruptKey: // which a terminal that is drawn on does not turn into SIGINT
				return &statusError{128 + int(syscall.SIGINT), errFailed}
			case quits(key):
				return nil
			}
		}
	}
}

const interruptKey = '\x03' // Ctrl-C

// quits reports whether a key ends the view in good order: q, Q, Ctrl-D, and a
// terminal that is gone.
func quits(key byte) bool { return strings.IndexByte("qQ\x04\x00", key) >= 0 }

// follow looks at the store again and again.
func (l *liveTop) follow(ctx context.Context, interval time.Duration) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		view, err := l.top.Look(ctx)
		select {
		case <-ctx.Done():
			return
		case l.looks <- look{view, err}:
		}
	}
}

func (l *liveTop) draw() error {
	width, height := l.terminal.size()
	head := []string{cell(l.title)}
	if l.err != nil {
		head = append(head, printable("as of "+l.view.Time.Format(time.TimeOnly)+": "+l.err.Error()))
	}
	for i := range head {
		head[i] = cutTo(head[i], width)
	}
	if height <= len(head) {
		return l.terminal.draw(head[:height])
	}
	return l.terminal.draw(append(head, l.view.Lines(width, height-len(head))...))
}

func cutTo(s string, width int) string {
	if runes := []rune(s); len(runes) > width {
		return string(runes[:width])
	}
	return s
}
