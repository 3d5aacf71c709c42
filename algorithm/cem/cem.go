package cem

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Defaults of Config.
const (
	DefaultRounds     = 6
	DefaultPopulation = 12   // enough to leave an elite of three
	DefaultElite      = 0.25 // the usual quarter
	DefaultRate       = 0.8
	DefaultMinStd     = 0.03 // 3 % of a parameter's range
)

// Config says what to search and how. Zero fields take the defaults.
type Config struct {
	Space Space
	// Run names the search and its resources id. "" makes a new name; the name of
	// an earlier search resumes it.
	Run        string
	Rounds     int
	Population int     // rollouts a round, 2 or more
	Elite      float64 // the share of a round's population that the next round follows, above 0 and up to 1
	Rate       float64 // how far the distribution moves towards the elite, above 0 and up to 1
	MinStd     float64 // the least std of a number, as a share of its range
	Seed       uint64
	Mode       queue.Mode    // of the rollouts; train when ""
	Rollout    *queue.Config // of the rollouts; nil is the queue's default, see algorithm.Resilient

	// OnResult is called with each result as it comes, OnRound after each round;
	// nil is allowed. They run on the goroutine of Run.
	OnResult func(round int, r algorithm.Result)
	OnRound  func(r Round)
}

// Round is the outcome of one round.
type Round struct {
	Round      int     `json:"round"`   // from 1
	Version    int64   `json:"version"` // of the resources it drew from
	Population int     `json:"population"`
	Best       float64 `json:"best"`    // the highest reward of the round
	Mean       float64 `json:"mean"`    // of those that have a reward
	Failed     int     `json:"failed"`  // ended without success or without a finite reward
	Retried    int     `json:"retried"` // needed more than one attempt
	Seconds    float64 `json:"seconds"` // from enqueueing to the last result
}

// Trial is one set of parameters and what it earned.
type Trial struct {
	Params    rawjson.Value `json:"params"`
	Reward    float64       `json:"reward"`
	RolloutID string        `json:"rollout_id"`
	Round     int           `json:"round"` // from 1
}

// State is all there is to know about a search between two rounds. Its JSON is
// what agents read and what a restarted search goes on from.
type State struct {
	Run        string     `json:"run"`
	Round      int        `json:"round"`  // rounds that are done
	Rounds     int        `json:"rounds"` // rounds there will be
	Population int        `json:"population"`
	Seed       uint64     `json:"seed"`
	Parameters []Marginal `json:"parameters"`
	Best       *Trial     `json:"best"` // of all rounds, null before the first one
	History    []Round    `json:"history"`
}

// ResourceName is the name of the state among the resources of a search.
const ResourceName = "distribution"

// RunPrefix begins the names that searches give themselves.
const RunPrefix queue.IDPrefix = "cem-"

func (c Config) withDefaults() (Config, error) {
	c.Rounds = cmp.Or(c.Rounds, DefaultRounds)
	c.Population = cmp.Or(c.Population, DefaultPopulation)
	c.Elite = cmp.Or(c.Elite, DefaultElite)
	c.Rate = cmp.Or(c.Rate, DefaultRate)
	c.MinStd = cmp.Or(c.MinStd, DefaultMinStd)
	c.Mode = cmp.Or(c.Mode, queue.ModeTrain)
	c.Run = cmp.Or(c.Run, queue.RandomID(RunPrefix))
	switch {
	case c.Rounds < 1:
		return c, queue.Errorf(queue.Invalid, "rounds is %d; it must be 1 or more", c.Rounds)
	case c.Population < 2:
		return c, queue.Errorf(queue.Invalid, "population is %d; it must be 2 or more", c.Population)
	case !(c.Elite > 0 && c.Elite <= 1):
		return c, queue.Errorf(queue.Invalid, "elite is %g; it must be above 0 and up to 1", c.Elite)
	case !(c.Rate > 0 && c.Rate <= 1):
		return c, queue.Errorf(queue.Invalid, "rate is %g; it must be above 0 and up to 1", c.Rate)
	case !(c.MinStd > 0 && c.MinStd <= 1):
		return c, queue.Errorf(queue.Invalid, "min std is %g; it must be above 0 and up to 1", c.MinStd)
	}
	return c, c.Space.Validate()
}

// Run searches until the last round is done and returns the final state. When
// ctx ends in the middle of a round, or the store fails, the rollouts of the round
// stay queued for a later Run under the same name. A round of which no rollout
// earns a reward ends the search with an error.
func Run(ctx context.Context, client *algorithm.Client, config Config) (State, error) {
	config, err := config.withDefaults()
	if err != nil {
		return State{}, err
	}
	s := &search{Config: config, client: client}
	if err := s.load(ctx); err != nil {
		return State{}, err
	}
	for s.state.Round < s.Rounds {
		if err := s.round(ctx); err != nil {
			return s.state, fmt.Errorf("round %d of search %s: %w", s.state.Round+1, s.Run, err)
		}
	}
	return s.state, nil
}

type search struct {
	Config
	client  *algorithm.Client
	state   State
	version int64 // of the resources that hold state
	resumed bool  // rollouts of the coming round may exist already
}

// load takes up the search that the store knows, or begins one.
func (s *search) load(ctx context.Context) error {
	stored, err := s.client.Store.Resources(ctx, s.Run)
	if err != nil {
		return fmt.Errorf("looking for search %s: %w", s.Run, err)
	}
	if stored == nil {
		s.state = State{
			Run: s.Run, Rounds: s.Rounds, Population: s.Population, Seed: s.Seed,
			Parameters: wide(s.Space), History: []Round{},
		}
		return s.publish(ctx)
	}
	template := stored.Resources.Get(ResourceName).Get("template").Text()
	if err := json.Unmarshal([]byte(template), &s.state); err != nil {
		return queue.Wrap(queue.Conflict, err, "resources "+s.Run+" hold no search; choose another name for the run")
	}
	if err := s.sameSearch(); err != nil {
		return err
	}
	if err := s.state.validate(); err != nil {
		return queue.Wrap(queue.Conflict, err, "resources "+s.Run+" were changed by somebody else")
	}
	s.version, s.resumed, s.state.Rounds = stored.Version, true, s.Rounds
	return nil
}

// validate reports a state that no search can have written.
func (s State) validate() error {
	if s.Round < 0 || len(s.History) != s.Round {
		return fmt.Errorf("%d rounds are done and %d recorded", s.Round, len(s.History))
	}
	for _, m := range s.Parameters {
		switch {
		case m.Type == Categorical && len(m.Probabilities) != len(m.Choices):
			return fmt.Errorf("parameter %s has %d choices and %d probabilities", m.Name, len(m.Choices), len(m.Probabilities))
		case m.Type != Categorical && !(m.Mean >= 0 && m.Mean <= 1 && m.Std > 0):
			return fmt.Errorf("parameter %s has mean %g and std %g", m.Name, m.Mean, m.Std)
		}
	}
	return nil
}

// sameSearch refuses to go on with other settings than those of the stored
// rounds; only the number of rounds may change.
func (s *search) sameSearch() error {
	parameters := make([]Parameter, len(s.state.Parameters))
	for i := range s.state.Parameters {
		parameters[i] = s.state.Parameters[i].Parameter
	}
	was, err := json.Marshal(parameters)
	if err != nil {
		return err
	}
	is, err := json.Marshal(s.Space.Parameters)
	if err != nil {
		return err
	}
	if !bytes.Equal(was, is) || s.state.Seed != s.Seed || s.state.Population != s.Population {
		return queue.Errorf(queue.Conflict,
			"search %s exists with population %d, seed %d and parameters %s; give the same ones or another name",
			s.Run, s.state.Population, s.state.Seed, was)
	}
	return nil
}

// publish makes the state the newest version of the search's resources.
func (s *search) publish(ctx context.Context) error {
	text, err := json.Marshal(s.state)
	if err != nil {
		return fmt.Errorf("encoding the state of search %s: %w", s.Run, err)
	}
	resources, err := rawjson.Marshal(map[string]queue.PromptTemplate{
		ResourceName: {ResourceType: queue.PromptType, Template: string(text), Engine: "jinja"},
	})
	if err != nil {
		return err
	}
	update, err := s.client.Store.UpdateResources(ctx, s.Run, resources)
	if err != nil {
		return fmt.Errorf("publishing the state of search %s: %w", s.Run, err)
	}
	s.version = update.Version
	return nil
}

// round tries a population and moves the distribution.
func (s *search) round(ctx context.Context) error {
	started := time.Now()
	rng := rand.New(rand.NewPCG(s.Seed, uint64(s.state.Round)))
	points := draw(s.state.Parameters, s.Population, rng)
	batch, err := s.enqueue(ctx, points)
	if err != nil {
		return err
	}
	report := Round{Round: s.state.Round + 1, Version: s.version, Population: s.Population}
	var results []algorithm.Result
	for r, err := range batch.Results(ctx) {
		if err != nil {
			return err
		}
		r.Spans = nil // the reward is all that is needed of them
		results = append(results, r)
		if s.OnResult != nil {
			s.OnResult(report.Round, r)
		}
	}
	report.Seconds = time.Since(started).Seconds()
	ranked := rank(results)
	if len(ranked) == 0 {
		return fmt.Errorf("none of %d rollouts earned a reward; %s", len(results), lastFailure(results))
	}
	s.learn(points, ranked)
	s.count(&report, results, ranked)
	if err := s.publish(ctx); err != nil {
		return err
	}
	if s.OnRound != nil {
		s.OnRound(report)
	}
	return nil
}

// enqueue stores the round's rollouts, or finds those of an interrupted search.
func (s *search) enqueue(ctx context.Context, points []point) (*algorithm.Batch, error) {
	tasks := make([]algorithm.Task, len(points))
	for i := range points {
		tasks[i].Input = params(s.state.Parameters, points[i])
	}
	opts := algorithm.BatchOptions{
		ID:   fmt.Sprintf("%s-round-%d", s.Run, s.state.Round+1),
		Mode: s.Mode, ResourcesID: &s.Run, Config: s.Rollout,
	}
	if s.resumed {
		s.resumed = false
		batch, err := s.client.Resume(ctx, opts.ID)
		if err == nil {
			return batch, batch.Add(ctx, tasks[min(batch.Len(), len(tasks)):])
		}
		if queue.KindOf(err) != queue.NotFound {
			return nil, err
		}
	}
	return s.client.EnqueueBatch(ctx, tasks, opts)
}

// rank sorts the results that have a usable reward, best first, whatever the
// order in which they came.
func rank(results []algorithm.Result) []algorithm.Result {
	var ranked []algorithm.Result
	for _, r := range results {
		if _, ok := r.FiniteReward(); ok && r.Succeeded() {
			ranked = append(ranked, r)
		}
	}
	slices.SortFunc(ranked, func(a, b algorithm.Result) int {
		return cmp.Or(cmp.Compare(*b.Reward, *a.Reward), cmp.Compare(a.Index, b.Index))
	})
	return ranked
}

// learn moves the distribution towards the elite and keeps the best trial.
func (s *search) learn(points []point, ranked []algorithm.Result) {
	s.state.Round++
	if best := ranked[0]; s.state.Best == nil || *best.Reward > s.state.Best.Reward {
		s.state.Best = &Trial{
			Params: best.Rollout.Input, Reward: *best.Reward,
			RolloutID: best.Rollout.RolloutID, Round: s.state.Round,
		}
	}
	n := max(int(math.Round(s.Elite*float64(s.Population))), 2)
	elite := make([]point, 0, n)
	for _, r := range ranked[:min(n, len(ranked))] {
		elite = append(elite, points[r.Index])
	}
	s.state.Parameters = fit(s.state.Parameters, elite, s.Rate, s.MinStd)
}

func (s *search) count(report *Round, results, ranked []algorithm.Result) {
	report.Best = *ranked[0].Reward
	report.Mean, _ = algorithm.MeanStd(algorithm.Rewards(ranked))
	report.Failed = len(results) - len(ranked)
	for i := range results {
		if results[i].Attempts() > 1 {
			report.Retried++
		}
	}
	s.state.History = append(s.state.History, *report)
}

// lastFailure says what the worker noted about the last failed rollout.
func lastFailure(results []algorithm.Result) string {
	last := results[len(results)-1]
	text := fmt.Sprintf("rollout %s, the last one, is %s", last.Rollout.RolloutID, last.Rollout.Status)
	if last.Attempt != nil && !last.Attempt.Metadata.Get("error").IsNull() {
		text += ": " + last.Attempt.Metadata.Get("error").Text()
	}
	return text
}
