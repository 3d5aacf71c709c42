package climb_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/collections/memory"
	climb "github.com/aglq/aglq/examples/algorithm"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
)

// The agent, a Go function here, prefers three.
func agent(_ context.Context, t *worker.Task) (worker.Result, error) {
	var x float64
	if err := t.DecodeInput(&x); err != nil {
		return worker.Result{}, err
	}
	return worker.Reward(-(x - 3) * (x - 3)), nil
}

func ExampleClimb() {
	ctx := context.Background()
	s := store.New(memory.New(memory.Options{}), store.Options{})
	defer s.Close(ctx)
	w := worker.New(s, agent, worker.Options{Concurrency: 3, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()

	best, _, err := climb.Climb(ctx, algorithm.New(s, algorithm.Options{}))
	fmt.Printf("%.1f is best, %v\n", best, err)

	w.Drain()
	fmt.Println(<-ended)
	// Output:
	// 3.0 is best, <nil>
	// <nil>
}
