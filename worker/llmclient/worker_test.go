package llmclient_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/trace"
)

// Many tasks at a time, with a model from the resources, OpenTelemetry's spans, and
// rewards that are linked to calls, come out as triplets.
func TestFromAWorkerToTriplets(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	defer s.Close(context.Background())
	llm := fmt.Sprintf(`{"main":{"resource_type":"llm","endpoint":%q,"model":"m","api_key":"x","sampling_parameters":{"return_token_ids":true}}}`, upstream(t))
	if _, err := s.AddResources(t.Context(), rawjson.Value(llm)); err != nil {
		t.Fatal(err)
	}
	const tasks = 40
	var reqs []queue.Request
	for i := range tasks {
		reqs = append(reqs, queue.Request{Input: rawjson.AppendInt(nil, int64(i))})
	}
	if _, err := s.Enqueue(t.Context(), reqs); err != nil {
		t.Fatal(err)
	}
	tracer := trace.NewProvider(nil).Tracer("agent")
	agent := func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		number, _ := task.Input.Int()
		llm, err := task.LLM()
		if err != nil {
			return worker.Result{}, err
		}
		ctx, span := tracer.Start(ctx, "agent", oteltrace.WithAttributes(attribute.String("agent.name", "adder")))
		defer span.End()
		ask := func(text string) (*llmclient.Response, error) {
			return llmclient.ForLLM(llm).Chat(ctx, llmclient.Request{Messages: user(text)})
		}
		first, err := ask(fmt.Sprintf("task %d, first", number))
		if err != nil {
			return worker.Result{}, err
		}
		if _, err := ask(fmt.Sprintf("task %d, second", number)); err != nil {
			return worker.Result{}, err
		}
		return worker.Result{}, emit.Reward(ctx, float64(number), emit.Links{semconv.GenAIResponseID: first.ID})
	}
	if err := worker.New(s, agent, worker.Options{Concurrency: 8, MaxRollouts: tasks, Logger: quiet}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	src := adapter.Source{Store: s}
	seen := 0
	for got, err := range adapter.Stream[adapter.Triplet](adapter.TracerTriplets{FollowLinks: true}, src.Traces(t.Context(), src.Rollouts(t.Context(), queue.RolloutQuery{}))) {
		if err != nil {
			t.Fatal(err)
		}
		number, _ := got.Rollout.Input.Int()
		seen++
		if len(got.Items) != 2 || got.Rollout.Status != queue.RolloutSucceeded {
			t.Fatalf("task %d is %s, with %d triplets", number, got.Rollout.Status, len(got.Items))
		}
		for i, item := range got.Items {
			want := fmt.Sprintf("task %d, %s", number, []string{"first", "second"}[i])
			var content string
			for m := range item.Prompt.RawContent.Elements() {
				content = m.Get("content").Text()
			}
			if content != want || len(item.Prompt.TokenIDs) != 4 || *item.Metadata.AgentName != "adder" {
				t.Errorf("task %d: triplet %d has the prompt %q", number, i, content)
			}
		}
		if r := got.Items[0].Reward; r == nil || *r != float64(number) || got.Items[1].Reward != nil {
			t.Errorf("task %d: the reward is not where its link points", number)
		}
	}
	if seen != tasks {
		t.Errorf("%d rollouts", seen)
	}
}
