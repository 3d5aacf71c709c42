package apo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/internal/testllm"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// levels are tasks that need so much skill.
func levels(all ...int) []algorithm.Task {
	var tasks []algorithm.Task
	for i, level := range all {
		tasks = append(tasks, algorithm.Task{Input: fmt.Appendf(nil, `{"n":%d,"level":%d}`, i, level)})
	}
	return tasks
}

const seedResources = `{"main_llm":{"resource_type":"llm","endpoint":"http://x","model":"m","api_key":null,"sampling_parameters":{}},` +
	`"answering":{"resource_type":"prompt_template","template":"Answer {question}.","engine":"f-string"}}`

// rig is a store with agents whose rewards follow from the prompt, and a model.
type rig struct {
	store  queue.Store
	client *algorithm.Client
	model  *fakellm.Server
	config Config
}

func newRig(t *testing.T, script fakellm.Script) *rig {
	t.Helper()
	s := testagent.Store(t)
	testagent.Serve(t, s, 4, func(r queue.AttemptedRollout) testagent.Outcome {
		set, err := s.Resources(context.Background(), *r.ResourcesID)
		if err != nil || set == nil {
			t.Errorf("resources %s: %v", *r.ResourcesID, err)
			return testagent.Outcome{Failed: true}
		}
		prompt := set.Resources.Get("answering").Get("template").Text()
		if !strings.Contains(prompt, "{question}") || set.Resources.Get("main_llm").IsNull() {
			t.Errorf("the agents were given %s", set.Resources)
		}
		level, _ := r.Input.Get("level").Int()
		if int64(testllm.Skill(prompt)) >= level {
			return testagent.Rewarded(1)
		}
		return testagent.Outcome{} // no reward counts as 0
	})
	model := fakellm.New(script)
	server := httptest.NewServer(model)
	t.Cleanup(server.Close)
	return &rig{
		store: s, client: algorithm.New(s, algorithm.Options{Poll: time.Millisecond}), model: model,
		config: Config{
			Run: "search", Resources: rawjson.Value(seedResources), Train: levels(1, 2, 3, 1, 2, 3, 2), Val: levels(1, 1, 2, 3, 4),
			LLM:           &llmclient.Client{BaseURL: server.URL + "/v1", HTTP: server.Client()},
			GradientModel: testllm.Critic, ApplyEditModel: testllm.Editor, GradientBatchSize: 3, ValBatchSize: 4, BeamWidth: 2, BranchFactor: 3,
			Seed: 5, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), askPause: time.Millisecond,
		},
	}
}

func count(t *testing.T, s queue.Store) int {
	t.Helper()
	page, err := s.Rollouts(t.Context(), queue.RolloutQuery{Paging: queue.Paging{Limit: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return page.Total
}

func TestSearchImprovesThePrompt(t *testing.T) {
	r := newRig(t, testllm.Script)
	var rounds []Round
	r.config.OnRound = func(round Round) { rounds = append(rounds, round) }
	state, err := Run(t.Context(), r.client, r.config)
	if err != nil {
		t.Fatal(err)
	}
	if *state.Seed.Score != 0 || *state.Best.Score != 0.8 || testllm.Skill(state.Best.Template) != 3 {
		t.Errorf("the seed scores %g, the best %g: %+v", *state.Seed.Score, *state.Best.Score, state.Best)
	}
	if diff := cmp.Diff(rounds, state.History); diff != "" || len(rounds) != DefaultBeamRounds {
		t.Error(len(rounds), diff)
	}
	dropped := 0
	for _, round := range rounds {
		dropped += round.Dropped
		if round.Candidates+round.Dropped != 6 {
			t.Errorf("round %+v, want 6 branches", round)
		}
	}
	if dropped == 0 {
		t.Error("no branch was dropped; the test does not show that lost placeholders are found")
	}
	published, err := r.store.Resources(t.Context(), "search")
	if err != nil || published.Version != 4 || published.Resources.Get("answering").Get("template").Text() != state.Best.Template {
		t.Errorf("published %+v, %v", published, err)
	}
	var first string
	for key := range published.Resources.Members() {
		first = string(key)
		break
	}
	if first != "main_llm" {
		t.Errorf("the resources begin with %s", first)
	}
	for i := range 100 {
		set, err := r.store.Resources(t.Context(), fmt.Sprintf("search-v%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if set != nil && (set.Version != 1 || !strings.Contains(string(set.Resources), "{question}")) {
			t.Errorf("version %d: %+v", i, set)
		}
	}

	// A finished search is not repeated; one more round is one more.
	before, asked := count(t, r.store), len(r.model.Requests())
	again, err := Run(t.Context(), r.client, r.config)
	if err != nil || count(t, r.store) != before || len(r.model.Requests()) != asked {
		t.Errorf("%d rollouts became %d, %d questions %d; %v", before, count(t, r.store), asked, len(r.model.Requests()), err)
	}
	if diff := cmp.Diff(state, again); diff != "" {
		t.Error(diff)
	}
	r.config.BeamRounds = 4
	if again, err = Run(t.Context(), r.client, r.config); err != nil || again.Round != 4 || len(rounds) != 4 {
		t.Errorf("%+v, %v", again, err)
	}
}

// TestSearchResumes ends a search at every tenth write, and goes on: the result and
// the number of rollouts are those of a search that ran through.
func TestSearchResumes(t *testing.T) {
	whole := newRig(t, testllm.Script)
	want, err := Run(t.Context(), whole.client, whole.config)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, testllm.Script)
	lives := 0
	var state State
	for {
		var left atomic.Int64
		left.Store(10)
		client := algorithm.New(testagent.Dying{Store: r.store, Left: &left}, algorithm.Options{Poll: time.Millisecond})
		if state, err = Run(t.Context(), client, r.config); err == nil {
			break
		}
		if !errors.Is(err, testagent.ErrKilled) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if lives++; lives > 50 {
			t.Fatal("the search makes no headway")
		}
	}
	if lives < 3 {
		t.Errorf("the search was ended %d times; the test shows nothing", lives)
	}
	if diff := cmp.Diff(want, state, cmpopts.IgnoreFields(Round{}, "Seconds")); diff != "" {
		t.Errorf("after %d ends: %s", lives, diff)
	}
	if got, want := count(t, r.store), count(t, whole.store); got != want {
		t.Errorf("%d rollouts, want %d as without ends", got, want)
	}
}

// TestSearchesKeepApart runs two searches on one store at a time.
func TestSearchesKeepApart(t *testing.T) {
	r := newRig(t, testllm.Script)
	var searches sync.WaitGroup
	states := make([]State, 2)
	for i := range states {
		searches.Go(func() {
			config := r.config
			config.Run, config.Seed, config.BeamRounds = fmt.Sprintf("search-%d", i), uint64(i), 2
			var err error
			if states[i], err = Run(t.Context(), r.client, config); err != nil {
				t.Error(err)
			}
		})
	}
	searches.Wait()
	for i, state := range states {
		for _, p := range append(state.Beam, state.Best) {
			set, err := r.store.Resources(t.Context(), p.ResourcesID)
			if err != nil || set == nil || !strings.HasPrefix(p.ResourcesID, fmt.Sprintf("search-%d-v", i)) ||
				set.Resources.Get("answering").Get("template").Text() != p.Template {
				t.Errorf("prompt %+v is stored as %+v, %v", p, set, err)
			}
		}
	}
}

// TestLatestAttemptCounts has first attempts that earn much and fail.
func TestLatestAttemptCounts(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, func(r queue.AttemptedRollout) testagent.Outcome {
		if r.Attempt.SequenceID == 1 {
			o := testagent.Rewarded(100)
			o.Failed = true
			return o
		}
		return testagent.Rewarded(0.5)
	})
	r := newRig(t, testllm.Script)
	r.config.Rollout = &queue.Config{MaxAttempts: 2, RetryCondition: []queue.AttemptStatus{queue.AttemptFailed}}
	r.config.BeamRounds = 1
	state, err := Run(t.Context(), algorithm.New(s, algorithm.Options{Poll: time.Millisecond}), r.config)
	if err != nil || *state.Best.Score != 0.5 || *state.Beam[0].Score != 0.5 {
		t.Errorf("%+v, %v", state, err)
	}
}

// TestDeadline has agents that never end one of the tasks.
func TestDeadline(t *testing.T) {
	s := testagent.Store(t)
	held := make(chan struct{})
	var n atomic.Int64
	testagent.Serve(t, s, 40, func(r queue.AttemptedRollout) testagent.Outcome {
		if level, _ := r.Input.Get("level").Int(); level == 4 {
			n.Add(1)
			<-held
		}
		return testagent.Rewarded(0.25)
	})
	t.Cleanup(func() { close(held) }) // before the agents are waited for
	r := newRig(t, testllm.Script)
	r.config.RolloutBatchTimeout, r.config.BeamRounds, r.config.ValBatchSize = 300*time.Millisecond, 1, 5
	state, err := Run(t.Context(), algorithm.New(s, algorithm.Options{Poll: time.Millisecond}), r.config)
	if err != nil || n.Load() == 0 || math.Abs(*state.Best.Score-0.25) > 1e-9 {
		t.Errorf("%d were held up; %+v, %v", n.Load(), state.Best, err)
	}
	page, err := s.Rollouts(t.Context(), queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutCancelled}, Paging: queue.Paging{Limit: 1}})
	if err != nil || page.Total != int(n.Load()) {
		t.Errorf("%d rollouts are cancelled, want %d; %v", page.Total, n.Load(), err)
	}
}

// TestModelsThatFail checks what of the models ends a search, and what does not.
func TestModelsThatFail(t *testing.T) {
	busy := func() fakellm.Script {
		var n atomic.Int64
		return func(r fakellm.Request) fakellm.Answer {
			if n.Add(1)%3 != 0 {
				return fakellm.Answer{Status: 503, Error: "busy"}
			}
			return testllm.Script(r)
		}
	}
	for name, c := range map[string]struct {
		script fakellm.Script
		want   string
	}{
		"busy now and then": {busy(), ""},
		"a wrong key":       {func(fakellm.Request) fakellm.Answer { return fakellm.Answer{Status: 401, Error: "who are you"} }, "who are you"},
		"away":              {func(fakellm.Request) fakellm.Answer { return fakellm.Answer{Status: 503, Error: "away"} }, "none of 6 branches"},
		"no critique": {func(r fakellm.Request) fakellm.Answer {
			return fakellm.Answer{}
		}, ""},
		"no rewrite": {func(r fakellm.Request) fakellm.Answer {
			if r.Model == testllm.Editor {
				return fakellm.Answer{Text: "  "}
			}
			return testllm.Script(r)
		}, "the rewrite is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.script)
			r.config.BeamRounds = 1
			state, err := Run(t.Context(), r.client, r.config)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("ended with %v, want %q", err, c.want)
			}
			if name == "no critique" && (len(state.Beam) != 1 || state.Best.Version != 0 || state.History[0].Dropped != 6) {
				t.Errorf("%+v", state)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	r := newRig(t, testllm.Script)
	for want, change := range map[string]func(*Config){
		"training":           func(c *Config) { c.Train = nil },
		"validation":         func(c *Config) { c.Val = nil },
		"no server":          func(c *Config) { c.LLM = nil },
		"1 or more":          func(c *Config) { c.BeamWidth = -1 },
		"no prompt template": func(c *Config) { c.Resources = rawjson.Value(`{"a":{"resource_type":"llm"}}`) },
		"no template of the": func(c *Config) {
			c.Resources = rawjson.Value(`{"a":{"resource_type":"prompt_template","template":"{","engine":"f-string"}}`)
		},
		"must not be named": func(c *Config) {
			c.Resources = rawjson.Value(`{"apo":{"resource_type":"prompt_template","template":"","engine":"jinja"}}`)
		},
		"no template of the eng": func(c *Config) {
			c.Resources = rawjson.Value(`{"a":{"resource_type":"prompt_template","template":"}","engine":"f-string"}}`)
		},
	} {
		config := r.config
		change(&config)
		if _, err := Run(t.Context(), r.client, config); queue.KindOf(err) != queue.Invalid || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want an Invalid error with %q", err, want)
		}
	}
	config := r.config
	config.BeamRounds = 1
	if _, err := Run(t.Context(), r.client, config); err != nil {
		t.Fatal(err)
	}
	config.BranchFactor = 4
	if _, err := Run(t.Context(), r.client, config); queue.KindOf(err) != queue.Conflict {
		t.Errorf("other settings: %v", err)
	}
	if _, err := r.store.UpdateResources(t.Context(), "taken", rawjson.Value(seedResources)); err != nil {
		t.Fatal(err)
	}
	config.Run = "taken"
	if _, err := Run(t.Context(), r.client, config); queue.KindOf(err) != queue.Conflict {
		t.Errorf("resources of others: %v", err)
	}
}

func TestBatches(t *testing.T) {
	tasks := levels(0, 1, 2, 3, 4, 5, 6)
	b, again := newBatches(tasks, 3, 1, 0), newBatches(tasks, 3, 1, 0)
	seen := map[string]int{}
	for i := range 70 {
		batch := b.at(i)
		inBatch := map[string]bool{}
		for _, task := range batch {
			inBatch[string(task.Input)] = true
			seen[string(task.Input)]++
		}
		if len(inBatch) != 3 {
			t.Fatalf("batch %d has a task twice: %s", i, batch)
		}
		if diff := cmp.Diff(batch, again.at(i)); diff != "" {
			t.Fatal(diff)
		}
	}
	for input, n := range seen {
		if n < 20 || len(seen) != 7 {
			t.Errorf("task %s was drawn %d times of 210", input, n)
		}
	}
	if all := newBatches(tasks, 99, 1, 0).at(0); len(all) != 7 {
		t.Errorf("a batch of all has %d tasks", len(all))
	}
}
