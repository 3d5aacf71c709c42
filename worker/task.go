package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/limit"
	"github.com/aglq/aglq/worker/trace"
)

// Task is one attempt at a rollout, as a handler sees it. Its methods are safe
// for concurrent use until the handler returns.
type Task struct {
	Rollout queue.Rollout
	Attempt queue.Attempt
	Input   rawjson.Value // the rollout's input; must not be written to
	Mode    queue.Mode    // "" is null

	worker *Worker
	ref    queue.AttemptRef
	scope  *trace.Scope
	cancel context.CancelCauseFunc

	resources func() (*queue.ResourcesUpdate, error)
	previous  func() (string, error)
	slots     *limit.Session
	slotsURL  string // where programs take slots, "" for nowhere

	mu      sync.Mutex
	ending  bool // the handler has returned
	notHeld bool
	status  queue.RolloutStatus // what the store said when it was no longer held
}

func (w *Worker) newTask(r queue.AttemptedRollout) *Task {
	ref := queue.AttemptRef{RolloutID: r.RolloutID, AttemptID: r.Attempt.AttemptID}
	return &Task{
		Rollout: r.Rollout,
		Attempt: *r.Attempt,
		Input:   r.Input,
		Mode:    r.Mode,
		worker:  w,
		ref:     ref,
		scope:   w.spans.Scope(ref),
		cancel:  func(error) {},
		slots:   limit.NewSession(w.opts.Limits),
	}
}

// DecodeInput is json.Unmarshal of the input.
func (t *Task) DecodeInput(into any) error {
	if err := json.Unmarshal(t.Input, into); err != nil {
		return fmt.Errorf("decoding the input of %s: %w", t.ref.RolloutID, err)
	}
	return nil
}

// With is the task with another input, to be given to another handler: what that
// one tells is filed under this task. It is good until the task's own handler
// returns.
func (t *Task) With(input rawjson.Value) *Task {
	return &Task{
		Rollout: t.Rollout, Attempt: t.Attempt, Input: input, Mode: t.Mode,
		worker: t.worker, ref: t.ref, scope: t.scope, cancel: t.cancel, resources: t.resources, previous: t.previous,
		slots: t.slots, slotsURL: t.slotsURL,
	}
}

// PreviousError is why the attempt before this one failed: the error that its
// worker reported, or its status where there was nobody to report. It is "" for a
// first attempt, and after a success. The store is asked once for a task, by the
// first call.
func (t *Task) PreviousError() (string, error) { return t.previous() }

func (t *Task) fetchPreviousError(ctx context.Context) (string, error) {
	if t.Attempt.SequenceID <= 1 {
		return "", nil
	}
	page, err := t.worker.store.Attempts(ctx, queue.AttemptQuery{
		RolloutID: t.ref.RolloutID, Paging: queue.Paging{SortBy: "sequence_id", Descending: true, Limit: -1},
	})
	if err != nil {
		return "", fmt.Errorf("reading the earlier attempts at %s: %w", t.ref.RolloutID, err)
	}
	for _, a := range page.Items {
		switch {
		case a.SequenceID >= t.Attempt.SequenceID:
		case a.Status == queue.AttemptSucceeded: // and made again by hand
			return "", nil
		default:
			return cmp.Or(a.Metadata.Get("error").Text(), "the attempt is "+string(a.Status)), nil
		}
	}
	return "", nil
}

// StoreURL is where programs find the store, "" when it has no URL.
func (t *Task) StoreURL() string { return t.worker.opts.StoreURL }

// TaskLimit is the group of limits that each task takes a slot of before its
// handler runs.
const TaskLimit = "task"

// Limit waits for a slot of a group of Options.Limits, as long as ctx lasts, and
// gives what returns it; what is not returned is at the end of the handler. A group
// that there is not has no bounds.
func (t *Task) Limit(ctx context.Context, group string) (leave func(), err error) {
	return t.slots.Take(ctx, group)
}

// Spans is what the store has of the attempt, in the order of its numbers. What
// the handler sends is all there once its task has ended, see [Hooks].
func (t *Task) Spans(ctx context.Context) ([]queue.Span, error) {
	page, err := t.worker.store.Spans(ctx, queue.SpanQuery{
		RolloutID: t.ref.RolloutID, AttemptID: &t.ref.AttemptID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1},
	})
	if err != nil {
		return nil, fmt.Errorf("reading the spans of %s: %w", t.ref.RolloutID, err)
	}
	return page.Items, nil
}

// Result is what a handler returns of a task that succeeded. The zero Result
// carries nothing.
type Result struct {
	Rewards []RewardDimension // the primary one first
	Spans   []queue.Span      // stored before the rewards, see [Task.Span]
}

// RewardDimension is one dimension of a reward.
type RewardDimension = semconv.Reward

// Reward is a result with a reward of one dimension, named "primary".
func Reward(value float64) Result {
	return Result{Rewards: []RewardDimension{{Name: semconv.PrimaryReward, Value: value}}}
}

// Rewards is a result with a reward of several dimensions. A task whose primary
// dimension is not among them fails.
func Rewards(primary string, values map[string]float64) Result {
	rewards, err := emit.Dimensions(primary, values)
	if err != nil {
		rewards = []RewardDimension{{}} // which the task refuses
	}
	return Result{Rewards: rewards}
}

// Failure is an error that tells the store more than its text. Handlers may
// return one, wrapped or not.
type Failure struct {
	Type     string        // exception.type; the error's Go type when ""
	Message  string        // exception.message
	Stack    string        // exception.stacktrace
	Metadata rawjson.Value // an object for the attempt's metadata, nil for none
	Err      error         // the cause, may be nil
}

// Error implements error.
func (f *Failure) Error() string { return f.Message }

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// lose ends a task that the store gave to nobody or to another.
func (t *Task) lose(status queue.RolloutStatus) {
	t.mu.Lock()
	if t.ending || t.notHeld {
		t.mu.Unlock()
		return
	}
	t.notHeld, t.status = true, status
	cancel := t.cancel
	t.mu.Unlock()
	t.worker.log.Info("task is no longer held: cancelling it", t.attrs("rollout_status", string(status))...)
	cancel(ErrNotHeld)
}

// lost reports whether the task was lost, and with the next call to lose that it
// cannot be any more.
func (t *Task) lost() (bool, queue.RolloutStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ending = true
	return t.notHeld, t.status
}

func (t *Task) attrs(more ...any) []any {
	return append([]any{"rollout_id", t.ref.RolloutID, "attempt_id", t.ref.AttemptID}, more...)
}

// runTask runs a claimed task to its end.
func (w *Worker) runTask(tasks context.Context, t *Task) {
	defer w.release(t)
	defer t.slots.Close()
	began := time.Now()
	w.opts.Observer.TaskStarted()
	status := NotHeld
	defer func() { w.opts.Observer.TaskEnded(t.ref.RolloutID, status, time.Since(began)) }()
	ctx, cancel := t.context(tasks)
	defer cancel()
	t.resources = sync.OnceValues(func() (*queue.ResourcesUpdate, error) { return t.fetchResources(ctx) })
	t.previous = sync.OnceValues(func() (string, error) { return t.fetchPreviousError(ctx) })
	if w.opts.Slots != nil {
		url, end := w.opts.Slots.Open(t.slots)
		defer end()
		t.slotsURL = url
	}
	w.log.Debug("task starts", t.attrs()...)
	t.hook(ctx, "OnRolloutStart", func(h *Hooks) TaskHook { return h.OnRolloutStart })
	t.hook(ctx, "OnTraceStart", func(h *Hooks) TaskHook { return h.OnTraceStart })
	result, err := w.call(ctx, t)
	cause := context.Cause(ctx)
	t.slots.Close()
	report, end := reportContext(tasks)
	defer end()
	report = trace.WithScope(report, t.scope)
	t.hook(report, "OnTraceEnd", func(h *Hooks) TaskHook { return h.OnTraceEnd })
	if lost, rolloutStatus := t.lost(); lost {
		w.abandon(t, rolloutStatus)
		t.hookEnd(report, End{Err: ErrNotHeld, Took: time.Since(began)})
		return
	}
	status = w.conclude(report, t, t.outcome(report, result, err, cause), began)
}

// context is the task's own: it ends with the worker's tasks, with the task's
// time, and when the task is lost.
func (t *Task) context(tasks context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(trace.WithScope(tasks, t.scope))
	t.mu.Lock()
	t.cancel = cancel
	lost := t.notHeld
	t.mu.Unlock()
	if lost { // before there was something to cancel
		cancel(ErrNotHeld)
	}
	limit := t.worker.opts.TaskTimeout
	if s := t.Rollout.Config.TimeoutSeconds; limit == 0 && s != nil {
		limit = seconds(*s)
		if limit <= 0 {
			limit = 1
		}
	}
	if limit <= 0 {
		return ctx, func() { cancel(nil) }
	}
	ctx, stop := context.WithTimeoutCause(ctx, limit, ErrTimeout)
	return ctx, func() { stop(); cancel(nil) }
}

// seconds is a number of seconds as a duration, cut at what one can hold.
func seconds(s float64) time.Duration {
	const most = 1 << 62
	if s >= float64(most)/float64(time.Second) {
		return most
	}
	return time.Duration(s * float64(time.Second))
}

// call runs the handler; a panic becomes an error.
func (w *Worker) call(ctx context.Context, t *Task) (result Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			f := &Failure{Type: "panic", Message: fmt.Sprint(p), Stack: string(debug.Stack())}
			if e, ok := p.(error); ok {
				f.Err = e
			}
			err = f
		}
	}()
	leave, err := t.Limit(ctx, TaskLimit)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	return w.handler(ctx, t)
}

// reportContext bounds the report of a task: without a bound while the worker
// works, for reportTime once it was told to cut its tasks short.
func reportContext(tasks context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(tasks))
	unlink := context.AfterFunc(tasks, func() {
		timer := time.NewTimer(reportTime)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { unlink(); cancel() }
}

// ending is how an attempt ends.
type ending struct {
	status   queue.AttemptStatus
	metadata []byte // an open object: "{" and members
	err      error  // nil when it succeeded
}

// outcome judges what the handler returned and hands its spans to the sender.
// Cause is why its context ended, nil if it did not.
func (t *Task) outcome(ctx context.Context, result Result, err, cause error) ending {
	e := ending{status: queue.AttemptSucceeded, metadata: []byte{'{'}}
	if err == nil {
		for _, s := range result.Spans {
			t.scope.Send(ctx, s)
		}
		if len(result.Rewards) > 0 {
			err = t.reward(ctx, result.Rewards)
		}
	}
	if err == nil {
		return e
	}
	e.status = queue.AttemptFailed
	f := failureOf(err)
	e.err = err
	text := err.Error()
	switch cause {
	case ErrTimeout:
		// As the store's own watchdog would call it, for its retry rules.
		e.status = queue.AttemptTimeout
		text = ErrTimeout.Error()
	case ErrDrained, ErrStopped, ErrStoreGone:
		text = cause.Error()
	}
	e.metadata = addMember(e.metadata, "error", rawjson.AppendString(nil, clip(text, maxErrorText)))
	for key, val := range f.Metadata.Members() {
		e.metadata = addMember(e.metadata, rawjson.Unescape(key), val)
	}
	span, err := emit.ExceptionSpan(f.told(text))
	t.sendBuilt(ctx, span, err)
	return e
}

// maxErrorText bounds an error text in an attempt's metadata, in bytes; the
// exception span has it whole.
const maxErrorText = 16 << 10

func addMember(dst []byte, key string, val rawjson.Value) []byte {
	if len(dst) > 1 {
		dst = append(dst, ',')
	}
	dst = rawjson.AppendString(dst, key)
	dst = append(dst, ':')
	return append(dst, val...)
}

// conclude stores what is left of the task's spans, tells the hooks, and then
// finishes its attempt. It returns what the observer is told of the end.
func (w *Worker) conclude(ctx context.Context, t *Task, e ending, began time.Time) string {
	if missing := t.scope.Flush(ctx); missing > 0 {
		e.metadata = addMember(e.metadata, "spans_dropped", rawjson.AppendInt(nil, int64(missing)))
		w.log.Error("spans could not be stored", t.attrs("spans", missing)...)
	}
	t.hookEnd(ctx, End{Status: e.status, Err: e.err, Took: time.Since(began)})
	u := queue.AttemptUpdate{Status: queue.Set(e.status)}
	if len(e.metadata) > 1 {
		u.Metadata = queue.Set(rawjson.Value(append(e.metadata, '}')))
	}
	pause := firstPoll
	for {
		_, err := w.store.UpdateAttempt(ctx, t.ref.RolloutID, t.ref.AttemptID, u)
		w.heard(err)
		if err == nil {
			w.log.Info("task ends", withError(t.attrs("status", string(e.status), "took", time.Since(began)), e.err)...)
			return string(e.status)
		}
		w.opts.Observer.StoreFailed(CallReport)
		switch {
		case queue.Hopeless(err):
			w.log.Error("the end of a task was refused", t.attrs("status", string(e.status), "error", err)...)
			return Unreported
		case ctx.Err() != nil || w.storeGone():
			w.log.Error("the end of a task could not be reported", t.attrs("status", string(e.status), "error", err)...)
			return Unreported
		}
		w.log.Warn("the end of a task could not be reported yet", t.attrs("error", err, "again_in", pause)...)
		_ = sleep.For(ctx, w.jittered(pause))
		pause = min(2*pause, w.opts.PollInterval)
	}
}

// abandon lets go of a lost task. Spans would take up a rollout that is in the
// queue again, so they are sent only where it has ended.
func (w *Worker) abandon(t *Task, status queue.RolloutStatus) {
	if status.Finished() {
		return // the sender goes on with what it has
	}
	if n := t.scope.Drop(); n > 0 {
		w.log.Warn("spans of a task that is no longer held are dropped", t.attrs("spans", n)...)
		w.opts.Observer.SpansDropped(n, NotHeld)
	}
}
