package llmproxy

import (
	"slices"

	"github.com/aglq/aglq/queue/rawjson"
)

// toResponses writes chat completion chunks as a stream of OpenAI's responses.
type toResponses struct {
	emit    events
	request rawjson.Value // what the client asked

	started   bool
	id, model rawjson.Value
	created   int64
	number    int64 // of the next event
	output    []*outputItem
	open      *outputItem // reasoning or message that grows; nil for none
	calls     map[int64]*outputItem
	finish    string
	usage     rawjson.Value
	err       error // of writing
}

// outputItem is an item in the making.
type outputItem struct {
	kind     string // reasoning, output_text, refusal or function_call
	index    int64
	id       string // of the item
	call     string // of the call
	name     string
	text     []byte // arguments of a call
	logprobs array
	finished rawjson.Value
}

func (t *toResponses) send(kind string, event *object) {
	event.text("type", kind)
	event.int("sequence_number", t.number)
	t.number++
	if t.err == nil {
		t.err = t.emit(kind, event.close())
	}
}

func (t *toResponses) add(_ string, data rawjson.Value) error {
	if present(data.Get("error")) != nil {
		return t.err
	}
	if !t.started {
		t.start(data)
	}
	if usage := present(data.Get("usage")); usage != nil {
		t.usage = usage.Clone()
	}
	for choice := range data.Get("choices").Elements() {
		if index, ok := placeIn(choice); ok && index == 0 {
			t.choice(choice)
		}
	}
	return t.err
}

func (t *toResponses) start(chunk rawjson.Value) {
	t.started = true
	t.id, t.model = chunk.Get("id").Clone(), chunk.Get("model").Clone()
	t.created, _ = chunk.Get("created").Int()
	for _, kind := range []string{"response.created", "response.in_progress"} {
		var event object
		event.raw("response", finishResponse(t.head(), "in_progress", "", nil, nil))
		t.send(kind, &event)
	}
}

func (t *toResponses) head() *object { return responseHead(t.request, t.id, t.model, t.created) }

func (t *toResponses) choice(choice rawjson.Value) {
	delta := choice.Get("delta")
	if text := reasoningOf(delta); text != "" {
		t.grow("reasoning", text, nil)
	}
	probs := probsIn(choice)
	if text := delta.Get("content").Text(); text != "" || len(probs) > len("[]") {
		t.grow("output_text", text, probs)
	}
	if text := delta.Get("refusal").Text(); text != "" {
		t.grow("refusal", text, nil)
	}
	for call := range delta.Get("tool_calls").Elements() {
		t.callDelta(call)
	}
	if finish := choice.Get("finish_reason").Text(); finish != "" {
		t.finish = finish
	}
}

// growing are the events of what grows piece by piece.
var growing = map[string]struct{ delta, done, member string }{
	"reasoning":     {"response.reasoning_text.delta", "response.reasoning_text.done", "text"},
	"output_text":   {"response.output_text.delta", "response.output_text.done", "text"},
	"refusal":       {"response.refusal.delta", "response.refusal.done", "refusal"},
	"function_call": {"response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments"},
}

// begin opens an item, and its part where the kind has one.
func (t *toResponses) begin(item *outputItem) {
	item.index = int64(len(t.output))
	t.output = append(t.output, item)
	var event object
	event.int("output_index", item.index)
	event.raw("item", t.item(item, "in_progress"))
	t.send("response.output_item.added", &event)
	if item.kind != "function_call" {
		t.partEvent("response.content_part.added", item)
	}
}

// item is an item as it is. One in progress has nothing in it yet.
func (t *toResponses) item(item *outputItem, status string) rawjson.Value {
	id, text := t.id.Text(), string(item.text)
	switch item.kind {
	case "function_call":
		return callItem(item.call, item.name, text, status)
	case "reasoning":
		made := reasoningItem(id, text, status)
		if status == "in_progress" {
			made = merge(made, rawjson.Value(`{"content":[]}`))
		}
		return made
	}
	part := item.part()
	if status == "in_progress" {
		part = nil
	}
	return messageItem(id, status, part)
}

func (i *outputItem) part() rawjson.Value {
	switch i.kind {
	case "reasoning":
		return reasoningPart(string(i.text))
	case "refusal":
		return refusalPart(string(i.text))
	}
	return textPart(string(i.text), i.logprobs.list())
}

func (t *toResponses) partEvent(kind string, item *outputItem) {
	event := t.at(item)
	event.raw("part", item.part())
	t.send(kind, event)
}

// at begins an event about an item.
func (t *toResponses) at(item *outputItem) *object {
	event := &object{}
	event.text("item_id", item.id)
	event.int("output_index", item.index)
	if item.kind != "function_call" {
		event.int("content_index", 0)
	}
	return event
}

func (t *toResponses) grow(kind, text string, probs rawjson.Value) {
	if t.open != nil && t.open.kind != kind {
		t.close(t.open)
	}
	if t.open == nil {
		prefix := "msg_"
		if kind == "reasoning" {
			prefix = "rs_"
		}
		t.open = &outputItem{kind: kind, id: prefix + t.id.Text()}
		t.begin(t.open)
	}
	t.open.text = append(t.open.text, text...)
	t.open.logprobs.extend(probs)
	t.delta(t.open, text, probs)
}

func (t *toResponses) delta(item *outputItem, text string, probs rawjson.Value) {
	event := t.at(item)
	event.text("delta", text)
	if item.kind == "output_text" {
		if probs == nil {
			probs = rawjson.EmptyArray
		}
		event.raw("logprobs", probs)
	}
	t.send(growing[item.kind].delta, event)
}

func (t *toResponses) callDelta(call rawjson.Value) {
	if t.open != nil {
		t.close(t.open)
	}
	index, ok := placeIn(call)
	if !ok {
		return
	}
	function := call.Get("function")
	item := t.calls[index]
	if item == nil {
		if t.calls == nil {
			t.calls = map[int64]*outputItem{}
		}
		id := call.Get("id").Text()
		item = &outputItem{kind: "function_call", id: "fc_" + id, call: id, name: function.Get("name").Text()}
		t.calls[index] = item
		t.begin(item)
	}
	if part := function.Get("arguments").Text(); part != "" {
		item.text = append(item.text, part...)
		t.delta(item, part, nil)
	}
}

// close ends an item.
func (t *toResponses) close(item *outputItem) {
	if item == t.open {
		t.open = nil
	}
	event := t.at(item)
	event.text(growing[item.kind].member, string(item.text))
	switch item.kind {
	case "function_call":
		event.text("name", item.name)
	case "output_text":
		event.raw("logprobs", item.logprobs.list())
	}
	t.send(growing[item.kind].done, event)
	if item.kind != "function_call" {
		t.partEvent("response.content_part.done", item)
	}
	item.finished = t.item(item, "completed")
	event = &object{}
	event.int("output_index", item.index)
	event.raw("item", item.finished)
	t.send("response.output_item.done", event)
}

func (t *toResponses) end(failure error) error {
	event := &object{}
	if failure != nil {
		event.text("code", "server_error")
		event.text("message", failure.Error())
		event.raw("param", rawjson.Null)
		t.send("error", event)
		return t.err
	}
	if len(t.output) == 0 {
		t.grow("output_text", "", nil)
	}
	var output array
	for _, item := range slices.Clone(t.output) {
		if item.finished == nil {
			t.close(item)
		}
		output.add(item.finished)
	}
	status, reason := responseStatus(t.finish)
	event.raw("response", finishResponse(t.head(), status, reason, output.close(), responsesUsage(t.usage)))
	t.send("response."+status, event)
	return t.err
}

// responsesToChunks writes a stream of OpenAI's responses as chat completion
// chunks.
type responsesToChunks struct {
	chunkWriter
	calls map[int64]int64 // place in the output to number of the call
	ended bool
}

func (t *responsesToChunks) add(_ string, event rawjson.Value) error {
	index, _ := event.Get("output_index").Int()
	var delta object
	switch event.Get("type").Text() {
	case "response.created":
		t.open(event.Get("response"))
	case "response.output_text.delta":
		delta.raw("content", event.Get("delta"))
		t.chunkWithProbs(delta, event.Get("logprobs"))
	case "response.refusal.delta":
		delta.raw("refusal", event.Get("delta"))
		t.chunk(delta, rawjson.Null)
	case "response.reasoning_text.delta", "response.reasoning_summary_text.delta":
		delta.raw("reasoning_content", event.Get("delta"))
		t.chunk(delta, rawjson.Null)
	case "response.output_item.added":
		if item := event.Get("item"); item.Get("type").Text() == "function_call" && len(t.calls) < maxChoices {
			if t.calls == nil {
				t.calls = map[int64]int64{}
			}
			t.calls[index] = int64(len(t.calls))
			t.callDelta(t.calls[index], toolCall(item.Get("call_id").Text(), item.Get("name").Text(), ""))
		}
	case "response.function_call_arguments.delta":
		if number, ok := t.calls[index]; ok {
			var function, call object
			function.raw("arguments", event.Get("delta"))
			call.raw("function", function.close())
			t.callDelta(number, call.close())
		}
	case "response.completed", "response.incomplete":
		if !t.ended {
			t.ended = true
			response := event.Get("response")
			t.usage = usageOfResponse(response.Get("usage"))
			t.chunk(object{}, quote(finishOfResponse(response, len(t.calls) > 0)))
		}
	}
	return t.err
}
