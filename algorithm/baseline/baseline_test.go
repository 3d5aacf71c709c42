package baseline_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/baseline"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func task(input string) algorithm.Task { return algorithm.Task{Input: rawjson.Value(input)} }

func TestBaseline(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, func(r queue.AttemptedRollout) testagent.Outcome {
		if string(r.Input) == "3" {
			return testagent.Outcome{Failed: true}
		}
		v, _ := r.Input.Float()
		return testagent.Rewarded(v)
	})
	var log bytes.Buffer
	results := 0
	summary, err := baseline.Run(t.Context(), s, baseline.Config{
		Train:     []algorithm.Task{task("1"), task("2"), task("3")},
		Val:       []algorithm.Task{task("6")},
		Resources: rawjson.Value(`{"p":{"resource_type":"prompt_template","template":"Hi {x}","engine":"f-string"}}`),
		Epochs:    2, PollingInterval: 5 * time.Millisecond, SpanVerbosity: baseline.KeyValues,
		Adapt:    func(spans []queue.Span) (any, error) { return len(spans), nil },
		Logger:   slog.New(slog.NewTextHandler(&log, nil)),
		OnResult: func(algorithm.Result) { results++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := baseline.Summary{
		ByStatus: map[queue.RolloutStatus]int{queue.RolloutSucceeded: 6, queue.RolloutFailed: 2},
		Rewarded: 6, MeanReward: 3,
	}
	if diff := cmp.Diff(want, summary); diff != "" || results != 8 {
		t.Errorf("%d results: %s", results, diff)
	}
	for _, line := range []string{
		`msg="initial resources set" resources_id=default`,
		`msg="epoch begins" epoch=2 epochs=2`, `msg="processing task" index=3 train=3 val=1`,
		`mode=val sample=6`, `msg="waiting for rollouts" unfinished=`, `msg="rollout finished"`,
		`msg=attempt`, `worker_id=worker-`, `msg=span`, `agentlightning.reward.0.value`,
		`msg="spans adapted"`, `msg="rollouts finished so far" count=8`,
	} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, log.String())
		}
	}
	page, err := s.Rollouts(t.Context(), queue.RolloutQuery{Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range page.Items {
		mode := queue.ModeTrain
		if i%4 == 3 {
			mode = queue.ModeVal
		}
		if r.Mode != mode || *r.ResourcesID != "default" {
			t.Errorf("rollout %d has mode %s and resources %s", i, r.Mode, *r.ResourcesID)
		}
	}
}

// The queue never holds more than the length at which enqueueing stops, and one.
func TestQueueStaysShort(t *testing.T) {
	s := testagent.Store(t)
	longest := 0
	testagent.Serve(t, s, 1, func(queue.AttemptedRollout) testagent.Outcome {
		page, err := s.Rollouts(t.Context(), queue.RolloutQuery{
			Statuses: []queue.RolloutStatus{queue.RolloutQueuing}, Paging: queue.All,
		})
		if err != nil {
			t.Error(err)
		}
		longest = max(longest, page.Total)
		return testagent.Outcome{}
	})
	var tasks []algorithm.Task
	for range 20 {
		tasks = append(tasks, task("null"))
	}
	_, err := baseline.Run(t.Context(), s, baseline.Config{
		Train: tasks, MaxQueueLength: 2, PollingInterval: time.Millisecond, SpanVerbosity: baseline.None,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if longest > 3 {
		t.Errorf("%d rollouts were queued; want 3 at most", longest)
	}
}

func TestBaselineRefuses(t *testing.T) {
	some := []algorithm.Task{task("1")}
	tests := map[string]baseline.Config{
		"no tasks":    {},
		"train split": {Train: some, TrainSplit: 1},
		"verbosity":   {Train: some, SpanVerbosity: "all"},
		"resources":   {Train: some, Resources: rawjson.Value(`[]`)},
		"epochs":      {Train: some, Epochs: -1},
	}
	s := testagent.Store(t)
	for name, config := range tests {
		if _, err := baseline.Run(t.Context(), s, config); queue.KindOf(err) != queue.Invalid || err == nil {
			t.Errorf("%s: %v; want an Invalid error", name, err)
		}
	}
}
