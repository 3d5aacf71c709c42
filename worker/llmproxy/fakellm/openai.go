package fakellm

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"

	"github.com/aglq/aglq/queue/rawjson"
)

// created is when all answers were made: they do not differ from run to run.
const created = 1_800_000_000

// wants reports whether a member of the request asks for something.
func (t *turn) wants(name string) bool {
	v := t.req.Body.Get(name)
	if n, ok := v.Float(); ok {
		return n > 0
	}
	return v.Bool()
}

func (t *turn) usage() fields {
	prompt, completion := len(t.req.promptTokens()), len(t.answer.tokens())
	return fields{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
}

func (t *turn) head(kind string) fields {
	prefix := "chatcmpl-"
	if t.req.Protocol == Completions {
		prefix = "cmpl-"
	}
	return fields{"id": t.id(prefix), "object": kind, "created": created, "model": t.req.Model}
}

func chatLogprobs(tokens []Token) fields {
	content := []fields{}
	for _, tok := range tokens {
		content = append(content, fields{"token": tok.Text, "logprob": tok.Logprob, "bytes": nil, "top_logprobs": []fields{}})
	}
	return fields{"content": content, "refusal": nil}
}

func calls(list []ToolCall) []fields {
	out := []fields{}
	for i, c := range list {
		out = append(out, fields{
			"index": i, "id": c.ID, "type": "function", "function": fields{"name": c.Name, "arguments": c.Arguments},
		})
	}
	return out
}

func (t *turn) choices() int {
	if n, ok := t.req.Body.Get("n").Int(); ok && n > 1 {
		return int(n)
	}
	return 1
}

func (t *turn) chat() fields {
	out := t.head("chat.completion")
	message := fields{"role": "assistant", "content": t.answer.Text}
	if t.answer.Reasoning != "" {
		message["reasoning_content"] = t.answer.Reasoning
	}
	if len(t.answer.ToolCalls) > 0 {
		list := calls(t.answer.ToolCalls)
		for _, c := range list {
			delete(c, "index")
		}
		message["tool_calls"] = list
		if t.answer.Text == "" {
			message["content"] = nil
		}
	}
	list := []fields{}
	for i := range t.choices() {
		choice := fields{"index": i, "message": message, "finish_reason": t.finish(), "logprobs": nil}
		if t.wants("logprobs") {
			choice["logprobs"] = chatLogprobs(t.answer.tokens())
		}
		if t.wants("return_token_ids") {
			choice["token_ids"] = idsOf(t.answer.tokens())
		}
		list = append(list, choice)
	}
	out["choices"] = list
	out["usage"] = t.usage()
	if t.wants("return_token_ids") {
		out["prompt_token_ids"] = t.req.promptTokens()
	}
	return out
}

func (t *turn) streamChat() {
	chunk := func(delta fields, finish any, tokens []Token) {
		out := t.head("chat.completion.chunk")
		list := []fields{}
		for i := range t.choices() {
			choice := fields{"index": i, "delta": delta, "finish_reason": finish}
			if tokens != nil && t.wants("logprobs") {
				choice["logprobs"] = chatLogprobs(tokens)
			}
			if tokens != nil && t.wants("return_token_ids") {
				choice["token_ids"] = idsOf(tokens)
			}
			list = append(list, choice)
		}
		out["choices"] = list
		if t.pieces == 0 && t.wants("return_token_ids") {
			out["prompt_token_ids"] = t.req.promptTokens()
		}
		t.event("", out)
	}
	chunk(fields{"role": "assistant", "content": ""}, nil, nil)
	for _, tok := range Tokens(t.answer.Reasoning) {
		chunk(fields{"reasoning_content": tok.Text}, nil, []Token{tok})
	}
	for _, tok := range Tokens(t.answer.Text) {
		chunk(fields{"content": tok.Text}, nil, []Token{tok})
	}
	for i, c := range t.answer.ToolCalls {
		first := calls([]ToolCall{{c.ID, c.Name, ""}})
		first[0]["index"] = i
		chunk(fields{"tool_calls": first}, nil, nil)
		for _, tok := range Tokens(c.Arguments) {
			chunk(fields{"tool_calls": []fields{{"index": i, "function": fields{"arguments": tok.Text}}}}, nil, []Token{tok})
		}
	}
	if !t.proper() {
		return
	}
	chunk(fields{}, t.finish(), nil)
	t.endOpenAI("chat.completion.chunk")
}

// proper reports whether a stream gets its end, and sends what it gets in place.
func (t *turn) proper() bool {
	if t.answer.StreamError != "" {
		t.event("", fields{"error": fields{"message": t.answer.StreamError, "type": "api_error", "code": 500}})
	}
	return t.answer.StreamError == "" && !t.answer.NoEnd
}

func (t *turn) endOpenAI(kind string) {
	if t.req.Body.Get("stream_options").Get("include_usage").Bool() {
		out := t.head(kind)
		out["choices"], out["usage"] = []fields{}, t.usage()
		t.event("", out)
	}
	t.event("", "[DONE]")
}

func (t *turn) textChoice(index int, text string, finish any, first bool) fields {
	choice := fields{"index": index, "text": text, "finish_reason": finish, "logprobs": nil}
	if t.wants("return_token_ids") {
		choice["token_ids"] = IDs(text)
		if first {
			choice["prompt_token_ids"] = t.req.promptTokens()
		}
	}
	if t.wants("logprobs") {
		tokens, probs := []string{}, []float64{}
		for _, tok := range Tokens(text) {
			tokens, probs = append(tokens, tok.Text), append(probs, tok.Logprob)
		}
		choice["logprobs"] = fields{"tokens": tokens, "token_logprobs": probs, "top_logprobs": nil, "text_offset": []int{}}
	}
	return choice
}

func (t *turn) text() fields {
	out := t.head("text_completion")
	list := []fields{}
	for i := range t.choices() {
		list = append(list, t.textChoice(i, t.answer.Text, t.finish(), true))
	}
	out["choices"], out["usage"] = list, t.usage()
	return out
}

func (t *turn) streamText() {
	for i, tok := range Tokens(t.answer.Text) {
		out := t.head("text_completion")
		out["choices"] = []fields{t.textChoice(0, tok.Text, nil, i == 0)}
		t.event("", out)
	}
	if !t.proper() {
		return
	}
	out := t.head("text_completion")
	out["choices"] = []fields{t.textChoice(0, "", t.finish(), false)}
	t.event("", out)
	t.endOpenAI("text_completion")
}

// dimensions is the length of the vectors.
const dimensions = 8

func (t *turn) embeddings() {
	inputs := []string{}
	input := t.req.Body.Get("input")
	if input.Kind() == rawjson.KindString {
		inputs = append(inputs, input.Text())
	}
	for e := range input.Elements() {
		inputs = append(inputs, e.Text())
	}
	data := []fields{}
	for i, text := range inputs {
		vector := make([]float32, dimensions)
		for j, tok := range Tokens(text) {
			vector[j%dimensions] += float32(tok.ID%1000) / 1000
		}
		var value any = vector
		if t.req.Body.Get("encoding_format").Text() == "base64" {
			raw := make([]byte, 0, 4*dimensions)
			for _, f := range vector {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
			}
			value = base64.StdEncoding.EncodeToString(raw)
		}
		data = append(data, fields{"object": "embedding", "index": i, "embedding": value})
	}
	n := len(t.req.promptTokens())
	writeJSON(t.w, http.StatusOK, fields{
		"object": "list", "data": data, "model": t.req.Model, "usage": fields{"prompt_tokens": n, "total_tokens": n},
	})
}

// output is the items of a response.
func (t *turn) output() []fields {
	out := []fields{}
	if t.answer.Reasoning != "" {
		out = append(out, fields{"type": "reasoning", "id": "rs_1", "summary": []fields{{"type": "summary_text", "text": t.answer.Reasoning}}})
	}
	if t.answer.Text != "" || len(t.answer.ToolCalls) == 0 {
		out = append(out, fields{
			"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
			"content": []fields{t.outputText(t.answer.Text)},
		})
	}
	for _, c := range t.answer.ToolCalls {
		out = append(out, fields{
			"type": "function_call", "id": "fc_" + c.ID, "call_id": c.ID, "name": c.Name, "arguments": c.Arguments, "status": "completed",
		})
	}
	return out
}

func (t *turn) outputText(text string) fields {
	return fields{"type": "output_text", "text": text, "annotations": []fields{}, "logprobs": t.outputLogprobs(Tokens(text))}
}

// outputLogprobs are there when the request includes them.
func (t *turn) outputLogprobs(tokens []Token) any {
	for what := range t.req.Body.Get("include").Elements() {
		if what.Text() == "message.output_text.logprobs" {
			return chatLogprobs(tokens)["content"]
		}
	}
	return []fields{}
}

func (t *turn) envelope(status string, output []fields) fields {
	out := fields{
		"id": t.id("resp_"), "object": "response", "created_at": created, "model": t.req.Model, "status": status, "output": output,
		"error": nil, "incomplete_details": nil, "instructions": t.req.Body.Get("instructions"), "metadata": fields{},
		"parallel_tool_calls": true, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": []fields{}, "usage": nil,
	}
	if status == "in_progress" {
		return out
	}
	u := t.usage()
	out["usage"] = fields{
		"input_tokens": u["prompt_tokens"], "output_tokens": u["completion_tokens"], "total_tokens": u["total_tokens"],
		"input_tokens_details": fields{"cached_tokens": 0}, "output_tokens_details": fields{"reasoning_tokens": 0},
	}
	if status == "incomplete" {
		out["incomplete_details"] = fields{"reason": "max_output_tokens"}
	}
	return out
}

func (t *turn) response() fields {
	status := "completed"
	if t.finish() == "length" {
		status = "incomplete"
	}
	return t.envelope(status, t.output())
}

func (t *turn) streamResponse() {
	number := 0
	send := func(kind string, more fields) {
		event := fields{"type": kind, "sequence_number": number}
		for k, v := range more {
			event[k] = v
		}
		number++
		t.event(kind, event)
	}
	send("response.created", fields{"response": t.envelope("in_progress", []fields{})})
	for i, item := range t.output() {
		begun := clone(item)
		switch item["type"] {
		case "message":
			begun["status"], begun["content"] = "in_progress", []fields{}
		case "function_call":
			begun["status"], begun["arguments"] = "in_progress", ""
		case "reasoning":
			begun["summary"] = []fields{}
		}
		send("response.output_item.added", fields{"output_index": i, "item": begun})
		t.streamItem(send, item, fields{"item_id": item["id"], "output_index": i})
		send("response.output_item.done", fields{"output_index": i, "item": item})
	}
	if t.answer.StreamError != "" {
		send("error", fields{"code": "server_error", "message": t.answer.StreamError, "param": nil})
		return
	}
	if !t.answer.NoEnd {
		last := t.response()
		send("response."+last["status"].(string), fields{"response": last})
	}
}

// streamItem sends what is in an item.
func (t *turn) streamItem(send func(string, fields), item, at fields) {
	switch item["type"] {
	case "message":
		at = with(at, fields{"content_index": 0})
		send("response.content_part.added", with(at, fields{"part": t.outputText("")}))
		for _, tok := range Tokens(t.answer.Text) {
			send("response.output_text.delta", with(at, fields{"delta": tok.Text, "logprobs": t.outputLogprobs([]Token{tok})}))
		}
		send("response.output_text.done", with(at, fields{"text": t.answer.Text, "logprobs": t.outputLogprobs(Tokens(t.answer.Text))}))
		send("response.content_part.done", with(at, fields{"part": t.outputText(t.answer.Text)}))
	case "function_call":
		arguments := item["arguments"].(string)
		for _, tok := range Tokens(arguments) {
			send("response.function_call_arguments.delta", with(at, fields{"delta": tok.Text}))
		}
		send("response.function_call_arguments.done", with(at, fields{"arguments": arguments}))
	case "reasoning":
		at = with(at, fields{"summary_index": 0})
		send("response.reasoning_summary_part.added", with(at, fields{"part": fields{"type": "summary_text", "text": ""}}))
		for _, tok := range Tokens(t.answer.Reasoning) {
			send("response.reasoning_summary_text.delta", with(at, fields{"delta": tok.Text}))
		}
		send("response.reasoning_summary_text.done", with(at, fields{"text": t.answer.Reasoning}))
		send("response.reasoning_summary_part.done", with(at, fields{"part": fields{"type": "summary_text", "text": t.answer.Reasoning}}))
	}
}

func with(a, b fields) fields {
	out := clone(a)
	for k, v := range b {
		out[k] = v
	}
	return out
}

func clone(f fields) fields {
	out := fields{}
	for k, v := range f {
		out[k] = v
	}
	return out
}

// parsed is JSON as a value to send, a string where it is no JSON.
func parsed(text string) any {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return text
	}
	return v
}
