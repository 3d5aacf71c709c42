package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/aglq/aglq/queue"
)

// Hooks are told of the life of each task, in this order:
//
//	claimed
//	  OnRolloutStart
//	  OnTraceStart
//	    the handler
//	  OnTraceEnd                 also when the handler has failed
//	  its result becomes spans, and all spans are stored
//	  OnRolloutEnd               also when the attempt is no longer the worker's
//	the attempt is finished
//
// The contexts carry the task, so that packages emit and trace file what a hook
// tells under its attempt, up to OnTraceEnd: a reward sent there counts, unless the
// handler returns one, which comes later. OnRolloutEnd finds every span in the
// store; who waits for the rollout does not see it finished before.
//
// Of several Hooks each moment is told to all, in the order of Options.Hooks. An
// error, or a panic, of one is logged, and changes nothing for the task or the
// others. They take part in the time of their task, and tasks that run at a time
// call them at a time. Nil fields are left out.
type Hooks struct {
	OnRolloutStart TaskHook
	OnTraceStart   TaskHook
	OnTraceEnd     TaskHook
	OnRolloutEnd   func(ctx context.Context, t *Task, end End) error
}

// TaskHook is told of a moment in the life of a task.
type TaskHook func(ctx context.Context, t *Task) error

// End is how a task ended.
type End struct {
	// Status is what the attempt is about to be finished with; "" when it is no
	// longer the worker's.
	Status queue.AttemptStatus
	// Err is what failed it, ErrNotHeld when it is no longer the worker's, nil
	// after a success.
	Err error
	// Took is the time since the task was begun.
	Took time.Duration
}

// hook tells all hooks of a moment.
func (t *Task) hook(ctx context.Context, name string, of func(*Hooks) TaskHook) {
	for i := range t.worker.opts.Hooks {
		if h := of(&t.worker.opts.Hooks[i]); h != nil {
			t.callHook(name, func() error { return h(ctx, t) })
		}
	}
}

// hookEnd tells all hooks of the end.
func (t *Task) hookEnd(ctx context.Context, end End) {
	for i := range t.worker.opts.Hooks {
		if h := t.worker.opts.Hooks[i].OnRolloutEnd; h != nil {
			t.callHook("OnRolloutEnd", func() error { return h(ctx, t, end) })
		}
	}
}

func (t *Task) callHook(name string, call func() error) {
	defer func() {
		if p := recover(); p != nil {
			t.worker.log.Error("a hook has panicked", t.attrs("hook", name, "error", fmt.Sprint(p), "stack", string(debug.Stack()))...)
		}
	}()
	if err := call(); err != nil {
		t.worker.log.Warn("a hook has failed", t.attrs("hook", name, "error", err)...)
	}
}
