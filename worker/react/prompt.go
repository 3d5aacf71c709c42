package react

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// stepForm is a step as structured output.
var stepForm = newForm("step", `{"type":"object","properties":{`+
	`"thought":{"type":"string","description":"what you know and what you need next"},`+
	`"tool_calls":{"type":"array","items":{"type":"object","properties":{`+
	`"name":{"type":"string"},"arguments":{"type":["object","string"],"description":"the arguments, or their JSON text"}},`+
	`"required":["name","arguments"],"additionalProperties":false}},`+
	`"is_final":{"type":"boolean","description":"whether you know enough to answer"}},`+
	`"required":["thought","tool_calls","is_final"],"additionalProperties":false}`)

const stepRules = `You work in steps. In each step you think, and either call tools or say that you know enough.
- Call only what this step needs; you will see the results before the next one.
- Read before you write.
- Give concrete values as arguments: no placeholders, no nulls.
- Set is_final when you know enough to answer. Tool calls of a final step are not made.
`

const stepQuestion = "What is the next step?"

const answerRules = "The work is done. Answer the user in words, from the results above. Do not call tools."

// previousFailure tells a model why the attempt before this one failed.
func previousFailure(why string) string {
	return "An earlier attempt at this request failed. Avoid what led to it:\n" + clip(why, 2000)
}

// instruct adds a text to the system message, or begins with one.
func instruct(messages []llmclient.Message, text string) []llmclient.Message {
	messages = slices.Clone(messages)
	if len(messages) > 0 && messages[0].Role == "system" {
		messages[0].Content += "\n\n" + text
		return messages
	}
	return slices.Insert(messages, 0, llmclient.Message{Role: "system", Content: text})
}

// toolList describes tools to a model.
func toolList(tools []llmclient.Tool) string {
	if len(tools) == 0 {
		return "There are no tools.\n"
	}
	var b strings.Builder
	b.WriteString("The tools:\n")
	for _, t := range tools {
		fmt.Fprintf(&b, "\n%s: %s\n", t.Name, t.Description)
		describeParameters(&b, t.Parameters)
	}
	return b.String()
}

func describeParameters(b *strings.Builder, schema rawjson.Value) {
	var required []string
	for name := range schema.Get("required").Elements() {
		required = append(required, name.Text())
	}
	some := false
	for key, p := range schema.Get("properties").Members() {
		name, need := rawjson.Unescape(key), "optional"
		if slices.Contains(required, name) {
			need = "required"
		}
		fmt.Fprintf(b, "- %s: %s (%s)", name, typeName(p), need)
		if text := p.Get("description").Text(); text != "" {
			b.WriteString(" - " + text)
		}
		if choices := p.Get("enum"); choices != nil {
			fmt.Fprintf(b, " - one of %s", choices)
		}
		b.WriteByte('\n')
		some = true
	}
	switch {
	case !some && len(schema.Get("required")) == 0 && schema.Get("$ref") == nil:
		b.WriteString("- no parameters: give an empty object\n")
	case !some:
		fmt.Fprintf(b, "- as this schema says: %s\n", schema)
	}
}

// typeName is the type of a parameter, the whole schema where it is more than a name.
func typeName(p rawjson.Value) string {
	kind := p.Get("type")
	if kind.Kind() != rawjson.KindString || kind.Text() == "object" || kind.Text() == "array" {
		return string(p)
	}
	return kind.Text()
}

// decideStructured asks for a step as structured output.
func (r *run) decideStructured(ctx context.Context) (step Step, err error) {
	rules := toolList(r.tools.list) + "\n" + stepRules + stepForm.prompt()
	question := stepQuestion
	if r.feedback != "" {
		question = previousFailure(r.feedback) + "\n\n" + question
	}
	req := llmclient.Request{
		Messages:   instruct(closing(r.transcript(), question), rules),
		Parameters: stepForm.parameters(r.opts.Format, ""),
	}
	err = r.sample(ctx, r.agent, req, func(m llmclient.Message) error {
		var said struct {
			Thought   string `json:"thought"`
			ToolCalls []struct {
				Name      string        `json:"name"`
				Arguments rawjson.Value `json:"arguments"`
			} `json:"tool_calls"`
			IsFinal bool `json:"is_final"`
		}
		if err := stepForm.decode(saidBy(m), &said); err != nil {
			return err
		}
		step = Step{Thought: said.Thought, Final: said.IsFinal || len(said.ToolCalls) == 0}
		for _, c := range said.ToolCalls {
			step.Calls = append(step.Calls, ToolCall{Name: c.Name, Arguments: textOf(c.Arguments)})
		}
		return nil
	})
	return step, err
}

// answerPrompt asks for an answer after structured steps.
func (r *run) answerPrompt() []llmclient.Message {
	question := answerRules
	if steps := r.conv.turn().Steps; len(steps) > 0 {
		if skipped := steps[len(steps)-1].Skipped; len(skipped) > 0 {
			question = fmt.Sprintf("The %d tool calls of the last step were not made, since it was final. ", len(skipped)) + question
		}
	}
	return closing(r.transcript(), question)
}

// transcript is the conversation in words alone, for models that know no tools.
func (r *run) transcript() []llmclient.Message {
	var list []llmclient.Message
	if r.conv.System != "" {
		list = append(list, llmclient.Message{Role: "system", Content: r.conv.System})
	}
	for i, t := range r.conv.Turns {
		list = append(list, llmclient.Message{Role: "user", Content: t.User})
		if !r.opts.TextContext || i == len(r.conv.Turns)-1 {
			for _, s := range t.Steps {
				list = s.appendWords(list)
			}
		}
		if t.Answer != "" {
			list = append(list, llmclient.Message{Role: "assistant", Content: t.Answer})
		}
	}
	return list
}

// appendWords writes a step and its results in words.
func (s *Step) appendWords(list []llmclient.Message) []llmclient.Message {
	if len(s.Calls) == 0 {
		return list
	}
	var said, results strings.Builder
	said.WriteString(s.Thought + "\n")
	for _, c := range s.Calls {
		fmt.Fprintf(&said, "Call %s: %s(%s)\n", c.ID, c.Name, c.Arguments)
		fmt.Fprintf(&results, "Result of %s:\n%s\n", c.ID, c.Result)
	}
	return append(list,
		llmclient.Message{Role: "assistant", Content: strings.TrimSpace(said.String())},
		llmclient.Message{Role: "user", Content: strings.TrimSpace(results.String())})
}

// closing adds a text to the last message, which is the user's.
func closing(messages []llmclient.Message, text string) []llmclient.Message {
	last := &messages[len(messages)-1]
	last.Content += "\n\n" + text
	return messages
}
