package exportbench

import (
	"fmt"
	"strings"

	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// group is how many rollouts an archive has before their spans.
const group = 100

// partition is what agents leave behind that call a model twice, with a tool in
// between, and do other things: rollouts that succeeded, with a reward.
func partition(rollouts, spans int) archive.Items {
	return func(yield func(archive.Item, error) bool) {
		for first := 0; first < rollouts; first += group {
			last := min(first+group, rollouts)
			for i := first; i < last; i++ {
				if !yield(archive.Item{Rollout: record(i, spans), Counter: int64(spans)}, nil) {
					return
				}
			}
			for i := first; i < last; i++ {
				for n := range spans {
					s := span(i, n, spans)
					if !yield(archive.Item{Span: &s}, nil) {
						return
					}
				}
			}
		}
	}
}

func rolloutID(i int) string { return fmt.Sprintf("ro-%012x", i) }

// attemptID is that of every attempt; they are unique within their rollouts.
const attemptID = "at-00000001"

func record(i, spans int) *queue.Record {
	start := 1.7e9 + float64(i)
	end := start + 0.9
	return &queue.Record{
		Rollout: queue.Rollout{
			RolloutID: rolloutID(i), Input: rawjson.Value(fmt.Sprintf(`{"question":%d}`, i)), StartTime: start, EndTime: &end,
			Mode: queue.ModeTrain, Status: queue.RolloutSucceeded, Config: queue.DefaultConfig(), Metadata: rawjson.EmptyObject,
		},
		Attempts: []queue.Attempt{{
			RolloutID: rolloutID(i), AttemptID: attemptID, SequenceID: 1, StartTime: start, EndTime: &end, Status: queue.AttemptSucceeded,
			LastHeartbeatTime: &end, Metadata: rawjson.EmptyObject,
		}},
		Spans: int64(spans),
	}
}

// said is about as long as what people and models say.
var said = strings.Repeat("It is a long way, and there is time to talk. ", 8)

// tokens are as many as that may be.
var tokens = "[" + strings.Repeat("1234,", 80) + "5]"

// span is one of the spans of a rollout: two are calls, the last one is the reward.
func span(i, n, of int) queue.Span {
	start := 1.7e9 + float64(i) + float64(n)/1000
	end := start + 0.0005
	s := queue.Span{
		RolloutID: rolloutID(i), AttemptID: attemptID, SequenceID: int64(n + 1), TraceID: fmt.Sprintf("%032x", i+1), SpanID: fmt.Sprintf("%016x", n+1),
		Name: "agent.step", StartTime: &start, EndTime: &end,
		Attributes: rawjson.Value(fmt.Sprintf(`{"step":%d,"agent.name":"planner","thought":%q}`, n, said[:120])),
	}
	if n > 0 {
		parent := fmt.Sprintf("%016x", 1)
		s.ParentID = &parent
	}
	const question = `"gen_ai.prompt.0.role":"system","gen_ai.prompt.0.content":"Be brief.","gen_ai.prompt.1.role":"user","gen_ai.prompt.1.content":`
	const calls = `tool_calls.0.id":"call_1","%[1]stool_calls.0.type":"function","%[1]stool_calls.0.name":"look_up","%[1]stool_calls.0.arguments":"{\"what\":\"time\"}"`
	switch {
	case n == of-1:
		s.Name = semconv.AnnotationSpan
		s.Attributes = rawjson.Value(fmt.Sprintf(`{"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":%g}`, float64(i%11)/10))
	case n == 1:
		s.Name = semconv.ChatSpan
		s.Attributes = rawjson.Value(fmt.Sprintf(`{%s%q,"gen_ai.completion.0.role":"assistant","gen_ai.completion.0.%s,"gen_ai.response.id":"resp-%d-1","prompt_token_ids":%s,"response_token_ids":%[5]s}`,
			question, said, fmt.Sprintf(calls, "gen_ai.completion.0."), i, tokens))
	case n == 3:
		s.Name = semconv.ChatSpan
		s.Attributes = rawjson.Value(fmt.Sprintf(`{%s%q,"gen_ai.prompt.2.role":"assistant","gen_ai.prompt.2.%s,"gen_ai.prompt.3.role":"tool","gen_ai.prompt.3.tool_call_id":"call_1","gen_ai.prompt.3.content":"noon",`+
			`"gen_ai.completion.0.role":"assistant","gen_ai.completion.0.content":%[2]q,"gen_ai.response.id":"resp-%[4]d-2","prompt_token_ids":%[5]s,"response_token_ids":%[5]s}`,
			question, said, fmt.Sprintf(calls, "gen_ai.prompt.2."), i, tokens))
	}
	s.FillIn()
	return s
}
