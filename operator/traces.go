package operator

import (
	"context"
	"fmt"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// sampled is how many of the newest finished rollouts have their spans looked at.
const sampled = 20

// spans looks for agents whose work leaves no trace, or none to learn from.
func (d *Doctor) spans(ctx context.Context) ([]Finding, error) {
	rollouts, err := newest(ctx, d.Store, sampled, queue.RolloutSucceeded, queue.RolloutFailed)
	if err != nil {
		return nil, err
	}
	var without, calls, tokenless int
	looked, example := 0, ""
	for _, r := range rollouts {
		if r.Attempt == nil {
			continue // ended by hand
		}
		spans, n, err := lastSpans(ctx, d.Store, r.RolloutID, 100)
		if err != nil {
			return nil, err
		}
		if looked++; n == 0 {
			without++
			example = r.RolloutID
		}
		for i := range spans {
			if isModelCall(&spans[i]) {
				if calls++; !hasTokenIDs(&spans[i]) {
					tokenless++
				}
			}
		}
	}
	if looked == 0 {
		return skip("no rollout has finished"), nil
	}
	var out []Finding
	ofNewest := "of the " + these(looked, "newest finished rollout ", "newest finished rollouts ")
	if without > 0 {
		out = append(out, Finding{Severity: Warning, Text: fmt.Sprintf("%s no spans, as %s", these(without, ofNewest+"has", ofNewest+"have"), example),
			Remedy: "instrument the agent, or have it send to OTEL_EXPORTER_OTLP_TRACES_ENDPOINT; see docs/agents.md"})
	}
	if tokenless > 0 {
		out = append(out, Finding{Severity: Warning, Text: fmt.Sprintf("%d of %s of language models came without token ids", tokenless, these(calls, "call", "calls")),
			Remedy: "have the model server return them (return_token_ids; vLLM 0.10.2 or newer), or put the LLM proxy before it: text that is tokenised again is not what the model said"})
	}
	if out == nil {
		text := "the " + these(looked, "newest finished rollout has spans", "newest finished rollouts have spans")
		if calls > 0 {
			text += ", with token ids in " + these(calls, "call", "calls") + " of language models"
		}
		out = []Finding{{Severity: OK, Text: text}}
	}
	return out, nil
}

// rawModelCall is the LLM proxy's span of what went to the model's server.
const rawModelCall = "raw_gen_ai_request"

func isModelCall(s *queue.Span) bool {
	return strings.Contains(s.Name, semconv.ChatSpan) || s.Name == rawModelCall
}

// hasTokenIDs finds the ids of an answer's tokens under any of the names that
// tracers give them.
func hasTokenIDs(s *queue.Span) bool {
	for key, v := range s.Attributes.Members() {
		switch name := string(key); {
		case strings.Contains(name, semconv.ResponseTokenIDs), strings.HasSuffix(name, ".token_ids") && !strings.Contains(name, "prompt"):
			if !emptyList(v) {
				return true
			}
		case strings.HasSuffix(name, ".choices") && strings.Contains(v.Text(), "token_ids"):
			return true
		}
	}
	return false
}

func emptyList(v rawjson.Value) bool {
	text := strings.TrimSpace(v.String())
	if v.Kind() == rawjson.KindString {
		text = strings.TrimSpace(v.Text())
	}
	return text == "" || text == "[]" || text == "null" || text == "None"
}
