package react

import (
	"context"
	"fmt"
	"strings"

	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/llmclient"
)

// What the model that plays the user is asked for.
var (
	scenarioForm = newForm("scenario", `{"type":"object","properties":{"description":{"type":"string","minLength":20}},`+
		`"required":["description"],"additionalProperties":false}`)
	requestForm = newForm("request", `{"type":"object","properties":{"content":{"type":"string","minLength":10}},`+
		`"required":["content"],"additionalProperties":false}`)
	judgeForm = newForm("judgement", `{"type":"object","properties":{"should_conclude":{"type":"boolean"}},`+
		`"required":["should_conclude"],"additionalProperties":false}`)
)

const userRole = "You play a user who needs the help of an assistant. The assistant can use tools; you cannot, and you do not know " +
	"them by name. Write as a user writes: in the first person, about what you want, not about how it is done.\n"

// guidance is what a request is to be like, by turn; the last serves all later ones.
var guidance = []string{
	"Begin: say what you want first, with the details that the assistant needs.",
	"Go on from the answer: ask for what builds on it.",
	"Ask for something that needs what was found so far, or change one of your wishes.",
	"Have the assistant check, compare or complete what it has done.",
	"Go on with your plan, or come to its end.",
}

// planScenario invents what the user is up to.
func (r *run) planScenario(ctx context.Context, turns int) error {
	var plan struct {
		Description string `json:"description"`
	}
	subject := r.in.Topic
	if r.in.Question != "" {
		subject = "the user begins with this request: " + r.in.Question
	}
	prompt := fmt.Sprintf("Invent what a user wants of an assistant in a conversation of %d turns about: %s\n\n%s\n"+
		"Each turn must need tool calls that build on what came out before. Describe the user's aim and how it unfolds.",
		turns, subject, toolList(r.tools.list))
	err := r.play(ctx, opScenario, about{Category: "scenario", Agent: asUser}, scenarioForm,
		[]llmclient.Message{{Role: "user", Content: prompt + "\n" + scenarioForm.prompt()}}, "", &plan)
	r.conv.Scenario = plan.Description
	return err
}

// request is what the user says in a turn.
func (r *run) request(ctx context.Context, n int) (string, error) {
	if n == 1 && r.in.Question != "" {
		return r.in.Question, nil
	}
	var b strings.Builder
	b.WriteString(userRole)
	if n == 1 {
		b.WriteString("What the assistant can do:\n" + toolList(r.tools.list))
	}
	if r.in.Topic != "" {
		fmt.Fprintf(&b, "\nThe topic: %s\n", r.in.Topic)
	}
	if r.conv.Scenario != "" {
		fmt.Fprintf(&b, "\nWhat you are up to: %s\n", r.conv.Scenario)
	}
	b.WriteString(r.said())
	fmt.Fprintf(&b, "\nWrite your request of turn %d. %s\n%s", n, guidance[min(n, len(guidance))-1], requestForm.prompt())
	var said struct {
		Content string `json:"content"`
	}
	err := r.play(ctx, opUser, about{Category: "user", Agent: asUser, Turn: n}, requestForm,
		[]llmclient.Message{{Role: "user", Content: b.String()}}, "", &said)
	return said.Content, err
}

// judge decides whether the user has got what was wanted.
func (r *run) judge(ctx context.Context, n int) (done bool, err error) {
	var verdict struct {
		ShouldConclude bool `json:"should_conclude"`
	}
	prompt := "Judge whether this conversation has come to a natural end: the user has what was wanted, and another turn would add nothing.\n" +
		"\nWhat the user is up to: " + r.conv.Scenario + "\n" + r.said() + "\n" + judgeForm.prompt()
	err = r.play(ctx, opJudge, about{Category: "judge", Agent: asJudge, Turn: n}, judgeForm,
		[]llmclient.Message{{Role: "user", Content: prompt}}, r.judgeParameters(), &verdict)
	return verdict.ShouldConclude, err
}

// judgeParameters keep a judge short and steady, unless the model's own parameters say
// otherwise: not all models take these.
func (r *run) judgeParameters() string {
	own, more := r.user.Parameters, ""
	if own.Get("max_tokens") == nil && own.Get("max_completion_tokens") == nil {
		more = `"max_tokens":100`
	}
	if own.Get("temperature") == nil {
		more = join(more, `"temperature":0.3`)
	}
	return more
}

// said is the conversation so far, as the user sees it.
func (r *run) said() string {
	var b strings.Builder
	if len(r.conv.Turns) > 0 {
		b.WriteString("\nThe conversation so far:\n")
	}
	for _, t := range r.conv.Turns {
		fmt.Fprintf(&b, "User: %s\nAssistant: %s\n", t.User, t.Answer)
	}
	return b.String()
}

// play asks the model that plays along.
func (r *run) play(ctx context.Context, name string, a about, f form, messages []llmclient.Message, parameters string, into any) error {
	err := operation(ctx, name, a, func(ctx context.Context, op *emit.Op) error {
		req := llmclient.Request{Messages: messages, Parameters: f.parameters(r.opts.Format, parameters)}
		err := r.sample(ctx, r.user, req, func(m llmclient.Message) error { return f.decode(saidBy(m), into) })
		if err == nil {
			_ = op.Output(into)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
