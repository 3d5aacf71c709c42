package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerProcess) != "" {
		os.Exit(runWorkerProcess())
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

func options(o worker.Options) worker.Options {
	o.Logger = quiet
	return o
}

// enqueue queues one rollout for each input.
func enqueue(t *testing.T, s queue.Store, config *queue.Config, inputs ...string) []string {
	t.Helper()
	var reqs []queue.Request
	for _, in := range inputs {
		reqs = append(reqs, queue.Request{Input: rawjson.Value(in), Config: config})
	}
	rollouts, err := s.Enqueue(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range rollouts {
		ids = append(ids, r.RolloutID)
	}
	return ids
}

// start runs a worker until the test ends; stop drains it and gives what Run
// returned.
func start(t *testing.T, s queue.Store, h worker.Handler, o worker.Options) (w *worker.Worker, stop func() error) {
	t.Helper()
	w = worker.New(s, h, options(o))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	var result error
	done := false
	stop = func() error {
		if !done {
			w.Drain()
			result, done = <-ended, true
		}
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return w, stop
}

// finished waits until a rollout has ended and gives it with its latest attempt.
func finished(t *testing.T, s queue.Store, id string) queue.AttemptedRollout {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done, err := s.Wait(ctx, []string{id}, -1)
	if err != nil || len(done) != 1 {
		t.Fatalf("waiting for %s: %v, %v", id, done, err)
	}
	r, err := s.Rollout(t.Context(), id)
	if err != nil || r == nil || r.Attempt == nil {
		t.Fatalf("rollout %s: %v, %v", id, r, err)
	}
	return *r
}

func spansOf(t *testing.T, s queue.Store, id string) []queue.Span {
	t.Helper()
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: id, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		t.Fatal(err)
	}
	return page.Items
}

func attribute(t *testing.T, spans []queue.Span, name, key string) string {
	t.Helper()
	for i := range spans {
		if spans[i].Name == name {
			if v := spans[i].Attribute(key); v != nil {
				return v.String()
			}
		}
	}
	t.Fatalf("no span %s with attribute %s among %d spans", name, key, len(spans))
	return ""
}

// until polls a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func TestResults(t *testing.T) {
	boom := errors.New("boom")
	cases := map[string]struct {
		handler worker.Handler
		status  queue.RolloutStatus
		span    string
		key     string
		value   string
		meta    string
	}{
		"nothing": {
			handler: func(context.Context, *worker.Task) (worker.Result, error) { return worker.Result{}, nil },
			status:  queue.RolloutSucceeded,
		},
		"reward": {
			handler: func(context.Context, *worker.Task) (worker.Result, error) { return worker.Reward(0.5), nil },
			status:  queue.RolloutSucceeded,
			span:    "agentlightning.annotation", key: "agentlightning.reward.0.value", value: "0.5",
		},
		"rewards": {
			handler: func(context.Context, *worker.Task) (worker.Result, error) {
				return worker.Rewards("quality", map[string]float64{"speed": 1, "quality": 2, "cost": 3}), nil
			},
			status: queue.RolloutSucceeded,
			span:   "agentlightning.annotation", key: "agentlightning.reward.1.name", value: `"cost"`,
		},
		"primary missing": {
			handler: func(context.Context, *worker.Task) (worker.Result, error) {
				return worker.Rewards("quality", map[string]float64{"speed": 1}), nil
			},
			status: queue.RolloutFailed,
			span:   "agentlightning.exception", key: "exception.escaped", value: "true",
			meta: "primary dimension",
		},
		"error": {
			handler: func(context.Context, *worker.Task) (worker.Result, error) {
				return worker.Result{}, fmt.Errorf("no luck: %w", boom)
			},
			status: queue.RolloutFailed,
			span:   "agentlightning.exception", key: "exception.message", value: `"no luck: boom"`,
			meta: `"error":"no luck: boom"`,
		},
		"panic": {
			handler: func(context.Context, *worker.Task) (worker.Result, error) { panic("aargh") },
			status:  queue.RolloutFailed,
			span:    "agentlightning.exception", key: "exception.type", value: `"panic"`,
			meta: `"error":"aargh"`,
		},
		"no resources": {
			handler: func(_ context.Context, task *worker.Task) (worker.Result, error) {
				_, err := task.LLM()
				return worker.Result{}, err
			},
			status: queue.RolloutFailed,
			meta:   "the store has no resources",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			id := enqueue(t, s, nil, `{"x":1}`)[0]
			start(t, s, c.handler, worker.Options{})
			r := finished(t, s, id)
			if r.Status != c.status {
				t.Errorf("status %s, want %s (%s)", r.Status, c.status, r.Attempt.Metadata)
			}
			if !strings.Contains(r.Attempt.Metadata.String(), c.meta) {
				t.Errorf("metadata %s lacks %s", r.Attempt.Metadata, c.meta)
			}
			if c.span != "" {
				if got := attribute(t, spansOf(t, s, id), c.span, c.key); got != c.value {
					t.Errorf("%s is %s, want %s", c.key, got, c.value)
				}
			}
		})
	}
}

// Every span is stored when the attempt ends, and a worker with several slots
// uses them all.
func TestConcurrentTasksStoreTheirSpansFirst(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const tasks, each, slots = 40, 30, 8
	var inputs []string
	for i := range tasks {
		inputs = append(inputs, fmt.Sprint(i))
	}
	ids := enqueue(t, s, nil, inputs...)
	var now, most atomic.Int64
	full := make(chan struct{})
	_, stop := start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		if n := now.Add(1); n > most.Load() {
			if most.Store(n); n == slots {
				close(full)
			}
		}
		defer now.Add(-1)
		<-full // nobody goes on before all slots are taken
		for range each {
			if err := task.Message(ctx, "hello"); err != nil {
				return worker.Result{}, err
			}
		}
		return worker.Reward(1), nil
	}, worker.Options{Concurrency: slots, MaxRollouts: tasks})
	for _, id := range ids {
		finished(t, s, id)
		if n := len(spansOf(t, s, id)); n != each+1 {
			t.Errorf("%s has %d spans when it ends, want %d", id, n, each+1)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if most.Load() != slots {
		t.Errorf("%d tasks at a time, want %d", most.Load(), slots)
	}
}

func TestCancelledRolloutEndsItsTask(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	started, cause := make(chan struct{}), make(chan error, 1)
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return worker.Reward(1), nil
	}, worker.Options{HeartbeatInterval: 20 * time.Millisecond})
	<-started
	if _, err := s.UpdateRollout(t.Context(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
		t.Fatal(err)
	}
	if err := <-cause; !errors.Is(err, worker.ErrNotHeld) {
		t.Errorf("the task's context ended with %v", err)
	}
	r := finished(t, s, id)
	if r.Status != queue.RolloutCancelled || r.Attempt.Status.Terminal() {
		t.Errorf("rollout %s, attempt %s: nothing should be reported", r.Status, r.Attempt.Status)
	}
}

// Heartbeats keep a silent attempt alive beyond its unresponsive_seconds.
func TestHeartbeatRenewsSilentTask(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	limit := 0.5
	config := queue.DefaultConfig()
	config.UnresponsiveSeconds = &limit
	id := enqueue(t, s, &config, `1`)[0]
	release := make(chan struct{})
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		select {
		case <-release:
			return worker.Reward(1), nil
		case <-ctx.Done():
			return worker.Result{}, context.Cause(ctx)
		}
	}, worker.Options{})
	var first, last float64
	until(t, "heartbeats over twice the limit", func() bool {
		a, err := s.LatestAttempt(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if a != nil && a.LastHeartbeatTime != nil {
			if first == 0 {
				first = *a.LastHeartbeatTime
			}
			last = *a.LastHeartbeatTime
		}
		return last-first > 2*limit
	})
	close(release)
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded {
		t.Errorf("rollout %s, attempt %s", r.Status, r.Attempt.Status)
	}
}

func TestTaskTimeout(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		<-ctx.Done()
		return worker.Result{}, ctx.Err()
	}, worker.Options{TaskTimeout: 30 * time.Millisecond})
	r := finished(t, s, id)
	if r.Attempt.Status != queue.AttemptTimeout || !strings.Contains(r.Attempt.Metadata.String(), "timed out") {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ids := enqueue(t, s, nil, `1`, `2`)
	started, release := make(chan struct{}), make(chan struct{})
	w, stop := start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		started <- struct{}{}
		<-release
		return worker.Result{}, nil
	}, worker.Options{DrainTimeout: -1})
	<-started
	w.Drain()
	close(release)
	if err := stop(); err != nil {
		t.Errorf("Run after Drain: %v", err)
	}
	if r := finished(t, s, ids[0]); r.Status != queue.RolloutSucceeded {
		t.Errorf("the running task ended as %s", r.Status)
	}
	if r, _ := s.Rollout(t.Context(), ids[1]); r.Status != queue.RolloutQueuing {
		t.Errorf("a drained worker claimed more: %s", r.Status)
	}
}

func TestDrainTimeoutFailsWhatRuns(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	started := make(chan struct{})
	w, stop := start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		close(started)
		<-ctx.Done()
		return worker.Result{}, ctx.Err()
	}, worker.Options{DrainTimeout: 20 * time.Millisecond})
	<-started
	w.Drain()
	if err := stop(); err != nil {
		t.Errorf("Run after Drain: %v", err)
	}
	r := finished(t, s, id)
	if r.Attempt.Status != queue.AttemptFailed || r.Attempt.Metadata.Get("error").Text() != "worker drained" {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
}

// The end of the context ends everything at once, and is still reported.
func TestStop(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	ctx, cancel := context.WithCancel(t.Context())
	w := worker.New(s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		cancel()
		<-ctx.Done()
		return worker.Result{}, ctx.Err()
	}, options(worker.Options{}))
	if err := w.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	r := finished(t, s, id)
	if r.Attempt.Metadata.Get("error").Text() != "worker stopped" {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
}

func TestExitWhenIdle(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	w := worker.New(s, nil, options(worker.Options{ExitWhenIdle: 50 * time.Millisecond}))
	if err := w.Run(t.Context()); err != nil {
		t.Errorf("Run: %v", err)
	}
	if seen, err := s.Worker(t.Context(), w.ID()); err != nil || seen == nil {
		t.Fatalf("worker %v, %v", seen, err)
	} else if seen.HeartbeatStats.Get("mem_total_gb") == nil || seen.HeartbeatStats.Get("inflight") == nil {
		t.Errorf("heartbeat says %s", seen.HeartbeatStats)
	} else if !seen.Stopped() {
		t.Errorf("the last heartbeat does not say that the worker ends: %s", seen.HeartbeatStats)
	}
}

// flaky is a store that fails on command.
type flaky struct {
	queue.Store
	addSpans, update func() error
}

func (f *flaky) AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	if f.addSpans != nil {
		if err := f.addSpans(); err != nil {
			return queue.SpansAdded{}, err
		}
	}
	return f.Store.AddSpans(ctx, spans)
}

func (f *flaky) UpdateAttempt(ctx context.Context, r, a string, u queue.AttemptUpdate) (queue.Attempt, error) {
	if f.update != nil {
		if err := f.update(); err != nil {
			return queue.Attempt{}, err
		}
	}
	return f.Store.UpdateAttempt(ctx, r, a, u)
}

func failTimes(n int64, kind queue.Kind) func() error {
	var calls atomic.Int64
	return func() error {
		if calls.Add(1) <= n {
			return queue.Errorf(kind, "down on purpose")
		}
		return nil
	}
}

func TestReportIsRepeatedUntilTheStoreIsBack(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	f := &flaky{Store: s, addSpans: failTimes(3, queue.Unavailable), update: failTimes(3, queue.Unavailable)}
	id := enqueue(t, s, nil, `1`)[0]
	start(t, f, func(context.Context, *worker.Task) (worker.Result, error) { return worker.Reward(1), nil },
		worker.Options{})
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded || !r.Attempt.Metadata.IsNull() {
		t.Errorf("rollout %s, metadata %s", r.Status, r.Attempt.Metadata)
	}
	if n := len(spansOf(t, s, id)); n != 1 {
		t.Errorf("%d spans, want 1", n)
	}
}

func TestRefusedSpansAreCounted(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	f := &flaky{Store: s, addSpans: failTimes(1000, queue.TooLarge)}
	id := enqueue(t, s, nil, `1`)[0]
	start(t, f, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		for range 5 {
			_ = task.Message(ctx, "too large for anybody")
		}
		return worker.Result{}, nil
	}, worker.Options{})
	if r := finished(t, s, id); r.Attempt.Metadata.Get("spans_dropped").String() != "5" {
		t.Errorf("metadata %s", r.Attempt.Metadata)
	}
}

// silent is a store that is never there.
type silent struct{ queue.Store }

func (silent) Claim(context.Context, queue.Claim) ([]queue.AttemptedRollout, error) {
	return nil, queue.Errorf(queue.Unavailable, "nobody home")
}

func (silent) Heartbeat(context.Context, queue.Heartbeat) (queue.HeartbeatAnswer, error) {
	return queue.HeartbeatAnswer{}, queue.Errorf(queue.Unavailable, "nobody home")
}

func TestExitWhenStoreGone(t *testing.T) {
	t.Parallel()
	w := worker.New(silent{}, nil, options(worker.Options{ExitWhenStoreGone: 30 * time.Millisecond}))
	if err := w.Run(t.Context()); !errors.Is(err, worker.ErrStoreGone) {
		t.Errorf("Run: %v", err)
	}
}

func TestWorkerIDsAreUnique(t *testing.T) {
	s := newStore(t)
	if a, b := worker.New(s, nil, worker.Options{}), worker.New(s, nil, worker.Options{}); a.ID() == b.ID() {
		t.Errorf("both are %s", a.ID())
	}
}

// A repeated attempt is told why the one before it failed, and hands its task on
// with another input.
func TestPreviousErrorAndAnotherInput(t *testing.T) {
	s := newStore(t)
	config := queue.DefaultConfig()
	config.MaxAttempts, config.RetryCondition = 3, []queue.AttemptStatus{queue.AttemptFailed}
	id := enqueue(t, s, &config, `"first"`)[0]
	inner := func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		return worker.Reward(float64(len(task.Input))), task.Message(ctx, task.Input.Text())
	}
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		before, err := task.PreviousError()
		if err != nil || task.Attempt.SequenceID < 3 {
			return worker.Result{}, errors.Join(err, fmt.Errorf("failure %d after %q", task.Attempt.SequenceID, before))
		}
		return inner(ctx, task.With(rawjson.AppendString(nil, before)))
	}, worker.Options{})
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded {
		t.Fatalf("status %s: %s", r.Status, r.Attempt.Metadata)
	}
	if got := attribute(t, spansOf(t, s, id), "agentlightning.message", "agentlightning.message.body"); got != `"failure 2 after \"failure 1 after \\\"\\\"\""` {
		t.Errorf("message %s", got)
	}
}
