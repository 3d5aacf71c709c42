package worker_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/limit"
)

func ExampleNew() {
	store := client.New("http://localhost:4747", client.Options{})
	defer store.Close()
	agent := func(ctx context.Context, t *worker.Task) (worker.Result, error) {
		var task struct{ Question, Answer string }
		if err := t.DecodeInput(&task); err != nil {
			return worker.Result{}, err
		}
		if len(task.Question) > 0 {
			return worker.Reward(1), nil
		}
		return worker.Reward(0), nil
	}
	w := worker.New(store, agent, worker.Options{Concurrency: 8})
	first, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(first, w.Drain)
	if err := w.Run(context.Background()); err != nil {
		log.Print(err)
	}
}

func ExampleExec() {
	store := client.New("http://localhost:4747", client.Options{})
	defer store.Close()
	agent := worker.Exec(worker.ExecOptions{Command: []string{"python3", "agent.py"}})
	w := worker.New(store, agent, worker.Options{StoreURL: store.URL()})
	if err := w.Run(context.Background()); err != nil {
		log.Print(err)
	}
}

func ExamplePool() {
	store := client.New("http://localhost:4747", client.Options{})
	defer store.Close()
	pool := worker.NewPool(worker.PoolOptions{
		ExecOptions: worker.ExecOptions{Command: []string{"python3", "agent.py"}}, MaxTasks: 1000,
	})
	w := worker.New(store, pool.Handle, worker.Options{StoreURL: store.URL(), Concurrency: 8})
	if err := w.Run(context.Background()); err != nil {
		log.Print(err)
	}
	pool.Close(context.Background())
}

func ExampleHTTP() {
	store := client.New("http://localhost:4747", client.Options{})
	defer store.Close()
	agent := worker.HTTP(worker.HTTPOptions{URL: "http://agent:8000/rollout"})
	w := worker.New(store, agent, worker.Options{StoreURL: store.URL(), Concurrency: 64})
	if err := w.Run(context.Background()); err != nil {
		log.Print(err)
	}
}

// A hook sees the life of a task; Step runs one past the queue.
func ExampleHooks() {
	quiet := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	agent := func(ctx context.Context, t *worker.Task) (worker.Result, error) {
		return worker.Reward(0.5), t.Message(ctx, "thinking")
	}
	told := worker.Hooks{
		OnRolloutStart: func(_ context.Context, t *worker.Task) error {
			fmt.Println("starts", t.Input)
			return nil
		},
		OnRolloutEnd: func(ctx context.Context, t *worker.Task, end worker.End) error {
			spans, err := t.Spans(ctx)
			fmt.Println("ends", end.Status, "with", len(spans), "spans")
			return err
		},
	}
	w := worker.New(s, agent, worker.Options{Hooks: []worker.Hooks{told}, Logger: quiet})
	r, err := w.Step(context.Background(), queue.Request{Input: []byte(`"a task"`)})
	fmt.Println(r.Status, err, s.Close(context.Background()))
	// Output:
	// starts "a task"
	// ends succeeded with 2 spans
	// succeeded <nil> <nil>
}

// Tasks share what a model takes at a time and in a minute.
func ExampleTask_Limit() {
	limits, err := limit.Parse([]string{"llm=64", "llm=1000/m"})
	if err != nil {
		log.Fatal(err)
	}
	agent := func(ctx context.Context, t *worker.Task) (worker.Result, error) {
		leave, err := t.Limit(ctx, "llm")
		if err != nil {
			return worker.Result{}, err
		}
		defer leave()
		// … the call …
		return worker.Reward(1), nil
	}
	store := client.New("http://localhost:4747", client.Options{})
	defer store.Close()
	w := worker.New(store, agent, worker.Options{Concurrency: 256, Limits: limits})
	if err := w.Run(context.Background()); err != nil {
		log.Print(err)
	}
}
