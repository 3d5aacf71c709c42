package react_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// Whatever the model calls, every call gets exactly one result under its id, before
// the next step; what a call is told is what its tool said to these arguments; and each
// tool is called once for the same arguments, unless it failed.
func TestEveryCallGetsItsResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		script, structured := drawScript(t), rapid.Bool().Draw(t, "structured")
		steps := 0
		var mu sync.Mutex
		model := func(r fakellm.Request) fakellm.Answer {
			mu.Lock()
			defer mu.Unlock()
			steps++
			if steps > len(script) {
				if structured && r.Body.Get("response_format") != nil {
					return step(true, "")
				}
				return says("the answer")
			}
			if structured {
				return asStep(script[steps-1])
			}
			return script[steps-1]
		}
		made := map[string]int{}
		r := newRig(t, model, react.Options{
			Structured: structured, MaxSteps: len(script) + 1, Tools: propertyTools(&mu, made),
		})
		o := r.succeed(`"go"`)
		checkOrder(t, o.conv.Messages())
		checkResults(t, o.conv, made)
		all, err := adapter.Messages{}.Adapt(o.spans)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range all[len(all)-1].Messages.Elements() {
			n++
		}
		if n != len(o.conv.Messages()) {
			t.Fatalf("%d messages converted of %d", n, len(o.conv.Messages()))
		}
	})
}

// drawScript draws what the model does, step by step.
func drawScript(t *rapid.T) []fakellm.Answer {
	call := rapid.Custom(func(t *rapid.T) fakellm.ToolCall {
		return fakellm.ToolCall{
			ID:   rapid.SampledFrom([]string{"", "1", "2", "3", "4", "5", "call_1_1_1", "call_1_2_1"}).Draw(t, "id"),
			Name: rapid.SampledFrom([]string{"read", "read", "fail", "nothing", "agentlightning.reward"}).Draw(t, "name"),
			Arguments: rapid.SampledFrom([]string{
				`{"a":1,"b":{"c":[1,2],"d":"x"}}`, `{ "b": {"d":"\u0078", "c":[1, 2]}, "a":1 }`, `{"a":2}`, `{"a":"no number"}`, `{}`, ``, `{"a":`, `[1]`, `null`,
			}).Draw(t, "arguments"),
		}
	})
	steps := rapid.SliceOfN(rapid.SliceOfN(call, 1, 6), 1, 5).Draw(t, "steps")
	var script []fakellm.Answer
	for _, s := range steps {
		script = append(script, fakellm.Answer{ToolCalls: s})
	}
	return script
}

// asStep is the same step as structured output.
func asStep(a fakellm.Answer) fakellm.Answer {
	text := ""
	for i, c := range a.ToolCalls {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(`{"name":%q,"arguments":%s}`, c.Name, rawjson.AppendString(nil, c.Arguments))
	}
	return step(false, text)
}

// propertyTools count how often they are called with what.
func propertyTools(mu *sync.Mutex, made map[string]int) []react.Tool {
	schema := rawjson.Value(`{"type":"object","properties":{"a":{"type":"integer"}}}`)
	note := func(c react.Call) {
		mu.Lock()
		defer mu.Unlock()
		made[react.CallKey(c.Tool, string(c.Arguments))]++
	}
	return []react.Tool{
		{Name: "read", Parameters: schema, Run: func(_ context.Context, c react.Call) (string, error) {
			note(c)
			return "read " + react.CallKey(c.Tool, string(c.Arguments)), nil
		}},
		{Name: "fail", Parameters: schema, Run: func(_ context.Context, c react.Call) (string, error) {
			note(c)
			return "", errors.New("always")
		}},
	}
}

// checkOrder checks that each message that calls tools has calls, and is followed by
// one result for each of them and by nothing else before the next.
func checkOrder(t *rapid.T, messages []llmclient.Message) {
	ids := map[string]bool{}
	for i := 0; i < len(messages); i++ {
		m := messages[i]
		if m.Role == "tool" {
			t.Fatalf("message %d is a result of no call", i)
		}
		if m.Role == "assistant" && i < len(messages)-1 && len(m.ToolCalls) == 0 {
			t.Fatalf("message %d calls nothing", i)
		}
		for _, c := range m.ToolCalls {
			if ids[c.ID] || c.ID == "" {
				t.Fatalf("two calls have the id %q", c.ID)
			}
			ids[c.ID] = true
			i++
			if i == len(messages) || messages[i].Role != "tool" || messages[i].ToolCallID != c.ID {
				t.Fatalf("call %s has no result in its place", c.ID)
			}
		}
	}
}

// checkResults checks what the calls were told, and how often tools were called.
func checkResults(t *rapid.T, c *react.Conversation, made map[string]int) {
	failures := map[string]int{} // steps in which a call failed
	for _, s := range c.Turns[0].Steps {
		failed := map[string]bool{}
		for _, call := range s.Calls {
			key := react.CallKey(call.Name, call.Arguments)
			if call.Failed {
				failed[key] = true
			} else if call.Result != "read "+key {
				t.Fatalf("call %s of %s was told %q", call.ID, key, call.Result)
			}
		}
		for key := range failed {
			failures[key]++
		}
	}
	for key, n := range made {
		if n != max(failures[key], 1) {
			t.Fatalf("%s was called %d times, and failed in %d steps", key, n, failures[key])
		}
	}
}
