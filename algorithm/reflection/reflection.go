package reflection

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/ask"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/where"
	"github.com/aglq/aglq/worker/emit"
)

// Defaults of Config.
const (
	DefaultRun            = "reflect"
	DefaultThreshold      = 0.5
	DefaultMaxGenerations = 2
	DefaultGuardTimeout   = time.Hour
)

// How many suggestions of an evaluation become heuristics.
const suggestionsMost = 5

// HardTag marks rollouts that failed, or that the critic thinks little of.
const HardTag = "dataset:hard-cases"

// GenerationKey is the member of a hard case's metadata that counts how often its
// task was enqueued again.
const GenerationKey = "hard_generation"

// guardKey marks rollouts that only score heuristics.
const guardKey = "reflection_guard"

// Attributes of verdicts.
const (
	criticRun     = "aglq.critic.run"
	criticScore   = "aglq.critic.score"
	criticSuccess = "aglq.critic.success"
	criticKey     = "aglq.critic.key" // of a suggestion's heuristic
)

// ScoreDimension is what the critic's score is called among the rewards of an attempt
// that has one.
const ScoreDimension = "critic"

// Config says what to judge and what to do about it. Zero fields take the defaults.
type Config struct {
	Critic Critic
	// Run names the reflection; under the name of an earlier one it goes on.
	Run   string
	Where *where.Filter // of the rollouts to judge; nil is all
	// Since is the start time, in Unix seconds, before which rollouts are left alone.
	Since float64
	Once  bool // end when no rollout is unfinished
	// Target is the id of the resources that the heuristics are for: Run when "".
	Target string
	// Lessons is how many of the latest verdicts of other runs, on the rollouts of
	// Where, to begin with: each gives two heuristics, once in the life of Run.
	Lessons       int
	AutoApply     bool // promote proposals at once
	MaxHeuristics int
	// Threshold is the score below which a rollout is a hard case; a negative one
	// stands for 0.
	Threshold   float64
	RequeueHard bool // run hard cases again
	// MaxGenerations is how often a task is run again at most.
	MaxGenerations int
	// Val are tasks that guard against regressions: heuristics are applied by
	// themselves only if they earn strictly more with them than without.
	Val          []algorithm.Task
	GuardTimeout time.Duration
	Rollout      *queue.Config // of the validation rollouts; nil is the queue's default

	Logger    *slog.Logger // slog.Default when nil
	OnVerdict func(Verdict)
}

// Verdict is what became of one rollout.
type Verdict struct {
	RolloutID   string  `json:"rollout_id"`
	Success     bool    `json:"success"`
	Score       float64 `json:"score"`
	Suggestions int     `json:"suggestions"`
	Hard        bool    `json:"hard"`
	Proposal    string  `json:"proposal,omitempty"` // the id of the resources
	Applied     bool    `json:"applied"`
	Requeued    string  `json:"requeued,omitempty"` // the id of the new rollout
}

// Summary counts what a reflection did.
type Summary struct {
	Judged, Known, Failed, Hard, Proposals, Applied, Requeued int
}

func (c Config) withDefaults() (Config, error) {
	c.Run = cmp.Or(c.Run, DefaultRun)
	c.Target = cmp.Or(c.Target, c.Run)
	c.Threshold = max(cmp.Or(c.Threshold, DefaultThreshold), 0)
	c.MaxGenerations = cmp.Or(c.MaxGenerations, DefaultMaxGenerations)
	c.MaxHeuristics = cmp.Or(c.MaxHeuristics, DefaultMaxHeuristics)
	c.GuardTimeout = cmp.Or(c.GuardTimeout, DefaultGuardTimeout)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Critic == nil {
		return c, queue.Errorf(queue.Invalid, "there is no critic")
	}
	if min(c.MaxGenerations, c.MaxHeuristics, c.Lessons) < 0 {
		return c, queue.Errorf(queue.Invalid, "generations, heuristics and lessons cannot be fewer than none")
	}
	return c, nil
}

type reflector struct {
	Config
	client  *algorithm.Client
	run     *algorithm.Run
	summary Summary
	saved   time.Time
	mark    float64 // the watermark that is stored
	// unjudged is the first start time of the rollouts that the critic failed on.
	unjudged float64
}

// Run judges rollouts as they finish, until ctx ends, or with Once until none is
// left. Rollouts that the critic fails on are passed over and counted, and are judged
// by the next Run under the same name; an error that no repetition mends, such as a
// wrong key, ends it.
func Run(ctx context.Context, client *algorithm.Client, config Config) (Summary, error) {
	config, err := config.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	r := &reflector{Config: config, client: client, saved: time.Now(), unjudged: math.Inf(1)}
	if r.run, err = client.FindRun(ctx, config.Run); err != nil {
		return Summary{}, err
	}
	known, err := r.load(ctx)
	if err == nil && !known && r.Lessons > 0 {
		err = r.learn(ctx)
	}
	if err != nil {
		return r.summary, err
	}
	w := client.Watch(algorithm.WatchOptions{
		Since: max(r.mark, r.Since), Once: r.Once, Waiting: r.waiting(),
		Want: func(rollout *queue.Rollout) bool { return rollout.Metadata.Get(guardKey).IsNull() },
	})
	for result, err := range w.Results(ctx) {
		if err == nil {
			err = r.reflect(ctx, &result)
		}
		if err != nil {
			return r.summary, err
		}
		if err := r.save(ctx, w.Watermark(), saveInterval); err != nil {
			return r.summary, err
		}
	}
	return r.summary, r.save(ctx, w.Watermark(), 0)
}

// waiting says, once, what has Run not end yet.
func (r *reflector) waiting() func(oldest string, unfinished int) {
	if !r.Once {
		return nil
	}
	var once sync.Once
	return func(oldest string, unfinished int) {
		once.Do(func() { r.Logger.Info("waiting for rollouts to finish", "unfinished", unfinished, "oldest", oldest) })
	}
}

// saveInterval is how often the watermark is stored: what comes after it is looked
// at again by the next process.
const saveInterval = 10 * time.Second

// cursorID is where the watermark is stored.
func (r *reflector) cursorID() string { return "." + r.Run + "-cursor" }

// cursorName is the name of the watermark among the resources there.
const cursorName = "cursor"

type cursor struct {
	Since float64 `json:"since"`
}

// load reads the watermark, and reports whether there is one.
func (r *reflector) load(ctx context.Context) (bool, error) {
	set, err := r.client.Store.Resources(ctx, r.cursorID())
	if err != nil {
		return false, fmt.Errorf("looking for reflection %s: %w", r.Run, err)
	}
	if set == nil {
		return false, nil
	}
	var c cursor
	if _, err := algorithm.ReadState(set.Resources.Get(cursorName), &c); err != nil {
		return false, queue.Wrap(queue.Conflict, err, "resources "+r.cursorID()+" are of somebody else; choose another name for the run")
	}
	r.mark = c.Since
	return true, nil
}

// save stores the watermark if it moved. It stays at the first rollout that the critic
// failed on, so that a later process asks again.
func (r *reflector) save(ctx context.Context, mark float64, every time.Duration) error {
	mark = min(mark, r.unjudged)
	if mark <= r.mark || time.Since(r.saved) < every {
		return nil
	}
	return r.store(ctx, mark)
}

func (r *reflector) store(ctx context.Context, mark float64) error {
	v, err := algorithm.StateResource(cursor{mark})
	if err != nil {
		return err
	}
	resources := append(rawjson.AppendMember(nil, []byte(cursorName), v), '}')
	if _, err := r.client.Store.UpdateResources(ctx, r.cursorID(), resources); err != nil {
		return fmt.Errorf("storing how far reflection %s is: %w", r.Run, err)
	}
	r.mark, r.saved = mark, time.Now()
	return nil
}

// spanID is the id of what is filed for an attempt: the same in each life.
func (r *reflector) spanID(result *algorithm.Result, part int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", r.Run, result.Rollout.RolloutID, result.Attempt.AttemptID, part))
	return hex.EncodeToString(sum[:8])
}

// fileable reports whether an attempt can have a verdict: a span would bring one back
// that went silent or has shown nothing.
func fileable(a *queue.Attempt) bool {
	return a != nil && a.Status != queue.AttemptUnresponsive && a.Status != queue.AttemptPreparing
}

// wanted reports whether a rollout is one of those that Where selects.
func (r *reflector) wanted(rollout *queue.AttemptedRollout, spans []queue.Span) bool {
	if r.Where == nil {
		return true
	}
	met, err := r.Where.Match(rollout, spans)
	if err != nil {
		r.Logger.Warn("a rollout is passed over", "rollout_id", rollout.RolloutID, "error", err)
	}
	return met
}

// reflect judges a rollout. The verdict, which says that it is done, comes last.
func (r *reflector) reflect(ctx context.Context, result *algorithm.Result) error {
	if !r.wanted(&queue.AttemptedRollout{Rollout: result.Rollout, Attempt: result.Attempt}, result.Spans) {
		return nil
	}
	if result.Attempt != nil {
		done := r.spanID(result, 0)
		if slices.ContainsFunc(result.Spans, func(s queue.Span) bool { return s.SpanID == done }) {
			r.summary.Known++
			return nil
		}
	}
	if result.Rollout.Status == queue.RolloutCancelled {
		return nil // it says nothing of the agent
	}
	e, err := r.Critic(ctx, result)
	if err != nil {
		if ctx.Err() != nil || ask.Hopeless(err) {
			return fmt.Errorf("judging rollout %s: %w", result.Rollout.RolloutID, err)
		}
		r.summary.Failed++
		r.unjudged = min(r.unjudged, result.Rollout.StartTime)
		r.Logger.Warn("the critic failed", "rollout_id", result.Rollout.RolloutID, "error", err)
		return nil
	}
	v := Verdict{
		RolloutID: result.Rollout.RolloutID, Success: e.Success, Score: e.Score, Suggestions: len(e.Suggestions),
		Hard: !result.Succeeded() || !e.Success || e.Score < r.Threshold,
	}
	r.summary.Judged++
	if err := r.propose(ctx, e, &v); err != nil {
		return err
	}
	if v.Hard {
		r.summary.Hard++
		if err := r.requeue(ctx, result, &v); err != nil {
			return err
		}
	}
	if fileable(result.Attempt) {
		if err := r.file(ctx, result, e, v); err != nil {
			return err
		}
	}
	if r.OnVerdict != nil {
		r.OnVerdict(v)
	}
	return nil
}

func heuristicKey(rolloutID string, i int) string {
	return fmt.Sprintf("heuristic_from_rollout_%s_%d", rolloutID, i)
}

// propose offers the first suggestions.
func (r *reflector) propose(ctx context.Context, e Evaluation, v *Verdict) error {
	if len(e.Suggestions) == 0 {
		return nil
	}
	p := Record{Kind: KindProposal, Target: r.Target}
	for i, s := range e.Suggestions[:min(len(e.Suggestions), suggestionsMost)] {
		p.Heuristics = append(p.Heuristics, Heuristic{heuristicKey(v.RolloutID, i), s.Text, v.RolloutID, s.Reason})
	}
	v.Proposal = "." + r.Run + "-proposal-" + v.RolloutID
	var err error
	v.Applied, err = r.offer(ctx, v.Proposal, v.RolloutID, p)
	return err
}

// offer stores a proposal under an id, and promotes it if that is wanted; source, of
// which it comes, names its trial. It reports whether the heuristics changed.
func (r *reflector) offer(ctx context.Context, id, source string, p Record) (applied bool, err error) {
	r.summary.Proposals++
	if _, err := put(ctx, r.client.Store, id, p, rawjson.EmptyObject); err != nil || !r.AutoApply {
		return false, err
	}
	next, changed, err := promoted(ctx, r.client.Store, p, r.Target, r.MaxHeuristics)
	if err != nil || !changed {
		return false, err
	}
	if len(r.Val) > 0 {
		better, err := r.guard(ctx, source, &next)
		if err != nil || !better {
			return false, err
		}
	}
	if err := publish(ctx, r.client.Store, next); err != nil {
		return false, err
	}
	r.summary.Applied++
	return true, nil
}

// guard scores heuristics against those that count, on the validation tasks.
func (r *reflector) guard(ctx context.Context, source string, next *Record) (better bool, err error) {
	before, base, err := current(ctx, r.client.Store, r.Target)
	if err != nil {
		return false, err
	}
	if before.Score == nil {
		id := VersionID(r.Target, before.Version)
		if _, err := put(ctx, r.client.Store, id, before, base); err != nil {
			return false, err
		}
		if before.Score, err = r.score(ctx, fmt.Sprintf("guard-v%d", before.Version), id); err != nil {
			return false, err
		}
	}
	trial := "." + r.Run + "-trial-" + source
	if _, err := put(ctx, r.client.Store, trial, *next, base); err != nil {
		return false, err
	}
	if next.Score, err = r.score(ctx, "guard-"+source, trial); err != nil {
		return false, err
	}
	better = next.Score != nil && (before.Score == nil || *next.Score > *before.Score)
	if !better {
		r.Logger.Info("heuristics are not applied: they earn no more", "source", source, "before", before.Score, "with", next.Score)
	}
	return better, nil
}

// score is the mean reward on the validation tasks with some resources; nil when none
// finished in time.
func (r *reflector) score(ctx context.Context, batch, resourcesID string) (*float64, error) {
	results, _, err := r.run.Try(ctx, batch, r.Val, algorithm.BatchOptions{
		Mode: queue.ModeVal, ResourcesID: &resourcesID, Config: r.Rollout, Metadata: rawjson.Value(`{"` + guardKey + `":true}`),
	}, r.GuardTimeout)
	if err != nil || len(results) == 0 {
		return nil, err
	}
	mean := algorithm.MeanReward(results)
	return &mean, nil
}

// requeue runs the task of a hard case again, unless it was run often enough.
func (r *reflector) requeue(ctx context.Context, result *algorithm.Result, v *Verdict) error {
	generation, _ := result.Rollout.Metadata.Get(GenerationKey).Int()
	if !r.RequeueHard || generation >= int64(r.MaxGenerations) {
		return nil
	}
	metadata := []byte("{")
	for key, val := range algorithm.AgainMetadata(&result.Rollout).Members() {
		if string(key) != "source" && string(key) != GenerationKey {
			metadata = append(append(append(append(append(metadata, '"'), key...), '"', ':'), val...), ',')
		}
	}
	metadata = rawjson.AppendInt(append(metadata, `"source":"hard","`+GenerationKey+`":`...), generation+1)
	opts := algorithm.BatchOptions{
		Mode: result.Rollout.Mode, ResourcesID: result.Rollout.ResourcesID, Config: &result.Rollout.Config, Metadata: append(metadata, '}'),
	}
	if v.Applied || r.AutoApply {
		if set, err := r.client.Store.Resources(ctx, r.Target); err != nil {
			return err
		} else if set != nil {
			opts.ResourcesID = &r.Target // with what was learnt
		}
	}
	b, _, err := r.run.Batch(ctx, "hard-"+result.Rollout.RolloutID, []algorithm.Task{{Input: result.Rollout.Input, DataID: result.DataID()}}, opts)
	if err != nil {
		return fmt.Errorf("running hard case %s again: %w", result.Rollout.RolloutID, err)
	}
	v.Requeued = b.RolloutIDs()[0]
	r.summary.Requeued++
	return nil
}

// file writes the suggestions as objects and the verdict as an annotation.
func (r *reflector) file(ctx context.Context, result *algorithm.Result, e Evaluation, v Verdict) error {
	for i, s := range e.Suggestions {
		span, err := emit.ObjectSpan(s, map[string]any{criticRun: r.Run, criticKey: heuristicKey(v.RolloutID, i)})
		if err == nil {
			err = r.add(ctx, result, span, i+1)
		}
		if err != nil {
			return err
		}
	}
	tags := emit.Tags{"critic:" + r.Run}
	if v.Hard {
		tags = append(tags, HardTag)
	}
	attributes := []any{tags, map[string]any{criticRun: r.Run, criticSuccess: e.Success, criticScore: e.Score}}
	var span queue.Span
	var err error
	if rewards := withScore(result, e.Score); rewards != nil {
		span, err = emit.RewardSpan(rewards, attributes...)
	} else {
		span, err = emit.AnnotationSpan(attributes...)
	}
	if err != nil {
		return fmt.Errorf("writing the verdict of rollout %s: %w", v.RolloutID, err)
	}
	return r.add(ctx, result, span, 0)
}

// withScore is the final reward with the critic's score as one more dimension; the
// first one, which counts, stays. It is nil for an attempt without a reward: the
// critic's score must not become one.
func withScore(result *algorithm.Result, score float64) []semconv.Reward {
	value, ok := result.FiniteReward()
	if !ok || math.IsNaN(score) || math.IsInf(score, 0) {
		return nil
	}
	rewards := []semconv.Reward{{Name: semconv.PrimaryReward, Value: value}}
	for i := range slices.Backward(result.Spans) {
		if _, ok, _ := semconv.SpanReward(&result.Spans[i]); ok {
			if list, _ := semconv.SpanRewards(&result.Spans[i]); len(list) > 0 {
				rewards = slices.DeleteFunc(slices.Clone(list), func(d semconv.Reward) bool { return d.Name == ScoreDimension })
			}
			break
		}
	}
	return append(rewards, semconv.Reward{Name: ScoreDimension, Value: score})
}

func (r *reflector) add(ctx context.Context, result *algorithm.Result, span queue.Span, part int) error {
	now := queue.Seconds(time.Now())
	trace := sha256.Sum256([]byte(r.Run + "\x00" + result.Rollout.RolloutID))
	span.RolloutID, span.AttemptID, span.SequenceID = result.Rollout.RolloutID, result.Attempt.AttemptID, queue.NumberOnArrival
	span.TraceID, span.SpanID = hex.EncodeToString(trace[:16]), r.spanID(result, part)
	span.StartTime, span.EndTime = &now, &now
	span.FillIn()
	if _, err := r.client.Store.AddSpan(ctx, span); err != nil {
		return fmt.Errorf("filing the verdict of rollout %s: %w", result.Rollout.RolloutID, err)
	}
	return nil
}
