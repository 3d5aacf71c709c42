package worker

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// ExecOptions says which program runs the tasks.
type ExecOptions struct {
	// Command is the program, looked for in PATH, and its arguments.
	Command []string
	// Dir is its working directory: the worker's own when "".
	Dir string
	// Env is its environment before the variables of the task ("name=value"):
	// the worker's own when nil.
	Env []string
	// TaskEnv, if not nil, gives variables that win over those of the task.
	TaskEnv func(t *Task) []string
	// Grace is how long a program that was told to end (SIGTERM) may take before
	// it is killed: 5 s when 0.
	Grace time.Duration
}

// DefaultGrace is that of ExecOptions.
const DefaultGrace = 5 * time.Second

// Validate reports whether the program can be found, as an Invalid error.
func (o ExecOptions) Validate() error {
	if len(o.Command) == 0 || o.Command[0] == "" {
		return queue.Errorf(queue.Invalid, "no command to run tasks with")
	}
	if _, err := exec.LookPath(o.Command[0]); err != nil {
		return queue.Wrap(queue.Invalid, err, "the command that runs tasks cannot be started")
	}
	return nil
}

// Exec is a handler that starts a program for each task. The task's input is its
// standard input, as JSON; [Variables] tells it the rest. Its result is the last
// line of its standard output that is a number, or an object with "reward",
// "rewards" and "primary", or "spans"; a program without such a line has no
// reward. An exit status other than 0 fails the attempt. The tails of both of
// its streams are kept as a span.
//
// The program and all it starts make up one process group, which ends with it,
// with the task, and with the worker, even one that is killed. Only what moves
// to another group by itself escapes.
func Exec(opts ExecOptions) Handler {
	opts.Grace = cmp.Or(opts.Grace, DefaultGrace)
	return func(ctx context.Context, t *Task) (Result, error) {
		if err := opts.Validate(); err != nil {
			return Result{}, err
		}
		return opts.run(ctx, t)
	}
}

// execSpan is the span with the tails of a program's streams.
const execSpan = "aglq.exec"

func (o ExecOptions) run(ctx context.Context, t *Task) (Result, error) {
	dir, err := os.MkdirTemp("", "aglq-task-")
	if err != nil {
		return Result{}, fmt.Errorf("making a folder for the task's files: %w", err)
	}
	defer os.RemoveAll(dir)
	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	if env, err = t.prepare(dir, env[:len(env):len(env)]); err != nil {
		return Result{}, err
	}
	if o.TaskEnv != nil {
		env = append(env, o.TaskEnv(t)...)
	}
	var out output
	began := queue.Seconds(t.worker.opts.Now())
	state, err := child.Run(ctx, o.command(env), child.Options{
		Dir: dir, Feed: child.Input(t.Input), Stdout: io.MultiWriter(&out.stdout, &out.verdict), Stderr: &out.stderr, Grace: o.Grace,
	})
	out.verdict.end()
	if err != nil {
		return Result{}, fmt.Errorf("starting %s: %w", o.Command[0], err)
	}
	result := out.verdict.result
	if out.verdict.broken != nil {
		t.worker.log.Warn("a result on standard output is malformed", t.attrs("error", out.verdict.broken)...)
	}
	var failure error
	if !state.Success() || ctx.Err() != nil {
		result, failure = Result{}, exitFailure(ctx, state, out.stderr.String())
	}
	var a object
	a.text("process.command", strings.Join(o.Command, " "))
	a.int("process.exit.code", int64(state.ExitCode()))
	a.text("aglq.stdout.tail", out.stdout.String())
	a.int("aglq.stdout.bytes", out.stdout.total)
	a.text("aglq.stderr.tail", out.stderr.String())
	a.int("aglq.stderr.bytes", out.stderr.total)
	return t.bridged(ctx, queue.Span{Name: execSpan, Attributes: a.close(), StartTime: &began}, result, failure)
}

// bridged is what a handler returns that had another program do the task: span
// tells of that, and is filed first.
func (t *Task) bridged(ctx context.Context, span queue.Span, result Result, failure error) (Result, error) {
	span.Status = semconv.StatusOK
	result.Spans = append([]queue.Span{span}, result.Spans...)
	if failure == nil {
		return result, nil
	}
	status := rawjson.AppendString([]byte(`{"status_code":"ERROR","description":`), failure.Error())
	result.Spans[0].Status = append(status, '}')
	// The spans must not be lost with the task's own context.
	report, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
	defer cancel()
	for _, s := range result.Spans {
		_ = t.Span(report, s) // counted as missing if it fails
	}
	return Result{}, failure
}

func (o ExecOptions) command(env []string) *exec.Cmd {
	cmd := exec.Command(o.Command[0], o.Command[1:]...)
	cmd.Dir, cmd.Env = o.Dir, env
	return cmd
}

// output is what a program writes.
type output struct {
	stdout, stderr tail
	verdict        verdict
}

// exitFailure says how a program ended that failed, or was stopped because ctx had
// ended. Stderr is the tail of what it wrote there.
func exitFailure(ctx context.Context, state *os.ProcessState, stderr string) error {
	var meta object
	what := fmt.Sprintf("exit status %d", state.ExitCode())
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		what = "killed by signal " + ws.Signal().String()
		meta.text("signal", ws.Signal().String())
		meta.int("exit_status", int64(128+ws.Signal()))
	} else {
		meta.int("exit_status", int64(state.ExitCode()))
	}
	meta.text("stderr", stderr)
	f := &Failure{Type: "exit", Message: what, Stack: stderr}
	if last := lastLine(stderr); last != "" {
		f.Message += ": " + last
	}
	if cause := context.Cause(ctx); cause != nil {
		f.Type, f.Err = "cancelled", cause
		f.Message = cause.Error() + " (" + what + ")"
	}
	f.Metadata = meta.close()
	return f
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return clip(strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]), 500)
}
