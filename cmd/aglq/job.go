package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// job is a file of tasks on its way through the queue.
type job struct {
	app     *app
	store   queue.Store
	log     *slog.Logger
	file    taskFile
	base    queue.Request
	results *resultWriter
	// observer is told what the batches do; nil is nobody.
	observer algorithm.Observer
	tally    *tally
	// resources are stored before the first task; nil is none.
	resources rawjson.Value

	batches map[string]*algorithm.Batch // by what their tasks have in common

	mu   sync.Mutex
	open map[string]bool // rollouts without a result
}

func (a *app) newJob(cmd *cli.Command, logs *logs, s queue.Store) (*job, error) {
	j := &job{
		app: a, store: s, log: logs.of("algorithm"), file: a.taskFile(cmd.String("tasks")), base: baseRequest(cmd),
		observer: a.algorithmObserver(cmd),
		tally:    newTally(0), batches: map[string]*algorithm.Batch{}, open: map[string]bool{},
	}
	var err error
	if path := cmd.String("resources"); path != "" {
		if j.resources, err = readObject(path); err != nil {
			return nil, err
		}
	}
	j.results, err = a.openResults(cmd.String("out"))
	return j, err
}

// run enqueues the tasks and sees them to their end. When ctx ends, what no
// worker holds is cancelled; what they hold may end. Workers are those of this
// process, nil for none.
func (j *job) run(ctx context.Context, workers *crew) error {
	hard, cancel := context.WithCancel(j.app.signals.hard)
	defer cancel()
	stop := j.app.reportTally(hard, j.log, j.tally, j.store)
	err := j.enqueue(ctx)
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, j.cancel(hard, unfinishedStatuses)) // what is stored by halves is not run
	} else {
		ended := make(chan struct{})
		var winding sync.WaitGroup
		winding.Go(func() { j.windUp(ctx, hard, workers, ended) })
		err = j.harvest(hard)
		close(ended)
		winding.Wait()
	}
	stop()
	if closed := j.results.close(); err == nil {
		err = closed
	}
	fmt.Fprintln(j.app.stderr, j.tally.summary())
	if p := j.tally.now(); err == nil && p.failed > 0 {
		err = errFailed
	}
	return err
}

// enqueue stores resources and tasks. Tasks that agree in all but their input
// are one batch.
func (j *job) enqueue(ctx context.Context) error {
	if j.resources != nil {
		u, err := j.store.AddResources(ctx, j.resources)
		if err != nil {
			return fmt.Errorf("storing the resources: %w", err)
		}
		j.log.Info("resources stored", "resources_id", u.ResourcesID)
	}
	c := algorithm.New(j.store, algorithm.Options{Observer: j.observer})
	var tasks []algorithm.Task
	var common queue.Request
	for req, err := range j.file.tasks(ctx, j.base, nil) {
		if err != nil {
			return err
		}
		if len(tasks) == enqueueMost || (len(tasks) > 0 && !alike(common, req)) {
			if err := j.add(ctx, c, common, tasks); err != nil {
				return err
			}
			tasks = tasks[:0]
		}
		common = req
		tasks = append(tasks, algorithm.Task{Input: req.Input, Metadata: req.Metadata})
	}
	return j.add(ctx, c, common, tasks)
}

// alike reports whether two tasks can be of one batch.
func alike(a, b queue.Request) bool { return batchKey(a) == batchKey(b) }

func batchKey(r queue.Request) string {
	key := string(r.Mode)
	if r.ResourcesID != nil {
		key += "\x00" + *r.ResourcesID
	}
	if r.Config != nil {
		key += "\x00\x00" + string(r.Config.AppendJSON(nil))
	}
	return key
}

func (j *job) add(ctx context.Context, c *algorithm.Client, common queue.Request, tasks []algorithm.Task) error {
	if len(tasks) == 0 {
		return nil
	}
	b := j.batches[batchKey(common)]
	if b == nil {
		var err error
		b, err = c.NewBatch(algorithm.BatchOptions{Mode: common.Mode, ResourcesID: common.ResourcesID, Config: common.Config})
		if err != nil {
			return err
		}
		j.batches[batchKey(common)] = b
	}
	before := b.Len()
	err := b.Add(ctx, tasks)
	ids := b.RolloutIDs()[before:]
	j.tally.expect(len(ids))
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range ids {
		j.open[id] = true
	}
	return err
}

// harvest hands out the results of all batches as they come.
func (j *job) harvest(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, b := range j.batches {
		group.Go(func() error {
			for r, err := range b.Results(ctx) {
				if err != nil {
					return err
				}
				if err := j.result(r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (j *job) result(r algorithm.Result) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, r.Rollout.RolloutID)
	j.tally.add(r)
	return j.results.write(r)
}

var (
	queuedStatuses     = []queue.RolloutStatus{queue.RolloutQueuing, queue.RolloutRequeuing}
	unfinishedStatuses = append(slices.Clone(queuedStatuses), queue.RolloutPreparing, queue.RolloutRunning)
)

// windUpInterval is how often what is left of a job is looked at while it ends.
const windUpInterval = 300 * time.Millisecond

// windUp waits for ctx or the workers to end and then sees to it that every
// rollout ends too: those in the queue are cancelled, those that workers hold
// have time until the workers of this process are gone. It returns when ended is
// closed or hard ends.
func (j *job) windUp(ctx, hard context.Context, workers *crew, ended <-chan struct{}) {
	var gone <-chan struct{} // blocks where the workers are elsewhere
	if workers != nil {
		gone = workers.ended
	}
	select {
	case <-ended:
		return
	case <-gone:
		j.log.Warn("the workers have ended before the tasks; the rest is cancelled")
	case <-ctx.Done():
		j.log.Info("stopping; what runs may end, a second signal stops it", "cause", "signal")
		if workers != nil {
			workers.drain()
		}
	}
	ticks := time.NewTicker(windUpInterval)
	defer ticks.Stop()
	for {
		statuses := queuedStatuses
		select {
		case <-gone:
			statuses = unfinishedStatuses
		default:
		}
		if err := j.cancel(hard, statuses); err != nil && hard.Err() == nil {
			j.log.Warn("cannot cancel rollouts", "error", err)
		}
		select {
		case <-ended:
			return
		case <-hard.Done():
			return
		case <-ticks.C:
		}
	}
}

// cancel ends the job's open rollouts that have one of the statuses.
func (j *job) cancel(ctx context.Context, statuses []queue.RolloutStatus) error {
	j.mu.Lock()
	ids := make([]string, 0, len(j.open))
	for id := range j.open {
		ids = append(ids, id)
	}
	j.mu.Unlock()
	for some := range slices.Chunk(ids, enqueueMost) {
		page, err := j.store.Rollouts(ctx, queue.RolloutQuery{IDs: some, Statuses: statuses, Paging: queue.All})
		if err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(changeMost)
		for i := range page.Items {
			group.Go(func() error {
				_, err := j.store.UpdateRollout(ctx, page.Items[i].RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)})
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// resultWriter prints results: a readable line each, or JSON.
type resultWriter struct {
	out  *bufio.Writer
	file io.Closer // nil is standard output
	json bool
}

func (a *app) openResults(path string) (*resultWriter, error) {
	switch path {
	case "":
		return &resultWriter{out: bufio.NewWriter(a.stdout)}, nil
	case "-":
		return &resultWriter{out: bufio.NewWriter(a.stdout), json: true}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &resultWriter{out: bufio.NewWriter(f), file: f, json: true}, nil
}

// resultLine is a result as JSON.
type resultLine struct {
	RolloutID string              `json:"rollout_id"`
	Status    queue.RolloutStatus `json:"status"`
	Reward    *float64            `json:"reward"`
	Error     *string             `json:"error"`
	Attempts  int                 `json:"attempts"`
	Seconds   float64             `json:"seconds"`
	Input     rawjson.Value       `json:"input"`
}

func newResultLine(r algorithm.Result) resultLine {
	line := resultLine{
		RolloutID: r.Rollout.RolloutID, Status: r.Rollout.Status, Attempts: r.Attempts(), Input: r.Rollout.Input,
	}
	if reward, ok := r.FiniteReward(); ok {
		line.Reward = &reward
	}
	if r.Rollout.EndTime != nil {
		line.Seconds = roundTo(*r.Rollout.EndTime-r.Rollout.StartTime, 3)
	}
	if !r.Succeeded() {
		text := whyFailed(r)
		line.Error = &text
	}
	return line
}

// whyFailed is what the worker said of the latest attempt, or what is known
// without it.
func whyFailed(r algorithm.Result) string {
	if r.Rollout.Status == queue.RolloutCancelled {
		return "cancelled"
	}
	if r.Attempt == nil {
		return "never claimed"
	}
	if text := r.Attempt.Metadata.Get("error").Text(); text != "" {
		return text
	}
	return "the attempt is " + string(r.Attempt.Status)
}

// write prints one result at once: somebody may be waiting for it.
func (w *resultWriter) write(r algorithm.Result) error {
	line := newResultLine(r)
	if w.json {
		text, err := json.Marshal(line)
		if err != nil {
			return err
		}
		w.out.Write(text)
		w.out.WriteByte('\n')
		return w.out.Flush()
	}
	fmt.Fprintf(w.out, "%s %s", line.RolloutID, line.Status)
	if line.Reward != nil {
		fmt.Fprintf(w.out, " reward=%.6g", *line.Reward)
	}
	if line.Attempts > 1 {
		fmt.Fprintf(w.out, " attempts=%d", line.Attempts)
	}
	fmt.Fprintf(w.out, " seconds=%.1f", line.Seconds)
	if line.Error != nil {
		fmt.Fprintf(w.out, " error=%q", firstLine(*line.Error))
	}
	w.out.WriteByte('\n')
	return w.out.Flush()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return cell(line)
}

func (w *resultWriter) close() error {
	err := w.out.Flush()
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	return err
}
