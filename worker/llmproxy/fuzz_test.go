package llmproxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue/rawjson"
)

// FuzzEvents takes a stream apart in two ways of cutting it, which must not
// matter, and puts whatever comes out together.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: a\ndata: {\"x\":1}\n\ndata: [DONE]\n\n"), 3)
	f.Add([]byte(": comment\r\ndata: 1\r\ndata: 2\r\n\r\ndata:3\r\r"), 1)
	f.Add([]byte(`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"x"}}]}}]}`+"\n\n"), 7)
	f.Add([]byte(`data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"x"}}`+"\n\n"), 7)
	f.Add([]byte(`data: {"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c"}}`+"\n\n"+
		`data: {"type":"response.completed","response":{"id":"r","status":"incomplete","usage":{"input_tokens":1}}}`+"\n\n"), 9)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		size = max(1, size%64)
		read := func(size int) (out []string) {
			var r sseReader
			emit := func(name string, data []byte) { out = append(out, fmt.Sprintf("%s|%s", name, data)) }
			for rest := stream; len(rest) > 0; {
				n := min(size, len(rest))
				r.feed(rest[:n], emit)
				rest = rest[n:]
			}
			r.end(emit)
			return out
		}
		whole := read(len(stream) + 1)
		if diff := cmp.Diff(whole, read(size)); diff != "" {
			t.Errorf("in pieces of %d:\n%s", size, diff)
		}
		for _, a := range []assembler{&chatAssembler{}, &chatAssembler{text: true}, &messageAssembler{}, &responsesAssembler{}} {
			var out bytes.Buffer
			var translators []streamTranslator
			for _, c := range []call{
				{endpoint: messages, wire: chat}, {endpoint: messages, wire: responses}, {endpoint: chat, wire: messages},
				{endpoint: chat, wire: responses}, {endpoint: responses, wire: chat}, {endpoint: responses, wire: messages},
			} {
				translators = append(translators, c.translator(&out))
			}
			var r sseReader
			r.feed(stream, func(name string, data []byte) {
				if v, err := rawjson.Parse(data); err == nil {
					a.add(name, v)
					for _, tr := range translators {
						if err := tr.add(name, v); err != nil {
							t.Error(err)
						}
					}
				}
			})
			a.complete()
			if v := a.response(); v != nil && !json.Valid(v) {
				t.Errorf("%T made %s", a, v)
			}
			for _, tr := range translators {
				if err := tr.end(nil); err != nil {
					t.Error(err)
				}
			}
			var again sseReader
			again.feed(out.Bytes(), func(_ string, data []byte) {
				if string(data) != doneMark && !json.Valid(data) {
					t.Errorf("a translator wrote %s", data)
				}
			})
		}
	})
}

// FuzzTranslate makes JSON of whatever requests and answers hold.
func FuzzTranslate(f *testing.F) {
	f.Add(`{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"tools":[{"name":"f"}],"system":[{"text":"s"}]}`)
	f.Add(`{"choices":[{"message":{"content":"x","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}`)
	f.Add(`{"content":[{"type":"tool_use","input":{"a":[1]}}],"stop_reason":"end_turn","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],"input":[{"role":"user"}]}`)
	f.Add(`{"input":[{"type":"function_call","call_id":"1"},{"type":"function_call_output","output":[{"type":"input_image","image_url":"u"}]},{"role":"assistant","content":"x"}],"tools":[{"type":"function","name":"f"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := rawjson.Parse([]byte(text))
		if err != nil || v.Kind() != rawjson.KindObject {
			return
		}
		valid := func(what string, v rawjson.Value) {
			if v != nil && !json.Valid(v) {
				t.Errorf("%s made %s", what, v)
			}
		}
		if out, err := messagesToChat(v); err == nil {
			valid("messagesToChat", out)
		}
		if out, err := chatToMessages(v); err == nil {
			valid("chatToMessages", out)
		}
		valid("chatToMessage", chatToMessage(v))
		valid("messageToChat", messageToChat(v, time.Unix(0, 0)))
		valid("messagesAsChat", messagesAsChat(v))
		valid("responsesAsChat", responsesAsChat(v))
		valid("responseToChat", responseToChat(v))
		valid("chatToResponse", chatToResponse(v, v))
		if out, err := responsesToChat(v); err == nil {
			valid("responsesToChat", out)
		}
		if out, err := chatToResponses(v); err == nil {
			valid("chatToResponses", out)
		}
		valid("textAsChat", textAsChat(v))
		valid("promptAsChat", promptAsChat(v))
		valid("merge", merge(v, v))
		var o object
		addMessage(&o, "m", v)
		addTools(&o, v.Get("tools"))
		valid("addMessage", o.close())
		valid("logprobsOf", logprobsOf(v))
	})
}

func TestPythonLiteral(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":true,"b":[false,null],"true":"null \"false\" \\"}`: `{"a":True,"b":[False,None],"true":"null \"false\" \\"}`,
		`"plain text"`: "plain text",
		`1.50`:         "1.50",
		`null`:         "None",
	} {
		if got := pythonLiteral(rawjson.Value(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
