package dataset_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// answered makes a store with rollouts whose agent was asked something, answered, and
// got a reward.
func answered(ctx context.Context, rewards ...float64) *store.Store {
	s := store.New(memory.New(memory.Options{}), store.Options{})
	for i, reward := range rewards {
		r, _ := s.Start(ctx, queue.Request{Mode: queue.ModeTrain}, nil)
		for _, span := range []queue.Span{
			called("call", fmt.Sprintf(`[{"role":"user","content":"Question %d"}]`, i), fmt.Sprintf(`{"role":"assistant","content":"Answer %d"}`, i), ""),
			rewarded("reward", reward),
		} {
			span.RolloutID, span.AttemptID, span.TraceID, span.SequenceID = r.RolloutID, r.Attempt.AttemptID, "t", queue.NumberOnArrival
			span.FillIn()
			_, _ = s.AddSpan(ctx, span)
		}
		_, _ = s.UpdateAttempt(ctx, r.RolloutID, "latest", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)})
	}
	return s
}

// Rows of the better half of what was answered.
func ExampleExport() {
	ctx := context.Background()
	s := answered(ctx, 0.1, 0.9, 0.8, 0.2)
	defer s.Close(ctx)

	counts, err := dataset.Export(ctx, dataset.StoreSource{Store: s}, dataset.Options{
		Format: dataset.Conversational,
		Filter: dataset.Filter{TopFraction: 0.5},
	}, func(r dataset.Row) error {
		fmt.Printf("%s\n", r.AppendJSON(nil))
		return nil
	})
	fmt.Println(&counts, err)
	// Output:
	// {"messages":[{"role":"user","content":"Question 1"},{"role":"assistant","content":"Answer 1"}]}
	// {"messages":[{"role":"user","content":"Question 2"},{"role":"assistant","content":"Answer 2"}]}
	// 2 rows of 2 attempts; read 4 rollouts and 8 spans; attempts left out: top_fraction 2 <nil>
}

// A dataset in files of a row each.
func ExampleWriteFiles() {
	ctx := context.Background()
	s := answered(ctx, 1, 0, 1)
	defer s.Close(ctx)
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)

	least := 0.5
	m, err := dataset.WriteFiles(ctx, dataset.StoreSource{Store: s}, dataset.Options{
		Format: dataset.PromptCompletionFormat,
		Filter: dataset.Filter{MinReward: &least},
	}, dataset.Output{Path: filepath.Join(dir, "good.jsonl.gz"), Shard: 1})
	for _, f := range m.Files {
		fmt.Println(f.Name, f.Rows)
	}
	fmt.Println(m.Complete, m.Counts.Dropped, err)
	// Output:
	// good-00000.jsonl.gz 1
	// good-00001.jsonl.gz 1
	// true map[reward:1] <nil>
}

// What one thinks of an attempt selects it later.
func ExampleJudge() {
	ctx := context.Background()
	s := answered(ctx, 1, 1)
	defer s.Close(ctx)

	page, _ := s.Rollouts(ctx, queue.RolloutQuery{Paging: queue.All})
	err := dataset.Judge(ctx, s, page.Items[1].RolloutID, "", dataset.Judgment{Text: "acceptable", Note: "short and right"})
	fmt.Println(err)

	var counts dataset.Counts
	for c, err := range dataset.Select(ctx, dataset.StoreSource{Store: s}, dataset.Filter{Judgment: "acceptable"}, &counts) {
		conversations, _ := dataset.Conversations(c.Spans)
		fmt.Println(conversations[0].Messages[1].Content, c.Judgment.Note, err)
	}
	// Output:
	// <nil>
	// Answer 1 short and right <nil>
}

// A measure in Go; ExecMeasure makes one of a command.
func ExampleMeasures() {
	ctx := context.Background()
	s := answered(ctx, 1, 0)
	defer s.Close(ctx)

	m := dataset.Measures{
		Source: dataset.StoreSource{Store: s}, Store: s, Name: "rewarded",
		Ask: func(_ context.Context, question []byte) (dataset.Verdict, error) {
			var q struct{ Reward float64 }
			err := json.Unmarshal(question, &q)
			return dataset.Verdict{Passed: q.Reward > 0.5, Score: &q.Reward}, err
		},
	}
	for range 2 {
		counts, err := m.Run(ctx)
		fmt.Printf("%+v %v\n", counts, err)
	}
	// Output:
	// {Passed:1 Failed:1 Errors:0 Known:0} <nil>
	// {Passed:0 Failed:0 Errors:0 Known:2} <nil>
}

// The items of OpenAI's Responses API, as agents' frameworks keep them.
func ExampleNewHistory() {
	messages, skipped := dataset.NewHistory(rawjson.Value(`[` +
		`{"role":"user","content":[{"type":"input_text","text":"Rain in Oslo?"}]},` +
		`{"type":"reasoning","summary":[]},` +
		`{"type":"function_call","name":"weather","arguments":{"city":"Oslo"}},` +
		`{"type":"function_call_output","output":["rain"]},` +
		`{"role":"assistant","content":"Yes."}]`))
	for _, m := range messages {
		fmt.Printf("%s\n", m.AppendJSON(nil))
	}
	fmt.Println(skipped)
	// Output:
	// {"role":"user","content":"Rain in Oslo?"}
	// {"role":"assistant","content":"","tool_calls":[{"id":"call_2","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]}
	// {"role":"tool","content":"[\"rain\"]","tool_call_id":"call_2"}
	// {"role":"assistant","content":"Yes."}
	// 1
}
