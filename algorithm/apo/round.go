package apo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/ask"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// atOnce is how many batches are out at a time, and so how many questions.
const atOnce = 16

// round makes candidates, scores them and keeps the best.
func (s *search) round(ctx context.Context) error {
	started := time.Now()
	number := s.state.Round + 1
	candidates, dropped, err := s.branch(ctx, number)
	if err != nil {
		return err
	}
	pool := append(slices.Clone(s.state.Beam), candidates...)
	tasks := s.val.at(number - 1)
	group, scoring := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range pool {
		group.Go(func() (err error) {
			name := fmt.Sprintf("round-%d-val-v%d", number, pool[i].Version)
			pool[i].Score, err = s.score(scoring, name, pool[i], tasks)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	slices.SortFunc(pool, better)
	leader := pool[0]
	if leader.Score == nil {
		return fmt.Errorf("no rollout of %d prompts finished within %s; are there workers?", len(pool), s.RolloutBatchTimeout)
	}
	full := leader
	if full.Score, err = s.validate(ctx, leader); err != nil {
		return err
	}
	s.state.Beam = pool[:min(s.BeamWidth, len(pool))]
	if full.Score != nil && (s.state.Best.Score == nil || *full.Score > *s.state.Best.Score) {
		s.state.Best = full
	}
	s.state.Round = number
	report := Round{
		Round: number, Candidates: len(candidates), Dropped: dropped, Leader: leader.Version, Score: leader.Score, Full: full.Score,
		Best: s.state.Best.Version, BestScore: s.state.Best.Score, Seconds: time.Since(started).Seconds(),
	}
	s.state.History = append(s.state.History, report)
	if err := s.publish(ctx); err != nil {
		return err
	}
	if s.OnRound != nil {
		s.OnRound(report)
	}
	return nil
}

// validate scores a prompt on all validation tasks.
func (s *search) validate(ctx context.Context, p Prompt) (*float64, error) {
	return s.score(ctx, fmt.Sprintf("full-v%d", p.Version), p, s.Val)
}

// errNothing says that a branch ended without a prompt.
var errNothing = errors.New("no prompt came of it")

// branch makes the round's candidates, in the order of their versions, and counts the
// branches that came to nothing.
func (s *search) branch(ctx context.Context, number int) (candidates []Prompt, dropped int, err error) {
	parents := s.parents(number)
	made := make([]*Prompt, len(parents)*s.BranchFactor)
	failed := make([]error, len(made))
	first := 1 + (number-1)*len(made) // the version of the first one
	group, branching := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range made {
		group.Go(func() error {
			p, err := s.candidate(branching, number, first+i, parents[i/s.BranchFactor])
			if err != nil && (branching.Err() != nil || ask.Hopeless(err) || !errors.Is(err, errNothing)) {
				return err
			}
			made[i], failed[i] = p, err
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	known := map[string]bool{}
	for _, p := range s.state.Beam {
		known[p.Template] = true
	}
	answered := false
	for i, p := range made {
		switch {
		case p == nil:
			dropped++
			s.Logger.Warn("a branch came to nothing", "run", s.Run, "round", number, "version", first+i, "error", failed[i])
		case known[p.Template]:
			dropped++
			answered = true
		default:
			answered = true
			known[p.Template] = true
			candidates = append(candidates, *p)
		}
	}
	if !answered {
		return nil, 0, fmt.Errorf("none of %d branches came to a prompt: %w", len(made), errors.Join(failed...))
	}
	return candidates, dropped, nil
}

// candidate makes one prompt of a parent, unless it is stored already.
func (s *search) candidate(ctx context.Context, round, version int, parent Prompt) (*Prompt, error) {
	stored, err := s.storedPrompt(ctx, version)
	if stored != nil || err != nil {
		return stored, err
	}
	results, err := s.evaluate(ctx, fmt.Sprintf("round-%d-train-v%d", round, version), parent, s.train.at(version-1), queue.ModeTrain)
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("no training rollout finished within %s: %w", s.RolloutBatchTimeout, errNothing)
	}
	rng := s.rng(branchStream, version)
	question := critiques[rng.IntN(len(critiques))](parent.Template, results)
	critique, err := s.ask(ctx, s.GradientModel, question)
	if err != nil {
		return nil, err
	}
	template := parent.Template
	if critique != "" {
		if template, err = s.edit(ctx, edits[rng.IntN(len(edits))], parent.Template, critique); err != nil {
			return nil, err
		}
	}
	p, err := s.storePrompt(ctx, version, template)
	return &p, err
}

// ask puts questions and answers in turn to a model. An error that does not end the
// search is an errNothing.
func (s *search) ask(ctx context.Context, model string, turns ...string) (string, error) {
	r := llmclient.Request{Model: model}
	for i, text := range turns {
		role := "user"
		if i%2 == 1 {
			role = "assistant"
		}
		r.Messages = append(r.Messages, llmclient.Message{Role: role, Content: text})
	}
	if s.DiversityTemperature >= 0 {
		r.Parameters = ask.Temperature(s.DiversityTemperature)
	}
	answer, err := s.asker.Ask(ctx, r)
	if err != nil && !ask.Hopeless(err) {
		err = errors.Join(err, errNothing)
	}
	return answer, err
}

// edit has a prompt rewritten, again as long as its placeholders are wrong.
func (s *search) edit(ctx context.Context, question func(prompt, critique, keep string) string, prompt, critique string) (string, error) {
	keep := keeping(s.engine, s.placeholders)
	turns := []string{question(prompt, critique, keep)}
	for attempt := 1; ; attempt++ {
		answer, err := s.ask(ctx, s.ApplyEditModel, turns...)
		if err != nil {
			return "", err
		}
		text := unwrap(answer)
		if text == "" {
			return "", fmt.Errorf("the rewrite is empty: %w", errNothing)
		}
		fault := checkPlaceholders(s.engine, text, s.placeholders)
		if fault == nil {
			return text, nil
		}
		if attempt == s.EditAttempts {
			return "", fmt.Errorf("the rewrite is refused, for %w (%w)", fault, errNothing)
		}
		s.Logger.Info("a rewrite is sent back", "run", s.Run, "attempt", attempt, "error", fault)
		turns = append(turns, answer, again(fault, keep))
	}
}

// score is the mean reward of a prompt on some tasks, a missing reward being 0; nil
// when none finished in time.
func (s *search) score(ctx context.Context, name string, p Prompt, tasks []algorithm.Task) (*float64, error) {
	results, err := s.evaluate(ctx, name, p, tasks, queue.ModeVal)
	if err != nil || len(results) == 0 {
		return nil, err
	}
	mean := algorithm.MeanReward(results)
	return &mean, nil
}

// evaluate runs tasks with a prompt and returns the results in order.
func (s *search) evaluate(ctx context.Context, name string, p Prompt, tasks []algorithm.Task, mode queue.Mode) ([]algorithm.Result, error) {
	results, late, err := s.run.Try(ctx, name, tasks, algorithm.BatchOptions{
		Mode: mode, ResourcesID: &p.ResourcesID, Config: s.Rollout,
		Metadata: append(rawjson.AppendInt([]byte(`{"prompt_version":`), int64(p.Version)), '}'),
	}, s.RolloutBatchTimeout)
	if late > 0 {
		s.Logger.Warn("a batch was not done in time", "run", s.Run, "batch", name, "cancelled", late)
	}
	for i := range results {
		if s.OnResult != nil {
			s.OnResult(results[i])
		}
	}
	return results, err
}
