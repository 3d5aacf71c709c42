package llmproxy

import (
	"crypto/rand"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// rawSpanName is the name of the span with what the upstream was sent and what
// it answered.
const rawSpanName = "raw_gen_ai_request"

// record files a call: once, and after it has been settled.
func (c *call) record() {
	if c.recorded {
		return
	}
	c.recorded = true
	now := time.Now()
	usage := c.usage()
	if c.p.opts.Observe != nil {
		c.p.opts.Observe(c.observation(now, usage))
	}
	if c.number == nil {
		return
	}
	s := &spans{call: c, began: queue.Seconds(c.began), ended: queue.Seconds(now), number: c.p.numbers.wait(c.number)}
	s.traceID, s.parent = traceOf(c.r.Header.Get("Traceparent"))
	id := randomHex(8)
	name := c.p.opts.SpanName
	var conversation rawjson.Value
	if c.outcome == OutcomeOK && c.endpoint != embeddings {
		conversation = c.conversation(usage)
	} else {
		// Readers take any span of that name, and any gen_ai.prompt, for a call that
		// went well.
		name = DefaultSpanName
		conversation = c.facts(usage).close()
	}
	c.p.spans.add([]queue.Span{s.span(name, id, s.parent, conversation), s.span(rawSpanName, randomHex(8), &id, c.raw())})
}

func (c *call) observation(now time.Time, usage usage) Observation {
	o := Observation{
		Model: "other", Endpoint: string(c.endpoint), Status: c.status, Outcome: c.outcome, Stream: c.stream,
		Took: now.Sub(c.began), PromptTokens: usage.prompt, CompletionTokens: usage.completion,
		Cost: c.cost(usage),
	}
	if c.model != nil {
		o.Model = c.model.name
	}
	if c.outcome == OutcomeCancelled {
		o.Status = statusClientGone
	}
	if !c.firstByte.IsZero() {
		o.FirstByte = c.firstByte.Sub(c.began)
	}
	return o
}

// usage is how many tokens a call took.
type usage struct{ prompt, completion, total int64 }

// usage takes the upstream's word, and counts token ids where it has none, as
// in streams that were not asked for it.
func (c *call) usage() usage {
	v := c.answer.Get("usage")
	var u usage
	if c.wire == messages {
		v = chatUsage(v)
	}
	number := func(names ...string) int64 {
		for _, name := range names {
			if n, ok := v.Get(name).Int(); ok {
				return n
			}
		}
		return 0
	}
	u.prompt, u.completion = number("prompt_tokens", "input_tokens"), number("completion_tokens", "output_tokens")
	if v.IsNull() || u == (usage{}) {
		ids := idsOf(c.answer)
		u.prompt, u.completion = int64(count(ids.prompt)), int64(count(ids.response))
	}
	u.total = max(number("total_tokens"), u.prompt+u.completion)
	return u
}

// cost is what a call costs by the prices of the model table. Answers from the
// cache cost nothing.
func (c *call) cost(u usage) float64 {
	if c.upstream == nil || c.cached {
		return 0
	}
	return float64(u.prompt)*c.upstream.InputCost + float64(u.completion)*c.upstream.OutputCost
}

// requestTypes are the names that the reference has for the endpoints.
var requestTypes = map[endpoint]string{
	chat: "acompletion", completions: "atext_completion", responses: "aresponses", embeddings: "aembedding", messages: "anthropic_messages",
}

// facts are the attributes of any call.
func (c *call) facts(u usage) *object {
	o := &object{}
	if c.upstream != nil {
		o.text("gen_ai.system", c.upstream.Provider)
	}
	o.text("llm.request.type", requestTypes[c.endpoint])
	o.text("llm.is_streaming", pythonLiteral(truth(c.stream)))
	if user := c.body.Get("user").Text(); user != "" {
		o.text("llm.user", user)
	}
	var headers object
	headers.text("x-rollout-id", c.ref.RolloutID)
	headers.text("x-attempt-id", c.ref.AttemptID)
	o.text("metadata.requester_custom_headers", pythonLiteral(headers.close()))
	if u.total > 0 {
		o.int("gen_ai.usage.prompt_tokens", u.prompt)
		o.int("gen_ai.usage.completion_tokens", u.completion)
		o.int("llm.usage.total_tokens", u.total)
	}
	if cost := c.cost(u); cost > 0 {
		o.float("gen_ai.cost.total_cost", cost)
	}
	o.text("aglq.llm.outcome", c.outcome)
	o.int("aglq.llm.retries", int64(c.retries))
	if c.model != nil {
		o.text("aglq.llm.model_name", c.model.name)
	}
	if c.upstream != nil {
		if base, err := url.Parse(c.upstream.APIBase); err == nil {
			o.text("server.address", base.Host)
		}
	}
	if !c.firstByte.IsZero() {
		o.float("aglq.llm.ttft_seconds", c.firstByte.Sub(c.began).Seconds())
	}
	if c.cached {
		o.raw("aglq.llm.cached", rawjson.Value("true"))
	}
	if c.outcome != OutcomeOK {
		o.text("error.type", c.outcome)
		o.text("error.message", c.failure)
	}
	if c.status > 0 {
		o.int("http.response.status_code", int64(c.status))
	}
	return o
}

func truth(b bool) rawjson.Value { return rawjson.Value(strconv.FormatBool(b)) }

// conversation is the attributes of a call that went well.
func (c *call) conversation(u usage) rawjson.Value {
	o := c.facts(u)
	o.text("gen_ai.request.model", c.sent.Get("model").Text())
	for _, name := range []string{"temperature", "max_tokens", "top_p"} {
		if v := c.sent.Get(name); v.Kind() == rawjson.KindInteger || v.Kind() == rawjson.KindFloat {
			o.raw("gen_ai.request."+name, v)
		}
	}
	request, answer := c.asChat()
	addTools(o, request.Get("tools"))
	i := 0
	for m := range request.Get("messages").Elements() {
		addMessage(o, "gen_ai.prompt."+strconv.Itoa(i), m)
		i++
	}
	i = 0
	for choice := range answer.Get("choices").Elements() {
		prefix := "gen_ai.completion." + strconv.Itoa(i)
		addMessage(o, prefix, choice.Get("message"))
		if reason := choice.Get("finish_reason").Text(); reason != "" {
			o.text(prefix+".finish_reason", reason)
		}
		i++
	}
	if id := c.answer.Get("id").Text(); id != "" {
		o.text("gen_ai.response.id", id)
	}
	if model := c.answer.Get("model").Text(); model != "" {
		o.text("gen_ai.response.model", model)
	}
	ids := idsOf(c.answer)
	o.raw("prompt_token_ids", ids.prompt)
	o.raw("response_token_ids", ids.response)
	if probs := logprobsOf(answer); probs != nil {
		o.text("logprobs.content", string(probs))
	}
	return o.close()
}

// addTools writes the functions that a model may call.
func addTools(o *object, tools rawjson.Value) {
	i := 0
	for tool := range tools.Elements() {
		function := tool.Get("function")
		if function == nil {
			continue
		}
		prefix := "gen_ai.request.functions." + strconv.Itoa(i) + "."
		o.text(prefix+"name", function.Get("name").Text())
		if v := function.Get("description").Text(); v != "" {
			o.text(prefix+"description", v)
		}
		parameters := present(function.Get("parameters"))
		if parameters == nil {
			parameters = rawjson.EmptyObject
		}
		o.text(prefix+"parameters", string(parameters))
		i++
	}
}

// addMessage writes a chat message. Content that is not text, as lists with
// images are, is JSON text.
func addMessage(o *object, prefix string, m rawjson.Value) {
	o.text(prefix+".role", m.Get("role").Text())
	switch content := m.Get("content"); content.Kind() {
	case rawjson.KindString:
		o.raw(prefix+".content", content)
	case rawjson.KindNull, rawjson.Invalid:
	default:
		o.text(prefix+".content", string(content))
	}
	if v := m.Get("refusal").Text(); v != "" {
		o.text(prefix+".refusal", v)
	}
	if v := reasoningOf(m); v != "" {
		o.text(prefix+".reasoning_content", v)
	}
	if v := m.Get("tool_call_id").Text(); v != "" {
		o.text(prefix+".tool_call_id", v)
	}
	i := 0
	for call := range m.Get("tool_calls").Elements() {
		at := prefix + ".tool_calls." + strconv.Itoa(i) + "."
		function := call.Get("function")
		o.text(at+"id", call.Get("id").Text())
		o.text(at+"type", "function")
		o.text(at+"name", function.Get("name").Text())
		o.text(at+"arguments", function.Get("arguments").Text())
		i++
	}
}

// tokenIDs are those of a prompt and of the first choice, absent where there are
// none.
type tokenIDs struct{ prompt, response rawjson.Value }

func idsOf(answer rawjson.Value) tokenIDs {
	choice := first(answer.Get("choices"))
	return tokenIDs{
		prompt:   firstList(answer.Get("prompt_token_ids"), choice.Get("prompt_token_ids")),
		response: firstList(choice.Get("token_ids"), choice.Get("provider_specific_fields").Get("token_ids"), first(answer.Get("response_token_ids"))),
	}
}

// firstList is the first that is a list of whole numbers with something in it.
func firstList(candidates ...rawjson.Value) rawjson.Value {
	for _, v := range candidates {
		whole := len(v) > len("[]") && v.Kind() == rawjson.KindArray
		for e := range v.Elements() {
			whole = whole && e.Kind() == rawjson.KindInteger
		}
		if whole {
			return v
		}
	}
	return nil
}

// logprobsOf is the list of the first choice's tokens with their log
// probabilities, in the form of chats; absent where there is none.
func logprobsOf(answer rawjson.Value) rawjson.Value {
	probs := first(answer.Get("choices")).Get("logprobs")
	if content := probs.Get("content"); len(content) > len("[]") && content.Kind() == rawjson.KindArray {
		return content
	}
	var values []rawjson.Value
	for v := range probs.Get("token_logprobs").Elements() {
		values = append(values, v)
	}
	var out array
	i := 0
	for token := range probs.Get("tokens").Elements() {
		if i >= len(values) {
			return nil
		}
		var entry object
		entry.raw("token", token)
		entry.raw("logprob", values[i])
		out.add(entry.close())
		i++
	}
	return out.close()
}

// raw is what went to the upstream and what came back, a member each, as Python
// text; what came back of a call that went wrong stays apart from what readers
// take for an answer.
func (c *call) raw() rawjson.Value {
	answer := c.answer
	if c.outcome != OutcomeOK {
		answer = nil
	}
	if c.endpoint == embeddings {
		answer = without(answer, "data") // vectors are no conversation
	}
	provider := DefaultProvider
	if c.upstream != nil {
		provider = c.upstream.Provider
	}
	request := c.sent
	if request == nil {
		request = c.body
	}
	var o object
	for key, val := range merge(request, answer).Members() {
		if !val.IsNull() {
			o.text("llm."+provider+"."+rawjson.Unescape(key), pythonLiteral(val))
		}
	}
	o.text("aglq.llm.outcome", c.outcome)
	if c.outcome != OutcomeOK && c.answer != nil {
		o.text("aglq.llm.partial_response", string(c.answer))
	}
	return o.close()
}

// spans makes the spans of one call.
type spans struct {
	call         *call
	traceID      string
	parent       *string
	number       int64
	began, ended float64
}

func (s *spans) span(name, id string, parent *string, attributes rawjson.Value) queue.Span {
	c := s.call
	var status, context, resource, own object
	if c.outcome == OutcomeOK {
		status.text("status_code", "OK")
		status.raw("description", rawjson.Null)
	} else {
		status.text("status_code", "ERROR")
		status.text("description", c.outcome+": "+c.failure)
	}
	context.text("trace_id", s.traceID)
	context.text("span_id", id)
	context.raw("is_remote", rawjson.Value("false"))
	context.raw("trace_state", rawjson.EmptyObject)
	own.text("service.name", "aglq-llm-proxy")
	own.text("agentlightning.rollout_id", c.ref.RolloutID)
	own.text("agentlightning.attempt_id", c.ref.AttemptID)
	if s.number != queue.NumberOnArrival {
		own.text("agentlightning.span_sequence_id", strconv.FormatInt(s.number, 10))
	}
	resource.raw("attributes", own.close())
	resource.text("schema_url", "")
	span := queue.Span{
		RolloutID: c.ref.RolloutID, AttemptID: c.ref.AttemptID, SequenceID: s.number,
		TraceID: s.traceID, SpanID: id, ParentID: parent, Name: name,
		Status: status.close(), Attributes: attributes, Context: context.close(), Resource: resource.close(),
		StartTime: &s.began, EndTime: &s.ended,
	}
	span.FillIn()
	return span
}

// traceOf reads a W3C traceparent header, so that the call hangs below what the
// agent was doing; without a good one the trace is a new one.
func traceOf(header string) (traceID string, parent *string) {
	parts := strings.Split(header, "-")
	if len(parts) >= 4 && isHex(parts[1], 32) && isHex(parts[2], 16) {
		return parts[1], &parts[2]
	}
	return randomHex(16), nil
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" && strings.Trim(s, "0") != ""
}

// randomHex is n random bytes as lower-case hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
