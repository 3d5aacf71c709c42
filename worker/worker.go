// Package worker is the runner: it claims rollouts from a [queue.Store], runs a
// [Handler] on each, and reports what came of it.
//
// A worker is one claim loop, one heartbeat and one sender of spans, whatever
// its concurrency. The life of a task:
//
//	claim -> handler -> its spans are stored -> the attempt is finished
//
// While it runs, heartbeats renew its attempt; when the store answers that the
// attempt is no longer the worker's (cancelled, timed out, given to another) the
// handler's context ends with [ErrNotHeld] and nothing more is reported.
//
// The handler's context carries the task: packages emit, llmclient and trace find
// it there, and file what they tell under it.
//
// It works alike over HTTP (client.Client) and in one process with the store.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker/limit"
	"github.com/aglq/aglq/worker/trace"
)

// Why a task's context ended, as context.Cause tells.
var (
	ErrNotHeld   = errors.New("the attempt is no longer this worker's")
	ErrTimeout   = errors.New("task timed out")
	ErrDrained   = errors.New("worker drained")
	ErrStopped   = errors.New("worker stopped")
	ErrStoreGone = errors.New("the store is gone")
)

// Handler runs one task. Its context ends when the task's time is up, when the
// attempt is no longer the worker's, and when the worker stops: it must return
// soon then. An error, and a panic, fail the attempt; see [Failure] for an error
// that says more.
type Handler func(ctx context.Context, t *Task) (Result, error)

// Defaults of Options.
const (
	// DefaultLongPoll is below the timeouts of common proxies.
	DefaultLongPoll          = 20 * time.Second
	DefaultPollInterval      = 5 * time.Second
	DefaultJitter            = 500 * time.Millisecond
	DefaultHeartbeatInterval = 10 * time.Second
	DefaultDrainTimeout      = 30 * time.Second
	// DefaultExitWhenStoreGone is long enough for the store's machine to restart.
	DefaultExitWhenStoreGone = 5 * time.Minute
)

// Options adjusts a Worker. The zero Options is a worker of one task at a time.
type Options struct {
	// ID names the worker to the store. It must be unique among the living:
	// "Worker-<host>-<pid>-<random>-<n>" when "".
	ID string
	// Version is what heartbeats say of the program; "" leaves it out.
	Version string
	// Concurrency is how many tasks run at a time: 1 when 0.
	Concurrency int
	// MaxRollouts ends the worker after so many tasks; 0 is no end.
	MaxRollouts int
	// LongPoll is how long a claim asks the store to wait for work: 20 s when 0,
	// not at all when negative.
	LongPoll time.Duration
	// PollInterval is the longest pause between claims of a store that does not
	// wait: 5 s when 0. Pauses begin at 50 ms and double.
	PollInterval time.Duration
	// Jitter is how far intervals vary, either way: 0.5 s when 0, none when
	// negative. Short intervals vary by at most a tenth.
	Jitter time.Duration
	// HeartbeatInterval is the pause between heartbeats: 10 s when 0, none are
	// sent when negative. It shrinks to a third of the unresponsive_seconds of
	// what runs.
	HeartbeatInterval time.Duration
	// TaskTimeout bounds a task: its rollout's timeout_seconds when 0, no bound
	// when negative.
	TaskTimeout time.Duration
	// DrainTimeout is how long running tasks may go on after Drain: 30 s when 0,
	// as long as they take when negative.
	DrainTimeout time.Duration
	// ExitWhenIdle ends the worker when it had nothing to do for so long; 0 never.
	ExitWhenIdle time.Duration
	// ExitWhenStoreGone ends the worker when the store did not answer for so
	// long: 5 min when 0, never when negative.
	ExitWhenStoreGone time.Duration
	// StoreURL is where programs find the store; "" when it has no URL.
	StoreURL string
	// NumberAtStart numbers the spans that handlers make when they begin, which
	// costs a request each, see trace.Options.
	NumberAtStart bool
	// SpillDir is the directory for spans that the store did not take before the
	// worker ended, to be sent by the next one; "" gives them up. Workers may share
	// it.
	SpillDir string
	// Limits bound what tasks do together: those of all workers that share them.
	// Handlers keep them by [Task.Limit]; nil is no bound.
	Limits *limit.Set
	// Slots lends slots of Limits to the programs of [Exec] and [Pool]; nil to none.
	Slots *limit.Server
	// Hooks are told of the life of tasks.
	Hooks []Hooks
	// Logger takes the log: slog.Default() when nil.
	Logger *slog.Logger
	// Observer is told what the worker does; nil for nobody.
	Observer Observer
	// Now is the clock of spans: time.Now when nil.
	Now func() time.Time
}

const (
	firstPoll = 50 * time.Millisecond
	// reportTime is how long a task that was cut short may take to be reported.
	reportTime = 10 * time.Second
)

// Worker runs tasks. Make one with New and call Run, or Step, once.
type Worker struct {
	store   queue.Store
	handler Handler
	opts    Options
	log     *slog.Logger
	spans   *trace.Sender

	draining  chan struct{}
	drainOnce sync.Once

	contact atomic.Int64 // when the store last answered, Unix nanoseconds

	mu   sync.Mutex
	held map[queue.AttemptRef]*Task
	// freed and taken tell that held has shrunk and grown; each has room for one.
	freed, taken chan struct{}
}

// New makes a worker of a store.
func New(s queue.Store, h Handler, opts Options) *Worker {
	opts.Concurrency = max(opts.Concurrency, 1)
	opts.LongPoll = max(cmp.Or(opts.LongPoll, DefaultLongPoll), 0)
	opts.PollInterval = cmp.Or(opts.PollInterval, DefaultPollInterval)
	opts.Jitter = max(cmp.Or(opts.Jitter, DefaultJitter), 0)
	opts.HeartbeatInterval = cmp.Or(opts.HeartbeatInterval, DefaultHeartbeatInterval)
	opts.DrainTimeout = cmp.Or(opts.DrainTimeout, DefaultDrainTimeout)
	opts.ExitWhenStoreGone = cmp.Or(opts.ExitWhenStoreGone, DefaultExitWhenStoreGone)
	opts.ID = cmp.Or(opts.ID, newWorkerID())
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Observer == nil {
		opts.Observer = unobserved{}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	w := &Worker{
		store: s, handler: h, opts: opts,
		log:      opts.Logger.With("worker_id", opts.ID),
		draining: make(chan struct{}),
		held:     map[queue.AttemptRef]*Task{},
		freed:    make(chan struct{}, 1),
		taken:    make(chan struct{}, 1),
	}
	w.spans = trace.NewSender(s, trace.Options{
		Logger: w.log, Now: opts.Now, Heard: w.spansHeard, Dropped: opts.Observer.SpansDropped,
		NumberAtStart: opts.NumberAtStart, SpillDir: opts.SpillDir,
	})
	return w
}

// ID is the worker's id.
func (w *Worker) ID() string { return w.opts.ID }

// Drain makes the worker claim nothing more; Run returns when the tasks that
// run are done, or were cut short after DrainTimeout. It does not wait.
func (w *Worker) Drain() { w.drainOnce.Do(func() { close(w.draining) }) }

// Run works until there is an end to it: nil after Drain, after MaxRollouts and
// when idle for ExitWhenIdle; the context's cause when ctx ends, which cancels
// what runs; ErrStoreGone when the store is. All it started has ended when it
// returns. An error of the store that no repetition mends ends it at once when
// it is the first thing the store says.
func (w *Worker) Run(ctx context.Context) error {
	return w.work(ctx, func(tasks context.Context, cut context.CancelCauseFunc) error {
		var running sync.WaitGroup
		err := w.claims(ctx, tasks, &running)
		switch {
		case ctx.Err() != nil:
			cut(ErrStopped)
		case err != nil:
			cut(err)
		}
		w.settle(&running, cut)
		return err
	})
}

// Step runs one task past the queue: it starts a rollout, has the handler do it as
// Run does, and gives the rollout with its attempt as the store then has it. A task
// that fails is no error. The end of ctx cancels the task, and is an error.
func (w *Worker) Step(ctx context.Context, req queue.Request) (done queue.AttemptedRollout, err error) {
	err = w.work(ctx, func(tasks context.Context, _ context.CancelCauseFunc) error {
		r, err := w.store.Start(ctx, req, &w.opts.ID)
		if err != nil {
			return fmt.Errorf("starting a rollout: %w", err)
		}
		t := w.newTask(r)
		w.take(t)
		w.runTask(tasks, t)
		end, cancel := reportContext(tasks)
		defer cancel()
		stored, err := w.store.Rollout(end, r.RolloutID)
		if err != nil {
			return fmt.Errorf("reading rollout %s after its task: %w", r.RolloutID, err)
		}
		if stored == nil || stored.Attempt == nil {
			return queue.Errorf(queue.NotFound, "rollout %s is gone after its task", r.RolloutID)
		}
		done = *stored
		return nil
	})
	return done, err
}

// work does something with tasks while heartbeats and spans are sent. The end of
// ctx cuts the tasks.
func (w *Worker) work(ctx context.Context, do func(tasks context.Context, cut context.CancelCauseFunc) error) error {
	w.log.Info("worker starts", "concurrency", w.opts.Concurrency, "pid", os.Getpid())
	w.contact.Store(time.Now().UnixNano())
	w.opts.Observer.WorkerStarted(w.opts.ID, w.opts.Concurrency, w.opts.HeartbeatInterval > 0)
	defer w.opts.Observer.WorkerEnded(w.opts.ID)

	tasks, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	unlink := context.AfterFunc(ctx, func() { cut(ErrStopped) })
	defer unlink()

	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { w.spans.Run(background) })
	if w.opts.HeartbeatInterval > 0 {
		helpers.Go(func() { w.beat(background) })
	}
	err := do(tasks, cut)
	stop()
	helpers.Wait()
	if err == nil && ctx.Err() != nil && context.Cause(tasks) == ErrStopped {
		err = context.Cause(ctx)
	}
	w.log.Info("worker ends", withError(nil, err)...)
	return err
}

// settle waits for the tasks that run. Only Drain bounds that: the last of
// MaxRollouts may take the time it needs.
func (w *Worker) settle(running *sync.WaitGroup, cut context.CancelCauseFunc) {
	done := make(chan struct{})
	go func() {
		running.Wait()
		close(done)
	}()
	draining := w.draining
	var late <-chan time.Time
	for {
		select {
		case <-done:
			return
		case <-draining:
			draining = nil
			if w.opts.DrainTimeout > 0 {
				timer := time.NewTimer(w.opts.DrainTimeout)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			late = nil
			w.log.Warn("cancelling what still runs after the drain timeout", "tasks", w.inflight())
			cut(ErrDrained)
		}
	}
}

// withError adds an error to the attributes of a log line, if there is one.
func withError(attrs []any, err error) []any {
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	return attrs
}

// spansHeard notes an answer to spans.
func (w *Worker) spansHeard(err error) {
	w.heard(err)
	if err != nil {
		w.opts.Observer.StoreFailed(CallSpans)
	}
}

// heard notes an answer of the store; no answer is one that says it is away.
func (w *Worker) heard(err error) {
	if err == nil || queue.KindOf(err) != queue.Unavailable {
		w.contact.Store(time.Now().UnixNano())
	}
}

// storeGone reports whether the store has been silent for too long.
func (w *Worker) storeGone() bool {
	return w.opts.ExitWhenStoreGone > 0 &&
		time.Since(time.Unix(0, w.contact.Load())) > w.opts.ExitWhenStoreGone
}

func (w *Worker) inflight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

func (w *Worker) take(t *Task) {
	w.mu.Lock()
	w.held[t.ref] = t
	w.mu.Unlock()
	notify(w.taken)
}

func (w *Worker) release(t *Task) {
	w.mu.Lock()
	delete(w.held, t.ref)
	w.mu.Unlock()
	notify(w.freed)
}

// notify puts a token into a channel that has room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// jittered varies an interval.
func (w *Worker) jittered(d time.Duration) time.Duration {
	j := min(w.opts.Jitter, d/10)
	if j <= 0 {
		return d
	}
	return d - j + mathrand.N(2*j)
}
