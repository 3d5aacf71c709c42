package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/aglq/aglq/algorithm/apo"
	"github.com/aglq/aglq/internal/testllm"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// solver is an agent that asks a model, by the prompt among its resources, and earns
// 1 when the answer is right. Tests start it as the command solver.
func solver() {
	var task struct{ Level int }
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		panic(err)
	}
	text, err := os.ReadFile(os.Getenv("AGL_RESOURCES_FILE"))
	if err != nil {
		panic(err)
	}
	_, prompt, err := apo.PromptOf(text)
	if err != nil {
		panic(err)
	}
	model := llmclient.Client{BaseURL: os.Getenv("MODEL_URL"), Model: testllm.Solver}
	answer, err := model.Chat(context.Background(), llmclient.Request{Messages: []llmclient.Message{
		{Role: "system", Content: strings.ReplaceAll(prompt.Template, "{question}", "it")},
		{Role: "user", Content: fmt.Sprintf("level %d", task.Level)},
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println(map[bool]int{true: 1}[answer.Text() == "right"])
}

// apoRig is a store with workers and a model.
type apoRig struct {
	t     *testing.T
	model *fakellm.Server
	url   string // of the model
	store string // its URL
	files string
}

func newAPORig(t *testing.T) *apoRig {
	t.Helper()
	r := &apoRig{t: t, model: fakellm.New(testllm.Script), files: t.TempDir()}
	server := httptest.NewServer(r.model)
	t.Cleanup(server.Close)
	r.url = server.URL + "/v1"
	r.store = start(t, nil, storeArgs()...).url()
	start(t, []string{"MODEL_URL=" + r.url}, "worker", "--store-url", r.store, "--concurrency", "3", "--", "solver")
	for name, text := range map[string]string{
		"train.jsonl": `{"level":1}` + "\n" + `{"level":2}` + "\n" + `{"level":3}` + "\n" + `{"level":2}` + "\n" + `{"level":1}` + "\n",
		"val.jsonl":   `{"level":1}` + "\n" + `{"level":2}` + "\n" + `{"level":3}` + "\n" + `{"level":4}` + "\n",
		"prompt.txt":  "Answer {question}.\n",
	} {
		if err := os.WriteFile(filepath.Join(r.files, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *apoRig) apo(run string) *process {
	return start(r.t, []string{"OPENAI_API_KEY=secret"}, "algorithm", "apo", "--store-url", r.store, "--run", run, "--llm-base-url", r.url,
		"--train", filepath.Join(r.files, "train.jsonl"), "--val", filepath.Join(r.files, "val.jsonl"),
		"--prompt", filepath.Join(r.files, "prompt.txt"), "--out", filepath.Join(r.files, run+".txt"),
		"--gradient-model", testllm.Critic, "--apply-edit-model", testllm.Editor,
		"--gradient-batch-size", "2", "--val-batch-size", "3", "--beam-width", "2", "--branch-factor", "2", "--seed", "7", "--json")
}

// state is the last line of a search's output, as if all were named alike.
func (r *apoRig) state(p *process) (state apo.State) {
	r.t.Helper()
	all := lines(p.out.String())
	text := strings.ReplaceAll(all[len(all)-1], `"killed`, `"whole`) // ids begin with the name of the run
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		r.t.Fatalf("%v: %s", err, p.out)
	}
	return state
}

// TestAPOSurvivesKill improves a prompt with real agents, which ask a model whose
// answers depend on it. A second search is killed in each of its rounds, and comes
// to the same.
func TestAPOSurvivesKill(t *testing.T) {
	t.Parallel()
	r := newAPORig(t)
	whole := r.apo("whole")
	whole.exit(0)
	want := r.state(whole)
	if *want.Seed.Score != 0 || *want.Best.Score < 0.5 || testllm.Skill(want.Best.Template) < 2 || !strings.Contains(want.Best.Template, "{question}") {
		t.Errorf("seed %+v, best %+v", want.Seed, want.Best)
	}
	if text, err := os.ReadFile(filepath.Join(r.files, "whole.txt")); err != nil || string(text) != want.Best.Template+"\n" {
		t.Errorf("--out has %q, %v", text, err)
	}
	rollouts := r.rollouts()

	for _, asked := range []int{1, 3, 2} {
		before := len(r.model.Requests())
		p := r.apo("killed")
		until(t, "the search to ask for critique", func() bool {
			n := 0
			for _, q := range r.model.Requests()[min(before, len(r.model.Requests())):] {
				if q.Model == testllm.Critic {
					n++
				}
			}
			return n >= asked || p.ended()
		})
		p.signal(syscall.SIGKILL)
		<-p.done
	}
	last := r.apo("killed")
	last.exit(0)
	got := r.state(last)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(apo.Round{}, "Seconds")); diff != "" {
		t.Errorf("a search that was killed comes to something else: %s", diff)
	}
	if n := r.rollouts(); n != 2*rollouts {
		t.Errorf("the second search took %d rollouts, the first %d", n-rollouts, rollouts)
	}
	for _, q := range r.model.Requests() {
		if q.Model != testllm.Solver && q.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked with %q", q.Header.Get("Authorization"))
			break
		}
	}
}

func (r *apoRig) rollouts() int {
	return len(lines(aglq(r.t, r.store, "rollouts", "--json", "--limit", "-1")))
}

// TestApoOut refuses a file that cannot be written before any work, even before the
// store is asked.
func TestApoOut(t *testing.T) {
	t.Parallel()
	train := write(t, "train.jsonl", tasks(1))
	dir := t.TempDir()
	for _, out := range []string{dir, filepath.Join(dir, "nosuch", "better.txt")} {
		p := start(t, nil, "algorithm", "apo", "--store-url", "http://127.0.0.1:9", "--train", train, "--val", train, "--prompt", train, "--out", out)
		p.exit(1)
		if !strings.Contains(p.log.String(), out) {
			t.Errorf("--out %s: %s", out, p.log.String())
		}
	}
}
