package dataset

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue/rawjson"
)

// history brings items to messages and renders them.
func rendered(t *testing.T, items string) (messages string, skipped int) {
	t.Helper()
	v, err := rawjson.Parse([]byte(items))
	if err != nil {
		t.Fatalf("%v in %s", err, items)
	}
	list, skipped := NewHistory(v)
	return string(appendMessages(nil, list)), skipped
}

func TestHistory(t *testing.T) {
	for _, test := range []struct {
		name, items, want string
		skipped           int
	}{
		{"nothing", `[]`, `[]`, 0},
		{"no list", `{"role":"user","content":"x"}`, `[]`, 0},
		{"a chat", `[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}]`,
			`[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}]`, 0},
		{"developers are the system", `[{"role":"developer","content":"s"}]`, `[{"role":"system","content":"s"}]`, 0},
		{"white space and parts of all roles", `[{"role":"system","content":" s "},{"role":"user","content":[{"type":"input_text","text":"a"},"b",{"type":"text","text":""}]},{"role":"assistant","content":[{"type":"output_text","text":"c "}]}]`,
			`[{"role":"system","content":"s"},{"role":"user","content":"a b"},{"role":"assistant","content":"c"}]`, 0},
		{"empty messages", `[{"role":"system","content":""},{"role":"user","content":"  "},{"role":"user"},{"role":"assistant","content":null},{"role":"assistant","content":[]}]`, `[]`, 5},
		{"things that are no objects", `[1,null,"x",[],{"role":"user","content":"u"}]`, `[{"role":"user","content":"u"}]`, 4},
		{"unknown roles and types", `[{"role":"critic","content":"x"},{"type":"reasoning","summary":[]},{}]`, `[]`, 3},

		{"calls after a text belong to it", `[{"role":"assistant","content":"look"},{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"type":"function_call","call_id":"b","name":"g","arguments":"{}"}]`,
			`[{"role":"assistant","content":"look","tool_calls":[` + call("a", "f", "{}") + `,` + call("b", "g", "{}") + `]}]`, 0},
		{"calls alone have an empty content", `[{"type":"function_call","call_id":"a","name":"f","arguments":"{}"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]}]`, 0},
		{"a system message among the calls is kept", `[{"role":"assistant","content":"look"},{"role":"system","content":"s"},{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"a","output":"1"}]`,
			`[{"role":"assistant","content":"look"},{"role":"system","content":"s"},{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"a"}]`, 0},
		{"reasoning among the calls parts nothing", `[{"role":"assistant","content":"look"},{"type":"reasoning"},{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},7,{"type":"function_call","call_id":"b","name":"g","arguments":"{}"}]`,
			`[{"role":"assistant","content":"look","tool_calls":[` + call("a", "f", "{}") + `,` + call("b", "g", "{}") + `]}]`, 2},
		{"a text after the calls belongs to them", `[{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"role":"assistant","content":"look"},{"role":"assistant","content":"again"},{"type":"function_call_output","call_id":"a","output":"1"}]`,
			`[{"role":"assistant","content":"look\nagain","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"a"}]`, 0},
		{"a call after an answer is a new message", `[{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"a","output":"1"},{"type":"function_call","call_id":"b","name":"g","arguments":"{}"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"a"},{"role":"assistant","content":"","tool_calls":[` + call("b", "g", "{}") + `]}]`, 0},
		{"answers follow their calls", `[{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"role":"user","content":"u"},{"type":"function_call_output","call_id":"a","output":"1"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"a"},{"role":"user","content":"u"}]`, 0},

		{"answers of every type", `[{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call","call_id":"b","name":"f"},{"type":"function_call","call_id":"c","name":"f"},{"type":"function_call","call_id":"d","name":"f"},{"type":"function_call","call_id":"e","name":"f"},` +
			`{"type":"function_call_output","call_id":"a","output":[1,"x",null,true]},{"type":"function_call_output","call_id":"b","output":{"k":[]}},{"type":"function_call_output","call_id":"c","output":false},{"type":"function_call_output","call_id":"d","output":null},{"type":"function_call_output","call_id":"e","output":" kept "}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `,` + call("b", "f", "{}") + `,` + call("c", "f", "{}") + `,` + call("d", "f", "{}") + `,` + call("e", "f", "{}") + `]},` +
				`{"role":"tool","content":"[1,\"x\",null,true]","tool_call_id":"a"},{"role":"tool","content":"{\"k\":[]}","tool_call_id":"b"},{"role":"tool","content":"false","tool_call_id":"c"},{"role":"tool","content":"","tool_call_id":"d"},{"role":"tool","content":" kept ","tool_call_id":"e"}]`, 0},
		{"arguments of every type", `[{"type":"function_call","call_id":"a","name":"f","arguments":{"x":1}},{"type":"function_call","call_id":"b","name":"f","arguments":"not JSON"},{"type":"function_call","call_id":"c","name":"f","arguments":null}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", `{\"x\":1}`) + `,` + call("b", "f", "not JSON") + `,` + call("c", "f", "{}") + `]}]`, 0},

		{"ids that are missing match", `[{"role":"user","content":"u"},{"type":"function_call","name":"f"},{"type":"function_call","name":"g"},{"type":"function_call_output","output":"1"},{"type":"function_call_output","output":"2"}]`,
			`[{"role":"user","content":"u"},{"role":"assistant","content":"","tool_calls":[` + call("call_1", "f", "{}") + `,` + call("call_2", "g", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"call_1"},{"role":"tool","content":"2","tool_call_id":"call_2"}]`, 0},
		{"an answer without an id takes a call without one first", `[{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call","name":"g"},{"type":"function_call_output","output":"2"},{"type":"function_call_output","output":"1"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `,` + call("call_1", "g", "{}") + `]},{"role":"tool","content":"2","tool_call_id":"call_1"},{"role":"tool","content":"1","tool_call_id":"a"}]`, 0},
		{"ids that are made up are new", `[{"type":"function_call","call_id":"call_1","name":"f"},{"type":"function_call","name":"g"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("call_1", "f", "{}") + `,` + call("call_1_1", "g", "{}") + `]}]`, 0},
		{"an id that is used again means the last call", `[{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call_output","call_id":"a","output":"1"},{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call_output","call_id":"a","output":"2"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"a"},{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"2","tool_call_id":"a"}]`, 0},
		{"answers to nothing", `[{"type":"function_call_output","call_id":"a","output":"1"},{"type":"function_call_output","output":"1"},{"role":"tool","tool_call_id":"x","content":"1"}]`, `[]`, 3},
		{"a second answer", `[{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call_output","call_id":"a","output":"1"},{"type":"function_call_output","call_id":"a","output":"2"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("a", "f", "{}") + `]},{"role":"tool","content":"1","tool_call_id":"a"}]`, 1},

		{"a chat with tools", `[{"role":"user","content":"u"},{"role":"assistant","content":"look","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","name":"g","arguments":"{}"}]},{"role":"tool","tool_call_id":"b","content":[{"type":"text","text":"2"}]},{"role":"tool","tool_call_id":"a","content":[1]}]`,
			`[{"role":"user","content":"u"},{"role":"assistant","content":"look","tool_calls":[` + call("a", "f", "{}") + `,` + call("b", "g", "{}") + `]},{"role":"tool","content":"2","tool_call_id":"b"},{"role":"tool","content":"[1]","tool_call_id":"a"}]`, 0},
		{"functions of old chats", `[{"role":"assistant","tool_calls":[{"name":"f"},{"name":"g"}]},{"role":"function","name":"g","content":"2"}]`,
			`[{"role":"assistant","content":"","tool_calls":[` + call("call_0", "f", "{}") + `,` + call("call_0_1", "g", "{}") + `]},{"role":"tool","content":"2","tool_call_id":"call_0_1"}]`, 0},

		{"images", `[{"role":"user","content":[{"type":"input_text","text":"see"},{"type":"input_image","image_url":"data:x"},{"type":"image_url","image_url":{"url":"y"}},{"type":"magic"}]}]`,
			`[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:x"}},{"type":"image_url","image_url":{"url":"y"}}]}]`, 0},
		{"parts that were recorded as text", `[{"role":"user","content":"[{\"type\":\"text\",\"text\":\"see\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"y\"}}]"},{"role":"user","content":"[{\"a\":1}]"},{"role":"user","content":"[{"}]`,
			`[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"y"}}]},{"role":"user","content":"[{\"a\":1}]"},{"role":"user","content":"[{"}]`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, skipped := rendered(t, test.items)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if skipped != test.skipped {
				t.Errorf("%d items were skipped, not %d", skipped, test.skipped)
			}
		})
	}
}

func call(id, name, arguments string) string {
	return `{"id":"` + id + `","type":"function","function":{"name":"` + name + `","arguments":"` + arguments + `"}}`
}

func TestPromptCompletion(t *testing.T) {
	for _, test := range []struct {
		name, items, prompt, completion string
		why                             Reason
	}{
		{"one turn", `[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}]`, "System: s\n\nUser: u", "a", ""},
		{"several turns", `[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"},{"role":"assistant","content":"b"}]`,
			"User: u\n\nAssistant: a\n\nUser: v", "b", ""},
		{"tools in between", `[{"role":"user","content":"u"},{"role":"assistant","content":"look"},{"type":"function_call","call_id":"a","name":"f"},{"type":"function_call_output","call_id":"a","output":"1"},{"role":"assistant","content":"b"}]`,
			"User: u", "b", ""},
		{"no user", `[{"role":"system","content":"s"},{"role":"assistant","content":"a"}]`, "", "", NoUser},
		{"no answer", `[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"}]`, "", "", NoAnswer},
		{"an answer without text", `[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"},{"type":"function_call","call_id":"a","name":"f"}]`, "", "", NoAnswer},
		{"an image", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"y"}}]},{"role":"assistant","content":"a"}]`, "", "", NotText},
	} {
		t.Run(test.name, func(t *testing.T) {
			messages, _ := NewHistory(rawjson.Value(test.items))
			prompt, completion, why := PromptCompletion(messages)
			if prompt != test.prompt || completion != test.completion || why != test.why {
				t.Errorf("%q, %q, %q", prompt, completion, why)
			}
		})
	}
}

// FuzzHistory takes any JSON. Whatever it is, the messages are JSON, every answer
// follows the message with its call, no call is answered twice, and messages that were
// made are left as they are when they are items themselves.
func FuzzHistory(f *testing.F) {
	for _, seed := range []string{
		`[{"role":"user","content":"u"},{"role":"assistant","content":"a"}]`,
		`[{"type":"function_call","name":"f","arguments":{}},{"type":"function_call_output","output":[1]}]`,
		`[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f"}}]},1,{"role":"tool","tool_call_id":"a"}]`,
		`[{"role":"assistant","tool_calls":{"0":1}},{"role":"assistant","tool_calls":[1]}]`,
		`[{"role":"user","content":"[{\"type\":\"image_url\",\"image_url\":{}}]"},{"type":"reasoning"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		items, err := rawjson.Parse(text)
		if err != nil {
			return
		}
		messages, _ := NewHistory(items)
		out := appendMessages(nil, messages)
		if !json.Valid(out) {
			t.Fatalf("%s", out)
		}
		calls := map[string]int{}
		quoted := false // a text that is itself parts as text
		for i, m := range messages {
			quoted = quoted || strings.HasPrefix(m.Content, "[{")
			if m.Role == Tool {
				if calls[m.ToolCallID] == 0 {
					t.Fatalf("message %d answers nothing: %s", i, out)
				}
				calls[m.ToolCallID]--
				continue
			}
			clear(calls)
			for _, c := range m.ToolCalls {
				calls[c.ID]++
			}
		}
		again, skipped := NewHistory(out)
		if got := string(appendMessages(nil, again)); !quoted && (got != string(out) || skipped > 0) {
			t.Fatalf("%s\nbecomes, with %d skipped,\n%s", out, skipped, got)
		}
	})
}
