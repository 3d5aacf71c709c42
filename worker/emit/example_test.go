package emit_test

import (
	"context"
	"strings"

	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/llmclient"
)

// A handler that asks a model and grades its answer.
func Example() {
	agent := func(ctx context.Context, t *worker.Task) (worker.Result, error) {
		var task struct{ Question, Answer string }
		if err := t.DecodeInput(&task); err != nil {
			return worker.Result{}, err
		}
		llm, err := t.LLM()
		if err != nil {
			return worker.Result{}, err
		}
		answer, err := llmclient.ForLLM(llm).Chat(ctx, llmclient.Request{
			Messages: []llmclient.Message{{Role: "user", Content: task.Question}},
		})
		if err != nil {
			return worker.Result{}, err
		}
		err = emit.Operation(ctx, "grade", func(ctx context.Context, op *emit.Op) error {
			correct, brief := 0.0, 1/float64(1+len(answer.Text()))
			if strings.Contains(answer.Text(), task.Answer) {
				correct = 1
			}
			if err := op.Input(map[string]string{"answer": answer.Text()}); err != nil {
				return err
			}
			return emit.Rewards(ctx, "correct", map[string]float64{"correct": correct, "brief": brief},
				emit.Links{semconv.GenAIResponseID: answer.ID})
		})
		return worker.Result{}, err
	}
	_ = agent // worker.New(store, agent, worker.Options{Concurrency: 8}).Run(ctx)
}
