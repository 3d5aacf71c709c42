// Package react_test runs the example as its README says, with a model that is a
// script.
package react_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// shopkeeper looks for the files, reads them all, misspells one, and answers from what
// it has read.
func shopkeeper(r fakellm.Request) fakellm.Answer {
	var results []string
	question := ""
	for m := range r.Body.Get("messages").Elements() {
		switch m.Get("role").Text() {
		case "user":
			question = m.Get("content").Text()
		case "tool":
			results = append(results, m.Get("content").Text())
		}
	}
	switch len(results) {
	case 0:
		return fakellm.Answer{ToolCalls: []fakellm.ToolCall{{ID: "list", Name: "list_files", Arguments: "{}"}}}
	case 1:
		var calls []fakellm.ToolCall
		for i, name := range append(strings.Fields(results[0]), "stok.txt") {
			calls = append(calls, fakellm.ToolCall{ID: fmt.Sprint("read", i), Name: "read_file", Arguments: fmt.Sprintf(`{"path":%q}`, name)})
		}
		return fakellm.Answer{ToolCalls: calls}
	}
	fruit := regexp.MustCompile(`apples|pears`).FindString(question)
	number := func(text string) int {
		n, _ := strconv.Atoi(regexp.MustCompile(fruit + ` (\d+)`).FindStringSubmatch(text)[1])
		return n
	}
	return fakellm.Answer{Text: fmt.Sprintf("There are %d %s left.", number(results[2])-number(results[1]), fruit)}
}

func TestExample(t *testing.T) {
	aglq := filepath.Join(t.TempDir(), "aglq")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", aglq, "../../cmd/aglq").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	model := httptest.NewServer(fakellm.New(shopkeeper))
	defer model.Close()
	run := func(url string, args ...string) []string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), aglq, append([]string{"run", "--react", "react.yaml", "--tasks", "tasks.jsonl"}, args...)...)
		cmd.Env = append(os.Environ(), "OPENAI_BASE_URL="+url, "OPENAI_API_KEY=x", "MODEL=m")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, &stderr)
		}
		var ends []string
		for line := range strings.Lines(string(out)) {
			ends = append(ends, strings.Join(strings.Fields(line)[1:3], " "))
		}
		return ends
	}
	want := []string{"succeeded reward=1", "succeeded reward=1"}
	tape := filepath.Join(t.TempDir(), "tape.jsonl")
	if diff := cmp.Diff(want, run(model.URL+"/v1", "--react-record", tape)); diff != "" {
		t.Error(diff)
	}
	// Without a model, as in CI. The grader has no folder to look into.
	if diff := cmp.Diff(want, run("http://127.0.0.1:1/v1", "--react-replay", tape)); diff != "" {
		t.Error(diff)
	}
}
