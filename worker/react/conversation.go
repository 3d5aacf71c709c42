package react

import (
	"context"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
)

// Conversation is what was said and done for a task.
type Conversation struct {
	System   string // "" for none
	Scenario string // what the user is up to; "" where nobody planned it
	Tools    []llmclient.Tool
	Turns    []Turn
	// Session is the sandbox's, open while the conversation is graded; nil without one.
	Session *Session
}

// Turn is a request of the user, what was done about it, and the answer.
type Turn struct {
	User   string
	Steps  []Step
	Answer string
}

// Step is one decision of the model.
type Step struct {
	Thought string
	Calls   []ToolCall
	// Final says that the model knew enough to answer. Skipped are the calls that
	// it made in the same breath: they are not executed.
	Final   bool
	Skipped []ToolCall
}

// ToolCall is a tool call with its result.
type ToolCall struct {
	ID        string // unique in the conversation
	Name      string
	Arguments string // as the model wrote them: JSON, or what should have been
	Result    string // what the model was told, which may be nothing
	Failed    bool   // the result is an error
	// DuplicateOf is the id of the call whose result this one was answered with, ""
	// where the tool was called.
	DuplicateOf string
}

// Messages is the conversation as chat completions write it: the system message,
// and for each turn the user's, for each step with tool calls an assistant's that
// makes them and one for each result, and the answer.
func (c *Conversation) Messages() []llmclient.Message { return c.messages(true) }

// messages leaves out the steps of earlier turns unless all is true.
func (c *Conversation) messages(all bool) []llmclient.Message {
	var list []llmclient.Message
	if c.System != "" {
		list = append(list, llmclient.Message{Role: "system", Content: c.System})
	}
	for i, t := range c.Turns {
		list = append(list, llmclient.Message{Role: "user", Content: t.User})
		if all || i == len(c.Turns)-1 {
			for _, s := range t.Steps {
				list = s.appendMessages(list)
			}
		}
		if t.Answer != "" { // the last turn has none while it goes on
			list = append(list, llmclient.Message{Role: "assistant", Content: t.Answer})
		}
	}
	return list
}

func (s *Step) appendMessages(list []llmclient.Message) []llmclient.Message {
	if len(s.Calls) == 0 {
		return list
	}
	m := llmclient.Message{Role: "assistant", Content: s.Thought}
	for _, c := range s.Calls {
		m.ToolCalls = append(m.ToolCalls, llmclient.ToolCall{
			ID: c.ID, Type: "function", Function: llmclient.FunctionCall{Name: c.Name, Arguments: c.Arguments},
		})
	}
	list = append(list, m)
	for _, c := range s.Calls {
		list = append(list, llmclient.Message{Role: "tool", ToolCallID: c.ID, Content: c.Result})
	}
	return list
}

// Answer is the last answer, "" before the first.
func (c *Conversation) Answer() string {
	if len(c.Turns) == 0 {
		return ""
	}
	return c.Turns[len(c.Turns)-1].Answer
}

// Counts are the tool calls of a conversation that got a result, and how many of
// them failed.
func (c *Conversation) Counts() (calls, failed int) {
	for _, t := range c.Turns {
		for _, s := range t.Steps {
			calls += len(s.Calls)
			for _, call := range s.Calls {
				if call.Failed {
					failed++
				}
			}
		}
	}
	return calls, failed
}

func (c *Conversation) turn() *Turn { return &c.Turns[len(c.Turns)-1] }

// Grader gives a finished conversation its reward.
type Grader func(ctx context.Context, t *worker.Task, c *Conversation) (worker.Result, error)

// ToolSuccess is the share of tool calls that succeeded. A conversation without
// tool calls has no reward.
func ToolSuccess(_ context.Context, _ *worker.Task, c *Conversation) (worker.Result, error) {
	calls, failed := c.Counts()
	if calls == 0 {
		return worker.Result{}, nil
	}
	return worker.Reward(float64(calls-failed) / float64(calls)), nil
}

// GradeProgram has a program grade, as the agent of [worker.Exec] is run, in the folder
// of the sandbox's session if there is one. See [GradeWith] for its input.
func GradeProgram(command []string) Grader {
	return func(ctx context.Context, t *worker.Task, c *Conversation) (worker.Result, error) {
		o := worker.ExecOptions{Command: command}
		if c.Session != nil {
			o.Dir = c.Session.Dir
		}
		return GradeWith(worker.Exec(o))(ctx, t, c)
	}
}

// GradeWith has a handler grade. Its task's input is
//
//	{"input": …, "messages": […], "tools": […], "answer": "…", "tool_calls": 3, "tool_failures": 1}
func GradeWith(h worker.Handler) Grader {
	return func(ctx context.Context, t *worker.Task, c *Conversation) (worker.Result, error) {
		calls, failed := c.Counts()
		input, err := rawjson.Marshal(struct {
			Input    rawjson.Value       `json:"input"`
			Messages []llmclient.Message `json:"messages"`
			Tools    []llmclient.Tool    `json:"tools"`
			Answer   string              `json:"answer"`
			Calls    int                 `json:"tool_calls"`
			Failures int                 `json:"tool_failures"`
		}{t.Input, c.Messages(), c.Tools, c.Answer(), calls, failed})
		if err != nil {
			return worker.Result{}, err
		}
		return h(ctx, t.With(input))
	}
}
