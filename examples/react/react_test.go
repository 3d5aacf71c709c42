// Package react_test runs the example as its README says, with a model that is a
// script.
package react_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
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
	command := func(url string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), aglq, args...)
		cmd.Env = append(os.Environ(), "OPENAI_BASE_URL="+url, "OPENAI_API_KEY=x", "MODEL=m")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, &stderr)
		}
		return string(out)
	}
	run := func(url string, args ...string) []string {
		t.Helper()
		out := command(url, append([]string{"run", "--react", "react.yaml", "--tasks", "tasks.jsonl"}, args...)...)
		var ends []string
		for line := range strings.Lines(out) {
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

	// From a queue to a dataset.
	store := startStore(t, aglq)
	command("", "enqueue", "--store-url", store, "tasks.jsonl")
	command(model.URL+"/v1", "worker", "--store-url", store, "--react", "react.yaml", "--max-rollouts", "2")
	rows := command("", "export", "--store-url", store, "--format", "conversational", "--min-reward", "1", "--include-system", "--include-tool-calls", "--out", "-")
	if n := strings.Count(rows, "\n"); n != 2 {
		t.Fatalf("%d rows:\n%s", n, rows)
	}
	for row := range strings.Lines(rows) {
		checkRow(t, row)
	}
}

// checkRow checks that each call of a conversation has its result, in its place.
func checkRow(t *testing.T, row string) {
	t.Helper()
	var got struct {
		Messages []struct {
			Role       string
			Content    string
			ToolCallID string                `json:"tool_call_id"`
			ToolCalls  []struct{ ID string } `json:"tool_calls"`
		}
		Tools []struct{ Function struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(row), &got); err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, m := range got.Messages {
		line := m.Role + m.ToolCallID
		for _, c := range m.ToolCalls {
			line += " " + c.ID
		}
		told = append(told, line)
	}
	want := []string{"system", "user", "assistant list", "toollist", "assistant read0 read1 read2", "toolread0", "toolread1", "toolread2", "assistant"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	if text := got.Messages[7].Content; text != "Error: exit status 1: stok.txt: No such file or directory" {
		t.Errorf("the last tool said %q", text)
	}
	if len(got.Tools) != 2 || got.Tools[1].Function.Name != "read_file" {
		t.Errorf("tools %+v", got.Tools)
	}
}

// startStore starts a store for as long as the test, and gives its URL.
func startStore(t *testing.T, aglq string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), aglq, "store", "--port", "0")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if m := regexp.MustCompile(`msg=listening .*url=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			return m[1]
		}
	}
	t.Fatal("the store does not listen")
	return ""
}
