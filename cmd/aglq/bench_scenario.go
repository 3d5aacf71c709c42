package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/benchmarks/scenario"
)

func (a *app) benchScenarioCommand() *cli.Command {
	return &cli.Command{
		Name: "scenario", Usage: "drive a store as a training run does: an algorithm and many runners",
		Description: "The presets are the workloads of the reference's continuous benchmark: " + strings.Join(presetNames(), ", ") + ".\n" +
			"An option that is given wins over the preset. It fails when a rollout or a span is lost or comes twice." + needsUnused,
		Flags: flags(
			[]cli.Flag{
				storeURLFlag(),
				&cli.StringFlag{Name: "preset", Validator: oneOf(presetNames()...), DefaultText: "none", Usage: "`NAME` of a workload"},
			},
			scenarioFlags(),
			[]cli.Flag{
				&cli.IntSliceFlag{Name: "pid", Usage: "`PROCESS` of the server, to report its CPU and memory; repeat it for more"},
				&secondsFlag{
					Name: "time-limit", DefaultText: "$GITHUB_ACTIONS_TIMEOUT_MINUTES, else 30, less 10 minutes",
					Usage: "`SECONDS` after which the run has failed; 0 is never",
				},
				&cli.BoolFlag{Name: "debug", Usage: "tell what is waited for"},
				&cli.BoolFlag{Name: "debug-otel", Usage: "tell of each export of spans"},
				plotFlag(), figuresFlag(),
			}),
		Action: a.action(a.benchScenario),
	}
}

// scenarioFlags describe a workload.
func scenarioFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "mode", Value: string(scenario.Batch), Validator: oneOf(names(scenario.Modes)...), Usage: "`MODE` of enqueueing: batch, batch_partial or single"},
		&cli.IntFlag{Name: "total-tasks", Value: 16384, Validator: aCount, Usage: "`NUMBER` of tasks"},
		&cli.IntFlag{Name: "batch-size", Value: 128, Validator: aCount, Usage: "`NUMBER` of tasks enqueued together"},
		&cli.IntFlag{Name: "remaining-tasks", Value: 512, Validator: aCount, Usage: "`NUMBER` of unfinished tasks below which batch_partial adds more"},
		&cli.IntFlag{Name: "concurrency", Value: 32, Validator: aCount, Usage: "`NUMBER` of tasks that single keeps under way"},
		&cli.IntFlag{Name: "n-runners", Value: 32, Validator: aCount, Usage: "`NUMBER` of runners"},
		&cli.IntFlag{Name: "max-rounds", Value: 10, Validator: aCount, Usage: "most `ROUNDS` of an agent"},
		&secondsFlag{Name: "sleep-seconds", Value: time.Second, Usage: "most `SECONDS` that an agent sleeps at a time"},
		&cli.StringFlag{
			Name: "client", Value: string(scenario.PythonLike), Validator: oneOf(names(scenario.Clients)...),
			Usage: "`PATTERN` of requests: python-like polls every 5 s and sends spans one by one, native waits at the store and sends them together",
		},
		&cli.BoolFlag{Name: "json-spans", Usage: "send each span as JSON, with a number asked for before, instead of OTLP"},
		&cli.FloatFlag{Name: "scale", Value: 1, Validator: aScale, Usage: "`FACTOR` by which tasks, batches, runners and concurrency are multiplied"},
		&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`NUMBER` that makes two runs do the same"},
	}
}

// aCount is 1 or more, and not by a slip of the fingers.
var aCount = within(1, math.MaxInt32)

// aScale is above 0, and not so large that the machine would drown.
func aScale(f float64) error {
	if !(f > 0 && f <= 1000) {
		return fmt.Errorf("it must be above 0 and at most 1000")
	}
	return nil
}

func plotFlag() cli.Flag {
	return &cli.StringFlag{Name: "plot", Usage: "`FILE` of HTML to draw throughput and latencies over time into"}
}

func presetNames() (names []string) {
	for _, p := range scenario.Presets {
		names = append(names, p.Name)
	}
	return names
}

// scenarioOptions is the preset that the command names, changed by the options
// that are given.
func scenarioOptions(cmd *cli.Command, preset string) (scenario.Options, error) {
	var o scenario.Options
	for _, p := range scenario.Presets {
		if p.Name == preset {
			o = p.Options
		}
	}
	given := func(name string) bool { return preset == "" || cmd.IsSet(name) }
	for name, field := range map[string]*int{
		"total-tasks": &o.TotalTasks, "batch-size": &o.BatchSize, "remaining-tasks": &o.RemainingTasks,
		"concurrency": &o.Concurrency, "n-runners": &o.Runners, "max-rounds": &o.MaxRounds,
	} {
		if given(name) {
			*field = cmd.Int(name)
		}
	}
	if given("mode") {
		o.Mode = scenario.Mode(cmd.String("mode"))
	}
	if given("sleep-seconds") {
		o.Sleep = cmd.Duration("sleep-seconds")
	}
	if o.Sleep <= 0 {
		return o, usagef(cmd, "--sleep-seconds must be above 0")
	}
	o.Client, o.JSONSpans = scenario.Client(cmd.String("client")), cmd.Bool("json-spans")
	if o.JSONSpans && o.Client == scenario.Native {
		return o, usagef(cmd, "--json-spans is for --client python-like")
	}
	o.Scale, o.Seed = cmd.Float("scale"), cmd.Uint64("seed")
	return o, nil
}

func (a *app) benchScenario(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	o, err := scenarioOptions(cmd, cmd.String("preset"))
	if err != nil {
		return err
	}
	if o.StoreURL, err = storeURL(cmd); err != nil {
		return err
	}
	if o.Limit, err = timeLimit(cmd); err != nil {
		return err
	}
	if err := unused(ctx, o.StoreURL); err != nil {
		return err
	}
	o.PIDs, o.Debug, o.DebugSpans, o.Log = cmd.IntSlice("pid"), cmd.Bool("debug"), cmd.Bool("debug-otel"), a.progress
	summary, err := scenario.Run(ctx, o)
	if err != nil {
		return err
	}
	summary.Name = cmd.String("preset")
	if err := draw(cmd, "Scenario "+summary.Name, summary, []benchmarks.Drawn{{Name: o.StoreURL, Timeline: summary.Timeline}}); err != nil {
		return err
	}
	return a.showOutcome(cmd, summary)
}

// timeLimit is how long a scenario may take: what the reference's gives itself.
func timeLimit(cmd *cli.Command) (time.Duration, error) {
	const name = "GITHUB_ACTIONS_TIMEOUT_MINUTES"
	if cmd.IsSet("time-limit") {
		return cmd.Duration("time-limit"), nil
	}
	minutes := 30.0
	if text := os.Getenv(name); text != "" {
		var err error
		if minutes, err = strconv.ParseFloat(text, 64); err != nil || !(minutes > 10) || minutes > 1e6 {
			return 0, usagef(cmd, "%s is %q; it must be a number of minutes above 10", name, text)
		}
	}
	return time.Duration((minutes - 10) * float64(time.Minute)), nil
}

// draw writes the page that --plot asks for.
func draw(cmd *cli.Command, title string, found outcome, runs []benchmarks.Drawn) error {
	file := cmd.String("plot")
	if file == "" {
		return nil
	}
	var text, page bytes.Buffer
	if err := found.WriteText(&text); err != nil {
		return err
	}
	if err := benchmarks.Draw(&page, title, text.String(), runs); err != nil {
		return err
	}
	if err := os.WriteFile(file, page.Bytes(), 0o666); err != nil {
		return fmt.Errorf("cannot draw: %w", err)
	}
	return nil
}
