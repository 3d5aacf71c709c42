package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/aglq/aglq/algorithm/cem"
)

// python is a Python that has what the agent imports; it is made when there is
// none.
var python = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("AGLQ_DEMO_PYTHON"); path != "" {
		return path, nil
	}
	out, err := exec.Command("../../scripts/get-python-env", "demo").Output()
	return strings.TrimSpace(string(out)), err
})

// spans collects what an OpenTelemetry exporter sends.
type spans struct {
	mu     sync.Mutex
	counts map[string]int
	owner  string // the rollout that the resource names
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	text, err := io.ReadAll(body)
	var request tracepb.TracesData // the same on the wire as an export request
	if err == nil {
		err = proto.Unmarshal(text, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, a := range resource.Resource.Attributes {
			if a.Key == "agentlightning.rollout_id" {
				s.owner = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.counts[span.Name]++
			}
		}
	}
}

// try runs the agent on a task, in the given round of six (0 is no search at
// all), and returns what it printed and the spans it sent.
func try(t *testing.T, task string, round int) (stdout, stderr string, sent *spans, err error) {
	t.Helper()
	interpreter, err := python()
	if err != nil {
		t.Fatalf("making the agent's Python environment: %v", err)
	}
	sent = &spans{counts: map[string]int{}}
	server := httptest.NewServer(sent)
	defer server.Close()
	cmd := exec.CommandContext(t.Context(), interpreter, "agent.py")
	cmd.Env = append(os.Environ(),
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="+server.URL,
		"OTEL_RESOURCE_ATTRIBUTES=agentlightning.rollout_id=ro-1,agentlightning.attempt_id=at-1",
		"AGL_RESOURCES_FILE="+resourcesFile(t, round))
	cmd.Stdin = strings.NewReader(task)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), sent, err
}

func resourcesFile(t *testing.T, round int) string {
	t.Helper()
	if round == 0 {
		return filepath.Join(t.TempDir(), "none.json")
	}
	space, err := cem.ParseSpace(spaceText)
	if err != nil {
		t.Fatal(err)
	}
	state := cem.State{Round: round - 1, Rounds: 6}
	for _, p := range space.Parameters {
		state.Parameters = append(state.Parameters, cem.Marginal{Parameter: p})
	}
	template, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	resources, err := json.Marshal(map[string]any{cem.ResourceName: map[string]any{
		"resource_type": "prompt_template", "template": string(template), "engine": "jinja",
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "resources.json")
	if err := os.WriteFile(path, resources, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodTask = `{"hidden":128,"activation":"relu","learning_rate":0.005,"batch_size":64,"alpha":0.001,"shift":0.2}`

func TestAgent(t *testing.T) {
	tests := map[string]struct{ round, epochs int }{
		"first round": {1, 15},
		"last round":  {6, 40},
		"no search":   {0, 40},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, sent, err := try(t, goodTask, test.round)
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr)
			}
			var reward struct{ Reward float64 }
			if err := json.Unmarshal([]byte(stdout), &reward); err != nil || reward.Reward < 0.95 || reward.Reward > 1 {
				t.Errorf("printed %q; want a reward above 0.95", stdout)
			}
			if sent.counts["epoch"] != test.epochs || sent.counts["train"] != 1 || sent.owner != "ro-1" {
				t.Errorf("spans %v of %q; want %d epochs", sent.counts, sent.owner, test.epochs)
			}
		})
	}
}

func TestAgentRefuses(t *testing.T) {
	tests := map[string]struct{ task, want string }{
		"unknown parameter": {`{"depth":3}`, "depth"},
		"outside the range": {`{"hidden":5000}`, "the range is 4"},
		"no such choice":    {`{"activation":"step"}`, "the choices are"},
		"no object":         {`[1]`, "no JSON object"},
		"no JSON":           {`{`, "JSONDecodeError"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, sent, err := try(t, test.task, 1)
			if err == nil || stdout != "" || !strings.Contains(stderr, test.want) {
				t.Errorf("%v, printed %q and %q; want a failure with %q", err, stdout, stderr, test.want)
			}
			if len(sent.counts) != 0 {
				t.Errorf("spans %v were sent", sent.counts)
			}
		})
	}
}
