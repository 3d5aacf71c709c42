// Package baseline is the algorithm that learns nothing: it sends every task
// through the queue and logs what comes back. It shows whether agents, workers
// and store play together before a real algorithm is at stake.
//
// Its parameters and what it logs are those of the reference's Baseline.
package baseline

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// Verbosity says how much of each span is logged.
type Verbosity string

// The verbosities.
const (
	Keys      Verbosity = "keys"       // names of the attributes
	KeyValues Verbosity = "key_values" // attributes with their values
	None      Verbosity = "none"       // no spans
)

// Defaults of Config.
const (
	DefaultPollingInterval = 5 * time.Second
	DefaultMaxQueueLength  = 4
	DefaultTrainSplit      = 0.5
)

// ResourcesID is under which Run stores the initial resources.
const ResourcesID = "default"

// Config says what to run and how. Zero fields take the defaults.
type Config struct {
	Train, Val []algorithm.Task // at least one of them has tasks
	// Resources are stored before the first epoch; nil leaves those in the store.
	Resources rawjson.Value

	Epochs          int           // 1
	TrainSplit      float64       // between 0 and 1; checked and otherwise unused, as in the reference
	PollingInterval time.Duration // between two looks at the rollouts
	// MaxQueueLength is how many rollouts may wait in the queue, anybody's, for
	// another to be enqueued. A negative number stands for 0.
	MaxQueueLength int
	SpanVerbosity  Verbosity     // keys
	Rollout        *queue.Config // of the rollouts; nil is the queue's default

	// Adapt, when not nil, turns the latest attempt's spans into data for the log.
	Adapt  func([]queue.Span) (any, error)
	Logger *slog.Logger // slog.Default when nil
	// Observer is told what happens, an epoch being a batch: nil for nobody.
	Observer algorithm.Observer
	// OnResult is called with each finished rollout, on the goroutine of Run.
	OnResult func(algorithm.Result)
}

// Summary counts what became of the rollouts.
type Summary struct {
	ByStatus map[queue.RolloutStatus]int // of finished rollouts
	Lost     int                         // vanished from the store before they finished
	Rewarded int                         // have a finite reward
	// MeanReward is the mean of those that have one, 0 without any.
	MeanReward float64
}

// Finished counts the rollouts that ended.
func (s Summary) Finished() int {
	n := 0
	for _, count := range s.ByStatus {
		n += count
	}
	return n
}

func (c Config) withDefaults() (Config, error) {
	c.Epochs = cmp.Or(c.Epochs, 1)
	c.TrainSplit = cmp.Or(c.TrainSplit, DefaultTrainSplit)
	c.PollingInterval = cmp.Or(c.PollingInterval, DefaultPollingInterval)
	c.MaxQueueLength = max(cmp.Or(c.MaxQueueLength, DefaultMaxQueueLength), 0)
	c.SpanVerbosity = cmp.Or(c.SpanVerbosity, Keys)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Observer == nil {
		c.Observer = algorithm.Unobserved{}
	}
	switch {
	case len(c.Train)+len(c.Val) == 0:
		return c, queue.Errorf(queue.Invalid, "there are neither train nor val tasks; baseline needs one of them")
	case !(c.TrainSplit > 0 && c.TrainSplit < 1):
		return c, queue.Errorf(queue.Invalid, "train_split is %g; it must be between 0 and 1", c.TrainSplit)
	case c.Epochs < 0 || c.PollingInterval < 0:
		return c, queue.Errorf(queue.Invalid, "n_epochs is %d and polling_interval %s; they must be positive", c.Epochs, c.PollingInterval)
	case !slices.Contains([]Verbosity{Keys, KeyValues, None}, c.SpanVerbosity):
		return c, queue.Errorf(queue.Invalid, "span_verbosity is %q; it must be keys, key_values or none", c.SpanVerbosity)
	case !c.Resources.IsNull() && c.Resources.Kind() != rawjson.KindObject:
		return c, queue.Errorf(queue.Invalid, "the initial resources are no JSON object: %.80s", c.Resources)
	}
	return c, nil
}

// Run sends all train and then all val tasks through the queue, epoch after
// epoch, and returns when the last one has finished.
func Run(ctx context.Context, store queue.Store, config Config) (Summary, error) {
	config, err := config.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	r := &runner{Config: config, store: store, summary: Summary{ByStatus: map[queue.RolloutStatus]int{}}}
	if err := r.storeResources(ctx); err != nil {
		return Summary{}, err
	}
	for epoch := range r.Epochs {
		r.Logger.Info("epoch begins", "epoch", epoch+1, "epochs", r.Epochs)
		began := time.Now()
		if err := r.epoch(ctx); err != nil {
			return r.summary, fmt.Errorf("epoch %d: %w", epoch+1, err)
		}
		r.Observer.BatchEnded(time.Since(began))
	}
	return r.summary, nil
}

type runner struct {
	Config
	store       queue.Store
	resourcesID *string
	open        []string // unfinished rollouts
	status      map[string]queue.RolloutStatus
	summary     Summary
}

func (r *runner) storeResources(ctx context.Context) error {
	if r.Resources.IsNull() {
		r.Logger.Warn("no initial resources given; rollouts take the latest ones in the store")
		return nil
	}
	update, err := r.store.UpdateResources(ctx, ResourcesID, r.Resources)
	if err != nil {
		return fmt.Errorf("storing the initial resources: %w", err)
	}
	r.resourcesID = &update.ResourcesID
	r.Logger.Info("initial resources set", "resources_id", update.ResourcesID, "resources", string(update.Resources))
	return nil
}

func (r *runner) epoch(ctx context.Context) error {
	r.open, r.status = nil, map[string]queue.RolloutStatus{}
	total := len(r.Train) + len(r.Val)
	for next := 0; ; {
		for next < total {
			enough, err := r.queueFull(ctx)
			if err != nil {
				return err
			}
			if enough {
				break
			}
			if err := r.enqueue(ctx, next); err != nil {
				return err
			}
			if next++; next == total {
				r.Logger.Info("waiting for rollouts", "unfinished", len(r.open))
			}
		}
		if next == total && len(r.open) == 0 {
			return nil
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
		if err := r.look(ctx); err != nil {
			return err
		}
	}
}

func (r *runner) queueFull(ctx context.Context) (bool, error) {
	page, err := r.store.Rollouts(ctx, queue.RolloutQuery{
		Statuses: []queue.RolloutStatus{queue.RolloutQueuing, queue.RolloutRequeuing},
		Paging:   queue.Paging{Limit: 1},
	})
	if err != nil {
		return false, fmt.Errorf("measuring the queue: %w", err)
	}
	return page.Total > r.MaxQueueLength, nil
}

func (r *runner) enqueue(ctx context.Context, index int) error {
	r.Logger.Info("processing task", "index", index, "train", len(r.Train), "val", len(r.Val))
	mode, task := queue.ModeTrain, algorithm.Task{}
	if index < len(r.Train) {
		task = r.Train[index]
	} else {
		mode, task = queue.ModeVal, r.Val[index-len(r.Train)]
	}
	if task.Input == nil {
		task.Input = rawjson.Null
	}
	asked := time.Now()
	rollouts, err := r.store.Enqueue(ctx, []queue.Request{{
		Input: task.Input, Mode: mode, ResourcesID: r.resourcesID, Config: r.Rollout, Metadata: task.Metadata,
	}})
	if err != nil {
		return fmt.Errorf("enqueueing task %d: %w", index, err)
	}
	r.Observer.Enqueued(1, time.Since(asked))
	id := rollouts[0].RolloutID
	r.open = append(r.open, id)
	r.Logger.Info("rollout enqueued", "rollout_id", id, "mode", string(mode), "sample", string(task.Input))
	return nil
}

// pause lasts for the polling interval, or until every open rollout has
// finished. With none open somebody else fills the queue, and it sleeps.
func (r *runner) pause(ctx context.Context) error {
	if len(r.open) > 0 {
		_, err := r.store.Wait(ctx, r.open, r.PollingInterval)
		if err != nil {
			return fmt.Errorf("waiting for rollouts: %w", err)
		}
		return context.Cause(ctx)
	}
	return sleep.For(ctx, r.PollingInterval)
}

// look logs what changed since the last look, and drops what has finished.
func (r *runner) look(ctx context.Context) error {
	if len(r.open) == 0 {
		return nil
	}
	page, err := r.store.Rollouts(ctx, queue.RolloutQuery{IDs: r.open, Paging: queue.All})
	if err != nil {
		return fmt.Errorf("polling rollouts: %w", err)
	}
	asked, known := r.open, map[string]bool{}
	r.open = nil
	for i := range page.Items {
		rollout := &page.Items[i]
		known[rollout.RolloutID] = true
		if rollout.Status.Finished() {
			if err := r.finish(ctx, rollout); err != nil {
				return err
			}
			continue
		}
		r.open = append(r.open, rollout.RolloutID)
		r.logStatus(rollout)
	}
	for _, id := range asked {
		if !known[id] {
			r.Logger.Error("rollout is gone from the store", "rollout_id", id)
			r.Observer.Expected(-1)
			r.summary.Lost++
		}
	}
	return nil
}

// finish logs the attempts and spans of a finished rollout.
func (r *runner) finish(ctx context.Context, rollout *queue.AttemptedRollout) error {
	id := rollout.RolloutID
	delete(r.status, id)
	seconds := 0.0
	if rollout.EndTime != nil {
		seconds = *rollout.EndTime - rollout.StartTime
	}
	r.Logger.Info("rollout finished", "rollout_id", id, "status", string(rollout.Status), "seconds", seconds)
	asked := time.Now()
	attempts, err := r.store.Attempts(ctx, queue.AttemptQuery{RolloutID: id, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		return fmt.Errorf("fetching the attempts of rollout %s: %w", id, err)
	}
	result := algorithm.Result{Rollout: rollout.Rollout, Attempt: rollout.Attempt}
	for i := range attempts.Items {
		a := &attempts.Items[i]
		worker := ""
		if a.WorkerID != nil {
			worker = *a.WorkerID
		}
		r.Logger.Info("attempt", "rollout_id", id, "attempt", a.SequenceID, "attempt_id", a.AttemptID,
			"status", string(a.Status), "worker_id", worker)
		spans, err := r.store.Spans(ctx, queue.SpanQuery{
			RolloutID: id, AttemptID: &a.AttemptID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1},
		})
		if err != nil {
			return fmt.Errorf("fetching the spans of rollout %s: %w", id, err)
		}
		result.Spans = spans.Items
		for j := range spans.Items {
			r.logSpan(&spans.Items[j])
		}
	}
	r.Observer.Harvested(1, time.Since(asked))
	r.count(&result)
	return nil
}

// count takes a finished rollout into the summary; its spans are those of the
// latest attempt.
func (r *runner) count(result *algorithm.Result) {
	if r.Adapt != nil {
		if data, err := r.Adapt(result.Spans); err != nil {
			r.Logger.Error("spans could not be adapted", "rollout_id", result.Rollout.RolloutID, "error", err)
		} else {
			r.Logger.Info("spans adapted", "rollout_id", result.Rollout.RolloutID, "data", data)
		}
	}
	if reward, ok := semconv.FinalReward(result.Spans); ok {
		result.Reward = &reward
	}
	r.Observer.Delivered(result)
	s := &r.summary
	s.ByStatus[result.Rollout.Status]++
	if reward, ok := result.FiniteReward(); ok {
		s.Rewarded++
		s.MeanReward += (reward - s.MeanReward) / float64(s.Rewarded)
	}
	r.Logger.Info("rollouts finished so far", "count", s.Finished())
	if r.OnResult != nil {
		r.OnResult(*result)
	}
}
