package react_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
	"github.com/aglq/aglq/worker/react"
)

// A recording gives the same conversations again, without model, tools and sandbox.
func TestRecordingsAreReplayed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tape.jsonl")
	inputs := []string{`{"topic":"counting","turns":2}`, `{"topic":"more counting","turns":2}`, `{"topic":"counting","turns":2}`}
	tape, err := react.Record(path)
	must(t, err)
	tool, called := counter(t)
	sandbox := newSandboxServer(t)
	opts := react.Options{Tools: []react.Tool{tool, {Name: "good"}}, Sandbox: react.HTTPSandbox{URL: sandbox.URL}, Tape: tape}
	recording := newRig(t, userAndAgent(9), opts)
	recording.run(inputs...)
	must(t, tape.Close())
	if n, _ := called.Load("x"); n != 6 {
		t.Fatalf("the tool was called %v times", n)
	}
	opened := len(sandbox.log())

	opts.Tape, err = react.Replay(path)
	must(t, err)
	replaying := newRig(t, func(fakellm.Request) fakellm.Answer { return fakellm.Answer{Status: 500, Error: "the model was asked"} }, opts)
	again := replaying.run(inputs...)
	for i := range inputs {
		if diff := cmp.Diff(lines(recording.held[i].Messages()), lines(replaying.held[i].Messages())); diff != "" {
			t.Errorf("conversation %d: %s", i, diff)
		}
		converts(t, again[i])
	}
	if n, _ := called.Load("x"); n != 6 || len(sandbox.log()) != opened {
		t.Errorf("the replay called the tool or opened a session: %v, %q", n, sandbox.log())
	}

	opts.System = "another system message"
	if got := newRig(t, sequence(says("no")), opts).fail(inputs[0]); !strings.Contains(got, "the recording has no answer to this") {
		t.Error(got)
	}
}

// A tool call that was not recorded fails the attempt: it is no observation.
func TestACallThatWasNotRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tape.jsonl")
	tape, err := react.Record(path)
	must(t, err)
	tool, _ := counter(t)
	opts := react.Options{Tools: []react.Tool{tool}, Tape: tape}
	newRig(t, sequence(calls("a", "count", `{"key":"x"}`), says("done")), opts).succeed(`"go"`)
	must(t, tape.Close())
	text, err := os.ReadFile(path)
	must(t, err)
	kept := ""
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"kind":"llm"`) {
			kept += line
		}
	}
	must(t, os.WriteFile(path, []byte(kept), 0o666))
	opts.Tape, err = react.Replay(path)
	must(t, err)
	if got := newRig(t, sequence(says("no")), opts).fail(`"go"`); !strings.Contains(got, `the recording has no answer to this: count {"key":"x"}`) {
		t.Error(got)
	}
}

func TestTapesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	if _, err := react.Replay(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there was read")
	}
	there := filepath.Join(dir, "there")
	must(t, os.WriteFile(there, []byte("{\"kind\":\"llm\",\"key\":\"x\",\"status\":200}\nnonsense\n"), 0o666))
	if _, err := react.Replay(there); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
	if _, err := react.Record(there); err == nil {
		t.Error("a recording was written over")
	}
}
