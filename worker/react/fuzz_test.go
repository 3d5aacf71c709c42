package react_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/aglq/aglq/worker/react"
)

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{
		"", "system: x\nturns: {min: 1, max: 3}\ntools: [{name: a, command: [cat], parameters: {type: object}}]", "turns: 3", "&a [*a]", "question: '{{.x}}'",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := react.ParseConfig(text)
		if err != nil {
			return
		}
		for i := range c.Tools {
			c.Tools[i].Command = nil // nothing is to be looked for
		}
		_, _ = c.Options("/nowhere", nil)
	})
}

// Whatever a model writes as a step is a step or an error, and a step is what it says.
func FuzzDecodeStep(f *testing.F) {
	for _, seed := range []string{
		`{"thought":"x","tool_calls":[{"name":"a","arguments":{}}],"is_final":false}`, "```json\n{}\n```", "", "```", `{"thought":NaN}`, `[[[[`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got struct {
			Thought   *string `json:"thought"`
			IsFinal   *bool   `json:"is_final"`
			ToolCalls []struct {
				Name      *string         `json:"name"`
				Arguments json.RawMessage `json:"arguments"`
			} `json:"tool_calls"`
		}
		if react.DecodeStep(text, &got) != nil {
			return
		}
		if got.Thought == nil || got.IsFinal == nil || got.ToolCalls == nil {
			t.Fatalf("%q lacks something", text)
		}
		for _, c := range got.ToolCalls {
			if c.Name == nil || len(c.Arguments) == 0 {
				t.Fatalf("a call of %q lacks something", text)
			}
		}
	})
}

// Calls are the same if, and only if, their arguments are the same JSON.
func FuzzCallKey(f *testing.F) {
	f.Add(`{"a":1,"b":[1,{"c":2,"d":null}]}`)
	f.Add(`{"a":1,"a":2}`)
	f.Add(`"\u0041"`)
	f.Add("")
	f.Fuzz(func(t *testing.T, arguments string) {
		if !utf8.ValidString(arguments) {
			return // no answer of a server, which was JSON, holds it
		}
		key := react.CallKey("tool", arguments)
		d := json.NewDecoder(bytes.NewReader([]byte(arguments)))
		d.UseNumber()
		var v any
		if d.Decode(&v) != nil || d.More() {
			return
		}
		sorted, err := json.Marshal(v) // with its keys in order
		if err != nil {
			t.Fatal(err)
		}
		if other := react.CallKey("tool", string(sorted)); other != key && json.Valid([]byte(arguments)) {
			t.Fatalf("%q has the key %q, and sorted %q", arguments, key, other)
		}
		if react.CallKey("other", arguments) == key {
			t.Fatal("two tools share a key")
		}
	})
}

func FuzzReadTape(f *testing.F) {
	f.Add([]byte("{\"kind\":\"llm\",\"key\":\"x\",\"status\":200,\"text\":\"{}\"}\n"))
	f.Add([]byte("{\"kind\":\"tool\",\"key\":\"x\",\"text\":\"\",\"error\":\"e\"}\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		played, err := react.ReadTape(bytes.NewReader(text))
		if err != nil {
			return
		}
		for key, list := range played {
			if key == "" || len(list) == 0 {
				t.Fatalf("%q has %d answers", key, len(list))
			}
		}
	})
}
