package adapter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// What follows is beyond the reference, or otherwise than there.

// span makes a span; times are its number and one second later.
func span(id, parent, name string, number int64, attributes string) queue.Span {
	start, end := float64(number), float64(number)+1
	s := queue.Span{
		RolloutID: "ro-1", AttemptID: "at-1", TraceID: "t1", SpanID: id, Name: name, SequenceID: number,
		StartTime: &start, EndTime: &end, Attributes: rawjson.Value(attributes),
	}
	if parent != "" {
		s.ParentID = &parent
	}
	s.FillIn()
	return s
}

func chat(id, parent string, number int64) queue.Span {
	return span(id, parent, semconv.ChatSpan, number, `{"gen_ai.response.id":"`+id+`","prompt_token_ids":[1],"response_token_ids":[2]}`)
}

func rewarding(id, parent string, number int64, value string, links ...string) queue.Span {
	text := `{"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":` + value
	for i := 0; i < len(links); i += 2 {
		text += fmt.Sprintf(`,"agentlightning.link.%d.key_match":%q,"agentlightning.link.%d.value_match":%q`, i/2, links[i], i/2, links[i+1])
	}
	return span(id, parent, semconv.AnnotationSpan, number, text+"}")
}

// rewards lists the rewards of triplets, in their order.
func rewards(triplets []Triplet) string {
	var list []string
	for _, t := range triplets {
		if t.Reward == nil {
			list = append(list, "-")
		} else {
			list = append(list, fmt.Sprint(*t.Reward))
		}
	}
	return strings.Join(list, " ")
}

func TestRewardsFollowLinks(t *testing.T) {
	calls := []queue.Span{chat("a", "", 1), chat("b", "", 3), chat("c", "", 5)}
	for name, test := range map[string]struct {
		rewards []queue.Span
		want    string
	}{
		"by response id":                   {[]queue.Span{rewarding("r", "", 9, "0.5", "gen_ai.response.id", "a")}, "0.5 - -"},
		"by span id":                       {[]queue.Span{rewarding("r", "", 9, "0.5", "span_id", "b")}, "- 0.5 -"},
		"the last of those linked":         {[]queue.Span{rewarding("r", "", 9, "0.5", "trace_id", "t1")}, "- - 0.5"},
		"all links must match":             {[]queue.Span{rewarding("r", "", 9, "0.5", "span_id", "b", "gen_ai.response.id", "a")}, "- - -"},
		"linked to nothing is nobody's":    {[]queue.Span{rewarding("r", "", 9, "0.5", "span_id", "x")}, "- - -"},
		"a call has one reward":            {[]queue.Span{rewarding("r", "", 9, "0.5", "span_id", "a"), rewarding("q", "", 10, "2", "span_id", "a")}, "0.5 - -"},
		"told before the call has ended":   {[]queue.Span{rewarding("r", "", 5, "0.5", "span_id", "c")}, "- - 0.5"},
		"those without go to what is left": {[]queue.Span{rewarding("q", "", 8, "2"), rewarding("r", "", 9, "0.5", "span_id", "c")}, "- 2 0.5"},
	} {
		t.Run(name, func(t *testing.T) {
			spans := append(slices.Clone(calls), test.rewards...)
			if got := rewards(mustAdapt(t, TracerTriplets{FollowLinks: true}, spans)); got != test.want {
				t.Errorf("rewards %s; want %s", got, test.want)
			}
		})
	}
}

func TestMalformedLinksAreAnErrorOnlyWhereTheyAreFollowed(t *testing.T) {
	bad := rewarding("r", "", 9, "0.5")
	bad.Attributes = append(bad.Attributes[:len(bad.Attributes)-1], `,"agentlightning.link.0.key_match":"span_id"}`...)
	spans := []queue.Span{chat("a", "", 1), bad}
	if got := rewards(mustAdapt(t, TracerTriplets{}, spans)); got != "0.5" {
		t.Errorf("rewards %s", got)
	}
	if _, err := (TracerTriplets{FollowLinks: true}).Adapt(spans); queue.KindOf(err) != queue.Invalid {
		t.Errorf("error %v", err)
	}
}

func TestRewardsBySequence(t *testing.T) {
	late := chat("b", "", 3)
	at := 50.0 // a clock that is ahead
	late.StartTime, late.EndTime = &at, &at
	spans := []queue.Span{
		chat("a", "", 1), late, rewarding("r", "", 4, "0.5"), rewarding("q", "", 4, "0.25"),
		chat("c", "", 6), rewarding("s", "", 6, "2"), rewarding("u", "", 7, "3"),
	}
	if got := rewards(mustAdapt(t, TracerTriplets{Match: Sequence, KeepHierarchy: true}, spans)); got != "0.25 0.5 3" {
		t.Errorf("rewards %s", got)
	}
}

func TestACallThatOutlastsItsParentStaysInTheTree(t *testing.T) {
	// The reference hangs the parent below the child, and loses both.
	parent := rewarding("r", "", 4, "1")
	end := 4.0
	parent.EndTime = &end
	spans := []queue.Span{chat("a", "", 1), parent, chat("b", "r", 4)}
	if got := rewards(mustAdapt(t, TracerTriplets{RewardCalls: true}, spans)); got != "1 -" {
		t.Errorf("rewards %s", got)
	}
}

func TestToolCallsThatWereRecordedWithTheAnswer(t *testing.T) {
	answer := span("a", "", semconv.ChatSpan, 1, `{"gen_ai.completion.0.role":"assistant",`+
		`"gen_ai.completion.0.tool_calls.0.id":"c1","gen_ai.completion.0.tool_calls.0.name":"add","gen_ai.completion.0.tool_calls.0.arguments":"{}",`+
		`"gen_ai.completion.0.tool_calls.1.id":"c2","gen_ai.completion.0.tool_calls.1.function.name":"sub","gen_ai.completion.0.tool_calls.1.function.arguments":"[]"}`)
	got := mustAdapt(t, Messages{}, []queue.Span{answer})
	want := `[{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{}"}},` +
		`{"id":"c2","type":"function","function":{"name":"sub","arguments":"[]"}}]}]`
	if len(got) != 1 || string(got[0].Messages) != want {
		t.Errorf("%v", got)
	}
	tool := span("t", "a", "tool_call.mul", 2, `{"tool.name":"mul","tool.parameters":"{}","tool.call.id":"c3","tool.call.type":"function"}`)
	got = mustAdapt(t, Messages{}, []queue.Span{answer, tool})
	if text := string(got[0].Messages); !strings.Contains(text, "mul") || strings.Contains(text, "add") {
		t.Errorf("spans of tools come first: %s", text)
	}
	got = mustAdapt(t, Messages{OnlyToolSpans: true}, []queue.Span{answer})
	if string(got[0].Messages) != `[{"role":"assistant","content":null}]` {
		t.Errorf("%v", got)
	}
}

func TestContentsOfPartsAreReadBack(t *testing.T) {
	spans := []queue.Span{span("a", "", semconv.ChatSpan, 1, `{"gen_ai.prompt.0.role":"user","gen_ai.prompt.0.content":"[{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\"}}]",`+
		`"gen_ai.prompt.1.role":"user","gen_ai.prompt.1.content":"[1, 2]"}`)}
	got := mustAdapt(t, Messages{Parts: true}, spans)
	want := `[{"content":[{"image_url":{"url":"u"},"type":"image_url"}],"role":"user"},{"content":"[1, 2]","role":"user"}]`
	if string(got[0].Messages) != want {
		t.Errorf("%s", got[0].Messages)
	}
}

func proxyCall(number int64, attributes string) queue.Span {
	return span(fmt.Sprint("p", number), "", rawRequestSpan, number, attributes)
}

func TestProxiedCallsCarryMessagesAndLogprobs(t *testing.T) {
	spans := []queue.Span{proxyCall(3, `{"llm.hosted_vllm.id":"x","llm.hosted_vllm.prompt_token_ids":"[1]","llm.hosted_vllm.messages":"[{'role': 'user', 'content': 'it\\'s'}]",`+
		`"llm.hosted_vllm.choices":"[{'message': {'content': 'yes'}, 'token_ids': [2, 3], 'logprobs': {'content': [{'logprob': -0.5}, {'logprob': -1e-05}]}}]"}`)}
	got := mustAdapt(t, ProxyTriplets{}, spans)
	want := `{"prompt":{"token_ids":[1],"raw_content":[{"role":"user","content":"it's"}],"image_urls":[]},` +
		`"response":{"token_ids":[2,3],"raw_content":[{"message":{"content":"yes"}}],"logprobs":[{"logprob":-0.5},{"logprob":-0.00001}]},` +
		`"reward":null,"metadata":{"response_id":"x","sequence_id":3,"span_id":"p3"}}`
	if len(got) != 1 {
		t.Fatalf("%d triplets", len(got))
	}
	if diff := cmp.Diff(want, string(got[0].AppendJSON(nil))); diff != "" {
		t.Error(diff)
	}
}

func TestLogprobsThatDoNotFitTheTokensAreLeftOut(t *testing.T) {
	got := mustAdapt(t, ProxyTriplets{}, []queue.Span{proxyCall(1, `{"llm.hosted_vllm.prompt_token_ids":"[1]",`+
		`"llm.hosted_vllm.choices":"[{'token_ids': [2, 3], 'logprobs': {'content': [{'logprob': -0.5}]}}]"}`)})
	if len(got) != 1 || got[0].Response.Logprobs != nil {
		t.Errorf("%+v", got)
	}
}

func TestProxiedCallsInJSON(t *testing.T) {
	got := mustAdapt(t, ProxyTriplets{}, []queue.Span{proxyCall(1, `{"llm.hosted_vllm.prompt_token_ids":"[1]","llm.hosted_vllm.choices":"[{\"token_ids\":[2],\"stop\":null,\"last\":true}]"}`)})
	if len(got) != 1 || got[0].Response.TokenIDs[0] != 2 {
		t.Errorf("%+v", got)
	}
}

func TestProxiedRewardsFollowLinks(t *testing.T) {
	call := func(number int64, id string) []queue.Span {
		request := span("q"+id, "", litellmRequestSpan, number, `{"gen_ai.response.id":"`+id+`"}`)
		return []queue.Span{request, proxyCall(number, `{"llm.hosted_vllm.id":"`+id+`","llm.hosted_vllm.prompt_token_ids":"[1]","llm.hosted_vllm.response_token_ids":"[[2]]"}`)}
	}
	calls := slices.Concat(call(1, "x"), call(2, "y"), call(3, "z"))
	for name, test := range map[string]struct {
		links []string
		want  string
	}{
		"by response id":             {[]string{"gen_ai.response.id", "x"}, "0.5 - -"},
		"by the span of the request": {[]string{"span_id", "qy"}, "- 0.5 -"},
		"to nothing":                 {[]string{"span_id", "no"}, "- - -"},
		"none":                       {nil, "- - 0.5"},
	} {
		spans := append(slices.Clone(calls), rewarding("r", "", 9, "0.5", test.links...))
		if got := rewards(mustAdapt(t, ProxyTriplets{FollowLinks: true}, spans)); got != test.want {
			t.Errorf("%s: rewards %s; want %s", name, got, test.want)
		}
	}
}

func TestAnIDThatComesTwiceIsOneSpan(t *testing.T) {
	spans := []queue.Span{chat("a", "", 1), chat("a", "", 2), rewarding("r", "", 9, "0.5")}
	if got := rewards(mustAdapt(t, TracerTriplets{}, spans)); got != "0.5" {
		t.Errorf("rewards %s", got)
	}
}

func TestAgentsAreMatched(t *testing.T) {
	spans := []queue.Span{
		span("g", "", "agent", 1, `{"agent.name":"writer"}`), chat("a", "g", 1), span("h", "", "agent", 5, `{"agent.name":"critic"}`), chat("b", "h", 5),
	}
	got := mustAdapt(t, TracerTriplets{Agent: regexp.MustCompile("^writer$")}, spans)
	if len(got) != 1 || got[0].Metadata.SpanID != "a" || *got[0].Metadata.AgentName != "writer" {
		t.Errorf("%+v", got)
	}
}

// A trace may be long and flat, or deep.
func TestLongTraces(t *testing.T) {
	const n = 20_000
	flat, deep := []queue.Span{span("root", "", "root", 0, `{}`)}, []queue.Span{}
	for i := range n {
		number := int64(2 * i)
		flat = append(flat, chat(fmt.Sprint("c", i), "root", number))
		parent := ""
		if i > 0 {
			parent = fmt.Sprint("d", i-1)
		}
		deep = append(deep, span(fmt.Sprint("d", i), parent, "step", number, `{}`))
	}
	flat = append(flat, rewarding("r", "root", 2*n, "1"))
	var linked []queue.Span
	for i := range n / 2 {
		linked = append(linked, rewarding(fmt.Sprint("l", i), "root", 2*n, "1", "gen_ai.response.id", fmt.Sprint("c", i)))
	}
	linked = append(linked, flat...)
	if got := mustAdapt(t, TracerTriplets{FollowLinks: true}, linked); got[0].Reward == nil || got[n/2].Reward != nil {
		t.Error("links are not followed")
	}
	if got := mustAdapt(t, TracerTriplets{}, flat); len(got) != n || got[n-1].Reward == nil {
		t.Errorf("%d triplets", len(got))
	}
	if got := mustAdapt(t, TracerTriplets{}, deep); len(got) != 0 {
		t.Errorf("%d triplets", len(got))
	}
	if got := mustAdapt(t, Messages{}, flat); len(got) != n {
		t.Errorf("%d conversations", len(got))
	}
}

func BenchmarkTracerTriplets(b *testing.B) {
	list := goldens(b, "generated.jsonl.gz")
	spans := 0
	for b.Loop() {
		for _, g := range list {
			_, _ = TracerTriplets{}.Adapt(g.spans) // some are malformed
			spans += len(g.spans)
		}
	}
	b.ReportMetric(float64(spans)/b.Elapsed().Seconds(), "spans/s")
}
