package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/baseline"
	"github.com/aglq/aglq/algorithm/cem"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) algorithmCommand() *cli.Command {
	cmd := &cli.Command{
		Name: "algorithm", Usage: "run an algorithm against a store", ArgsUsage: "COMMAND",
		Commands: []*cli.Command{a.baselineCommand(), a.cemCommand(), a.apoCommand(), a.execCommand(), a.reflectCommand()},
	}
	cmd.Action = func(_ context.Context, cmd *cli.Command) error {
		if name := cmd.Args().First(); name != "" {
			return unknownCommand(cmd, name)
		}
		return usagef(cmd, "which algorithm? %s", strings.Join(commandNames(cmd), ", "))
	}
	return cmd
}

func (a *app) baselineCommand() *cli.Command {
	return &cli.Command{
		Name: "baseline", Usage: "send all tasks through the queue and log what comes back; it learns nothing",
		Flags: flags([]cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "train", Usage: "`FILE` with a training task a line"},
			&cli.StringFlag{Name: "val", Usage: "`FILE` with a validation task a line"},
			&cli.StringFlag{Name: "resources", Usage: "JSON `FILE` of resources to store first"},
			&cli.IntFlag{Name: "epochs", Value: 1, Usage: "`NUMBER` of times that all tasks are run", Validator: within(1, math.MaxInt)},
			&secondsFlag{
				Name: "polling-interval", Value: baseline.DefaultPollingInterval,
				Usage: "`SECONDS` between two looks at the rollouts",
			},
			&cli.IntFlag{
				Name: "max-queue-length", Value: baseline.DefaultMaxQueueLength, Validator: within(0, math.MaxInt),
				Usage: "`NUMBER` of rollouts that may wait in the queue for another to be enqueued",
			},
			&cli.StringFlag{
				Name: "span-verbosity", Value: string(baseline.Keys), Usage: "how much of the spans is logged: `keys`, key_values or none",
				Validator: oneOf(string(baseline.Keys), string(baseline.KeyValues), string(baseline.None)),
			},
		}, rolloutLimitFlags(), []cli.Flag{metricsAddrFlag()}, logFlags()),
		Action: a.action(a.baseline),
	}
}

func (a *app) baseline(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	if cmd.String("train") == "" && cmd.String("val") == "" {
		return usagef(cmd, "there are no tasks: give --train, --val or both")
	}
	log := a.logger(cmd).of("algorithm")
	config := baseline.Config{
		Epochs: cmd.Int("epochs"), PollingInterval: cmd.Duration("polling-interval"),
		MaxQueueLength: cmd.Int("max-queue-length"), SpanVerbosity: baseline.Verbosity(cmd.String("span-verbosity")),
		Rollout: rolloutConfig(cmd), Logger: log, Observer: a.algorithmObserver(cmd),
	}
	if config.MaxQueueLength == 0 {
		config.MaxQueueLength = -1 // 0 would be the default
	}
	var err error
	if config.Train, err = a.loadTasks(ctx, cmd.String("train")); err != nil {
		return err
	}
	if config.Val, err = a.loadTasks(ctx, cmd.String("val")); err != nil {
		return err
	}
	if path := cmd.String("resources"); path != "" {
		if config.Resources, err = readObject(path); err != nil {
			return err
		}
	}
	halt, err := a.serveMetrics(cmd, log)
	if err != nil {
		return err
	}
	defer halt()
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		tally := newTally((len(config.Train) + len(config.Val)) * config.Epochs)
		config.OnResult = func(r algorithm.Result) { tally.add(r) }
		stop := a.reportTally(ctx, log, tally, s)
		summary, err := baseline.Run(ctx, s, config)
		stop()
		fmt.Fprintln(a.stderr, tally.summary())
		if err == nil && (summary.Lost > 0 || summary.ByStatus[queue.RolloutSucceeded] < summary.Finished()) {
			err = errFailed
		}
		return err
	})
}

// loadTasks reads a task file of an algorithm; "" is none.
func (a *app) loadTasks(ctx context.Context, name string) ([]algorithm.Task, error) {
	if name == "" {
		return nil, nil
	}
	var tasks []algorithm.Task
	for req, err := range a.taskFile(name).tasks(ctx, queue.Request{}, nil) {
		if err != nil {
			return nil, err
		}
		if req.Mode != "" || req.Config != nil || req.ResourcesID != nil {
			return nil, fmt.Errorf("%s: task %d sets mode, config or resources_id, which the algorithm decides", name, len(tasks)+1)
		}
		tasks = append(tasks, algorithm.Task{Input: req.Input, Metadata: req.Metadata})
	}
	return tasks, nil
}

func (a *app) cemCommand() *cli.Command {
	return &cli.Command{
		Name: "cem", Usage: "search for the best parameters of an agent (cross-entropy method)",
		Flags: flags([]cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "space", Usage: "JSON `FILE` of the parameters to vary (needed)"},
			&cli.StringFlag{Name: "run", DefaultText: "a new one", Usage: "`NAME` of the search; that of an earlier one takes it up again"},
			&cli.IntFlag{Name: "rounds", Value: cem.DefaultRounds, Usage: "`NUMBER` of rounds", Validator: within(1, math.MaxInt)},
			&cli.IntFlag{
				Name: "population", Value: cem.DefaultPopulation, Usage: "`NUMBER` of rollouts a round",
				Validator: within(2, math.MaxInt),
			},
			&cli.FloatFlag{Name: "elite", Value: cem.DefaultElite, Usage: "`SHARE` of a round that the next one follows", Validator: share},
			&cli.FloatFlag{Name: "rate", Value: cem.DefaultRate, Usage: "`SHARE` of the way to the elite that a round goes", Validator: share},
			&cli.FloatFlag{
				Name: "min-std", Value: cem.DefaultMinStd, Usage: "least spread of a parameter, as a `SHARE` of its range", Validator: share,
			},
			&cli.Uint64Flag{Name: "seed", Usage: "`NUMBER` that the draws follow from"},
			&cli.StringFlag{
				Name: "mode", Value: string(queue.ModeTrain), Usage: "`MODE` of the rollouts: train, val or test",
				Validator: oneOf(names(queue.Modes)...),
			},
			&cli.BoolFlag{Name: "json", Usage: "print JSON: a line a round, then the final state"},
		}, rolloutLimitFlags(), []cli.Flag{metricsAddrFlag()}, logFlags()),
		Action: a.action(a.cem),
	}
}

func share(f float64) error {
	if f > 0 && f <= 1 {
		return nil
	}
	return fmt.Errorf("it must be above 0 and up to 1")
}

func (a *app) cem(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	if cmd.String("space") == "" {
		return usagef(cmd, "--space is missing: a JSON file of the parameters to vary")
	}
	space, err := cem.LoadSpace(cmd.String("space"))
	if err != nil {
		return err
	}
	log := a.logger(cmd).of("algorithm")
	config := cem.Config{
		Space: space, Run: cmd.String("run"), Rounds: cmd.Int("rounds"), Population: cmd.Int("population"),
		Elite: cmd.Float("elite"), Rate: cmd.Float("rate"), MinStd: cmd.Float("min-std"), Seed: cmd.Uint64("seed"),
		Mode: queue.Mode(cmd.String("mode")), Rollout: rolloutConfig(cmd),
	}
	halt, err := a.serveMetrics(cmd, log)
	if err != nil {
		return err
	}
	defer halt()
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		tally := newTally(config.Rounds * config.Population)
		config.OnResult = func(_ int, r algorithm.Result) { tally.add(r) }
		rounds := roundWriter{out: a.stdout, json: cmd.Bool("json")}
		config.OnRound = func(r cem.Round) { rounds.round(r, cemHead, cemRow(r)) }
		stop := a.reportTally(ctx, log, tally, s)
		state, err := cem.Run(ctx, algorithm.New(s, algorithm.Options{Observer: a.algorithmObserver(cmd)}), config)
		stop()
		if err != nil {
			return err
		}
		return rounds.end(state, func() error { return a.printBest(state.Best) })
	})
}

// roundWriter prints the rounds of a search as they end: as JSON, or as a table.
type roundWriter struct {
	out  io.Writer
	json bool
	any  bool
	err  error // of the first line of JSON that could not be written
}

// round prints a round, a row of the table below its head.
func (w *roundWriter) round(round any, head, row string) {
	if w.json {
		w.err = cmp.Or(w.err, writeLine(w.out, round))
		return
	}
	if !w.any {
		w.any = true
		fmt.Fprintln(w.out, head)
	}
	fmt.Fprintln(w.out, row)
}

// end prints the final state by print, where it is not JSON.
func (w *roundWriter) end(state any, print func() error) error {
	if w.json {
		return cmp.Or(w.err, writeLine(w.out, state))
	}
	return print()
}

// cemHead and cemRow are the table of a search for parameters.
var cemHead = fmt.Sprintf("%5s %8s %8s %6s %7s %8s", "ROUND", "BEST", "MEAN", "FAILED", "RETRIED", "SECONDS")

func cemRow(r cem.Round) string {
	return fmt.Sprintf("%5d %8.4f %8.4f %6d %7d %8.1f", r.Round, r.Best, r.Mean, r.Failed, r.Retried, r.Seconds)
}

// writeLine writes a value as a line of JSON.
func writeLine(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", text)
	}
	return err
}

// printBest prints what a search for parameters has found.
func (a *app) printBest(best *cem.Trial) error {
	if best == nil {
		return nil
	}
	fmt.Fprintf(a.stdout, "\nbest reward %.4f in round %d, rollout %s\n", best.Reward, best.Round, best.RolloutID)
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	writeMembers(t, "  ", best.Params)
	return t.Flush()
}

// tally counts results for the progress. It is safe for concurrent use.
type tally struct {
	started time.Time

	mu     sync.Mutex
	counts progress
	stored queue.Statistics // the last look at the store
}

func newTally(total int) *tally {
	return &tally{started: time.Now(), counts: progress{total: total}}
}

func (t *tally) add(r algorithm.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.done++
	if !r.Succeeded() {
		t.counts.failed++
	}
	if reward, ok := r.FiniteReward(); ok {
		t.counts.rewards++
		t.counts.rewardSum += reward
	}
}

func (t *tally) expect(more int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.total += more
}

// now is the progress at this moment. What runs and what waits are the store's
// figures of a moment ago, which may count rollouts of others: at most what is
// left to do.
func (t *tally) now() progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.counts
	p.elapsed = time.Since(t.started)
	by, left := t.stored.ByStatus, max(p.total-p.done, 0)
	p.running = min(int(by[queue.RolloutPreparing]+by[queue.RolloutRunning]), left)
	p.queued = min(int(by[queue.RolloutQueuing]+by[queue.RolloutRequeuing]), left-p.running)
	return p
}

func (t *tally) summary() string {
	p := t.now()
	text := fmt.Sprintf("%d of %d rollouts done in %s: %d succeeded, %d failed", p.done, p.total, shortDuration(p.elapsed),
		p.done-p.failed, p.failed)
	if mean, ok := p.meanReward(); ok {
		text += fmt.Sprintf(", mean reward %.4g", mean)
	}
	return text
}

// statistician is the part of the store that counts.
type statistician interface {
	Statistics(ctx context.Context) (queue.Statistics, error)
}

// reportTally shows progress until the returned function is called.
func (a *app) reportTally(ctx context.Context, log *slog.Logger, t *tally, s statistician) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { a.report(ctx, log, func() status { return t.now() }) })
	running.Go(func() { t.follow(ctx, s) })
	return func() {
		cancel()
		running.Wait()
	}
}

const followInterval = 500 * time.Millisecond

// follow keeps an eye on the store's figures until ctx ends. A look that fails is
// worth no word: the work itself will meet the same error.
func (t *tally) follow(ctx context.Context, s statistician) {
	ticks := time.NewTicker(followInterval)
	defer ticks.Stop()
	for {
		if statistics, err := s.Statistics(ctx); err == nil {
			t.mu.Lock()
			t.stored = statistics
			t.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// rolloutLimitFlags are configFlags without what an algorithm decides itself.
func rolloutLimitFlags() []cli.Flag {
	return slices.DeleteFunc(configFlags(), func(f cli.Flag) bool {
		return f.Names()[0] == "mode" || f.Names()[0] == "resources-id"
	})
}
