package trace_test

import (
	"context"
	"log"
	"os"
	"sync"

	"go.opentelemetry.io/otel"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/trace"
)

// Libraries that are instrumented with OpenTelemetry report to the tasks that call
// them, however many run at a time.
func ExampleNewProvider() {
	otel.SetTracerProvider(trace.NewProvider(nil))

	agent := func(ctx context.Context) error { // the context of a worker's task
		ctx, span := otel.Tracer("agent").Start(ctx, "plan")
		defer span.End()
		return emit.Message(ctx, "this is below plan")
	}
	_ = agent
}

// A program that a worker starts sends the spans of its one task itself.
func ExampleSender() {
	store := client.New(os.Getenv("AGL_STORE_URL"), client.Options{})
	defer store.Close()
	sender := trace.NewSender(store, trace.Options{})
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { sender.Run(background) })
	defer running.Wait()
	defer stop()

	task := sender.Scope(queue.AttemptRef{RolloutID: os.Getenv("AGL_ROLLOUT_ID"), AttemptID: os.Getenv("AGL_ATTEMPT_ID")})
	ctx := trace.WithScope(context.Background(), task)
	if err := emit.Reward(ctx, 1); err != nil {
		log.Print(err)
	}
	if missing := task.Flush(ctx); missing > 0 {
		log.Printf("%d spans are not stored", missing)
	}
}
