package cem

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

var hill = Space{Parameters: []Parameter{
	{Name: "x", Type: Float, Low: 0.001, High: 1000, Scale: Log},
	{Name: "n", Type: Int, Low: 0, High: 100},
	{Name: "kind", Type: Categorical, Choices: []rawjson.Value{rawjson.Value(`"bad"`), rawjson.Value(`"good"`), rawjson.Value(`"ugly"`)}},
}}

// height is 1 at x = 10, n = 20, kind "good", and falls off around it.
func height(r queue.AttemptedRollout) testagent.Outcome {
	x, _ := r.Input.Get("x").Float()
	n, _ := r.Input.Get("n").Float()
	v := 1 - math.Abs(math.Log10(x)-1)/8 - math.Abs(n-20)/400
	if r.Input.Get("kind").Text() != "good" {
		v -= 0.25
	}
	return testagent.Rewarded(v)
}

func newClient(s queue.Store) *algorithm.Client {
	return algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
}

var ignoreRun = []cmp.Option{
	cmpopts.IgnoreFields(State{}, "Run"),
	cmpopts.IgnoreFields(Round{}, "Seconds"),
	cmpopts.IgnoreFields(Trial{}, "RolloutID"),
}

func TestSearchFindsTheTop(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 3, height)
	var rounds []Round
	results := 0
	config := Config{
		Space: hill, Rounds: 8, Population: 24, Seed: 3,
		OnRound:  func(r Round) { rounds = append(rounds, r) },
		OnResult: func(int, algorithm.Result) { results++ },
	}
	state, err := Run(t.Context(), newClient(s), config)
	if err != nil {
		t.Fatal(err)
	}
	if state.Best.Reward < 0.97 || state.Best.Params.Get("kind").Text() != "good" {
		t.Errorf("the best trial is %+v; want a reward near 1", state.Best)
	}
	if first, last := rounds[0], rounds[7]; first.Mean > 0.8 || last.Mean < 0.9 || last.Mean < first.Mean {
		t.Errorf("the mean goes from %g to %g; the search learnt nothing", first.Mean, last.Mean)
	}
	if results != 8*24 || len(rounds) != 8 {
		t.Errorf("%d results and %d rounds were reported; want 192 and 8", results, len(rounds))
	}
	if diff := cmp.Diff(rounds, state.History); diff != "" {
		t.Error(diff)
	}
	checkPublished(t, s, state)

	// Another search with the same seed does the same, and finishing is not repeated.
	config.OnRound, config.OnResult = nil, nil
	again, err := Run(t.Context(), newClient(s), config)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, again, ignoreRun...); diff != "" {
		t.Errorf("the same seed gave another search: %s", diff)
	}
	config.Run = state.Run
	if done, err := Run(t.Context(), newClient(s), config); err != nil || !cmp.Equal(state, done) {
		t.Errorf("running a finished search gave %+v, %v", done, err)
	}
}

// Each round is a version of the search's resources, and its rollouts name them.
func checkPublished(t *testing.T, s queue.Store, state State) {
	t.Helper()
	stored, err := s.Resources(t.Context(), state.Run)
	if err != nil || stored == nil || stored.Version != 9 {
		t.Fatalf("resources %+v, %v; want version 9: the start and 8 rounds", stored, err)
	}
	resource := stored.Resources.Get("distribution")
	var got State
	if err := json.Unmarshal([]byte(resource.Get("template").Text()), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, got); diff != "" || resource.Get("resource_type").Text() != "prompt_template" {
		t.Errorf("%s: %s", resource.Get("resource_type"), diff)
	}
	if strings.Contains(resource.Get("template").Text(), "{{") {
		t.Error("the state would not survive the jinja engine")
	}
	best, err := s.Rollout(t.Context(), state.Best.RolloutID)
	if err != nil || best == nil || best.ResourcesID == nil || *best.ResourcesID != state.Run || best.Mode != queue.ModeTrain {
		t.Errorf("the best rollout is %+v, %v", best, err)
	}
}

func TestFailedAndRetriedAreCounted(t *testing.T) {
	s := testagent.Store(t)
	var calls atomic.Int64
	testagent.Serve(t, s, 1, func(r queue.AttemptedRollout) testagent.Outcome {
		switch calls.Add(1) {
		case 2, 5: // retried, and the second attempt succeeds
			return testagent.Outcome{Failed: true}
		case 3:
			return testagent.Outcome{} // success without a reward
		case 4:
			return testagent.Rewarded(math.NaN())
		}
		return height(r)
	})
	config := queue.Config{MaxAttempts: 2, RetryCondition: []queue.AttemptStatus{queue.AttemptFailed}}
	state, err := Run(t.Context(), newClient(s), Config{Space: hill, Rounds: 1, Population: 8, Rollout: &config})
	if err != nil {
		t.Fatal(err)
	}
	if r := state.History[0]; r.Failed != 2 || r.Retried != 2 || r.Population != 8 || r.Version != 1 {
		t.Errorf("round %+v; want 2 failed and 2 retried of 8", r)
	}
}

func TestRoundWithoutRewardIsAnError(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, func(queue.AttemptedRollout) testagent.Outcome {
		return testagent.Outcome{Failed: true, Error: "no module named sklearn"}
	})
	_, err := Run(t.Context(), newClient(s), Config{Space: hill, Population: 4})
	if err == nil || !strings.Contains(err.Error(), "none of 4 rollouts") || !strings.Contains(err.Error(), "no module named sklearn") {
		t.Errorf("error %v; want one with what the agent said", err)
	}
}

// A search that was interrupted in a round goes on with the same rollouts.
func TestResumedSearchEqualsAnUninterruptedOne(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, height)
	config := Config{Space: hill, Rounds: 4, Population: 10, Seed: 7, Run: "whole"}
	whole, err := Run(t.Context(), newClient(s), config)
	if err != nil {
		t.Fatal(err)
	}

	ctx, interrupt := context.WithCancel(t.Context())
	config.Run = "broken"
	seen := 0
	config.OnResult = func(round int, _ algorithm.Result) {
		if seen++; round == 3 {
			interrupt()
		}
	}
	if _, err := Run(ctx, newClient(s), config); !errors.Is(err, context.Canceled) {
		t.Fatalf("the interrupted run ended with %v after %d results", err, seen)
	}
	config.OnResult = nil
	resumed, err := Run(t.Context(), newClient(s), config)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole, resumed, ignoreRun...); diff != "" {
		t.Errorf("the interruption changed the search: %s", diff)
	}
	stats, err := s.Statistics(t.Context())
	if err != nil || stats.Rollouts != 80 {
		t.Errorf("%d rollouts, %v; want 80: none was enqueued twice", stats.Rollouts, err)
	}
}

func TestRunRefuses(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 1, height)
	if _, err := Run(t.Context(), newClient(s), Config{Space: hill, Rounds: 1, Population: 4, Run: "taken"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateResources(t.Context(), "prompts", rawjson.Value(`{}`)); err != nil {
		t.Fatal(err)
	}
	tampered := State{Run: "tampered", Population: 4, Parameters: wide(hill)}
	tampered.Parameters[2].Probabilities = nil
	broken := search{Config: Config{Run: "tampered"}, client: newClient(s), state: tampered}
	if err := broken.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		config Config
		kind   queue.Kind
	}{
		"no space":         {Config{}, queue.Invalid},
		"rounds":           {Config{Space: hill, Rounds: -1}, queue.Invalid},
		"population":       {Config{Space: hill, Population: 1}, queue.Invalid},
		"elite":            {Config{Space: hill, Elite: 1.5}, queue.Invalid},
		"rate":             {Config{Space: hill, Rate: math.NaN()}, queue.Invalid},
		"min std":          {Config{Space: hill, MinStd: -1}, queue.Invalid},
		"another seed":     {Config{Space: hill, Rounds: 2, Population: 4, Seed: 1, Run: "taken"}, queue.Conflict},
		"another space":    {Config{Space: testSpace, Rounds: 2, Population: 4, Run: "taken"}, queue.Conflict},
		"other resources":  {Config{Space: hill, Run: "prompts"}, queue.Conflict},
		"tampered":         {Config{Space: hill, Population: 4, Run: "tampered"}, queue.Conflict},
		"other population": {Config{Space: hill, Rounds: 2, Population: 5, Run: "taken"}, queue.Conflict},
	}
	for name, test := range tests {
		if _, err := Run(t.Context(), newClient(s), test.config); queue.KindOf(err) != test.kind || err == nil {
			t.Errorf("%s: %v; want an error of kind %s", name, err, test.kind)
		}
	}
}
