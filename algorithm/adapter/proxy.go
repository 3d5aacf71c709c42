package adapter

import (
	"cmp"
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// The two spans of a proxied call that say something of it, and the attributes of
// the raw one, whose values are Python literals or JSON text.
const (
	rawRequestSpan     = "raw_gen_ai_request"
	litellmRequestSpan = "litellm_request"

	rawID               = "llm.hosted_vllm.id"
	rawMessages         = "llm.hosted_vllm.messages"
	rawChoices          = "llm.hosted_vllm.choices"
	rawPromptTokenIDs   = "llm.hosted_vllm.prompt_token_ids"
	rawResponseTokenIDs = "llm.hosted_vllm.response_token_ids"
)

// ProxyTriplets makes triplets from the spans of an LLM proxy, in the order of
// their numbers: calls of which the proxy recorded the token ids of the prompt and
// of the response. A reward goes to the call with the highest number below its own
// that has none yet; times do not count, since the proxy's clock is another one.
//
// Beyond the reference's, its triplets carry the messages, the logprobs (where
// there is one for each token of the response) and the number of the call.
type ProxyTriplets struct {
	// FollowLinks gives a reward with links to the last of the calls they point
	// at that has none yet, and to no other. A link may point at any span of a
	// call, or at its response id. Otherwise links do not count.
	FollowLinks bool
}

// proxied is a call that a proxy recorded.
type proxied struct {
	Triplet
	sequence int64
}

// Adapt implements Adapter. Malformed rewards are an error.
func (a ProxyTriplets) Adapt(spans []queue.Span) ([]Triplet, error) {
	sorted := make([]*queue.Span, len(spans))
	for i := range spans {
		sorted[i] = &spans[i]
	}
	slices.SortStableFunc(sorted, func(a, b *queue.Span) int {
		aStart, _ := times(a)
		bStart, _ := times(b)
		return cmp.Or(cmp.Compare(a.SequenceID, b.SequenceID), cmp.Compare(aStart, bStart))
	})
	calls := proxiedCalls(sorted)
	if err := a.matchRewards(sorted, calls); err != nil {
		return nil, err
	}
	triplets := make([]Triplet, len(calls))
	for i, c := range calls {
		triplets[i] = c.Triplet
	}
	return triplets, nil
}

func proxiedCalls(spans []*queue.Span) []*proxied {
	var calls []*proxied
	seen := map[string]bool{}
	for _, s := range spans {
		var t Triplet
		switch s.Name {
		case rawRequestSpan:
			t = rawCall(s)
		case litellmRequestSpan:
			t = litellmCall(s)
		}
		if len(t.Prompt.TokenIDs) == 0 || len(t.Response.TokenIDs) == 0 {
			continue
		}
		id := proxiedID(s)
		if id != nil && seen[*id] {
			continue
		}
		if id != nil {
			seen[*id] = true
		}
		t.Metadata = Metadata{ResponseID: id, SequenceID: s.SequenceID, SpanID: s.SpanID}
		calls = append(calls, &proxied{t, s.SequenceID})
	}
	return calls
}

// proxiedID is the response id of a call, nil for none. One that is no text hides
// the other.
func proxiedID(s *queue.Span) *string {
	for _, key := range []string{semconv.GenAIResponseID, rawID} {
		v := s.Attribute(key)
		if v.Kind() == rawjson.KindString && len(v) > len(`""`) {
			return v.TextOrNil()
		}
		if truthy(v) {
			return nil
		}
	}
	return nil
}

// truthy is Python's idea of a value that is there.
func truthy(v rawjson.Value) bool {
	switch v.Kind() {
	case rawjson.Invalid, rawjson.KindNull:
		return false
	case rawjson.KindBool:
		return v.Bool()
	case rawjson.KindInteger, rawjson.KindFloat, rawjson.KindNonFinite:
		f, _ := v.Float()
		return f != 0
	}
	return len(v) > len("[]")
}

// rawCall reads what the upstream was asked and answered.
func rawCall(s *queue.Span) (t Triplet) {
	t.Prompt.TokenIDs, _ = tokens(attributeLiteral(s, rawPromptTokenIDs))
	t.Response.TokenIDs, _ = tokens(firstElement(attributeLiteral(s, rawResponseTokenIDs)))
	choices := attributeLiteral(s, rawChoices)
	choice := firstElement(choices)
	if len(t.Response.TokenIDs) == 0 {
		t.Response.TokenIDs, _ = tokens(choice.Get("token_ids"))
	}
	t.Prompt.RawContent = attributeLiteral(s, rawMessages)
	t.Prompt.ImageURLs = imageURLs(t.Prompt.RawContent)
	if choices.Kind() == rawjson.KindArray {
		t.Response.RawContent = contents(choices)
	}
	logprobs := choice.Get("logprobs").Get("content")
	if logprobs == nil {
		logprobs, _ = attributeLogprobs(s)
	}
	t.Response.Logprobs = oneEach(logprobs, t.Response.TokenIDs)
	return t
}

// contents are choices without what triplets hold beside them.
func contents(choices rawjson.Value) rawjson.Value {
	var list []rawjson.Value
	for choice := range choices.Elements() {
		list = append(list, without(choice, "token_ids", "logprobs"))
	}
	return appendList(nil, list)
}

// litellmCall reads what the proxy says of a call: token ids are there only where
// it was made to record them.
func litellmCall(s *queue.Span) (t Triplet) {
	t.Prompt.TokenIDs, _ = tokens(attributeLiteral(s, semconv.PromptTokenIDs))
	t.Response.TokenIDs, _ = tokens(attributeLiteral(s, semconv.ResponseTokenIDs))
	if len(t.Prompt.TokenIDs) == 0 || len(t.Response.TokenIDs) == 0 {
		return t
	}
	// What is malformed here is missing, and no reason to lose the tokens.
	t.Prompt.RawContent, _ = firstNested(s.Attributes, semconv.GenAIPrompt)
	t.Prompt.ImageURLs = imageURLs(t.Prompt.RawContent)
	t.Response.RawContent, _ = firstNested(s.Attributes, semconv.GenAICompletion)
	logprobs, _ := attributeLogprobs(s)
	t.Response.Logprobs = oneEach(logprobs, t.Response.TokenIDs)
	return t
}

// oneEach is a list of logprobs if it has one for each token, else nil.
func oneEach(logprobs rawjson.Value, tokens []int64) rawjson.Value {
	n := 0
	for range logprobs.Elements() {
		n++
	}
	if n == 0 || n != len(tokens) {
		return nil
	}
	return logprobs
}

// attributeLiteral is the value of an attribute, or what its text stands for; nil
// when there is none.
func attributeLiteral(s *queue.Span, key string) rawjson.Value {
	v := s.Attribute(key)
	if v.Kind() != rawjson.KindString {
		return v
	}
	parsed, err := parseLiteral(v.Text())
	if err != nil {
		return v
	}
	return parsed
}

func firstElement(list rawjson.Value) rawjson.Value {
	for item := range list.Elements() {
		return item
	}
	return nil
}

func (a ProxyTriplets) matchRewards(spans []*queue.Span, calls []*proxied) error {
	targets := linkTargets{spans: spans}
	next := 0           // calls before it have a smaller number than the reward
	var open []*proxied // of these, those that may have no reward
	for _, s := range spans {
		value, ok, err := semconv.SpanReward(s)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for next < len(calls) && calls[next].sequence < s.SequenceID {
			open = append(open, calls[next])
			next++
		}
		if a.FollowLinks {
			links, err := semconv.SpanLinks(s)
			if err != nil {
				return err
			}
			if len(links) > 0 {
				giveLinked(value, links, &targets, calls)
				continue
			}
		}
		for len(open) > 0 {
			last := open[len(open)-1]
			open = open[:len(open)-1]
			if last.Reward == nil {
				last.Reward = &value
				break
			}
		}
	}
	return nil
}

// giveLinked gives a reward to the last call without one that links point at. All
// spans of a call have one number.
func giveLinked(value float64, links []semconv.Link, targets *linkTargets, calls []*proxied) {
	numbers := map[int64]bool{}
	for _, i := range targets.of(links) {
		numbers[targets.spans[i].SequenceID] = true
	}
	for _, c := range slices.Backward(calls) {
		byID := len(links) == 1 && links[0].Key == semconv.GenAIResponseID &&
			c.Metadata.ResponseID != nil && *c.Metadata.ResponseID == links[0].Value
		if c.Reward == nil && (byID || numbers[c.sequence]) {
			c.Reward = &value
			return
		}
	}
}
