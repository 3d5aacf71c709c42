package apo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/ask"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// Defaults of Config, the reference's.
const (
	DefaultGradientModel        = "gpt-5-mini"
	DefaultApplyEditModel       = "gpt-4.1-mini"
	DefaultDiversityTemperature = 1.0
	DefaultGradientBatchSize    = 4
	DefaultValBatchSize         = 16
	DefaultBeamWidth            = 4
	DefaultBranchFactor         = 4
	DefaultBeamRounds           = 3
	DefaultRolloutBatchTimeout  = time.Hour
)

// DefaultEditAttempts is how often a rewrite with the wrong placeholders is sent
// back, and one time more.
const DefaultEditAttempts = 3

// RunPrefix begins the names that searches give themselves.
const RunPrefix queue.IDPrefix = "apo-"

// StateName is the name of the state among the resources of a search.
const StateName = "apo"

// Config says which prompt to improve and how. Zero fields take the defaults.
type Config struct {
	// Resources have the prompt, which is the first prompt template among them, and
	// what else agents need; all of it goes along with each version of the prompt.
	Resources rawjson.Value
	Train     []algorithm.Task // what parents are criticised by
	Val       []algorithm.Task // what prompts are scored by
	// Run names the search. "" makes a new name; the name of an earlier search goes on
	// with it.
	Run string

	// LLM is the server of both models.
	LLM                  *llmclient.Client
	GradientModel        string  // writes critiques
	ApplyEditModel       string  // rewrites prompts
	DiversityTemperature float64 // of both; a negative one sends none

	GradientBatchSize   int           // training tasks for a critique
	ValBatchSize        int           // validation tasks that a round scores by
	BeamWidth           int           // prompts that a round keeps
	BranchFactor        int           // candidates for each parent
	BeamRounds          int           // rounds
	RolloutBatchTimeout time.Duration // after which what is left of a batch is cancelled and does not count
	// SkipInitialValidation leaves out to score the seed on all validation tasks.
	SkipInitialValidation bool
	EditAttempts          int // for a rewrite with the right placeholders

	Seed    uint64        // of the draws
	Rollout *queue.Config // of the rollouts; nil is the queue's default

	Logger *slog.Logger // slog.Default when nil
	// OnResult is called with each result, OnRound after each round; nil is allowed.
	// OnResult may be called by several goroutines at a time.
	OnResult func(algorithm.Result)
	OnRound  func(Round)

	askPause time.Duration // see ask.Asker
}

// Prompt is a version of the prompt.
type Prompt struct {
	Version     int    `json:"version"`      // 0 is the seed
	ResourcesID string `json:"resources_id"` // with which agents get it
	Template    string `json:"template"`
	// Score is the mean reward on the tasks of the last scoring, a missing one being
	// 0; null when none was made, or no rollout finished in time.
	Score *float64 `json:"score"`
}

// Round is the outcome of one round.
type Round struct {
	Round      int      `json:"round"`      // from 1
	Candidates int      `json:"candidates"` // new prompts
	Dropped    int      `json:"dropped"`    // branches without one: wrong placeholders, nothing new, or no answer
	Leader     int      `json:"leader"`     // the best of the batch, a version
	Score      *float64 `json:"score"`      // of the leader, on the batch
	Full       *float64 `json:"full"`       // of the leader, on all validation tasks
	Best       int      `json:"best"`       // the best version so far
	BestScore  *float64 `json:"best_score"` // on all validation tasks
	Seconds    float64  `json:"seconds"`
}

// State is all there is to know about a search between two rounds.
type State struct {
	Run      string   `json:"run"`
	Round    int      `json:"round"`  // rounds that are done
	Rounds   int      `json:"rounds"` // rounds there will be
	Settings Settings `json:"settings"`
	Beam     []Prompt `json:"beam"` // best first
	Best     Prompt   `json:"best"`
	Seed     Prompt   `json:"seed"`
	History  []Round  `json:"history"`
}

// Settings are what a search cannot change on the way.
type Settings struct {
	GradientModel        string  `json:"gradient_model"`
	ApplyEditModel       string  `json:"apply_edit_model"`
	DiversityTemperature float64 `json:"diversity_temperature"`
	GradientBatchSize    int     `json:"gradient_batch_size"`
	ValBatchSize         int     `json:"val_batch_size"`
	BeamWidth            int     `json:"beam_width"`
	BranchFactor         int     `json:"branch_factor"`
	Seed                 uint64  `json:"seed"`
	Data                 string  `json:"data"` // a hash of resources and tasks
}

func (c Config) withDefaults() (Config, error) {
	c.Run = cmp.Or(c.Run, queue.RandomID(RunPrefix))
	c.GradientModel = cmp.Or(c.GradientModel, DefaultGradientModel)
	c.ApplyEditModel = cmp.Or(c.ApplyEditModel, DefaultApplyEditModel)
	c.DiversityTemperature = cmp.Or(c.DiversityTemperature, DefaultDiversityTemperature)
	c.GradientBatchSize = cmp.Or(c.GradientBatchSize, DefaultGradientBatchSize)
	c.ValBatchSize = cmp.Or(c.ValBatchSize, DefaultValBatchSize)
	c.BeamWidth = cmp.Or(c.BeamWidth, DefaultBeamWidth)
	c.BranchFactor = cmp.Or(c.BranchFactor, DefaultBranchFactor)
	c.BeamRounds = cmp.Or(c.BeamRounds, DefaultBeamRounds)
	c.RolloutBatchTimeout = cmp.Or(c.RolloutBatchTimeout, DefaultRolloutBatchTimeout)
	c.EditAttempts = cmp.Or(c.EditAttempts, DefaultEditAttempts)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	switch {
	case len(c.Train) == 0 || len(c.Val) == 0:
		return c, queue.Errorf(queue.Invalid, "there are %d training and %d validation tasks; there must be some of each", len(c.Train), len(c.Val))
	case c.LLM == nil:
		return c, queue.Errorf(queue.Invalid, "there is no server of language models")
	case min(c.GradientBatchSize, c.ValBatchSize, c.BeamWidth, c.BranchFactor, c.BeamRounds, c.EditAttempts) < 1 || c.RolloutBatchTimeout < 0:
		return c, queue.Errorf(queue.Invalid, "batch sizes, beam width, branch factor, rounds and attempts must be 1 or more")
	}
	return c, nil
}

// settings are those of a config with its defaults.
func (c Config) settings() Settings {
	hash := sha256.New()
	hash.Write(c.Resources)
	for _, tasks := range [][]algorithm.Task{c.Train, c.Val} {
		for _, t := range tasks {
			fmt.Fprintf(hash, "\n%d %s %s", len(t.Input), t.Input, t.Metadata)
		}
		hash.Write([]byte{0})
	}
	return Settings{
		GradientModel: c.GradientModel, ApplyEditModel: c.ApplyEditModel, DiversityTemperature: c.DiversityTemperature,
		GradientBatchSize: c.GradientBatchSize, ValBatchSize: c.ValBatchSize, BeamWidth: c.BeamWidth, BranchFactor: c.BranchFactor,
		Seed: c.Seed, Data: hex.EncodeToString(hash.Sum(nil)[:8]),
	}
}

// Run searches until the last round is done and returns the final state. When ctx
// ends, or the store or the models fail, what is done stays stored for a later Run
// under the same name. A round in which no branch gets an answer is an error.
func Run(ctx context.Context, client *algorithm.Client, config Config) (State, error) {
	config, err := config.withDefaults()
	if err != nil {
		return State{}, err
	}
	s := &search{
		Config: config, client: client,
		asker: &ask.Asker{Client: config.LLM, Logger: config.Logger, Pause: config.askPause},
		train: newBatches(config.Train, config.GradientBatchSize, config.Seed, trainStream),
		val:   newBatches(config.Val, config.ValBatchSize, config.Seed, valStream),
	}
	if err := s.load(ctx); err != nil {
		return State{}, err
	}
	for s.state.Round < s.BeamRounds {
		if err := s.round(ctx); err != nil {
			return s.state, fmt.Errorf("round %d of search %s: %w", s.state.Round+1, s.Run, err)
		}
	}
	return s.state, nil
}

// The streams of random numbers that follow from one seed.
const (
	trainStream = iota
	valStream
	roundStream  = 1 << 32 // plus the round
	branchStream = 2 << 32 // plus the version
)

func (s *search) rng(stream, n int) *rand.Rand {
	return rand.New(rand.NewPCG(s.Seed, uint64(stream)+uint64(n)))
}

type search struct {
	Config
	client *algorithm.Client
	asker  *ask.Asker
	run    *algorithm.Run

	name         string // of the prompt among the resources
	engine       string
	placeholders []string
	train, val   *batches
	state        State
}

// load takes up the search that the store knows, or begins one.
func (s *search) load(ctx context.Context) error {
	name, prompt, err := PromptOf(s.Resources)
	if err != nil {
		return err
	}
	if s.name, s.engine = name, prompt.Engine; s.name == StateName {
		return queue.Errorf(queue.Invalid, "the prompt must not be named %q", StateName)
	}
	if s.placeholders, err = Placeholders(s.engine, prompt.Template); err != nil {
		return queue.Wrap(queue.Invalid, err, "the prompt is no template of the engine "+s.engine)
	}
	if s.run, err = s.client.FindRun(ctx, s.Run); err != nil {
		return err
	}
	stored, err := s.client.Store.Resources(ctx, s.Run)
	if err != nil {
		return fmt.Errorf("looking for search %s: %w", s.Run, err)
	}
	if stored == nil {
		return s.begin(ctx, prompt)
	}
	text := stored.Resources.Get(StateName).Get("template").Text()
	if err := json.Unmarshal([]byte(text), &s.state); err != nil {
		return queue.Wrap(queue.Conflict, err, "resources "+s.Run+" hold no search; choose another name for the run")
	}
	if was, is := s.state.Settings, s.settings(); !reflect.DeepEqual(was, is) {
		return queue.Errorf(queue.Conflict, "search %s exists with the settings %+v; now they are %+v; give the same ones or another name", s.Run, was, is)
	}
	if len(s.state.Beam) == 0 {
		return queue.Errorf(queue.Conflict, "resources %s were changed by somebody else: the beam is empty", s.Run)
	}
	s.state.Rounds = s.BeamRounds
	return nil
}

// begin stores the seed and scores it.
func (s *search) begin(ctx context.Context, prompt queue.PromptTemplate) error {
	seed, err := s.storePrompt(ctx, 0, prompt.Template)
	if err != nil {
		return err
	}
	s.state = State{Run: s.Run, Rounds: s.BeamRounds, Settings: s.settings(), Seed: seed, History: []Round{}}
	if !s.SkipInitialValidation {
		if s.state.Seed.Score, err = s.validate(ctx, seed); err != nil {
			return fmt.Errorf("scoring the seed of search %s: %w", s.Run, err)
		}
	}
	s.state.Best, s.state.Beam = s.state.Seed, []Prompt{s.state.Seed}
	return s.publish(ctx)
}

// promptID is where a version is stored: under the search's own name, so that two
// searches on one store do not meet.
func (s *search) promptID(version int) string { return fmt.Sprintf("%s-v%d", s.Run, version) }

// storePrompt stores a version, unless it is stored already.
func (s *search) storePrompt(ctx context.Context, version int, template string) (Prompt, error) {
	p := Prompt{Version: version, ResourcesID: s.promptID(version), Template: template}
	resources, err := s.with(template, nil)
	if err != nil {
		return p, err
	}
	stored, err := s.client.Store.Resources(ctx, p.ResourcesID)
	if err == nil && (stored == nil || string(stored.Resources) != string(resources)) {
		_, err = s.client.Store.UpdateResources(ctx, p.ResourcesID, resources)
	}
	if err != nil {
		return p, fmt.Errorf("storing version %d of the prompt: %w", version, err)
	}
	return p, nil
}

// storedPrompt is a version that is stored, nil when it is not.
func (s *search) storedPrompt(ctx context.Context, version int) (*Prompt, error) {
	stored, err := s.client.Store.Resources(ctx, s.promptID(version))
	if err != nil {
		return nil, fmt.Errorf("looking for version %d of the prompt: %w", version, err)
	}
	if stored == nil {
		return nil, nil
	}
	return &Prompt{
		Version: version, ResourcesID: stored.ResourcesID, Template: stored.Resources.Get(s.name).Get("template").Text(),
	}, nil
}

// with is the resources with another text of the prompt, and with the state when it
// is not nil.
func (s *search) with(template string, state *State) (rawjson.Value, error) {
	var dst []byte
	for key, val := range s.Resources.Members() {
		switch rawjson.Unescape(key) {
		case StateName:
			continue
		case s.name:
			var err error
			val, err = rawjson.Marshal(queue.PromptTemplate{ResourceType: queue.PromptType, Template: template, Engine: s.engine})
			if err != nil {
				return nil, err
			}
		}
		dst = rawjson.AppendMember(dst, key, val)
	}
	if state != nil {
		text, err := json.Marshal(state)
		if err != nil {
			return nil, fmt.Errorf("encoding the state of search %s: %w", s.Run, err)
		}
		// jinja renders such JSON as it stands.
		v, err := rawjson.Marshal(queue.PromptTemplate{ResourceType: queue.PromptType, Template: string(text), Engine: Jinja})
		if err != nil {
			return nil, err
		}
		dst = rawjson.AppendMember(dst, []byte(StateName), v)
	}
	return append(dst, '}'), nil
}

// publish makes the best prompt and the state the newest version of the search's
// resources.
func (s *search) publish(ctx context.Context) error {
	resources, err := s.with(s.state.Best.Template, &s.state)
	if err != nil {
		return err
	}
	if _, err := s.client.Store.UpdateResources(ctx, s.Run, resources); err != nil {
		return fmt.Errorf("publishing the state of search %s: %w", s.Run, err)
	}
	return nil
}

// better orders prompts by score, the best first; those without a score last, and
// older ones before newer ones of the same score.
func better(a, b Prompt) int {
	switch {
	case a.Score == nil && b.Score == nil:
		return cmp.Compare(a.Version, b.Version)
	case a.Score == nil:
		return 1
	case b.Score == nil:
		return -1
	}
	return cmp.Or(cmp.Compare(*b.Score, *a.Score), cmp.Compare(a.Version, b.Version))
}

// parents are as many prompts of the beam as it is wide: all of them in random order,
// again and again where there are fewer.
func (s *search) parents(round int) []Prompt {
	beam := slices.Clone(s.state.Beam)
	s.rng(roundStream, round).Shuffle(len(beam), func(i, j int) { beam[i], beam[j] = beam[j], beam[i] })
	parents := make([]Prompt, s.BeamWidth)
	for i := range parents {
		parents[i] = beam[i%len(beam)]
	}
	return parents
}
