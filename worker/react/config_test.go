package react_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "react.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o666))
	return path
}

// A config with one of everything becomes an agent that works.
func TestConfig(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Key"), " ", r.URL.RawQuery)
	}))
	defer web.Close()
	self, err := os.Executable()
	must(t, err)
	t.Setenv("TEST_KEY", "secret")
	other := httptest.NewServer(fakellm.New(sequence(
		calls("a", "show", `{"path":"seed"}`, "b", "look_up", `{"q":"x"}`, "c", "m_add", `{"a":1,"b":2}`, "d", "run", `{}`), says("the answer is 3"))))
	defer other.Close()
	path := writeConfig(t, fmt.Sprintf(`
system: be brief
question: "Say {{.word}} {{range .list}}<{{.}}>{{end}}"
max_steps: 3
sample_retries: 0
duplicates: conversation
turns: 1
llm:
  endpoint: %s/v1
  model: other
  api_key: ${TEST_KEY}
  parameters: {temperature: 0.5, stop: [a, b]}
tools:
  - name: show
    description: shows a file
    parameters: {type: object, properties: {path: {type: string}}, required: [path]}
    command: [./show.sh, "$HOME"]
    env: {PREFIX: "${TEST_KEY}!"}
    timeout: 1.5
    concurrency: 2
    max_result: 100
  - name: look_up
    parameters: {type: object, properties: {q: {type: string}}}
    url: %s/?fixed=1
    method: get
    headers: {X-Key: "${TEST_KEY}$TEST_KEY$$"}
  - name: run
mcp:
  - command: [%s]
    env: {%s: "1"}
    prefix: m_
    tools: [add]
sandbox:
  execute: [sh, -c, cat]
  timeout: 5
grader: [./grade.sh]
`, other.URL, web.URL, self, mcpServerProcess))
	write := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(text), 0o777))
	}
	write("show.sh", "#!/bin/sh\nread -r arguments; echo \"$PREFIX $arguments $1\"; cat seed\n")
	write("grade.sh", "#!/bin/sh\ngrep -q 'the answer is 3' && echo 0.75\n")
	opts, err := react.Load(path, nil)
	must(t, err)
	if opts.Tools[0].Timeout != 1500*time.Millisecond || opts.Tools[0].Concurrency != 2 || opts.SandboxTimeout != 5*time.Second {
		t.Errorf("%+v", opts)
	}
	r := newRig(t, sequence(says("the task's model was asked")), opts)
	o := r.succeed(`{"word":"hello","list":[1,2],"files":{"seed":"seeded"}}`)
	want := []string{
		"system: be brief", "user: Say hello <1><2>",
		`assistant: [a show {"path":"seed"}][b look_up {"q":"x"}][c m_add {"a":1,"b":2}][d run {}]`,
		"tool a: secret! {\"path\":\"seed\"} $HOME\nseeded", "tool b: secret$TEST_KEY$$ fixed=1&q=x", "tool c: 3",
		`tool d: {"session_id":"` + o.conv.Session.ID + `","tool":"run","args":{}}`, "assistant: the answer is 3",
	}
	if diff := cmp.Diff(want, lines(o.conv.Messages())); diff != "" {
		t.Error(diff)
	}
	if reward, _ := rewardOf(o.spans); reward != 0.75 {
		t.Errorf("reward %g", reward)
	}
	for _, s := range o.spans {
		if s.Name == "openai.chat.completion" && s.Attribute("gen_ai.request.temperature").String() != "0.5" {
			t.Errorf("%s", s.Attributes)
		}
	}
}

func TestConfigsThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		"nonsense":                              "cannot unmarshal",
		"sytem: x":                              "field sytem not found",
		"system: [":                             "yaml",
		"steps: fast":                           `steps is "fast"; it must be tools or structured`,
		"context: some":                         `context is "some"`,
		"turns: 0":                              "turns are 0 to 0",
		"turns: {min: 2}":                       "turns are 2 to 0",
		"turns: often":                          "cannot unmarshal",
		"duplicates: never":                     `duplicates is "never"`,
		"max_steps: -1":                         "max_steps is -1",
		"response_format: x":                    `response_format is "x"`,
		"question: '{{'":                        "template",
		"grader: [no-such-program]":             "no-such-program",
		"tools: [{name: x}]":                    "neither how it runs",
		"tools: [{name: x y, url: 'http://x'}]": `"x y"`,
		"tools: [{name: x, command: [cat], url: 'http://x'}]":         "both a command and a url",
		"tools: [{name: x, command: [cat], timeout: -1}]":             "a timeout is -1",
		"tools: [{name: x, command: [cat], timeout: .nan}]":           "a timeout is NaN",
		"tools: [{name: x, command: [cat], max_result: -1}]":          "must not be negative",
		"tools: [{name: x, url: 'http://${NOT_SET_ANYWHERE}'}]":       "NOT_SET_ANYWHERE is needed, and is not set",
		"tools: [{name: x, command: [cat], parameters: {1: {2: 3}}}]": "x",
		"tools: [{name: x, command: [cat], parameters: {type: 1}}]":   "reading the parameters of the tool x",
		"sandbox: {url: 'http://x', setup: [cat]}":                    "both a url and commands",
		"mcp: [{prefix: x}]": "neither a command nor a URL",
	} {
		opts, err := react.Load(writeConfig(t, text), nil)
		if err == nil {
			var a *react.Agent
			if a, err = react.New(context.Background(), opts); err == nil {
				a.Close()
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) || queue.KindOf(err) != queue.Invalid && !strings.HasPrefix(text, "mcp") {
			t.Errorf("%q: %v (%v), want %q", text, err, queue.KindOf(err), want)
		}
	}
	if _, err := react.Load(writeConfig(t, "llm: {api_key: 'secret${NOT_SET_ANYWHERE}'}"), nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an error that tells a key: %v", err)
	}
	if _, err := react.Load(filepath.Join(t.TempDir(), "none"), nil); queue.KindOf(err) != queue.Invalid {
		t.Errorf("%v", err)
	}
}

// A template sees a task as it is written, and the task may call its members as it
// likes.
func TestQuestionOfAnyTask(t *testing.T) {
	for input, want := range map[string]string{
		`{"n":1000000}`:                         "1000000",
		`{"n":1234567890123456789}`:             "1234567890123456789",
		`{"n":[1e2,0.5,-7,true,null]}`:          "[100 0.5 -7 true <nil>]",
		`{"n":1,"files":["a"],"topic":{"x":1}}`: "1",
		`{"n":1,"turns":"many","scenario":3}`:   "1",
		`{"n":1,"question":5}`:                  "1",
	} {
		opts, err := react.Load(writeConfig(t, "question: '{{.n}}'"), nil)
		must(t, err)
		o := newRig(t, sequence(says("done")), opts).succeed(input)
		if got := lines(o.conv.Messages())[0]; got != "user: "+want {
			t.Errorf("%s: %q, want %q", input, got, want)
		}
	}
}
