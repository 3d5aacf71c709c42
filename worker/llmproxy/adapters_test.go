package llmproxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// TestAdapters makes triplets and conversations of the spans of eight calls: two
// fail, and one stream breaks off.
func TestAdapters(t *testing.T) {
	for _, name := range []string{"litellm_request", "openai.chat.completion"} {
		r := newRig(t, func(q fakellm.Request) fakellm.Answer {
			switch q.Prompt() {
			case "fail":
				return fakellm.Answer{Status: 400, Error: "no"}
			case "break":
				return fakellm.Answer{Text: "one two three", BreakAfter: 3}
			case "tool":
				return fakellm.Answer{Text: "calling", ToolCalls: rich.ToolCalls}
			}
			return fakellm.Answer{Text: "you said " + q.Prompt()}
		}, func(o *llmproxy.Options) { o.SpanName, o.Logprobs = name, true })
		for _, prompt := range []string{"hello", "fail", "break", "tool"} {
			for _, more := range []string{"", `,"stream":true`} {
				r.call("/v1/chat/completions", fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":%q}]%s}`, prompt, more))
			}
		}
		spans := r.spans()
		triplets, err := adapter.ProxyTriplets{}.Adapt(spans)
		if err != nil || len(triplets) != 5 {
			t.Fatalf("%s: %d triplets of the proxy, want 5: %v", name, len(triplets), err)
		}
		for _, tr := range triplets {
			if len(tr.Prompt.TokenIDs) == 0 || len(tr.Response.TokenIDs) == 0 || tr.Metadata.ResponseID == nil {
				t.Errorf("%s: triplet %s", name, tr.AppendJSON(nil))
			}
		}
		if name == "openai.chat.completion" {
			traced, err := adapter.TracerTriplets{}.Adapt(spans)
			if err != nil || len(traced) != 5 {
				t.Errorf("%d triplets of the tracer, want 5: %v", len(traced), err)
			}
			for i, tr := range traced {
				if fmt.Sprint(tr.Response.TokenIDs) != fmt.Sprint(triplets[i].Response.TokenIDs) || count(tr.Response.Logprobs) != len(tr.Response.TokenIDs) {
					t.Errorf("triplet %s", tr.AppendJSON(nil))
				}
			}
		}
		conversations, err := adapter.Messages{}.Adapt(spans)
		if err != nil || len(conversations) != 5 {
			t.Fatalf("%s: %d conversations, want 5: %v", name, len(conversations), err)
		}
		if text := string(conversations[0].Messages); !strings.Contains(text, "you said hello") {
			t.Errorf("%s: first conversation %s", name, text)
		}
		for _, c := range conversations[3:] {
			if text := string(c.Messages); !strings.Contains(text, `"id":"t1"`) || !strings.Contains(text, `"name":"g"`) {
				t.Errorf("%s: conversation with tools %s", name, text)
			}
		}
	}
}
