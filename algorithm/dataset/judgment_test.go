package dataset_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// onBoth runs a test on both backends, over HTTP.
func onBoth(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("memory", func(t *testing.T) { test(t, inMemory(t)) })
	t.Run("mongo", func(t *testing.T) { test(t, onMongo(t)) })
}

func (r *rig) selected(f dataset.Filter) string {
	r.t.Helper()
	var ids []string
	var counts dataset.Counts
	for c, err := range dataset.Select(r.t.Context(), r.source(), f, &counts) {
		r.must(err)
		ids = append(ids, c.AttemptID)
	}
	return strings.Join(ids, " ")
}

// TestJudge files judgments of rollouts that have finished, which stay as they are.
func TestJudge(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		r.fill()
		before, err := r.Rollout(t.Context(), "ro-1")
		r.must(err)
		r.seconds.Add(100)
		for _, j := range []dataset.Judgment{
			{Text: "acceptable", Note: "well said", Score: pointer(0.5)}, {Text: " unacceptable "},
		} {
			r.must(dataset.Judge(t.Context(), r, "ro-1", "", j))
		}
		r.must(dataset.Judge(t.Context(), r, "ro-2", "", dataset.Judgment{Text: "unacceptable"}))
		r.must(dataset.Judge(t.Context(), r, "ro-2", "at-2", dataset.Judgment{Text: "acceptable", Note: "after all", Score: pointer(-1.5)}))
		r.must(dataset.Judge(t.Context(), r, "ro-3", "", dataset.Judgment{Text: "acceptable"}))
		r.must(dataset.Judge(t.Context(), r, "ro-7", "at-7", dataset.Judgment{Text: "acceptable"}))

		after, err := r.Rollout(t.Context(), "ro-1")
		r.must(err)
		if *after.Attempt.LastHeartbeatTime <= *before.Attempt.LastHeartbeatTime {
			t.Error("a span is a heartbeat, and this one was none") // the one thing that it changes
		}
		after.Attempt.LastHeartbeatTime = before.Attempt.LastHeartbeatTime
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("a judgment has changed the rollout: %s", diff)
		}

		for want, f := range map[string]dataset.Filter{
			"at-2":      {Judgment: "acceptable"},
			"at-1":      {Judgment: "unacceptable"},
			"at-2 at-3": {Judgment: "acceptable", Statuses: queue.RolloutStatuses},
			"at-2 at-7": {Judgment: "acceptable", Attempt: dataset.AllAttempts},
			"":          {Judgment: "splendid"},
			"at-1 at-2": {Tags: []string{"judgment:unacceptable"}}, // what was said once stays said
		} {
			if got := r.selected(f); got != want {
				t.Errorf("%+v: %q, and not %q", f, got, want)
			}
		}
		var counts dataset.Counts
		for c, err := range dataset.Select(t.Context(), r.source(), dataset.Filter{RolloutIDs: []string{"ro-2"}}, &counts) {
			r.must(err)
			if diff := cmp.Diff(&dataset.Judgment{Text: "acceptable", Note: "after all", Score: pointer(-1.5)}, c.Judgment); diff != "" {
				t.Error(diff)
			}
			if len(c.Spans) != 2 || *c.Reward != 0.5 {
				t.Errorf("judgments are among what the agent did: %d spans, reward %g", len(c.Spans), *c.Reward)
			}
		}
		page, err := r.Spans(t.Context(), queue.SpanQuery{RolloutID: "ro-1", Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
		r.must(err)
		last := page.Items[len(page.Items)-1]
		tags, err := semconv.SpanTags(&last)
		r.must(err)
		if last.Name != semconv.AnnotationSpan || len(tags) != 1 || tags[0] != "judgment:unacceptable" || last.StatusCode() != "OK" {
			t.Errorf("%s %q %s", last.Name, tags, last.Status)
		}
	})
}

func TestJudgmentsThatAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		r.fill() // ro-8 is queued
		running := r.run(queue.Request{}, "", rewarded("x1", 1))
		silent := r.run(queue.Request{}, "", rewarded("y1", 1))
		for _, u := range []queue.AttemptStatus{queue.AttemptUnresponsive} {
			_, err := r.UpdateAttempt(t.Context(), silent.RolloutID, silent.Attempt.AttemptID, queue.AttemptUpdate{Status: queue.Set(u)})
			r.must(err)
		}
		for _, test := range []struct {
			rollout, attempt string
			j                dataset.Judgment
			kind             queue.Kind
			says             string
		}{
			{"ro-none", "", dataset.Judgment{Text: "x"}, queue.NotFound, "ro-none"},
			{"ro-1", "at-none", dataset.Judgment{Text: "x"}, queue.NotFound, "at-none"},
			{"ro-8", "", dataset.Judgment{Text: "x"}, queue.NotFound, "ro-8"},
			{running.RolloutID, "", dataset.Judgment{Text: "x"}, queue.Conflict, "judge it when it has finished"},
			{silent.RolloutID, "", dataset.Judgment{Text: "x"}, queue.Conflict, "sign of life"},
			{"ro-1", "", dataset.Judgment{Text: " "}, queue.Invalid, "needs a text"},
			{"ro-1", "", dataset.Judgment{Text: "x", Score: pointer(math.NaN())}, queue.Invalid, "finite"},
		} {
			err := dataset.Judge(t.Context(), r, test.rollout, test.attempt, test.j)
			if queue.KindOf(err) != test.kind || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s %q: %v", test.rollout, test.attempt, err)
			}
		}
		for _, ref := range []queue.AttemptedRollout{running, silent} {
			page, err := r.Spans(t.Context(), queue.SpanQuery{RolloutID: ref.RolloutID, Paging: queue.All})
			r.must(err)
			if len(page.Items) != 1 {
				t.Errorf("%s was judged all the same", ref.RolloutID)
			}
		}
	})
}

// TestMeasures has a shell's command measure: it is not asked again about what it has
// judged, and its faults are neither.
func TestMeasures(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		r.fill()
		r.run(queue.Request{Input: []byte(`"crash"`)}, queue.AttemptSucceeded, called("x1", `[{"role":"user","content":"u"}]`, `{"role":"assistant","content":"a"}`, ""))
		r.run(queue.Request{Input: []byte(`"text"`)}, queue.AttemptSucceeded, called("y1", `[{"role":"user","content":"u"}]`, `{"role":"assistant","content":"a"}`, ""))
		seen := filepath.Join(t.TempDir(), "seen")
		command := `q=$(cat); echo "$q" >>` + seen + `; echo thinking
			case $q in
			*'"input":"crash"'*) echo bad luck >&2; exit 3 ;;
			*'"input":"text"'*) echo '"passed"' ;;
			*'rains'*) echo '{"passed":true,"reason":"it does","score":0.5}' ;;
			*) echo '{"passed":false}' ;;
			esac`
		var faults atomic.Int64
		m := dataset.Measures{
			Source: r.source(), Store: r, Name: "rain", Ask: dataset.ExecMeasure(command, time.Minute),
			Observe: func(c *dataset.Candidate, v dataset.Verdict, err error) {
				if err != nil {
					faults.Add(1)
					if text := err.Error(); !strings.Contains(text, "exit status 3: bad luck") && !strings.Contains(text, "must be an object") && !strings.Contains(text, "gen_ai.prompt") {
						t.Errorf("%s: %v", c.Rollout.RolloutID, err)
					}
				}
			},
		}
		first := dataset.MeasureCounts{Passed: 1, Failed: 3, Errors: 3}
		counts, err := m.Run(t.Context())
		if err != nil || counts != first || faults.Load() != 3 {
			t.Fatalf("%+v, %d faults, %v", counts, faults.Load(), err)
		}
		counts, err = m.Run(t.Context())
		if want := (dataset.MeasureCounts{Known: 4, Errors: 3}); err != nil || counts != want {
			t.Errorf("again: %+v, %v", counts, err)
		}
		m.Again = true
		counts, err = m.Run(t.Context())
		if err != nil || counts != first {
			t.Errorf("once more: %+v, %v", counts, err)
		}
		for want, f := range map[string]dataset.Filter{
			"at-1":           {Measure: "rain"},
			"at-2 at-5 at-8": {Measure: "rain", MeasureFailed: true},
			"":               {Measure: "snow"},
		} {
			if got := r.selected(f); got != want {
				t.Errorf("%+v: %q, and not %q", f, got, want)
			}
		}
		lines := strings.Split(read(t, seen), "\n")
		want := `{"rollout_id":"ro-2","attempt_id":"at-2","status":"succeeded","mode":"val","resources_id":null,"input":null,"metadata":{"project":"y"},"reward":0.5,` +
			`"messages":[{"role":"user","content":"1+1?"},{"role":"assistant","content":"2"}],"tools":null,` +
			`"conversations":[{"messages":[{"role":"user","content":"1+1?"},{"role":"assistant","content":"2"}],"tools":null}]}`
		if found := strings.Count(strings.Join(lines, "\n"), want); found != 2 {
			t.Errorf("the question was asked %d times:\n%s", found, lines)
		}
	})
}

func TestMeasureTakesTooLong(t *testing.T) {
	for name, command := range map[string]string{
		"itself":           `sleep 600`,
		"what it started":  `sleep 600 & sleep 600`,
		"deaf":             `trap '' TERM; sleep 600`,
		"prints all along": `yes`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := dataset.ExecMeasure(command, 50*time.Millisecond)(t.Context(), []byte("{}"))
			if err == nil || !strings.Contains(err.Error(), "longer than 50ms") {
				t.Error(err)
			}
		})
	}
}

func TestParseVerdict(t *testing.T) {
	for text, want := range map[string]string{
		`{"passed":true}`: "true  <nil>",
		"noise\n\n {\"passed\": false, \"reason\": \"r\", \"score\": 2}\n": "false r 2",
		"{\n\"passed\":\ntrue,\n\"reason\":null\n}":                        "true  <nil>",
		``:                              "must be an object",
		`true`:                          "must be an object",
		`[{"passed":true}]`:             "must be an object",
		`{"passed":1}`:                  "true or false",
		`{"reason":"r"}`:                "true or false",
		`{"passed":true,"reason":[]}`:   "must be a text",
		`{"passed":true,"score":"0.5"}`: "finite number",
	} {
		v, err := dataset.ParseVerdict([]byte(text))
		got := fmt.Sprintf("%v %s %v", v.Passed, v.Reason, v.Score)
		if v.Score != nil {
			got = fmt.Sprintf("%v %s %g", v.Passed, v.Reason, *v.Score)
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, and not %s", text, got, want)
		}
	}
}

// A measure that its context ends is no fault of the attempt.
func TestMeasuresEnd(t *testing.T) {
	r := inMemory(t)
	r.fill()
	ctx, stop := context.WithCancel(t.Context())
	ask := dataset.ExecMeasure("sleep 600", 0)
	m := dataset.Measures{Source: r.source(), Store: r, Name: "x", Filter: dataset.Filter{RolloutIDs: []string{"ro-1", "ro-2"}}, Ask: func(ctx context.Context, question []byte) (dataset.Verdict, error) {
		stop()
		return ask(ctx, question)
	}}
	counts, err := m.Run(ctx)
	if err == nil || counts != (dataset.MeasureCounts{}) {
		t.Errorf("%+v, %v", counts, err)
	}
}

func FuzzParseVerdict(f *testing.F) {
	f.Add([]byte(`{"passed":true,"reason":"r","score":1e9}`))
	f.Add([]byte("x\n{\"passed\":false}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := dataset.ParseVerdict(text)
		if err == nil && v.Score != nil && (math.IsNaN(*v.Score) || math.IsInf(*v.Score, 0)) {
			t.Errorf("%q has the score %g", text, *v.Score)
		}
	})
}
