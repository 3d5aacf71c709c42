package llmclient

import (
	"strconv"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// CallAttributes writes what there is to say of a call of chat completions. Either
// side may be absent.
func CallAttributes(request, response rawjson.Value) rawjson.Value {
	w := writer{}
	w.text(semconv.GenAIRequest+".type", "chat")
	w.text("gen_ai.system", "OpenAI")
	w.request(request)
	w.response(response)
	return semconv.Sanitize(append(w.dst, '}'))
}

// writer writes attributes, as an open object.
type writer struct{ dst []byte }

func (w *writer) text(key, text string) { w.raw(key, rawjson.AppendString(nil, text)) }

// raw writes an attribute unless the value is absent or null.
func (w *writer) raw(key string, v rawjson.Value) {
	if v.IsNull() {
		return
	}
	quoted := rawjson.AppendString(nil, key)
	w.dst = rawjson.AppendMember(w.dst, quoted[1:len(quoted)-1], v)
}

// json writes a value as JSON text, unless it is a text already.
func (w *writer) json(key string, v rawjson.Value) {
	if v.Kind() != rawjson.KindString && !v.IsNull() {
		v = rawjson.AppendText(nil, semconv.AppendPythonJSON(nil, v))
	}
	w.raw(key, v)
}

// requestParameters are the parameters of a request that spans tell.
var requestParameters = []string{
	"model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed",
}

func (w *writer) request(r rawjson.Value) {
	for _, name := range requestParameters {
		w.raw(semconv.GenAIRequest+"."+name, r.Get(name))
	}
	streaming := "false"
	if r.Get("stream").Bool() {
		streaming = "true"
	}
	w.raw(semconv.GenAIRequest+".streaming", rawjson.Value(streaming))
	i := 0
	for message := range r.Get("messages").Elements() {
		w.message(semconv.GenAIPrompt+"."+strconv.Itoa(i), message)
		i++
	}
	i = 0
	for tool := range r.Get("tools").Elements() {
		at := semconv.GenAIRequest + ".functions." + strconv.Itoa(i)
		f := tool.Get("function")
		w.raw(at+".name", f.Get("name"))
		w.raw(at+".description", f.Get("description"))
		w.json(at+".parameters", f.Get("parameters"))
		i++
	}
}

func (w *writer) message(at string, m rawjson.Value) {
	w.raw(at+".role", m.Get("role"))
	w.json(at+".content", m.Get("content"))
	w.raw(at+".tool_call_id", m.Get("tool_call_id"))
	w.toolCalls(at, m)
}

func (w *writer) toolCalls(at string, m rawjson.Value) {
	j := 0
	for call := range m.Get("tool_calls").Elements() {
		at := at + ".tool_calls." + strconv.Itoa(j)
		w.raw(at+".id", call.Get("id"))
		w.raw(at+".name", call.Get("function").Get("name"))
		w.raw(at+".arguments", call.Get("function").Get("arguments"))
		j++
	}
}

func (w *writer) response(r rawjson.Value) {
	w.raw(semconv.GenAIResponseID, r.Get("id"))
	w.raw(semconv.GenAIResponse+".model", r.Get("model"))
	for _, name := range []string{"total_tokens", "prompt_tokens", "completion_tokens"} {
		w.raw("gen_ai.usage."+name, r.Get("usage").Get(name))
	}
	i := 0
	for choice := range r.Get("choices").Elements() {
		at := semconv.GenAICompletion + "." + strconv.Itoa(i)
		m := choice.Get("message")
		w.raw(at+".finish_reason", choice.Get("finish_reason"))
		w.raw(at+".role", m.Get("role"))
		w.json(at+".content", m.Get("content"))
		w.raw(at+".refusal", m.Get("refusal"))
		w.raw(at+".reasoning_content", m.Get("reasoning_content"))
		w.toolCalls(at, m)
		i++
	}
	w.raw(semconv.PromptTokenIDs, r.Get("prompt_token_ids"))
	var first rawjson.Value
	for choice := range r.Get("choices").Elements() {
		first = choice
		break
	}
	w.raw(semconv.ResponseTokenIDs, responseTokens(r, first))
	w.json(semconv.LogprobsContent, first.Get("logprobs").Get("content"))
	w.json("logprobs.refusal", first.Get("logprobs").Get("refusal"))
}

// responseTokens are the token ids of the first choice, where servers and proxies
// put them; nil when there are none.
func responseTokens(r, choice rawjson.Value) rawjson.Value {
	for list := range r.Get("response_token_ids").Elements() {
		return list
	}
	if ids := choice.Get("token_ids"); !ids.IsNull() {
		return ids
	}
	return choice.Get("provider_specific_fields").Get("token_ids")
}

// toolSpans are the spans of the tools that the model calls.
func toolSpans(response rawjson.Value) []queue.Span {
	var spans []queue.Span
	for choice := range response.Get("choices").Elements() {
		for call := range choice.Get("message").Get("tool_calls").Elements() {
			name := call.Get("function").Get("name")
			w := writer{}
			w.raw("tool.name", name)
			w.json("tool.parameters", call.Get("function").Get("arguments"))
			w.raw("tool.call.id", call.Get("id"))
			w.text("tool.call.type", "function")
			spans = append(spans, queue.Span{
				Name: "tool_call." + name.Text(), SpanID: newSpanID(), Attributes: append(w.dst, '}'), Status: semconv.StatusOK,
			})
		}
	}
	return spans
}
