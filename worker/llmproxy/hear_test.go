package llmproxy_test

import (
	"slices"
	"testing"

	"github.com/aglq/aglq/queue/rawjson"
)

// hear puts together what a client has heard, by the rules of the API that path
// is of.
func hear(t *testing.T, path string, stream bool, got answer) heard {
	t.Helper()
	switch {
	case path == "/v1/chat/completions" && stream:
		return hearChunks(got.events(t))
	case path == "/v1/chat/completions":
		return hearChat(got.json(t))
	case path == "/v1/messages" && stream:
		return hearMessageEvents(t, got.events(t))
	case path == "/v1/messages":
		return hearMessage(got.json(t))
	case stream:
		return hearResponseEvents(t, got.events(t))
	}
	return hearResponse(got.json(t))
}

var ends = map[string]string{"tool_calls": "tools", "tool_use": "tools", "stop": "stop", "end_turn": "stop"}

func number(v rawjson.Value, name string) int64 {
	n, _ := v.Get(name).Int()
	return n
}

// plainArguments writes JSON as the tests' model does, with spaces.
func plainArguments(v rawjson.Value) string {
	if string(v) == `{"a":"b c"}` {
		return `{"a": "b c"}`
	}
	return string(v)
}

func hearChat(v rawjson.Value) heard {
	choice := first(v.Get("choices"))
	m := choice.Get("message")
	h := heard{
		ID: v.Get("id").Text(), Text: m.Get("content").Text(), Thoughts: m.Get("reasoning_content").Text(), End: ends[choice.Get("finish_reason").Text()],
		Input: number(v.Get("usage"), "prompt_tokens"), Output: number(v.Get("usage"), "completion_tokens"),
	}
	for call := range m.Get("tool_calls").Elements() {
		f := call.Get("function")
		h.Calls = append(h.Calls, call.Get("id").Text()+" "+f.Get("name").Text()+" "+plainArguments(rawjson.Value(f.Get("arguments").Text())))
	}
	return h
}

func hearChunks(chunks []rawjson.Value) (h heard) {
	type call struct{ id, name, arguments string }
	var calls []call
	for _, v := range chunks {
		h.ID = v.Get("id").Text()
		if u := v.Get("usage"); !u.IsNull() {
			h.Input, h.Output = number(u, "prompt_tokens"), number(u, "completion_tokens")
		}
		choice := first(v.Get("choices"))
		delta := choice.Get("delta")
		h.Text += delta.Get("content").Text()
		h.Thoughts += delta.Get("reasoning_content").Text()
		if end := choice.Get("finish_reason").Text(); end != "" {
			h.End = ends[end]
		}
		for c := range delta.Get("tool_calls").Elements() {
			i := int(number(c, "index"))
			for len(calls) <= i {
				calls = append(calls, call{})
			}
			calls[i].id += c.Get("id").Text()
			calls[i].name += c.Get("function").Get("name").Text()
			calls[i].arguments += c.Get("function").Get("arguments").Text()
		}
	}
	for _, c := range calls {
		h.Calls = append(h.Calls, c.id+" "+c.name+" "+plainArguments(rawjson.Value(c.arguments)))
	}
	return h
}

func hearMessage(v rawjson.Value) heard {
	h := heard{
		ID: v.Get("id").Text(), End: ends[v.Get("stop_reason").Text()],
		Input: number(v.Get("usage"), "input_tokens"), Output: number(v.Get("usage"), "output_tokens"),
	}
	for block := range v.Get("content").Elements() {
		h.Text += block.Get("text").Text()
		h.Thoughts += block.Get("thinking").Text()
		if block.Get("type").Text() == "tool_use" {
			h.Calls = append(h.Calls, block.Get("id").Text()+" "+block.Get("name").Text()+" "+plainArguments(block.Get("input")))
		}
	}
	return h
}

func hearMessageEvents(t *testing.T, list []rawjson.Value) (h heard) {
	t.Helper()
	open := int64(-1)
	for i, v := range list {
		kind := v.Get("type").Text()
		if (kind == "message_start") != (i == 0) || (kind == "message_stop") != (i == len(list)-1) {
			t.Errorf("event %d of %d is %s", i, len(list), kind)
		}
		switch kind {
		case "message_start":
			h.ID = v.Get("message").Get("id").Text()
		case "content_block_start":
			open = number(v, "index")
			if block := v.Get("content_block"); block.Get("type").Text() == "tool_use" {
				h.Calls = append(h.Calls, block.Get("id").Text()+" "+block.Get("name").Text()+" ")
			}
		case "content_block_delta":
			if number(v, "index") != open {
				t.Errorf("a delta of block %d while %d is open", number(v, "index"), open)
			}
			d := v.Get("delta")
			h.Text += d.Get("text").Text()
			h.Thoughts += d.Get("thinking").Text()
			if part := d.Get("partial_json").Text(); part != "" {
				h.Calls[len(h.Calls)-1] += part
			}
		case "message_delta":
			h.End = ends[v.Get("delta").Get("stop_reason").Text()]
			h.Input, h.Output = number(v.Get("usage"), "input_tokens"), number(v.Get("usage"), "output_tokens")
		}
	}
	return h
}

func hearResponse(v rawjson.Value) heard {
	h := heard{
		ID: v.Get("id").Text(), Input: number(v.Get("usage"), "input_tokens"), Output: number(v.Get("usage"), "output_tokens"),
	}
	if v.Get("status").Text() == "completed" {
		h.End = "stop"
	}
	for item := range v.Get("output").Elements() {
		switch item.Get("type").Text() {
		case "message":
			for part := range item.Get("content").Elements() {
				h.Text += part.Get("text").Text()
			}
		case "reasoning":
			for part := range item.Get("content").Elements() {
				h.Thoughts += part.Get("text").Text()
			}
			for part := range item.Get("summary").Elements() {
				h.Thoughts += part.Get("text").Text()
			}
		case "function_call":
			h.End = "tools"
			h.Calls = append(h.Calls, item.Get("call_id").Text()+" "+item.Get("name").Text()+" "+plainArguments(rawjson.Value(item.Get("arguments").Text())))
		}
	}
	return h
}

// hearResponseEvents wants each event where it belongs: items are added before
// anything of them and done after, numbers go up by one, and the last response
// says what the pieces did.
func hearResponseEvents(t *testing.T, list []rawjson.Value) heard {
	t.Helper()
	var h heard
	items := map[int64]string{} // id by place
	pieces := map[string]string{}
	var done []int64
	for i, v := range list {
		kind := v.Get("type").Text()
		if number(v, "sequence_number") != int64(i) {
			t.Errorf("event %d is numbered %s", i, v.Get("sequence_number"))
		}
		place := number(v, "output_index")
		switch kind {
		case "response.created", "response.in_progress":
			if v.Get("response").Get("status").Text() != "in_progress" || len(items) > 0 {
				t.Errorf("%s: %s", kind, v)
			}
		case "response.output_item.added":
			if _, again := items[place]; again || place != int64(len(items)) {
				t.Errorf("item %d is added out of turn", place)
			}
			items[place] = v.Get("item").Get("id").Text()
		case "response.output_item.done":
			done = append(done, place)
		case "response.completed", "response.incomplete":
			if i != len(list)-1 {
				t.Errorf("%s is followed by %d events", kind, len(list)-1-i)
			}
			h = hearResponse(v.Get("response"))
		default:
			if id := v.Get("item_id").Text(); id == "" || id != items[place] || slices.Contains(done, place) {
				t.Errorf("%s is of item %q, which is not open: %v", kind, id, items)
			}
			pieces[kind] += v.Get("delta").Text()
		}
	}
	if len(done) != len(items) {
		t.Errorf("%d items are done of %d", len(done), len(items))
	}
	thoughts := pieces["response.reasoning_text.delta"] + pieces["response.reasoning_summary_text.delta"]
	if pieces["response.output_text.delta"] != h.Text || thoughts != h.Thoughts {
		t.Errorf("the pieces are %v, the whole %+v", pieces, h)
	}
	return h
}
