package react

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/llmclient"
)

// run is one task under way.
type run struct {
	*Agent
	task        *worker.Task
	in          Input
	agent, user *llmclient.Client
	conv        *Conversation
	feedback    string            // why the attempt before failed, until the first step was told
	seen        map[string]result // by callKey
	ids         map[string]bool   // of the calls so far
}

// Handle is the worker.Handler: it holds the conversation of a task.
func (a *Agent) Handle(ctx context.Context, t *worker.Task) (graded worker.Result, err error) {
	r := &run{Agent: a, task: t, seen: map[string]result{}, ids: map[string]bool{}}
	if r.in, err = decodeInput(t.Input, a.opts.Question); err != nil {
		return worker.Result{}, err
	}
	if err := r.clients(); err != nil {
		return worker.Result{}, err
	}
	if r.feedback, err = t.PreviousError(); err != nil {
		return worker.Result{}, err
	}
	r.conv = &Conversation{System: a.opts.System, Scenario: r.in.Scenario, Tools: a.tools.list}
	err = r.inSession(ctx, func(ctx context.Context) error {
		err := operation(ctx, opAgent, about{Category: "agent", Agent: asAgent}, func(ctx context.Context, op *emit.Op) error {
			err := r.converse(ctx)
			_ = op.Output(r.summary())
			if err == nil {
				r.conv.record(ctx)
			}
			return err
		})
		if err != nil {
			return err
		}
		// As a reward's operation, so that calls of models that grade are not the agent's.
		return operation(ctx, semconv.RewardOperation, about{Category: "reward"}, func(ctx context.Context, _ *emit.Op) error {
			graded, err = a.opts.Grade(ctx, t, r.conv)
			return err
		})
	})
	return graded, err
}

// summary is what the agent's operation tells of a conversation.
func (r *run) summary() map[string]any {
	calls, failed := r.conv.Counts()
	steps := 0
	for _, t := range r.conv.Turns {
		steps += len(t.Steps)
	}
	return map[string]any{
		"turns": len(r.conv.Turns), "steps": steps, "tool_calls": calls, "tool_failures": failed, "answer": r.conv.Answer(),
	}
}

// clients finds the models.
func (r *run) clients() error {
	for _, m := range []struct {
		into *(*llmclient.Client)
		of   func(*worker.Task) (*llmclient.Client, error)
	}{{&r.agent, r.opts.LLM}, {&r.user, r.opts.UserLLM}} {
		c, err := m.of(r.task)
		if err != nil {
			return fmt.Errorf("finding the model: %w", err)
		}
		if r.opts.Tape != nil {
			if c, err = r.opts.Tape.client(c); err != nil {
				return err
			}
		}
		*m.into = c
	}
	return nil
}

// inSession runs fn within a session of the sandbox, if there is one, which is closed
// whatever happens.
func (r *run) inSession(ctx context.Context, fn func(context.Context) error) error {
	if r.opts.Sandbox == nil || r.opts.Tape.replays() {
		return fn(ctx)
	}
	opening := Opening{
		SessionID: newSessionID(), RolloutID: r.task.Rollout.RolloutID, AttemptID: r.task.Attempt.AttemptID, Files: r.in.Files,
	}
	limited, cancel := context.WithTimeoutCause(ctx, r.opts.SandboxTimeout,
		fmt.Errorf("the sandbox was not open within %s", r.opts.SandboxTimeout))
	session, err := r.opts.Sandbox.Open(limited, opening)
	if cause := context.Cause(limited); err != nil && cause != nil {
		err = cause
	}
	cancel()
	if err != nil {
		return fmt.Errorf("opening the sandbox: %w", err)
	}
	r.conv.Session = session
	defer r.closeSession(ctx)
	return fn(ctx)
}

// closeSession closes the session in a time of its own. That it could not be closed
// does not undo the conversation: it is told by a span.
func (r *run) closeSession(ctx context.Context) {
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.opts.SandboxTimeout)
	defer cancel()
	if err := r.conv.Session.Close(detached); err != nil {
		_ = r.task.Exception(detached, fmt.Errorf("closing the sandbox: %w", err))
	}
}

// newSessionID makes a random UUID.
func newSessionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// converse holds the conversation.
func (r *run) converse(ctx context.Context) error {
	turns := r.opts.Turns
	if r.in.Turns != nil {
		turns = *r.in.Turns
	}
	planned := turns.draw(r.opts.Seed, r.task.Input)
	if planned > 1 && r.conv.Scenario == "" {
		if err := r.planScenario(ctx, planned); err != nil {
			return err
		}
	}
	for n := 1; n <= planned; n++ {
		text, err := r.request(ctx, n)
		if err != nil {
			return err
		}
		r.conv.Turns = append(r.conv.Turns, Turn{User: text})
		if r.opts.Duplicates != WithinConversation {
			clear(r.seen)
		}
		if err := r.takeTurn(ctx, n); err != nil {
			return err
		}
		calls, _ := r.conv.Counts()
		if n < turns.Min || n == planned || calls < r.opts.MinToolCalls {
			continue
		}
		done, err := r.judge(ctx, n)
		if err != nil || done {
			return err
		}
	}
	return nil
}

// takeTurn takes the steps of a turn and then answers.
func (r *run) takeTurn(ctx context.Context, n int) error {
	turn := r.conv.turn()
	for number := 1; number <= r.opts.MaxSteps && turn.Answer == ""; number++ {
		err := operation(ctx, opStep, about{Category: "step", Agent: asAgent, Turn: n, Step: number}, func(ctx context.Context, op *emit.Op) error {
			return r.takeStep(ctx, op, n, number)
		})
		if err != nil {
			return fmt.Errorf("step %d of turn %d: %w", number, n, err)
		}
		if turn.Steps[len(turn.Steps)-1].Final {
			break
		}
	}
	if turn.Answer != "" { // which the last step gave
		return nil
	}
	err := operation(ctx, opAnswer, about{Category: "answer", Agent: asAgent, Turn: n}, func(ctx context.Context, op *emit.Op) error {
		err := r.answer(ctx)
		_ = op.Output(turn.Answer)
		return err
	})
	if err != nil {
		return fmt.Errorf("the answer of turn %d: %w", n, err)
	}
	return nil
}

// takeStep has the model decide and does what it decided.
func (r *run) takeStep(ctx context.Context, op *emit.Op, n, number int) error {
	decide := r.decideNative
	if r.opts.Structured {
		decide = r.decideStructured
	}
	step, err := decide(ctx)
	if err != nil {
		return err
	}
	r.feedback = ""
	r.identify(&step, n, number)
	answered := step.Final && !r.opts.Structured
	if step.Thought != "" && !answered {
		_ = emit.Message(ctx, step.Thought)
	}
	_ = op.Output(stepOutput(&step))
	if err := r.act(ctx, n, number, &step); err != nil {
		return err
	}
	turn := r.conv.turn()
	turn.Steps = append(turn.Steps, step)
	if answered {
		turn.Answer = step.Thought
	}
	return nil
}

func stepOutput(s *Step) map[string]any {
	list := func(calls []ToolCall) []map[string]string {
		var out []map[string]string
		for _, c := range calls {
			out = append(out, map[string]string{"id": c.ID, "name": c.Name, "arguments": c.Arguments})
		}
		return out
	}
	return map[string]any{"thought": s.Thought, "is_final": s.Final, "tool_calls": list(s.Calls), "skipped_tool_calls": list(s.Skipped)}
}

// identify sees to it that each call has an id that no other one of the conversation
// has: the model's own, where it is one. Calls of a final step are put aside.
func (r *run) identify(s *Step, turn, number int) {
	for i := range s.Calls {
		c := &s.Calls[i]
		for next := i + 1; c.ID == "" || r.ids[c.ID]; next++ {
			c.ID = fmt.Sprintf("call_%d_%d_%d", turn, number, next)
		}
		r.ids[c.ID] = true
	}
	if s.Final {
		s.Skipped, s.Calls = s.Calls, nil
	}
}

// decideNative asks for a step by the API's tool calls. An answer without any is the
// final one.
func (r *run) decideNative(ctx context.Context) (step Step, err error) {
	req := llmclient.Request{Messages: r.conv.messages(!r.opts.TextContext), Tools: r.tools.list}
	if r.feedback != "" {
		req.Messages = instruct(req.Messages, previousFailure(r.feedback))
	}
	err = r.sample(ctx, r.agent, req, func(m llmclient.Message) error {
		step = Step{Thought: saidBy(m)}
		for _, c := range m.ToolCalls {
			step.Calls = append(step.Calls, ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments})
		}
		step.Final = len(step.Calls) == 0
		if step.Final && step.Thought == "" {
			return invalidf("it has neither a text nor a tool call")
		}
		return nil
	})
	return step, err
}

// saidBy is the text of a message.
func saidBy(m llmclient.Message) string {
	text := m.Content
	for _, p := range m.Parts {
		text += p.Text
	}
	if text == "" {
		text = m.Refusal
	}
	return text
}

// noTools asks for an answer in words.
const noTools = `{"tool_choice":"none"}`

// answer asks for the final answer of a turn, with all results.
func (r *run) answer(ctx context.Context) error {
	turn := r.conv.turn()
	req := llmclient.Request{Messages: r.conv.messages(!r.opts.TextContext), Tools: r.tools.list}
	if len(req.Tools) > 0 {
		req.Parameters = []byte(noTools)
	}
	if r.opts.Structured {
		req = llmclient.Request{Messages: r.answerPrompt()}
	}
	return r.sample(ctx, r.agent, req, func(m llmclient.Message) error {
		if turn.Answer = saidBy(m); turn.Answer == "" {
			return invalidf("it is empty; answer the user in words, without calling tools")
		}
		return nil
	})
}
