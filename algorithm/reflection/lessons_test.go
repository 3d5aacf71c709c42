package reflection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/where"
	"github.com/aglq/aglq/worker/emit"
)

// TestReadLessons reads the suggestions of verdicts among the spans of an attempt.
func TestReadLessons(t *testing.T) {
	must := func(s queue.Span, err error) queue.Span {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	suggestion := func(run string, i int, value any) queue.Span {
		return must(emit.ObjectSpan(value, map[string]any{criticRun: run, criticKey: heuristicKey("ro", i)}))
	}
	verdict := func(run string) queue.Span {
		return must(emit.AnnotationSpan(map[string]any{criticRun: run, criticScore: 0.5}))
	}
	says := func(text string) Suggestion { return Suggestion{Text: text, Reason: "r"} }
	for name, test := range map[string]struct {
		spans []queue.Span
		want  string // keys and texts, verdicts between bars
	}{
		"nothing":         {nil, ""},
		"others":          {[]queue.Span{must(emit.AnnotationSpan(map[string]any{"a": 1})), must(emit.ObjectSpan(says("x")))}, ""},
		"two of three":    {[]queue.Span{suggestion("a", 0, says("x")), suggestion("a", 1, says("y")), suggestion("a", 2, says("z")), verdict("a")}, "a_0=x a_1=y"},
		"not finished":    {[]queue.Span{suggestion("a", 0, says("x"))}, ""},
		"none suggested":  {[]queue.Span{verdict("a")}, "|"},
		"newest first":    {[]queue.Span{suggestion("a", 0, says("x")), verdict("a"), suggestion("b", 0, says("x")), verdict("b")}, "b_0=x | a_0=x"},
		"its own":         {[]queue.Span{suggestion("own", 0, says("x")), verdict("own")}, ""},
		"no suggestion":   {[]queue.Span{suggestion("a", 0, 7), suggestion("a", 1, says(" ")), verdict("a")}, "|"},
		"second alone":    {[]queue.Span{suggestion("a", 0, []int{1}), suggestion("a", 1, says("y")), verdict("a")}, "a_1=y"},
		"of another run":  {[]queue.Span{suggestion("b", 0, says("x")), verdict("a")}, "|"},
		"key of no text":  {[]queue.Span{must(emit.ObjectSpan(says("x"), map[string]any{criticRun: "a", criticKey: 1})), verdict("a")}, "|"},
		"without its run": {[]queue.Span{must(emit.AnnotationSpan(map[string]any{criticScore: 1}))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var parts []string
			for _, lesson := range readLessons("ro", "own", test.spans) {
				var texts []string
				for _, h := range lesson {
					if h.RolloutID != "ro" || h.Reason != "r" {
						t.Errorf("%+v", h)
					}
					texts = append(texts, strings.TrimPrefix(h.Key, "lesson_heuristic_ro_")+"="+h.Text)
				}
				parts = append(parts, strings.Join(texts, " "))
			}
			got := strings.Join(parts, " | ")
			if len(parts) == 1 && got == "" {
				got = "|"
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// advise is a critic with three suggestions for each rollout.
func advise(_ context.Context, r *algorithm.Result) (Evaluation, error) {
	e := Evaluation{Success: true, Score: 1}
	for i := range 3 {
		e.Suggestions = append(e.Suggestions, Suggestion{Text: fmt.Sprintf("%s %d", r.Rollout.Input.Text(), i)})
	}
	return e, nil
}

// praise is a critic without suggestions.
func praise(context.Context, *algorithm.Result) (Evaluation, error) {
	return Evaluation{Success: true, Score: 1}, nil
}

func record(t *testing.T, s queue.Store, id string) *Record {
	t.Helper()
	set, err := s.Resources(t.Context(), id)
	if err != nil || set == nil {
		t.Fatalf("resources %s: %v, %v", id, set, err)
	}
	r, err := ReadRecord(set.Resources)
	if err != nil || r == nil {
		t.Fatalf("record of %s: %v, %v", id, r, err)
	}
	return r
}

// judgeOneByOne has run judge rollouts that finish in order.
func judgeOneByOne(t *testing.T, s queue.Store, run string, inputs ...string) (ids []string) {
	t.Helper()
	testagent.Serve(t, s, 1, learner(t, s))
	for _, input := range inputs {
		ids = append(ids, enqueue(t, s, input)...)
		if _, err := Run(t.Context(), newClient(s), Config{Run: run, Critic: advise, Once: true, Logger: quiet()}); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func texts(heuristics []Heuristic) (all []string) {
	for _, h := range heuristics {
		all = append(all, h.Text)
	}
	return all
}

// TestLessons begins a run with the latest verdicts of an earlier one.
func TestLessons(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		where  string
		want   []string
	}{
		"all":    {Config{Lessons: 10}, "", []string{"one 0", "one 1", "two 0", "two 1", "broken 0", "broken 1"}},
		"latest": {Config{Lessons: 2}, "", []string{"two 0", "two 1", "broken 0", "broken 1"}},
		"few":    {Config{Lessons: 10, MaxHeuristics: 3}, "", []string{"two 1", "broken 0", "broken 1"}},
		"where":  {Config{Lessons: 10}, `status == "failed"`, []string{"broken 0", "broken 1"}},
		"tags":   {Config{Lessons: 1}, `"critic:first" in tags && status == "succeeded"`, []string{"two 0", "two 1"}},
		"none":   {Config{}, "", nil},
		"first":  {Config{Lessons: 10}, "", nil}, // its own it has proposed
	} {
		t.Run(name, func(t *testing.T) {
			s := testagent.Store(t)
			ids := judgeOneByOne(t, s, "first", "one", "two", "broken")
			c := test.config
			c.Run, c.Critic, c.Once, c.Logger = name, praise, true, quiet()
			if test.where != "" {
				var err error
				if c.Where, err = where.Compile(test.where); err != nil {
					t.Fatal(err)
				}
			}
			sum, err := Run(t.Context(), newClient(s), c)
			if err != nil || sum.Proposals != min(1, len(test.want)) || sum.Applied != 0 {
				t.Fatalf("%+v, %v", sum, err)
			}
			if test.want == nil {
				return
			}
			p := record(t, s, "."+name+"-lessons")
			if got := texts(p.Heuristics); p.Kind != KindProposal || p.Target != name || !slices.Equal(got, test.want) {
				t.Errorf("%s %q, want %q", p.Kind, got, test.want)
			}
			if h := p.Heuristics[len(p.Heuristics)-1]; !slices.Contains(ids, h.RolloutID) || h.Key != lessonKey(h.RolloutID, "first", 1) {
				t.Errorf("%+v", h)
			}
			if set, err := s.Resources(t.Context(), name); err != nil || set != nil {
				t.Errorf("lessons were applied unasked: %v, %v", set, err)
			}
			if _, r, err := Promote(t.Context(), s, "."+name+"-lessons", "", 50); err != nil || r.Version != 1 || len(r.Heuristics) != len(test.want) {
				t.Errorf("%+v, %v", r, err)
			}
			if sum, err := Run(t.Context(), newClient(s), c); err != nil || sum.Proposals != 0 {
				t.Errorf("the second start: %+v, %v", sum, err)
			}
		})
	}
}

func TestLessonsErrors(t *testing.T) {
	s := testagent.Store(t)
	if _, err := Run(t.Context(), newClient(s), Config{Critic: praise, Lessons: -1}); queue.KindOf(err) != queue.Invalid {
		t.Errorf("%v", err)
	}
	if _, err := s.UpdateResources(t.Context(), ".taken-lessons", []byte(`{"a":{}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), newClient(s), Config{Run: "taken", Critic: praise, Lessons: 1}); queue.KindOf(err) != queue.Conflict {
		t.Errorf("%v", err)
	}
}

// TestLessonsResume ends a run before each of its writes in turn, while another run
// makes verdicts: the lessons are those of the first life, once.
func TestLessonsResume(t *testing.T) {
	s := testagent.Store(t)
	judgeOneByOne(t, s, "first", "one", "two")
	config := Config{Run: "second", Critic: praise, Once: true, AutoApply: true, Lessons: 10, MaxHeuristics: 3, Logger: quiet()}
	lives := 0
	for ; lives < 20; lives++ {
		var left atomic.Int64
		left.Store(1)
		_, err := Run(t.Context(), newClient(testagent.Dying{Store: s, Left: &left}), config)
		if err == nil {
			break
		}
		if !errors.Is(err, testagent.ErrKilled) {
			t.Fatal(err)
		}
		if lives == 0 {
			enqueue(t, s, "three")
			if _, err := Run(t.Context(), newClient(s), Config{Run: "first", Critic: advise, Once: true, Logger: quiet()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if lives < 4 || lives == 20 {
		t.Errorf("ended %d times", lives)
	}
	r := record(t, s, "second")
	if got := texts(r.Heuristics); r.Version != 1 || !slices.Equal(got, []string{"one 1", "two 0", "two 1"}) {
		t.Errorf("version %d %q", r.Version, got)
	}
}
