package adapter

import (
	"slices"
	"strconv"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// Where tracers put token ids. The last ones are those of Weave with newer
// servers and clients.
var (
	promptIDKeys   = []string{semconv.PromptTokenIDs, semconv.OperationOutput + ".prompt_token_ids"}
	responseIDKeys = []string{
		semconv.ResponseTokenIDs,
		semconv.OperationOutput + ".response_token_ids.0",
		semconv.OperationOutput + ".choices.0.token_ids",
		semconv.OperationOutput + ".choices.0.provider_specific_fields.token_ids",
	}
)

// tracedCall reads the span of an LLM call.
func tracedCall(s *queue.Span, agent string) (Triplet, error) {
	t := Triplet{Metadata: Metadata{
		ResponseID: ResponseID(s), AgentName: &agent, SequenceID: s.SequenceID, SpanID: s.SpanID,
	}}
	t.Prompt.TokenIDs = firstTokens(s, promptIDKeys)
	t.Response.TokenIDs = firstTokens(s, responseIDKeys)
	for _, part := range []struct {
		into *rawjson.Value
		keys [2]string
	}{
		{&t.Metadata.Request, [2]string{semconv.GenAIRequest, semconv.OperationInput}},
		{&t.Metadata.Response, [2]string{semconv.GenAIResponse, semconv.OperationOutput}},
		{&t.Prompt.RawContent, [2]string{semconv.GenAIPrompt, semconv.OperationInput + ".messages"}},
		{&t.Response.RawContent, [2]string{semconv.GenAICompletion, semconv.OperationOutput + ".choices"}},
	} {
		v, err := firstNested(s.Attributes, part.keys[0], part.keys[1])
		if err != nil {
			return Triplet{}, err
		}
		*part.into = v
	}
	t.Metadata.Request = without(t.Metadata.Request, "messages")
	t.Metadata.Response = without(t.Metadata.Response, "choices", "prompt_token_ids", "response_token_ids")
	t.Prompt.ImageURLs = imageURLs(t.Prompt.RawContent)
	logprobs, err := attributeLogprobs(s)
	t.Response.Logprobs = logprobs
	return t, err
}

// attributeLogprobs reads the logprobs that tracers record as JSON text; nil when
// there are none.
func attributeLogprobs(s *queue.Span) (rawjson.Value, error) {
	text := s.Attribute(semconv.LogprobsContent)
	if text.Kind() != rawjson.KindString {
		return nil, nil
	}
	v, err := rawjson.Parse([]byte(text.Text()))
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "reading "+semconv.LogprobsContent+" of span "+s.SpanID)
	}
	return v, nil
}

// firstTokens is the first of the attributes keys that is a list of integers;
// never nil, so that it is a list in JSON.
func firstTokens(s *queue.Span, keys []string) []int64 {
	for _, key := range keys {
		if v := s.Attribute(key); v != nil {
			if ids, ok := tokens(v); ok {
				return ids
			}
		}
	}
	return []int64{}
}

// tokens reads a list of integers.
func tokens(v rawjson.Value) (ids []int64, ok bool) {
	if v.Kind() != rawjson.KindArray {
		return nil, false
	}
	ids = make([]int64, 0, len(v)/6)
	for item := range v.Elements() {
		id, ok := item.Int()
		if !ok {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}

// firstNested is what the attributes under the first prefix that has some
// unflatten to; null when none has.
func firstNested(attributes rawjson.Value, prefixes ...string) (rawjson.Value, error) {
	for _, prefix := range prefixes {
		v, err := semconv.UnflattenUnder(attributes, prefix)
		if err != nil {
			return nil, err
		}
		if len(v) > len("{}") {
			return v, nil
		}
	}
	return rawjson.Null, nil
}

// without drops members of an object; other values stay.
func without(v rawjson.Value, names ...string) rawjson.Value {
	if v.Kind() != rawjson.KindObject {
		return v
	}
	var dst []byte
	for key, val := range v.Members() {
		if !slices.Contains(names, string(key)) {
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	if dst == nil {
		return rawjson.EmptyObject
	}
	return append(dst, '}')
}

// imageURLs lists the images of a prompt: a list of messages, an object whose
// numeric names are messages, or one message. The content of a message may be
// JSON text.
func imageURLs(prompt rawjson.Value) []rawjson.Value {
	urls := []rawjson.Value{}
	for _, message := range promptMessages(prompt) {
		content := message.Get("content")
		if content.Kind() == rawjson.KindString {
			content, _ = rawjson.Parse([]byte(content.Text()))
		}
		for part := range content.Elements() {
			if part.Get("type").Text() != "image_url" {
				continue
			}
			if url := part.Get("image_url").Get("url"); url != nil {
				urls = append(urls, url)
			}
		}
	}
	return urls
}

func promptMessages(prompt rawjson.Value) []rawjson.Value {
	switch prompt.Kind() {
	case rawjson.KindArray:
		return slices.Collect(prompt.Elements())
	case rawjson.KindObject:
		var messages []rawjson.Value
		type place struct {
			at int
			v  rawjson.Value
		}
		var places []place
		for key, val := range prompt.Members() {
			if digits(key) {
				at, _ := strconv.Atoi(string(key))
				places = append(places, place{at, val})
			}
		}
		if places == nil {
			return []rawjson.Value{prompt}
		}
		slices.SortStableFunc(places, func(a, b place) int { return a.at - b.at })
		for _, p := range places {
			messages = append(messages, p.v)
		}
		return messages
	}
	return nil
}

// digits reports whether a text is made of digits.
func digits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(text) > 0
}
