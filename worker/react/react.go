// Package react is an agent that thinks and acts in steps: it asks a language
// model what to do, runs the tools that the model calls, shows it the results, and
// goes on until the model has an answer. An [Agent] is a handler of a worker; what
// it does becomes training data by its spans.
//
// A task becomes one conversation of one or several turns. In each turn there is a
// request of the user, given by the task or invented by a model that plays the
// user, at most MaxSteps steps, and an answer. A step is one call of the model.
// Each tool call of a step gets exactly one result, which is filed under the
// call's id, before the model is asked for the next step. What goes wrong in a tool
// is a result too. What goes wrong with the model fails the attempt, but for an
// answer that is not valid: the model is told why and asked again.
//
// Spans, all of them below one operation "react":
//
//	react.step, react.answer   an operation each, with the call of the model below it
//	the tool's name            an operation for each tool call, category "tool"
//	agentlightning.message     what the model thought
//	react.conversation         the whole exchange as messages with tools, in the shape of
//	                           a call of a model: what adapters and exports make of an
//	                           attempt ends with it
//
// The operations have the attribute agent.name, which is "react", or "user" and
// "judge" for the models that play along, so that adapters can tell them apart.
package react

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync"
	"text/template"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
)

// Defaults of Options.
const (
	DefaultMaxSteps      = 5
	DefaultSampleRetries = 2
	// DefaultSandboxTimeout is enough for a container to be started or removed.
	DefaultSandboxTimeout = 30 * time.Second
	// DefaultMinToolCalls of a conversation before a judge may end it early.
	DefaultMinToolCalls = 1
)

// Duplicates is how far a tool call that repeats an earlier one (the same tool, the
// same arguments but for the order of keys) is answered with the first one's result.
// Calls that failed are made again, but for those of one step.
type Duplicates string

// The reaches of a result.
const (
	// WithinTurn is the default: a later turn reads again what may have changed.
	WithinTurn         Duplicates = "turn"
	WithinStep         Duplicates = "step"
	WithinConversation Duplicates = "conversation"
)

// ResponseFormat is how a server is asked for structured output.
type ResponseFormat string

// The formats. Whatever the server makes of it, answers are validated.
const (
	FormatSchema ResponseFormat = "json_schema" // the default
	FormatObject ResponseFormat = "json_object"
	FormatNone   ResponseFormat = "none" // only the prompt says it
)

// Options describes an Agent. The zero Options is an agent without tools, whose
// model is the task's.
type Options struct {
	// System is the system message; "" sends none.
	System string
	// Question makes a task's input the user's first request; nil takes the input's
	// own, see [Input].
	Question *template.Template
	// Structured asks for steps as JSON text, {"thought", "tool_calls", "is_final"},
	// of models that cannot call tools by the API.
	Structured bool
	// Format is how structured output is asked for: FormatSchema when "".
	Format ResponseFormat
	// MaxSteps bounds the steps of a turn: 5 when 0.
	MaxSteps int
	// SampleRetries is how often a model is asked again after an answer that is not
	// valid: 2 when 0, never when negative.
	SampleRetries int
	// Tools are what the model may call. Names are unique.
	Tools []Tool
	// MCP are servers whose tools the model may call as well.
	MCP []MCPServer
	// Duplicates is WithinTurn when "".
	Duplicates Duplicates
	// Sandbox opens a session for each task, in which tools run; nil for none.
	Sandbox Sandbox
	// SandboxTimeout bounds the opening of a session, and its closing: 30 s when 0.
	SandboxTimeout time.Duration
	// Turns is how many turns a conversation has where the task does not say: one
	// when zero.
	Turns Range
	// Seed, with the task's input, decides how many turns a conversation has.
	Seed uint64
	// MinToolCalls is how many tool calls a conversation needs before it may end
	// ahead of its last turn: 1 when 0, none when negative.
	MinToolCalls int
	// TextContext shows the model only what was said in earlier turns, not the tool
	// calls and their results.
	TextContext bool
	// LLM gives the agent's model: TaskLLM when nil.
	LLM func(*worker.Task) (*llmclient.Client, error)
	// UserLLM gives the model that plays the user and judges: LLM when nil.
	UserLLM func(*worker.Task) (*llmclient.Client, error)
	// Limited reports whether what is between the agent and a model takes the slots of
	// the group llm; each call of any other takes one, see worker.Task.Limit. It is none
	// when nil. Tool calls take slots of tool:NAME.
	Limited func(*llmclient.Client) bool
	// Grade judges a conversation: [ToolSuccess] when nil.
	Grade Grader
	// Tape records the answers of models and tools, or replays them; nil does neither.
	Tape *Tape
}

// Agent runs conversations. It is safe for concurrent use.
type Agent struct {
	opts  Options
	tools *toolset

	stop    context.CancelFunc // ends MCP servers
	servers []*mcpServer
	running sync.WaitGroup
}

// New makes an agent, and connects to its MCP servers for as long as ctx lasts or
// until Close. Options that cannot work are Invalid errors.
func New(ctx context.Context, opts Options) (*Agent, error) {
	opts.MaxSteps = cmp.Or(opts.MaxSteps, DefaultMaxSteps)
	opts.SampleRetries = max(cmp.Or(opts.SampleRetries, DefaultSampleRetries), 0)
	opts.Duplicates = cmp.Or(opts.Duplicates, WithinTurn)
	opts.Format = cmp.Or(opts.Format, FormatSchema)
	opts.SandboxTimeout = cmp.Or(opts.SandboxTimeout, DefaultSandboxTimeout)
	opts.MinToolCalls = max(cmp.Or(opts.MinToolCalls, DefaultMinToolCalls), 0)
	if opts.Turns == (Range{}) {
		opts.Turns = Range{1, 1}
	}
	if opts.LLM == nil {
		opts.LLM = TaskLLM
	}
	if opts.UserLLM == nil {
		opts.UserLLM = opts.LLM
	}
	if opts.Grade == nil {
		opts.Grade = ToolSuccess
	}
	if err := opts.validate(); err != nil {
		return nil, err
	}
	a := &Agent{opts: opts}
	ctx, a.stop = context.WithCancel(ctx)
	err := a.connect(ctx)
	if err == nil {
		err = a.checkTools()
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// TaskLLM is the first LLM among a task's resources.
func TaskLLM(t *worker.Task) (*llmclient.Client, error) {
	llm, err := t.LLM()
	if err != nil {
		return nil, err
	}
	return llmclient.ForLLM(llm), nil
}

func (o *Options) validate() error {
	switch {
	case o.MaxSteps < 1:
		return queue.Errorf(queue.Invalid, "max_steps is %d; it must be at least 1", o.MaxSteps)
	case o.Duplicates != WithinTurn && o.Duplicates != WithinStep && o.Duplicates != WithinConversation:
		return queue.Errorf(queue.Invalid, "duplicates is %q; it must be turn, step or conversation", o.Duplicates)
	case o.Format != FormatSchema && o.Format != FormatObject && o.Format != FormatNone:
		return queue.Errorf(queue.Invalid, "response_format is %q; it must be json_schema, json_object or none", o.Format)
	case o.SandboxTimeout < 0:
		return queue.Errorf(queue.Invalid, "the sandbox's timeout is %s; it must be positive", o.SandboxTimeout)
	}
	return o.Turns.validate()
}

// connect connects to the MCP servers.
func (a *Agent) connect(ctx context.Context) error {
	for _, s := range a.opts.MCP {
		server := &mcpServer{MCPServer: s, life: ctx, running: &a.running, mu: make(chan struct{}, 1)}
		a.servers = append(a.servers, server)
		tools, err := server.tools(ctx)
		if err != nil {
			return fmt.Errorf("reading the tools of the MCP server %s: %w", s.name(), err)
		}
		a.opts.Tools = append(a.opts.Tools[:len(a.opts.Tools):len(a.opts.Tools)], tools...)
	}
	return nil
}

func (a *Agent) checkTools() error {
	for _, t := range a.opts.Tools {
		if t.Run == nil && a.opts.Sandbox == nil {
			return queue.Errorf(queue.Invalid, "the tool %s says neither how it runs nor is there a sandbox to run it", t.Name)
		}
	}
	var err error
	a.tools, err = newToolset(a.opts.Tools)
	return err
}

// Close ends the connections to MCP servers and the servers that were started. No
// task may be running.
func (a *Agent) Close() {
	for _, s := range a.servers {
		s.close()
	}
	a.stop()
	a.running.Wait()
}

// seconds is a number of seconds as a duration.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, math.MaxInt64/2/float64(time.Second)) * float64(time.Second))
}
