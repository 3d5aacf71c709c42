package react

import (
	"context"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/llmclient"
)

// The names of the agent's operations, besides those of tools.
const (
	opAgent        = "react"
	opStep         = "react.step"
	opAnswer       = "react.answer"
	opScenario     = "react.scenario"
	opUser         = "react.user"
	opJudge        = "react.judge"
	opConversation = "react.conversation"
)

// Who an operation is the work of, as its attribute agent.name says.
const (
	asAgent = "react"
	asUser  = "user"
	asJudge = "judge"
)

// about are the attributes of an operation.
type about struct {
	Category string `json:"category"`
	Agent    string `json:"agent.name,omitempty"`
	Turn     int    `json:"turn,omitempty"`
	Step     int    `json:"step,omitempty"`
	CallID   string `json:"call_id,omitempty"`
}

// operation runs fn as an operation. What fn returns, and nothing of its span's
// fate, is returned: spans that are lost are counted by the worker.
func operation(ctx context.Context, name string, a about, fn func(ctx context.Context, op *emit.Op) error) error {
	ctx, op, err := emit.Begin(ctx, name, a)
	if err != nil {
		return err // no task
	}
	defer op.End() // also of one that panics
	if err = fn(ctx, op); err != nil {
		op.Fail(err)
	}
	return err
}

// record sends the conversation as the span of a call that nobody made, for
// adapters: the answer to all that was before it.
func (c *Conversation) record(ctx context.Context) {
	messages := c.Messages()
	last := len(messages) - 1
	request, err := rawjson.Marshal(struct {
		Messages []llmclient.Message `json:"messages"`
		Tools    []llmclient.Tool    `json:"tools,omitempty"`
	}{messages[:last], c.Tools})
	if err != nil { // all of it was JSON before
		return
	}
	type choice struct {
		Message      llmclient.Message `json:"message"`
		FinishReason string            `json:"finish_reason"`
	}
	response, err := rawjson.Marshal(struct {
		Choices []choice `json:"choices"`
	}{[]choice{{messages[last], "stop"}}})
	if err != nil {
		return
	}
	if _, op, err := emit.Begin(ctx, opConversation, llmclient.CallAttributes(request, response), emit.Tags{semconv.WholeTag}); err == nil {
		_ = op.End() // counted as missing if it fails
	}
}
