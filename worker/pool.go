package worker

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
)

// PoolOptions says which program runs the tasks of a Pool.
type PoolOptions struct {
	// ExecOptions are those of the program; TaskEnv wins in the message of a task.
	ExecOptions
	// MaxTasks is how many tasks a program does before another takes its place; 0
	// is no bound.
	MaxTasks int
	// ReadTimeout is how long a program that has done a task may take to read the next
	// one. After that it counts as one that hangs or was stopped while it had nothing to
	// do: it is ended, and another does the task. 30 s when 0, no bound when negative,
	// and none but on Linux.
	ReadTimeout time.Duration
	// Logger takes the log of programs: slog.Default() when nil.
	Logger *slog.Logger
}

// DefaultReadTimeout is that of PoolOptions.
const DefaultReadTimeout = 30 * time.Second

// Pool runs tasks by programs that stay: a task is one line of JSON on a
// program's standard input, and the line with the same "id" on its standard output
// is the answer. It holds "reward", or "rewards" and "primary", or "spans", as for
// [Exec], or "error"; no result but the id is a task without a reward. What else
// the program writes is output.
//
// A program does one task at a time. It is started when a task finds no idle one,
// so there are as many as tasks run at a time. One that dies fails the task that it
// has, and the next task gets another one; those that die at once are followed more
// and more slowly. A task that is cancelled, or whose time is up, ends with its
// program, since a program cannot be told of it: SIGTERM for its process group,
// and SIGKILL after the grace.
//
// What Exec says of process groups holds here too. Its methods are safe for
// concurrent use.
type Pool struct {
	opts  PoolOptions
	log   *slog.Logger
	start throttle

	mu     sync.Mutex
	idle   []*agent // the latest to have worked last
	all    map[*agent]struct{}
	closed bool

	running sync.WaitGroup // agents and tasks
}

// NewPool makes a pool; it starts nothing yet. Its end is Close.
func NewPool(opts PoolOptions) *Pool {
	opts.Grace = cmp.Or(opts.Grace, DefaultGrace)
	opts.ReadTimeout = cmp.Or(opts.ReadTimeout, DefaultReadTimeout)
	p := &Pool{opts: opts, log: opts.Logger, all: map[*agent]struct{}{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	return p
}

// Handle runs one task. It is a [Handler].
func (p *Pool) Handle(ctx context.Context, t *Task) (Result, error) {
	if err := p.opts.Validate(); err != nil {
		return Result{}, err
	}
	if !p.enter() {
		return Result{}, errPoolClosed
	}
	defer p.running.Done()
	var more []string
	if p.opts.TaskEnv != nil {
		more = p.opts.TaskEnv(t)
	}
	message, err := t.message(lookup(p.environment(), envOTelResource), more)
	if err != nil {
		return Result{}, err
	}
	message = append(message, '\n')
	began := queue.Seconds(t.worker.opts.Now())
	var a *agent
	var result Result
	failure := errAgentHung
	for failure == errAgentHung {
		if a, err = p.take(ctx, t.StoreURL()); err != nil {
			return Result{}, err
		}
		a.begin(t.messageID())
		result, failure = a.do(ctx, message)
	}
	span := queue.Span{Name: execSpan, Attributes: a.told(strings.Join(p.opts.Command, " ")), StartTime: &began}
	p.give(a)
	return t.bridged(ctx, span, result, failure)
}

// enter has Close wait for a task; false when the pool is closed.
func (p *Pool) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Add(1)
	}
	return !p.closed
}

func (p *Pool) environment() []string {
	if p.opts.Env != nil {
		return p.opts.Env
	}
	return os.Environ()
}

// take gives an agent that has nothing to do, a new one if need be.
func (p *Pool) take(ctx context.Context, storeURL string) (*agent, error) {
	if a, err := p.takeIdle(); a != nil || err != nil {
		return a, err
	}
	if err := p.start.wait(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	env := p.environment()
	a := newAgent(append(env[:len(env):len(env)], storeVariables(storeURL)...), p.opts.ReadTimeout)
	p.all[a] = struct{}{}
	p.running.Go(func() {
		a.run(p.opts.ExecOptions)
		p.ended(a)
	})
	return a, nil
}

var errPoolClosed = queue.Errorf(queue.Unavailable, "the pool of programs is closed")

func (p *Pool) takeIdle() (*agent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	for len(p.idle) > 0 {
		last := len(p.idle) - 1
		a := p.idle[last]
		p.idle = p.idle[:last]
		if !a.over() {
			return a, nil
		}
	}
	return nil, nil
}

// give takes an agent back that has done its task.
func (p *Pool) give(a *agent) {
	if a.over() {
		return
	}
	p.start.worked()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.opts.MaxTasks > 0 && a.tasks() >= p.opts.MaxTasks {
		p.retire(a)
		return
	}
	p.idle = append(p.idle, a)
}

// retire has an agent end: it is told by the end of its input, and stopped when
// that has no effect within the grace.
func (p *Pool) retire(a *agent) {
	close(a.lines)
	p.running.Go(func() {
		grace := time.NewTimer(p.opts.Grace)
		defer grace.Stop()
		select {
		case <-a.ended:
		case <-grace.C:
			a.stop()
		}
	})
}

// diedAtOnce is the life below which a program counts as one that cannot work.
const diedAtOnce = 5 * time.Second

// ended notes the end of an agent, whatever its cause.
func (p *Pool) ended(a *agent) {
	p.mu.Lock()
	delete(p.all, a)
	p.mu.Unlock()
	if a.stopped() {
		return
	}
	tasks := a.tasks()
	if tasks == 0 && time.Since(a.started) < diedAtOnce {
		p.start.failed()
	}
	attrs := []any{"command", p.opts.Command[0], "tasks", tasks}
	if a.err != nil {
		p.log.Warn("an agent could not be started", append(attrs, "error", a.err)...)
		return
	}
	attrs = append(attrs, "pid", a.state.Pid(), "how", a.state.String())
	if a.hangs() {
		p.log.Warn("an agent hung or was stopped while it had nothing to do; another has its task", attrs...)
		return
	}
	if a.retired() && a.state.Success() {
		p.log.Debug("an agent ends", attrs...)
		return
	}
	p.log.Warn("an agent has ended by itself", append(attrs, "stderr", lastLine(a.stderr.String()))...)
}

// Close ends the programs, those with a task after it, and returns when all have:
// they are told by the end of their input, and stopped after the grace, or at once
// when ctx ends, task or not. Handle takes no more.
func (p *Pool) Close(ctx context.Context) {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		for _, a := range p.idle {
			p.retire(a)
		}
		p.idle = nil
	}
	p.mu.Unlock()
	unlink := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for a := range p.all {
			a.stop()
		}
	})
	defer unlink()
	p.running.Wait()
}
