package reflection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/where"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// learner is an agent that fails on "broken", and earns more the more heuristics it
// is given.
func learner(t *testing.T, s queue.Store) func(queue.AttemptedRollout) testagent.Outcome {
	return func(r queue.AttemptedRollout) testagent.Outcome {
		if r.Input.Text() == "broken" {
			return testagent.Outcome{Failed: true, Error: "it is broken"}
		}
		learnt := 0
		if r.ResourcesID != nil {
			set, err := s.Resources(context.Background(), *r.ResourcesID)
			if err != nil || set == nil {
				t.Errorf("resources %s: %v", *r.ResourcesID, err)
				return testagent.Outcome{Failed: true}
			}
			learnt = strings.Count(set.Resources.Get(HeuristicsName).Get("template").Text(), "useful")
		}
		return testagent.Rewarded(min(1, 0.25+0.25*float64(learnt)))
	}
}

// judge is a critic that takes the reward for the score.
func judge(calls *atomic.Int64) Critic {
	return func(_ context.Context, r *algorithm.Result) (Evaluation, error) {
		calls.Add(1)
		score, _ := r.FiniteReward()
		e := Evaluation{Success: r.Succeeded(), Score: score}
		if score < 0.5 {
			e.Suggestions = []Suggestion{{"a useful  rule from {{ " + r.Rollout.Input.Text(), "it earned little"}}
		}
		return e, nil
	}
}

func newClient(s queue.Store) *algorithm.Client {
	return algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
}

func enqueue(t *testing.T, s queue.Store, inputs ...string) []string {
	t.Helper()
	var reqs []queue.Request
	for _, input := range inputs {
		reqs = append(reqs, queue.Request{Input: rawjson.AppendString(nil, input), Mode: queue.ModeTrain, Metadata: rawjson.Value(`{"project":"p"}`)})
	}
	rollouts, err := s.Enqueue(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range rollouts {
		ids = append(ids, rollouts[i].RolloutID)
	}
	return ids
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func all(t *testing.T, s queue.Store) []queue.AttemptedRollout {
	t.Helper()
	page, err := s.Rollouts(t.Context(), queue.RolloutQuery{Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	return page.Items
}

func spans(t *testing.T, s queue.Store, id string) []queue.Span {
	t.Helper()
	latest := "latest"
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: id, AttemptID: &latest, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		t.Fatal(err)
	}
	return page.Items
}

func TestVerdicts(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, learner(t, s))
	ids := enqueue(t, s, "easy", "broken")
	var calls atomic.Int64
	config := Config{Critic: judge(&calls), Once: true, Logger: quiet()}
	sum, err := Run(t.Context(), newClient(s), config)
	if err != nil || sum.Judged != 2 || sum.Hard != 2 || sum.Proposals != 2 || sum.Applied != 0 || sum.Requeued != 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
	got := spans(t, s, ids[0])
	verdict := got[len(got)-1]
	tags, _ := semconv.SpanTags(&verdict)
	rewards, _ := semconv.SpanRewards(&verdict)
	if !slices.Equal(tags, []string{"critic:reflect", HardTag}) || len(rewards) != 2 || rewards[0].Value != 0.25 || rewards[1] != (semconv.Reward{Name: ScoreDimension, Value: 0.25}) {
		t.Errorf("verdict %s", verdict.Attributes)
	}
	if final, ok := semconv.FinalReward(got); !ok || final != 0.25 {
		t.Errorf("the final reward is %g now", final)
	}
	if object := got[len(got)-2]; object.Name != semconv.ObjectSpan || !strings.Contains(string(object.Attributes), "useful") ||
		object.Attribute(criticKey).Text() != heuristicKey(ids[0], 0) {
		t.Errorf("suggestion %s %s", object.Name, object.Attributes)
	}
	if _, ok := semconv.FinalReward(spans(t, s, ids[1])); ok {
		t.Error("the critic's score became the reward of an attempt without one")
	}

	// Nothing is judged again, whether the cursor is there or not.
	for _, run := range []string{"", ".reflect-cursor"} {
		if run != "" {
			if _, err := s.UpdateResources(t.Context(), run, rawjson.Value(`{"cursor":{"template":"{\"since\":0}"}}`)); err != nil {
				t.Fatal(err)
			}
		}
		before := len(got)
		sum, err = Run(t.Context(), newClient(s), config)
		if err != nil || sum.Judged != 0 || sum.Known != 2 || calls.Load() != 2 || len(spans(t, s, ids[0])) != before {
			t.Errorf("again: %+v, %d calls, %v", sum, calls.Load(), err)
		}
	}
}

// TestPromotions applies proposals, bounds them, and brings a version back.
func TestPromotions(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 1, learner(t, s))
	if _, err := s.UpdateResources(t.Context(), "agents", rawjson.Value(`{"main_llm":{"resource_type":"llm"}}`)); err != nil {
		t.Fatal(err)
	}
	ids := enqueue(t, s, "one", "two", "three")
	var calls atomic.Int64
	if _, err := Run(t.Context(), newClient(s), Config{Critic: judge(&calls), Once: true, Target: "agents", Logger: quiet()}); err != nil {
		t.Fatal(err)
	}
	proposal := func(i int) string { return ".reflect-proposal-" + ids[i] }
	promote := func(id string, want int64, texts ...string) {
		t.Helper()
		target, r, err := Promote(t.Context(), s, id, "", 2)
		if err != nil || target != "agents" || r.Version != want || len(r.Heuristics) != len(texts) {
			t.Fatalf("promoting %s: %s, %+v, %v", id, target, r, err)
		}
		set, err := s.Resources(t.Context(), "agents")
		if err != nil {
			t.Fatal(err)
		}
		text := set.Resources.Get(HeuristicsName).Get("template").Text()
		for _, want := range texts {
			if !strings.Contains(text, "- a useful rule from { { "+want) || set.Resources.Get("main_llm").IsNull() {
				t.Errorf("the agents get %s; want %s", set.Resources, want)
			}
		}
	}
	promote(proposal(0), 1, "one")
	promote(proposal(0), 1, "one")
	promote(proposal(1), 2, "one", "two")
	promote(proposal(2), 3, "two", "three") // two are kept
	promote(".agents-v1", 4, "one")         // back
	promote(".agents-v1", 4, "one")
	if _, _, err := Promote(t.Context(), s, "nosuch", "", 2); queue.KindOf(err) != queue.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := s.UpdateResources(t.Context(), "other", rawjson.Value(`{"a":{}}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Promote(t.Context(), s, "other", "", 2); queue.KindOf(err) != queue.Invalid {
		t.Errorf("%v", err)
	}
	if target, r, err := Promote(t.Context(), s, "other", "copy", 2); err != nil || target != "copy" || r != nil {
		t.Errorf("%s, %v, %v", target, r, err)
	}
}

// TestNewTarget has heuristics beside the model that agents get, though the target was
// not there, and beside a newer one with the next version.
func TestNewTarget(t *testing.T) {
	s := testagent.Store(t)
	model := func(name string) {
		t.Helper()
		if _, err := s.AddResources(t.Context(), rawjson.Value(`{"main_llm":{"resource_type":"llm","model":"`+name+`"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	gets := func(name string, heuristics int) {
		t.Helper()
		set, err := s.LatestResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if set.ResourcesID != "reflect" || set.Resources.Get("main_llm").Get("model").Text() != name ||
			strings.Count(set.Resources.Get(HeuristicsName).Get("template").Text(), "- ") != heuristics {
			t.Errorf("agents get %s %s", set.ResourcesID, set.Resources)
		}
	}
	testagent.Serve(t, s, 1, learner(t, s))
	model("m1")
	ids := enqueue(t, s, "one", "two")
	critic := func(_ context.Context, r *algorithm.Result) (Evaluation, error) {
		return Evaluation{Suggestions: []Suggestion{{Text: "rule of " + r.Rollout.RolloutID}}}, nil
	}
	if _, err := Run(t.Context(), newClient(s), Config{Critic: critic, Once: true, Logger: quiet()}); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"m1", "m2"} {
		if i > 0 {
			model(name)
		}
		if _, _, err := Promote(t.Context(), s, ".reflect-proposal-"+ids[i], "", 0); err != nil {
			t.Fatal(err)
		}
		gets(name, i+1)
	}
	// What is brought back is the heuristics, not the model of that time.
	model("m3")
	if _, _, err := Promote(t.Context(), s, ".reflect-v1", "", 0); err != nil {
		t.Fatal(err)
	}
	gets("m3", 1)
}

// TestFailedAreJudgedLater has a critic that fails on all but the last rollout: the
// next life, under the same name, judges those too.
func TestFailedAreJudgedLater(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 1, learner(t, s))
	ids := enqueue(t, s, "one", "two", "three")
	broken, works := errors.New("no idea"), map[string]bool{ids[2]: true}
	critic := func(_ context.Context, r *algorithm.Result) (Evaluation, error) {
		if !works[r.Rollout.RolloutID] {
			return Evaluation{}, broken
		}
		return Evaluation{Success: true, Score: 1}, nil
	}
	config := Config{Critic: critic, Once: true, Logger: quiet()}
	sum, err := Run(t.Context(), newClient(s), config)
	if err != nil || sum.Failed != 2 || sum.Judged != 1 {
		t.Fatalf("%+v, %v", sum, err)
	}
	// Later rollouts move the watermark past those of before, but for the failures.
	page, err := s.Rollouts(t.Context(), queue.RolloutQuery{IDs: ids[:1], Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	r := &reflector{Config: config, client: newClient(s), unjudged: page.Items[0].StartTime}
	if err := r.save(t.Context(), page.Items[0].StartTime+1000, 0); err != nil {
		t.Fatal(err)
	}
	if r.mark != page.Items[0].StartTime {
		t.Errorf("the watermark is %f s after the failure", r.mark-page.Items[0].StartTime)
	}
	works[ids[0]], works[ids[1]] = true, true
	if sum, err = Run(t.Context(), newClient(s), config); err != nil || sum.Failed != 0 || sum.Judged != 2 || sum.Known != 1 {
		t.Errorf("the next life: %+v, %v", sum, err)
	}
}

// TestHardCasesEnd runs hard cases again, which never ends but for the bound.
func TestHardCasesEnd(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, learner(t, s))
	first := enqueue(t, s, "broken", "easy")
	var calls atomic.Int64
	config := Config{Critic: judge(&calls), Once: true, RequeueHard: true, AutoApply: true, MaxGenerations: 3, Logger: quiet()}
	sum, err := Run(t.Context(), newClient(s), config)
	if err != nil {
		t.Fatal(err)
	}
	broken := 0
	for _, r := range all(t, s) {
		generation, _ := r.Metadata.Get(GenerationKey).Int()
		if r.Input.Text() == "broken" {
			broken++
		}
		if generation > 0 && (r.Metadata.Get("source").Text() != "hard" || r.Metadata.Get("project").Text() != "p" ||
			r.Metadata.Get(algorithm.SourceKey).Text() == "" || r.Mode != queue.ModeTrain || *r.ResourcesID != "reflect") {
			t.Errorf("again: %s", r.Rollout.AppendJSON(nil))
		}
		if generation == 0 && !slices.Contains(first, r.RolloutID) {
			t.Errorf("a rollout without a generation: %s", r.Metadata)
		}
	}
	if broken != 4 || sum.Applied == 0 {
		t.Errorf("the broken task was run %d times, want 4; %+v", broken, sum)
	}
}

// TestProposalsDoNotCount checks that what nobody has approved reaches no agent: not
// those either that get the latest resources.
func TestProposalsDoNotCount(t *testing.T) {
	s := testagent.Store(t)
	const agents = `{"main_llm":{"resource_type":"llm"},"p":{"resource_type":"prompt_template"}}`
	added, err := s.AddResources(t.Context(), rawjson.Value(agents))
	if err != nil {
		t.Fatal(err)
	}
	testagent.Serve(t, s, 2, func(r queue.AttemptedRollout) testagent.Outcome {
		set, err := s.Resources(context.Background(), *r.ResourcesID)
		if err != nil || set == nil || set.Resources.Get("main_llm").IsNull() {
			t.Errorf("rollout %s gets no model: %v, %v", r.RolloutID, set, err)
		}
		if latest, err := s.LatestResources(context.Background()); err != nil || latest.ResourcesID != added.ResourcesID {
			t.Errorf("others get %v, %v meanwhile", latest, err)
		}
		return learner(t, s)(r)
	})
	enqueue(t, s, "one", "two")
	useless := func(context.Context, *algorithm.Result) (Evaluation, error) {
		return Evaluation{Suggestions: []Suggestion{{Text: "useless"}}}, nil
	}
	for _, config := range []Config{
		{Run: "gated", Critic: useless, Once: true},
		{Run: "guarded", Critic: useless, Once: true, AutoApply: true, Val: []algorithm.Task{{Input: rawjson.Value(`"v"`)}}},
	} {
		config.Logger = quiet()
		if sum, err := Run(t.Context(), newClient(s), config); err != nil || sum.Proposals == 0 || sum.Applied != 0 {
			t.Fatalf("%+v, %v", sum, err)
		}
		latest, err := s.LatestResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if latest.ResourcesID != added.ResourcesID || latest.Version != 1 || string(latest.Resources) != agents {
			t.Errorf("%s: the latest resources are %s %s", config.Run, latest.ResourcesID, latest.Resources)
		}
	}
}

// TestReflectionResumes ends a reflection before each of its writes in turn, and goes
// on: everything is there once.
func TestReflectionResumes(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 2, learner(t, s))
	ids := enqueue(t, s, "one", "two", "broken")
	var calls atomic.Int64
	config := Config{Critic: judge(&calls), Once: true, RequeueHard: true, AutoApply: true, MaxGenerations: 1, Logger: quiet()}
	lives := 0
	for {
		var left atomic.Int64
		left.Store(3) // of the seven or so that a rollout takes
		_, err := Run(t.Context(), newClient(testagent.Dying{Store: s, Left: &left}), config)
		if err == nil {
			break
		}
		if !errors.Is(err, testagent.ErrKilled) {
			t.Fatal(err)
		}
		if lives++; lives > 60 {
			t.Fatal("no headway")
		}
	}
	if lives < 5 {
		t.Errorf("ended %d times; the test shows nothing", lives)
	}
	if n := len(all(t, s)); n != 6 {
		t.Errorf("%d rollouts, want 3 and each again", n)
	}
	for _, id := range ids {
		verdicts := 0
		for _, span := range spans(t, s, id) {
			if !span.Attribute(criticScore).IsNull() {
				verdicts++
			}
		}
		if verdicts != 1 {
			t.Errorf("rollout %s has %d verdicts", id, verdicts)
		}
	}
	set, err := s.Resources(t.Context(), "reflect")
	if err != nil {
		t.Fatal(err)
	}
	record, err := ReadRecord(set.Resources)
	if err != nil || record == nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, h := range record.Heuristics {
		if keys[h.Key] {
			t.Errorf("heuristic %s is there twice", h.Key)
		}
		keys[h.Key] = true
	}
}

// TestGuard applies only what earns more on the validation tasks.
func TestGuard(t *testing.T) {
	for text, applied := range map[string]int{"useful": 1, "useless": 0} {
		t.Run(text, func(t *testing.T) {
			s := testagent.Store(t)
			testagent.Serve(t, s, 2, learner(t, s))
			enqueue(t, s, "easy")
			sum, err := Run(t.Context(), newClient(s), Config{
				Critic: func(context.Context, *algorithm.Result) (Evaluation, error) {
					return Evaluation{Success: true, Score: 1, Suggestions: []Suggestion{{Text: text}}}, nil
				},
				Once: true, AutoApply: true, Logger: quiet(), Val: []algorithm.Task{{Input: rawjson.Value(`"v1"`)}, {Input: rawjson.Value(`"v2"`)}},
			})
			if err != nil || sum.Applied != applied || sum.Judged != 1 || len(all(t, s)) != 5 {
				t.Errorf("%+v, %d rollouts, %v", sum, len(all(t, s)), err)
			}
		})
	}
}

func TestFilterAndErrors(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 1, learner(t, s))
	enqueue(t, s, "one", "broken")
	filter, err := where.Compile(`status == "failed"`)
	if err != nil {
		t.Fatal(err)
	}
	failing := func(context.Context, *algorithm.Result) (Evaluation, error) {
		return Evaluation{}, errors.New("no idea")
	}
	sum, err := Run(t.Context(), newClient(s), Config{Critic: failing, Where: filter, Once: true, Logger: quiet()})
	if err != nil || sum.Failed != 1 || sum.Judged != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
	if _, err := Run(t.Context(), newClient(s), Config{}); queue.KindOf(err) != queue.Invalid {
		t.Errorf("%v", err)
	}
	server := httptest.NewServer(fakellm.New(func(fakellm.Request) fakellm.Answer { return fakellm.Answer{Status: 401, Error: "who?"} }))
	defer server.Close()
	critic := ModelCritic(&llmclient.Client{BaseURL: server.URL, HTTP: server.Client()}, "m", quiet())
	if _, err := Run(t.Context(), newClient(s), Config{Critic: critic, Run: "other", Once: true, Logger: quiet()}); err == nil || !strings.Contains(err.Error(), "who?") {
		t.Errorf("a wrong key: %v", err)
	}
}

// TestWaitingIsTold cancels what a reflection says, once, that it waits for.
func TestWaitingIsTold(t *testing.T) {
	s := testagent.Store(t)
	id := enqueue(t, s, "never claimed")[0]
	var said strings.Builder
	told := make(chan struct{})
	log := slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		if strings.Contains(string(p), "waiting for rollouts to finish") {
			close(told) // a second time panics
		}
		return said.Write(p)
	}), nil))
	go func() {
		<-told
		if _, err := s.UpdateRollout(context.Background(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
			t.Error(err)
		}
	}()
	if _, err := Run(t.Context(), newClient(s), Config{Critic: judge(new(atomic.Int64)), Once: true, Logger: log}); err != nil {
		t.Fatal(err)
	}
	if want := "unfinished=1 oldest=" + id; !strings.Contains(said.String(), want) {
		t.Errorf("said %s, want %s", &said, want)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestCritics(t *testing.T) {
	r := &algorithm.Result{Rollout: queue.Rollout{RolloutID: "ro-1", Input: rawjson.Value(`"x"`), Config: queue.DefaultConfig()}}
	for script, want := range map[string]string{
		`cat >/dev/null; echo thinking; echo '{"success":true,"score":0.75,"suggestions":["a",{"text":"b","reason":"c"}]}'`: "{true 0.75 [{a } {b c}]}",
		`python3 -c 'import json,sys; s=json.load(sys.stdin); print(json.dumps({"score":len(s["rollout"]["input"])}))'`:     "{false 1 []}",
		`echo '{}'`:            "{false 0.5 []}",
		`echo nonsense`:        "must be a JSON object",
		`true`:                 "must be a JSON object",
		`echo why >&2; exit 3`: "exit status 3: why",
		`exit 3`:               "the critic ended with exit status 3",
	} {
		critic, err := ProgramCritic([]string{"sh", "-c", script}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		e, err := critic(t.Context(), r)
		got := fmt.Sprint(e)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || strings.HasSuffix(got, ": ") {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
	}
	if _, err := ProgramCritic([]string{"no-such-critic"}, 0); queue.KindOf(err) != queue.Invalid {
		t.Errorf("a command that is not there: %v", err)
	}
	slow, err := ProgramCritic([]string{"sleep", "600"}, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow(t.Context(), r); err == nil || !strings.Contains(err.Error(), "longer than 10ms") {
		t.Errorf("a critic that hangs: %v", err)
	}
	var asked atomic.Int64
	server := httptest.NewServer(fakellm.New(func(q fakellm.Request) fakellm.Answer {
		if asked.Add(1) == 1 {
			return fakellm.Answer{Text: "I think it was fine."}
		}
		if !strings.Contains(q.Prompt(), "cannot be read") {
			return fakellm.Answer{Status: 400, Error: "not told why"}
		}
		return fakellm.Answer{Text: "Here:\n```json\n{\"success\": true, \"score\": 1}\n```"}
	}))
	defer server.Close()
	e, err := ModelCritic(&llmclient.Client{BaseURL: server.URL, HTTP: server.Client()}, "m", quiet())(t.Context(), r)
	if err != nil || !e.Success || e.Score != 1 || asked.Load() != 2 {
		t.Errorf("%+v, %v", e, err)
	}
}

func FuzzParseEvaluation(f *testing.F) {
	for _, seed := range []string{`{}`, `{"success":true,"score":1e999,"suggestions":["a",{"text":" "}]}`, `{"score":NaN}`, `[`, `{"suggestions":{}}`, `{"success":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseEvaluation(text)
		if err != nil {
			if queue.KindOf(err) != queue.Invalid {
				t.Fatalf("%q gives %v, which is not Invalid", text, err)
			}
			return
		}
		for _, s := range e.Suggestions {
			if plain(s.Text) == "" || strings.Contains(plain(s.Text), "\n") {
				t.Fatalf("%q has the suggestion %q", text, s.Text)
			}
		}
	})
}
