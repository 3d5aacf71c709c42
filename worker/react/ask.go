package react

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// ErrInvalidAnswer means that a model did not give a valid answer, as often as it was
// asked.
var ErrInvalidAnswer = errors.New("the model's answers are not valid")

// invalid is why an answer is not valid: what the model is told.
type invalid struct{ why string }

// Error implements error.
func (e *invalid) Error() string { return e.why }

func invalidf(format string, args ...any) error { return &invalid{fmt.Sprintf(format, args...)} }

// sample asks a model until accept has no objection, SampleRetries times more than
// once. Each time the model is shown its answer and what is wrong with it. All errors
// but those of invalidf end it at once.
func (r *run) sample(ctx context.Context, c *llmclient.Client, req llmclient.Request, accept func(llmclient.Message) error) error {
	messages := req.Messages
	for try := 0; ; try++ {
		res, err := r.chat(ctx, c, req)
		if err != nil {
			return err
		}
		if len(res.Choices) == 0 {
			return errors.New("the model's answer has no choices")
		}
		answer := res.Choices[0].Message
		err = accept(answer)
		var bad *invalid
		switch {
		case !errors.As(err, &bad):
			return err
		case try == r.opts.SampleRetries:
			return fmt.Errorf("%w after %d tries: %s", ErrInvalidAnswer, try+1, bad.why)
		}
		req.Messages = messages[:len(messages):len(messages)]
		if answer.Content != "" {
			req.Messages = append(req.Messages, llmclient.Message{Role: "assistant", Content: answer.Content})
		}
		req.Messages = append(req.Messages, llmclient.Message{
			Role: "user", Content: "That answer is not valid: " + clip(bad.why, 2000) + "\nGive the whole answer again, and a valid one.",
		})
	}
}

// limitLLM and limitTool name the groups of limits that calls take slots of.
const (
	limitLLM  = "llm"
	limitTool = "tool:"
)

// chat calls a model within the worker's limits.
func (r *run) chat(ctx context.Context, c *llmclient.Client, req llmclient.Request) (*llmclient.Response, error) {
	limited := r.opts.Limited != nil && r.opts.Limited(c)
	if !limited && !r.opts.Tape.replays() {
		leave, err := r.task.Limit(ctx, limitLLM)
		if err != nil {
			return nil, fmt.Errorf("waiting for a slot of the limit %s: %w", limitLLM, err)
		}
		defer leave()
	}
	return c.Chat(ctx, req)
}

// form is a kind of structured output.
type form struct {
	name   string
	schema rawjson.Value
	check  *jsonschema.Resolved
}

// newForm makes a form of a schema that is part of this program.
func newForm(name, schema string) form {
	check, err := compileSchema(rawjson.Value(schema))
	if err != nil {
		panic(err)
	}
	return form{name, rawjson.Value(schema), check}
}

// prompt says what is asked for, to models that are not held to it.
func (f form) prompt() string {
	return "Answer with one JSON object and nothing else. It must fit this JSON schema:\n" + string(f.schema)
}

// parameters ask the server for the form.
func (f form) parameters(format ResponseFormat, more string) rawjson.Value {
	switch format {
	case FormatSchema:
		more = join(more, `"response_format":{"type":"json_schema","json_schema":{"name":"`+f.name+`","schema":`+string(f.schema)+`}}`)
	case FormatObject:
		more = join(more, `"response_format":{"type":"json_object"}`)
	}
	return rawjson.Value("{" + more + "}")
}

func join(members, more string) string {
	if members == "" {
		return more
	}
	return members + "," + more
}

// decode reads an answer in the form. Its errors are of invalidf.
func (f form) decode(text string, into any) error {
	v, nonFinite, err := rawjson.Compact(nil, []byte(unfence(text)))
	if err != nil {
		return invalidf("it is not JSON: %v", err)
	}
	if nonFinite {
		return invalidf("it holds NaN or an infinite number, which are not JSON")
	}
	if err := validate(f.check, v); err != nil {
		return invalidf("it does not fit the schema: %v", err)
	}
	if err := json.Unmarshal(v, into); err != nil {
		return invalidf("it cannot be read: %v", err)
	}
	return nil
}

// unfence takes the fence off a text that is one block of code, as models like to
// write JSON.
func unfence(text string) string {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, "```")
	if !ok {
		return text
	}
	body, ok = strings.CutSuffix(body, "```")
	if !ok {
		return text
	}
	if _, rest, ok := strings.Cut(body, "\n"); ok {
		return rest
	}
	return body
}
