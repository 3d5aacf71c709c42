package react_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// An agent whose tool is a function. The model is a scripted one.
func Example() {
	model := httptest.NewServer(fakellm.New(sequence(calls("1", "add", `{"a":19,"b":23}`), says("It is 42."))))
	defer model.Close()
	ctx := context.Background()

	add, err := react.Func("add", "adds two numbers", func(_ context.Context, in struct {
		A int `json:"a" jsonschema:"the first number"`
		B int `json:"b"`
	}) (string, error) {
		return fmt.Sprint(in.A + in.B), nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	agent, err := react.New(ctx, react.Options{
		System: "Use the tools to calculate.",
		Tools:  []react.Tool{add},
		LLM: func(*worker.Task) (*llmclient.Client, error) {
			return &llmclient.Client{BaseURL: model.URL + "/v1", Model: "m"}, nil
		},
		Grade: func(ctx context.Context, t *worker.Task, c *react.Conversation) (worker.Result, error) {
			for _, m := range c.Messages() {
				fmt.Printf("%s: %q\n", m.Role, m.Content)
			}
			return react.ToolSuccess(ctx, t, c)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer agent.Close()

	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	defer s.Close(ctx)
	if _, err := s.Enqueue(ctx, []queue.Request{{Input: rawjson.Value(`"What is 19 and 23?"`)}}); err != nil {
		fmt.Println(err)
		return
	}
	if err := worker.New(s, agent.Handle, worker.Options{MaxRollouts: 1, Logger: quiet}).Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// system: "Use the tools to calculate."
	// user: "What is 19 and 23?"
	// assistant: ""
	// tool: "42"
	// assistant: "It is 42."
}
