// Package agents_test runs the example agents the way a worker does: the task on
// standard input, the reward on the last line of standard output.
package agents_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runAgent returns the last line that the agent prints for each task.
func runAgent(t *testing.T, env []string, command ...string) []string {
	t.Helper()
	file, err := os.Open("tasks.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var last []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Stdin = bytes.NewReader(lines.Bytes())
		cmd.Stderr = os.Stderr
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("task %s: %v", lines.Text(), err)
		}
		printed := strings.Split(strings.TrimSpace(string(out)), "\n")
		last = append(last, printed[len(printed)-1])
	}
	return last
}

func TestShellAgent(t *testing.T) {
	if diff := cmp.Diff([]string{"1", "1", "1", "1"}, runAgent(t, nil, "./echo.sh")); diff != "" {
		t.Error(diff)
	}
}

func TestGoAgent(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "adder")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", agent, "./go").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	want := []string{`{"reward": 1}`, `{"reward": 1}`, `{"reward": 1}`, `{"reward": 0}`}
	if diff := cmp.Diff(want, runAgent(t, nil, agent)); diff != "" {
		t.Error(diff)
	}
	cmd := exec.CommandContext(t.Context(), agent)
	cmd.Stdin = strings.NewReader("no JSON")
	if err := cmd.Run(); err == nil {
		t.Error("a task that is no JSON was a success")
	}
}

func TestPythonAgent(t *testing.T) {
	type export struct {
		ResourceSpans []struct {
			Resource   struct{ Attributes []struct{ Key string } }
			ScopeSpans []struct {
				Spans []struct{ Name, TraceID, SpanID string }
			}
		}
	}
	var exports []export
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var e export
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err != nil || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer x" {
			t.Errorf("%v: %v: %s", err, r.Header, body)
		}
		exports = append(exports, e)
	}))
	defer server.Close()
	want := []string{`{"reward": 1.0}`, `{"reward": 1.0}`, `{"reward": 1.0}`, `{"reward": 0.0}`}
	if diff := cmp.Diff(want, runAgent(t, nil, "python3", "python/agent.py")); diff != "" {
		t.Error(diff)
	}
	env := []string{
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + server.URL, "OTEL_EXPORTER_OTLP_TRACES_HEADERS=Authorization=Bearer%20x",
		"AGL_ROLLOUT_ID=ro-1", "AGL_ATTEMPT_ID=at-1",
	}
	runAgent(t, env, "python3", "python/agent.py")
	if len(exports) != 4 {
		t.Fatalf("%d spans were sent; want one for each of 4 tasks", len(exports))
	}
	for _, e := range exports {
		resource := e.ResourceSpans[0]
		if len(resource.Resource.Attributes) != 2 || resource.ScopeSpans[0].Spans[0].Name != "add" {
			t.Errorf("export %+v", e)
		}
	}
}
