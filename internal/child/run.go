package child

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// What a dead program left in its pipes is there to be read, and is no more than a
// pipe holds. These bound the reading should something that escaped its group hold
// them open: the time spent waiting for more, and the bytes.
const (
	drainTime = time.Second
	pipeMost  = 2 << 20
)

// Options says how a program is run.
type Options struct {
	// Dir has the program's files, which are removed should this process die; "" is
	// none. The program's working directory is cmd.Dir.
	Dir string
	// Feed writes the program's standard input and closes it. Its context ends with
	// the program, and so do its writes.
	Feed func(ctx context.Context, stdin io.WriteCloser)
	// Stdout and Stderr take what it writes; each is written to by one goroutine,
	// which has ended when Run returns.
	Stdout, Stderr io.Writer
	// Grace is how long it may take after SIGTERM before it is killed.
	Grace time.Duration
}

// Run runs a program to its end in a process group of its own. The group ends with
// the program, with ctx, and with this process, even a killed one. The error says
// that the program did not start; how it ended is in the state.
func Run(ctx context.Context, cmd *exec.Cmd, o Options) (*os.ProcessState, error) {
	var files closers
	defer files.close()
	stdin, err := files.pipe(&cmd.Stdin, nil)
	if err != nil {
		return nil, err
	}
	stdout, err := files.pipe(nil, &cmd.Stdout)
	if err != nil {
		return nil, err
	}
	stderr, err := files.pipe(nil, &cmd.Stderr)
	if err != nil {
		return nil, err
	}
	// The signal that a program is sent at its parent's death comes at the death
	// of the thread that started it: keep that thread for as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	group, err := StartGroup(cmd, o.Dir)
	if err != nil {
		return nil, err
	}
	files.closeChildEnds()

	var copies, feeding sync.WaitGroup
	alive, over := context.WithCancel(context.WithoutCancel(ctx))
	defer over()
	feeding.Go(func() { o.Feed(alive, stdin) })
	outputs := []*output{{from: stdout, to: o.Stdout}, {from: stderr, to: o.Stderr}}
	for _, out := range outputs {
		copies.Go(out.copy)
	}
	closed := make(chan struct{})
	go func() {
		copies.Wait()
		close(closed)
	}()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	o.untilEnd(ctx, group, exited, closed)
	group.Kill()
	over()
	for _, out := range outputs {
		out.drain()
	}
	_ = stdin.SetWriteDeadline(time.Now())
	<-closed
	feeding.Wait()
	group.Reap()
	if cmd.ProcessState == nil {
		return nil, errors.New("the program was lost")
	}
	return cmd.ProcessState, nil
}

// untilEnd returns when the program has ended. What it leaves running is given
// the grace to end, if it still holds the streams; so is the program itself when
// ctx ends.
func (o Options) untilEnd(ctx context.Context, group *Group, exited <-chan error, closed <-chan struct{}) {
	select {
	case <-exited:
		settle := time.NewTimer(100 * time.Millisecond)
		defer settle.Stop()
		select {
		case <-closed:
			return
		case <-settle.C:
		}
		group.Terminate()
		grace := time.NewTimer(o.Grace)
		defer grace.Stop()
		select {
		case <-closed:
		case <-grace.C:
		case <-ctx.Done():
		}
	case <-ctx.Done():
		group.Terminate()
		grace := time.NewTimer(o.Grace)
		defer grace.Stop()
		select {
		case <-exited:
		case <-grace.C:
			group.Kill()
			<-exited
		}
	}
}

// output is a stream of a program.
type output struct {
	from *os.File
	to   io.Writer
	dead atomic.Bool // the program's group has ended
}

// drain has copy end with what is there.
func (o *output) drain() {
	o.dead.Store(true)
	_ = o.from.SetReadDeadline(time.Now().Add(drainTime))
}

// copy hands on what the program writes. The time that this takes does not count
// towards the end of reading, for a writer may be slow.
func (o *output) copy() {
	buf := make([]byte, 32<<10)
	for wait, room := drainTime, pipeMost; wait > 0 && room > 0; {
		dead, began := o.dead.Load(), time.Now()
		if dead {
			_ = o.from.SetReadDeadline(began.Add(wait))
		}
		n, err := o.from.Read(buf)
		if dead {
			wait -= time.Since(began)
			room -= n
		}
		if n > 0 {
			if _, err := o.to.Write(buf[:n]); err != nil {
				return
			}
		}
		// A deadline that was set while the writer was at work has not been waited for.
		if err != nil && (dead || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
	}
}

// closers are the files of a program's pipes.
type closers struct{ ours, childs []*os.File }

// pipe makes a pipe and hands the program its end: to read from or to write to.
func (c *closers) pipe(read *io.Reader, write *io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if read != nil {
		*read = r
		c.ours, c.childs = append(c.ours, w), append(c.childs, r)
		return w, nil
	}
	*write = w
	c.ours, c.childs = append(c.ours, r), append(c.childs, w)
	return r, nil
}

func (c *closers) closeChildEnds() {
	for _, f := range c.childs {
		f.Close()
	}
	c.childs = nil
}

func (c *closers) close() {
	c.closeChildEnds()
	for _, f := range c.ours {
		f.Close()
	}
}

// Input feeds a program a text. It need not read it.
func Input(text []byte) func(context.Context, io.WriteCloser) {
	return func(_ context.Context, stdin io.WriteCloser) {
		_, _ = stdin.Write(text)
		_ = stdin.Close()
	}
}
