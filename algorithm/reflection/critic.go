package reflection

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os/exec"
	"strings"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/algorithm/internal/ask"
	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// Evaluation is what a critic thinks of a rollout.
type Evaluation struct {
	Success     bool
	Score       float64 // 0 to 1, mostly
	Suggestions []Suggestion
}

// Suggestion is what would have helped.
type Suggestion struct {
	Text   string `json:"text"`
	Reason string `json:"reason,omitempty"`
}

// DefaultScore is the score of an evaluation without one.
const DefaultScore = 0.5

// ParseEvaluation reads {"success": …, "score": …, "suggestions": […]}, which is all
// of a text or its last line. A suggestion
// is a text, or an object with text and reason. What is missing is false,
// DefaultScore, and none: an empty object is an evaluation too, of a failure.
func ParseEvaluation(text []byte) (Evaluation, error) {
	v := child.Answer(text)
	if v == nil {
		return Evaluation{}, queue.Errorf(queue.Invalid, "an evaluation must be a JSON object, not %.200q", text)
	}
	e := Evaluation{Score: DefaultScore}
	for key, val := range v.Members() {
		switch string(key) {
		case "success":
			if e.Success = val.Bool(); val.Kind() != rawjson.KindBool && !val.IsNull() {
				return e, queue.Errorf(queue.Invalid, "success is %.80s; it must be true or false", val)
			}
		case "score":
			f, ok := val.Float()
			if ok && !math.IsInf(f, 0) && !math.IsNaN(f) {
				e.Score = f
			} else if !val.IsNull() {
				return e, queue.Errorf(queue.Invalid, "score is %.80s; it must be a number", val)
			}
		case "suggestions":
			if val.Kind() != rawjson.KindArray && !val.IsNull() {
				return e, queue.Errorf(queue.Invalid, "suggestions are %.80s; they must be a list", val)
			}
			for item := range val.Elements() {
				s := Suggestion{Text: cmp.Or(item.Text(), item.Get("text").Text()), Reason: item.Get("reason").Text()}
				if s.Text = strings.TrimSpace(s.Text); s.Text == "" {
					return e, queue.Errorf(queue.Invalid, "a suggestion is %.80s; it must be a text, or an object with a text", item)
				}
				e.Suggestions = append(e.Suggestions, s)
			}
		}
	}
	return e, nil
}

// Critic judges a rollout. It is called by one goroutine at a time.
type Critic func(ctx context.Context, r *algorithm.Result) (Evaluation, error)

// subject is what a critic is told of a rollout.
type subject struct {
	Rollout  rawjson.Value          `json:"rollout"`
	Attempt  rawjson.Value          `json:"attempt"`
	Reward   *float64               `json:"reward"`
	Messages []adapter.Conversation `json:"messages"` // of the latest attempt
	Spans    []queue.Span           `json:"spans,omitempty"`
}

func newSubject(r *algorithm.Result) subject {
	s := subject{Rollout: r.Rollout.AppendJSON(nil), Attempt: rawjson.Null}
	if r.Attempt != nil {
		s.Attempt = r.Attempt.AppendJSON(nil)
	}
	if reward, ok := r.FiniteReward(); ok {
		s.Reward = &reward
	}
	if s.Messages, _ = (adapter.Messages{}).Adapt(r.Spans); s.Messages == nil {
		s.Messages = []adapter.Conversation{} // the spans say all
	}
	s.Spans = r.Spans
	return s
}

// ProgramCritic runs a command for each rollout. It is told it on its standard input,
// as a JSON object with rollout, attempt, reward, messages and spans, and its
// evaluation is its standard output, or the last line of that; it has failed when it
// takes longer than timeout, 0 being no limit. The error is Invalid where there is no
// such command.
func ProgramCritic(command []string, timeout time.Duration) (Critic, error) {
	if len(command) == 0 || command[0] == "" {
		return nil, queue.Errorf(queue.Invalid, "there is no critic")
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "the critic cannot be started")
	}
	return func(ctx context.Context, r *algorithm.Result) (Evaluation, error) {
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the critic took longer than %s", timeout))
			defer cancel()
		}
		text, err := json.Marshal(newSubject(r))
		if err != nil {
			return Evaluation{}, fmt.Errorf("writing a rollout for the critic: %w", err)
		}
		stdout, stderr := child.Tail{Most: 1 << 20}, child.Tail{Most: 500}
		state, err := child.Run(ctx, exec.Command(command[0], command[1:]...), child.Options{
			Feed: child.Input(text), Stdout: &stdout, Stderr: &stderr, Grace: 5 * time.Second,
		})
		switch {
		case err != nil:
			return Evaluation{}, fmt.Errorf("starting the critic %s: %w", command[0], err)
		case ctx.Err() != nil:
			return Evaluation{}, context.Cause(ctx)
		case !state.Success():
			return Evaluation{}, fmt.Errorf("the critic ended with %s", lastWords(state, stderr.Bytes()))
		}
		return ParseEvaluation(stdout.Bytes())
	}, nil
}

// lastWords is how a program ended, with what it said of it.
func lastWords(state fmt.Stringer, stderr []byte) string {
	if said := bytes.TrimSpace(stderr); len(said) > 0 {
		return fmt.Sprintf("%s: %s", state, said)
	}
	return state.String()
}

// question asks a model for an evaluation.
const question = `You are the critic of an agent. Below is one task that it worked on: the input, how the attempt ended, the reward it earned (if any), and what was said.
Judge whether the task was done, and how well, from 0 (useless) to 1 (nothing to mend). If there was something to mend, give advice that would help this agent with tasks like it: short rules in the imperative that hold beyond this one task, the most useful first, five at most.
Answer with a JSON object and nothing else: {"success": true or false, "score": number, "suggestions": [{"text": "...", "reason": "..."}]}`

// told bounds what a model is told of a rollout, in bytes.
const told = 24_000

// ModelCritic asks a language model, and again when its answer is no evaluation. A nil
// logger is slog.Default.
func ModelCritic(client *llmclient.Client, model string, logger *slog.Logger) Critic {
	asker := &ask.Asker{Client: client, Logger: logger}
	return func(ctx context.Context, r *algorithm.Result) (Evaluation, error) {
		s := newSubject(r)
		if len(s.Messages) > 0 {
			s.Spans = nil // they say the same
		}
		text, err := json.Marshal(s)
		if err != nil {
			return Evaluation{}, fmt.Errorf("writing a rollout for the critic: %w", err)
		}
		if len(text) > told {
			text = append(text[:told/2:told/2], append([]byte(" … "), text[len(text)-told/2:]...)...)
		}
		messages := []llmclient.Message{
			{Role: "system", Content: question}, {Role: "user", Content: strings.ToValidUTF8(string(text), "")},
		}
		for attempt := 1; ; attempt++ {
			answer, err := asker.Ask(ctx, llmclient.Request{Model: model, Messages: messages})
			if err != nil {
				return Evaluation{}, err
			}
			from, to := strings.IndexByte(answer, '{'), strings.LastIndexByte(answer, '}')
			e, err := ParseEvaluation([]byte(answer[max(from, 0) : max(to, from, -1)+1]))
			if err == nil || attempt == 3 {
				return e, err
			}
			messages = append(messages, llmclient.Message{Role: "assistant", Content: answer},
				llmclient.Message{Role: "user", Content: "That cannot be read: " + err.Error() + ". Answer with the JSON object alone."})
		}
	}
}
