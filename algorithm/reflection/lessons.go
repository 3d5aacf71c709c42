package reflection

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

const (
	// lessonSuggestions is how many suggestions of a stored verdict become heuristics.
	lessonSuggestions = 2
	// lessonsReach is how many finished rollouts are looked at for verdicts.
	lessonsReach = 1000
	// lessonsPage is how many of them are asked for at a time.
	lessonsPage = 100
)

// lessonsID is where the proposal is stored that is made of lessons.
func (r *reflector) lessonsID() string { return "." + r.Run + "-lessons" }

func lessonKey(rolloutID, run string, i int) string {
	return fmt.Sprintf("lesson_heuristic_%s_%s_%d", rolloutID, run, i)
}

// learn proposes what the latest verdicts suggested. The cursor that it stores last
// says that it is done. A proposal that a process left behind which was killed before
// that is not made anew: there may be other verdicts by now.
func (r *reflector) learn(ctx context.Context) error {
	p := Record{Kind: KindProposal, Target: r.Target}
	stored, err := r.client.Store.Resources(ctx, r.lessonsID())
	if err != nil {
		return fmt.Errorf("looking for the lessons of reflection %s: %w", r.Run, err)
	}
	if stored == nil {
		p.Heuristics, err = r.lessons(ctx)
	} else if left, readErr := ReadRecord(stored.Resources); readErr != nil || left == nil {
		err = queue.Errorf(queue.Conflict, "resources %s are of somebody else; choose another name for the run", r.lessonsID())
	} else {
		p.Heuristics = left.Heuristics
	}
	if err != nil {
		return err
	}
	if len(p.Heuristics) > 0 {
		applied, err := r.offer(ctx, r.lessonsID(), "lessons", p)
		if err != nil {
			return err
		}
		r.Logger.Info("began with lessons", "heuristics", len(p.Heuristics), "proposal", r.lessonsID(), "applied", applied)
	}
	return r.store(ctx, r.mark)
}

// lessons are heuristics of the latest verdicts of other runs, the newest last, as
// many as are kept.
func (r *reflector) lessons(ctx context.Context) ([]Heuristic, error) {
	var found [][]Heuristic // a verdict each, the newest first
	seen := map[string]bool{}
	for offset := 0; offset < lessonsReach; offset += lessonsPage {
		page, err := r.client.Store.Rollouts(ctx, queue.RolloutQuery{
			Statuses: []queue.RolloutStatus{queue.RolloutSucceeded, queue.RolloutFailed},
			Paging:   queue.Paging{SortBy: "end_time", Descending: true, Limit: lessonsPage, Offset: offset},
		})
		if err != nil {
			return nil, fmt.Errorf("looking for lessons: %w", err)
		}
		for i := range page.Items {
			rollout := &page.Items[i]
			if seen[rollout.RolloutID] {
				continue // others finished meanwhile
			}
			seen[rollout.RolloutID] = true
			verdicts, err := r.lessonsOf(ctx, rollout)
			if err != nil {
				return nil, err
			}
			if found = append(found, verdicts...); len(found) >= r.Lessons {
				return r.flatten(found[:r.Lessons]), nil
			}
		}
		if len(page.Items) < lessonsPage {
			break
		}
	}
	return r.flatten(found), nil
}

// flatten puts the newest last, for the first go where there are too many.
func (r *reflector) flatten(found [][]Heuristic) []Heuristic {
	slices.Reverse(found)
	all := slices.Concat(found...)
	return all[max(0, len(all)-r.MaxHeuristics):]
}

// lessonsOf are the heuristics of each verdict that other runs gave a rollout, the
// newest first.
func (r *reflector) lessonsOf(ctx context.Context, rollout *queue.AttemptedRollout) ([][]Heuristic, error) {
	if rollout.Attempt == nil {
		return nil, nil
	}
	q := queue.SpanQuery{
		RolloutID: rollout.RolloutID, AttemptID: &rollout.Attempt.AttemptID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1},
	}
	if r.Where == nil || !r.Where.NeedsSpans() {
		own := "agentlightning." // what verdicts and suggestions have in common
		q.Name.Contains = &own
	}
	page, err := r.client.Store.Spans(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("fetching the verdicts of rollout %s: %w", rollout.RolloutID, err)
	}
	if !r.wanted(rollout, page.Items) {
		return nil, nil
	}
	return readLessons(rollout.RolloutID, r.Run, page.Items), nil
}

// readLessons reads the first suggestions of each verdict among the spans of an
// attempt, but for those of the run own: it has proposed them already.
func readLessons(rolloutID, own string, spans []queue.Span) [][]Heuristic {
	var verdicts [][]Heuristic
	suggested := map[[2]string]Suggestion{} // by run and key
	for i := range spans {
		s := &spans[i]
		key, run := s.Attribute(criticKey), s.Attribute(criticRun)
		var v Suggestion
		if s.Name == semconv.ObjectSpan && key.Kind() == rawjson.KindString &&
			json.Unmarshal([]byte(s.Attribute(semconv.ObjectJSON).Text()), &v) == nil && plain(v.Text) != "" {
			suggested[[2]string{run.Text(), key.Text()}] = v
		}
	}
	for i := range slices.Backward(spans) {
		run, s := spans[i].Attribute(criticRun).Text(), &spans[i]
		if s.Name != semconv.AnnotationSpan || run == "" || run == own {
			continue
		}
		var lesson []Heuristic
		for n := range lessonSuggestions {
			if v, ok := suggested[[2]string{run, heuristicKey(rolloutID, n)}]; ok {
				lesson = append(lesson, Heuristic{lessonKey(rolloutID, run, n), v.Text, rolloutID, v.Reason})
			}
		}
		verdicts = append(verdicts, lesson)
	}
	return verdicts
}
