package dataset

import (
	"slices"
	"strings"
	"testing"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func TestCheckTuning(t *testing.T) {
	const user = `{"role":"user","content":"u"},`
	const asked = `{"type":"function_call","call_id":"a","name":"f","arguments":"{}"}`
	const told = `{"type":"function_call_output","call_id":"a","output":"1"},`
	for _, test := range []struct {
		name, items, tools string
		want               Reason
	}{
		{"a chat", `[{"role":"system","content":"s"},` + user + `{"role":"assistant","content":"a"}]`, "", ""},
		{"two of the system", `[{"role":"system","content":"s"},{"role":"system","content":"s"},` + user + `{"role":"assistant","content":"a"}]`, "", ""},
		{"an image", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]},{"role":"assistant","content":"a"}]`, "", ""},
		{"tools", `[` + user + asked + `,` + told + `{"role":"assistant","content":"a"}]`, `[{"type":"function","function":{"name":"f"}}]`, ""},
		{"it ends with a call", `[` + user + asked + `]`, "", ""},
		{"nothing", `[]`, "", NoAnswer},
		{"no answer", `[` + user + `{"role":"assistant","content":"a"},{"role":"user","content":"u"}]`, "", NoAnswer},
		{"it ends with a tool", `[` + user + asked + `,{"type":"function_call_output","call_id":"a","output":"1"}]`, "", NoAnswer},
		{"no user", `[{"role":"system","content":"s"},{"role":"assistant","content":"a"}]`, "", NoUser},
		{"the system in between", `[` + user + `{"role":"system","content":"s"},{"role":"assistant","content":"a"}]`, "", BadRoles},
		{"an image of the system", `[{"role":"system","content":[{"type":"image_url","image_url":{"url":"x"}}]},` + user + `{"role":"assistant","content":"a"}]`, "", NotText},
		{"a call that was not answered", `[` + user + asked + `,{"role":"user","content":"u"},{"role":"assistant","content":"a"}]`, "", BadTools},
		{"a tool that is not there", `[` + user + asked + `]`, `[{"type":"function","function":{"name":"g"}}]`, BadTools},
		{"a tool with a bad name", `[` + user + `{"role":"assistant","content":"a"}]`, `[{"type":"function","function":{"name":"a b"}}]`, BadTools},
		{"a call of a bad name", `[` + user + `{"type":"function_call","call_id":"a","name":"a.b","arguments":"{}"}]`, "", BadTools},
		{"arguments that are no JSON", `[` + user + `{"type":"function_call","call_id":"a","name":"f","arguments":"{"}]`, "", BadTools},
		{"an id twice", `[` + user + asked + `,` + asked + `]`, "", BadTools},
	} {
		t.Run(test.name, func(t *testing.T) {
			messages, _ := NewHistory(rawjson.Value(test.items))
			if got := CheckTuning(Conversation{Messages: messages, Tools: rawjson.Value(test.tools)}); got != test.want {
				t.Errorf("%q, and not %q", got, test.want)
			}
		})
	}
}

func TestTuningRow(t *testing.T) {
	messages, _ := NewHistory(rawjson.Value(`[{"role":"user","content":"u"},{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call_output","call_id":"a","output":""},{"role":"assistant","content":"a"}]`))
	want := `{"messages":[{"role":"user","content":"u"},{"role":"assistant","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"","tool_call_id":"a"},{"role":"assistant","content":"a"}]}`
	if got := string((&TuningRow{Conversation: Conversation{Messages: messages}}).AppendJSON(nil)); got != want {
		t.Errorf("%s, and not %s", got, want)
	}
}

func TestConversations(t *testing.T) {
	for _, test := range []struct {
		name, spans, want string
	}{
		{"two answers are two", `[{"span_id":"a","name":"x","attributes":{"gen_ai.prompt.0.role":"user","gen_ai.prompt.0.content":"u","gen_ai.completion.0.role":"assistant","gen_ai.completion.0.content":"a","gen_ai.completion.1.role":"assistant","gen_ai.completion.1.content":"b"}}]`,
			`[{"role":"user","content":"u"},{"role":"assistant","content":"a"}][{"role":"user","content":"u"},{"role":"assistant","content":"b"}]`},
		{"tools have spans", `[{"span_id":"a","name":"x","attributes":{"gen_ai.prompt.0.role":"user","gen_ai.prompt.0.content":"u","gen_ai.completion.0.role":"assistant","gen_ai.completion.0.tool_calls.0.name":"ignored"}},` +
			`{"span_id":"b","parent_id":"a","name":"y","attributes":{"tool.name":"f","tool.parameters":"{}","tool.call.id":"c","tool.call.type":"function"}}]`,
			`[{"role":"user","content":"u"},{"role":"assistant","content":"","tool_calls":[` + call("c", "f", "{}") + `]}]`},
		{"a call that failed", `[{"span_id":"a","name":"x","attributes":{"gen_ai.prompt.0.role":"user","gen_ai.prompt.0.content":"u"}}]`, ``},
		{"a history that was told", `[{"span_id":"a","name":"agentlightning.object","attributes":{"agentlightning.tag.0":"history","agentlightning.object.json":"[{\"role\":\"user\",\"content\":\"u\"},{\"type\":\"function_call\",\"name\":\"f\"}]"}},` +
			`{"span_id":"b","name":"agentlightning.object","attributes":{"agentlightning.object.json":"[{\"role\":\"user\",\"content\":\"no\"}]"}},` +
			`{"span_id":"c","name":"agentlightning.object","attributes":{"agentlightning.tag.0":"history","agentlightning.object.json":"{\"messages\":[{\"role\":\"user\",\"content\":\"v\"}],\"tools\":[{}]}"}}]`,
			`[{"role":"user","content":"u"},{"role":"assistant","content":"","tool_calls":[` + call("call_1", "f", "{}") + `]}][{"role":"user","content":"v"}]`},
		{"a history that is none", `[{"span_id":"a","name":"agentlightning.object","attributes":{"agentlightning.tag.0":"history","agentlightning.object.json":"3"}}]`,
			`the conversation in span a is 3; it must be a list of items, or an object with them as messages`},
		{"a history that is no JSON", `[{"span_id":"a","name":"agentlightning.object","attributes":{"agentlightning.tag.0":"history"}}]`,
			`reading the conversation in span a: invalid JSON`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var spans []queue.Span
			for v := range rawjson.Value(test.spans).Elements() {
				spans = append(spans, queue.DecodeSpan(v))
			}
			list, err := Conversations(spans)
			var got []byte
			for _, c := range list {
				got = appendMessages(got, c.Messages)
			}
			if err != nil {
				got = []byte(err.Error())
			}
			if !strings.HasPrefix(string(got), test.want) || err == nil && string(got) != test.want {
				t.Errorf("%s\n, and not\n%s", got, test.want)
			}
		})
	}
}

func TestLongest(t *testing.T) {
	list := func(texts ...string) []Conversation {
		var out []Conversation
		for _, text := range texts {
			c := Conversation{SpanID: text, Whole: text == "whole"}
			for _, letter := range text {
				c.Messages = append(c.Messages, Message{Role: User, Content: string(letter)})
			}
			out = append(out, c)
		}
		return out
	}
	for _, test := range [][2][]string{
		{{}, {}},
		{{""}, {}},
		{{"ab", "abcd", "abx", "q"}, {"abcd", "abx", "q"}},
		{{"abcd", "ab"}, {"abcd", "ab"}}, // what comes later was said later
		{{"ab", "ab"}, {"ab"}},
		{{"ab", "whole", "abc"}, {"whole"}},
	} {
		var got []string
		for _, c := range Longest(list(test[0]...)) {
			got = append(got, c.SpanID)
		}
		if !slices.Equal(got, test[1]) {
			t.Errorf("of %q %q are left, and not %q", test[0], got, test[1])
		}
	}
}
