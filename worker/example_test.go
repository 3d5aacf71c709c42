package worker_test

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/worker"
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
