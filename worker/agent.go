package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue/rawjson"
)

// agent is one program of a Pool, from its start to its end. Its goroutine, those of
// its streams and the one of its task use it at the same time; mu guards what they
// share.
type agent struct {
	env     []string
	started time.Time
	lines   chan []byte        // what to write; closed to let it end
	answers chan rawjson.Value // to the task in hand; has room for it
	alive   context.Context    // ends when it is to be stopped
	cut     context.CancelCauseFunc

	patience time.Duration // for reading a task; see PoolOptions.ReadTimeout
	hung     chan struct{} // closed when it is over

	ended chan struct{} // closed after state and err are set
	state *os.ProcessState
	err   error // it could not be started

	mu             sync.Mutex
	task           string // what it is asked to do, "" for nothing
	last           bool   // its input has ended
	done           int    // tasks answered
	cutter         lineCutter
	stdout, stderr tail
	// Where the task in hand began.
	stdoutMark, stderrMark int64
}

func newAgent(env []string, patience time.Duration) *agent {
	a := &agent{
		patience: patience, hung: make(chan struct{}),
		env: env, started: time.Now(), lines: make(chan []byte), answers: make(chan rawjson.Value, 1), ended: make(chan struct{}),
	}
	a.alive, a.cut = context.WithCancelCause(context.Background())
	return a
}

// Why an agent is stopped.
var (
	errAgentStopped = errors.New("the agent was stopped")
	errAgentDeaf    = errors.New("the agent reads no more")
	errAgentHung    = errors.New("the agent did not read its next task in time")
)

// stop ends the agent with all it started.
func (a *agent) stop() { a.cut(errAgentStopped) }

func (a *agent) stopped() bool { return context.Cause(a.alive) == errAgentStopped }

// hangs reports whether the agent was given a task that it has not begun.
func (a *agent) hangs() bool { return context.Cause(a.alive) == errAgentHung }

func (a *agent) over() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// retired reports whether the agent was told to end by the end of its input.
func (a *agent) retired() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// tasks is how many tasks the agent has answered.
func (a *agent) tasks() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// run is the life of the agent.
func (a *agent) run(o ExecOptions) {
	defer close(a.ended)
	defer a.cut(nil)
	a.state, a.err = child.Run(a.alive, o.command(a.env), child.Options{
		Feed: a.feed, Stdout: writerFunc(a.wrote), Stderr: writerFunc(a.complained), Grace: o.Grace,
	})
}

// feed writes what the agent is told, until its end or that of what there is to
// tell.
func (a *agent) feed(ctx context.Context, stdin io.WriteCloser) {
	defer stdin.Close()
	for {
		select {
		case line, more := <-a.lines:
			if !more {
				a.mu.Lock()
				a.last = true
				a.mu.Unlock()
				return
			}
			switch err := a.tell(ctx, stdin, line); {
			case err == nil || ctx.Err() != nil:
			case errors.Is(err, os.ErrDeadlineExceeded):
				a.cut(errAgentHung)
				close(a.hung)
				return
			default:
				a.cut(errAgentDeaf)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// tell writes a line. An agent that has worked before must read all of it in time, else
// the error is os.ErrDeadlineExceeded: it cannot have begun the task. A new one may take
// long to come to it.
func (a *agent) tell(ctx context.Context, stdin io.Writer, line []byte) error {
	pipe, ok := stdin.(*os.File)
	if !ok || a.patience <= 0 || a.tasks() == 0 {
		_, err := stdin.Write(line)
		return err
	}
	limit := time.Now().Add(a.patience)
	if err := pipe.SetWriteDeadline(limit); err != nil {
		return fmt.Errorf("bounding the write of a task: %w", err)
	}
	if ctx.Err() != nil { // whoever ended it may have set a deadline before
		return context.Cause(ctx)
	}
	if _, err := pipe.Write(line); err != nil {
		return err
	}
	for wait := time.Millisecond; a.busy() && unread(pipe) > 0; wait = min(2*wait, 100*time.Millisecond) {
		if time.Now().After(limit) {
			return os.ErrDeadlineExceeded
		}
		if err := sleep.For(ctx, wait); err != nil {
			return err
		}
	}
	return nil
}

// busy reports whether the agent has a task to answer.
func (a *agent) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.task != ""
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func (a *agent) complained(p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.stderr.Write(p)
}

func (a *agent) wrote(p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.stdout.Write(p)
	a.cutter.cut(p, "{", a.line)
}

// line takes a line of output for the answer if it is one.
func (a *agent) line(line []byte, whole bool) {
	if a.task == "" || !bytes.Contains(line, []byte(`"id"`)) {
		return
	}
	if !whole {
		_, attempt, _ := strings.Cut(a.task, "/")
		if bytes.Contains(line, []byte(attempt)) {
			a.answered(rawjson.Value(fmt.Sprintf(`{"error":"the agent's answer is longer than %d MiB"}`, longestLine>>20)))
		}
		return
	}
	if object, _, err := rawjson.Compact(nil, line); err == nil && object.Get("id").Text() == a.task {
		a.answered(object)
	}
}

// answered hands over the answer; called with mu held.
func (a *agent) answered(v rawjson.Value) {
	a.task = ""
	a.done++
	a.answers <- v
}

// begin makes what follows the output of a task.
func (a *agent) begin(task string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.task = task
	a.stdoutMark, a.stderrMark = a.stdout.total, a.stderr.total
}

// do has the agent do the task that began, and stops it when ctx ends before. After
// errAgentHung the task is another's to do.
func (a *agent) do(ctx context.Context, message []byte) (Result, error) {
	stopped := false
	end := func() {
		stopped = true
		a.stop()
		<-a.ended
	}
	select {
	case a.lines <- message:
		select {
		case v := <-a.answers:
			return answer(v)
		case <-a.hung:
			return Result{}, errAgentHung
		case <-a.ended:
		case <-ctx.Done():
			end()
		}
	case <-a.ended:
	case <-ctx.Done():
		end()
	}
	select {
	case v := <-a.answers: // its last words
		if !stopped {
			return answer(v)
		}
	default:
	}
	return Result{}, a.failure(ctx)
}

// failure says how the agent ended without an answer.
func (a *agent) failure(ctx context.Context) error {
	if a.err != nil {
		return fmt.Errorf("starting the agent: %w", a.err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	stderr := a.stderr.since(a.stderrMark)
	if stderr == "" { // it may have complained while it began
		stderr = a.stderr.String()
	}
	err := exitFailure(ctx, a.state, stderr)
	if f := failureOf(err); ctx.Err() == nil && a.state.Success() {
		f.Message = "the agent ended before it answered: " + f.Message
	}
	return err
}

// told is what a span says of the agent and of its output since the task began.
func (a *agent) told(command string) rawjson.Value {
	var o object
	o.text("process.command", command)
	if a.over() && a.state != nil {
		o.int("process.exit.code", int64(a.state.ExitCode()))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	o.text("aglq.stdout.tail", a.stdout.since(a.stdoutMark))
	o.int("aglq.stdout.bytes", a.stdout.total-a.stdoutMark)
	o.text("aglq.stderr.tail", a.stderr.since(a.stderrMark))
	o.int("aglq.stderr.bytes", a.stderr.total-a.stderrMark)
	return o.close()
}
