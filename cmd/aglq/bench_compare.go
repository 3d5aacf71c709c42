package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/benchmarks/compare"
)

func (a *app) benchCompareCommand() *cli.Command {
	return &cli.Command{
		Name: "compare", Usage: "start two stores in turn, A B A B, and set them in relation",
		Description: "A CMD is a line for the shell that serves a store; {port}, {mongo} and {database} in it stand for a free port, the URI of\n" +
			"a mongod that is started for it, and a new name. The workload is whole lives of rollouts, beside a handler that only repeats\n" +
			"recorded answers (the ceiling), or with --preset a scenario. It fails when a rollout or a span is lost or comes twice.\n" +
			"The ceiling is in the table and not in the --plot: beside it every store would be a flat line.",
		Flags: flags(
			[]cli.Flag{
				&cli.StringFlag{Name: "reference", Usage: "`CMD` of the store that the other is set in relation to; none leaves it out"},
				&cli.StringFlag{Name: "candidate", DefaultText: "this program's, on memory", Usage: "`CMD` of the store to measure"},
				mongodFlag(),
				&cli.IntFlag{Name: "rounds", Value: 3, Validator: within(1, 1000), Usage: "`NUMBER` of turns of each"},
				&cli.StringSliceFlag{Name: "send", Value: []string{"json", "otlp"}, Validator: eachOneOf("json", "otlp"), Usage: "`WAY` that spans travel in whole lives: json, one by one, or otlp, together"},
				&cli.IntFlag{Name: "reference-rollouts", Value: 500, Validator: aCount, Usage: "`NUMBER` of lives that the reference gets, and all before memory is compared"},
				&cli.StringFlag{Name: "preset", DefaultText: "whole lives", Validator: oneOf(presetNames()...), Usage: "`NAME` of the scenario to compare with"},
			},
			lifeFlags(), scenarioFlags(), []cli.Flag{plotFlag(), figuresFlag()}),
		Action: a.action(a.benchCompare),
	}
}

func (a *app) benchCompare(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := compare.Options{
		Reference: cmd.String("reference"), Candidate: cmd.String("candidate"), Rounds: cmd.Int("rounds"), Mongod: cmd.String("mongod"),
		Ceiling: []string{self, "bench", "ceiling", "--port", "{port}", "--record", "{record}"},
		Spans:   cmd.StringSlice("send"), ReferenceRollouts: cmd.Int("reference-rollouts"), Load: lifeOptions(cmd), Progress: a.progress,
	}
	if o.Candidate == "" {
		o.Candidate = fmt.Sprintf("exec '%s' store --host 127.0.0.1 --port {port} --log-level WARNING", self)
	}
	if preset := cmd.String("preset"); preset != "" {
		s, err := scenarioOptions(cmd, preset)
		if err != nil {
			return err
		}
		o.Scenario = &s
	}
	found, err := compare.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := draw(cmd, "Comparison", found, found.Drawn()); err != nil {
		return err
	}
	return a.showOutcome(cmd, found)
}

// lifeFlags describe whole lives.
func lifeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "rollouts", Value: 2000, Validator: aCount, Usage: "`NUMBER` of whole lives"},
		&cli.IntFlag{Name: "workers", Value: 8, Validator: within(1, 10_000), Usage: "`NUMBER` of connections that live them at once"},
		&cli.IntFlag{Name: "batch", Value: 50, Validator: aCount, Usage: "`NUMBER` of rollouts in one enqueue"},
		&cli.IntFlag{Name: "spans", Value: 8, Validator: within(1, 10_000), Usage: "`NUMBER` of spans of a life"},
		&cli.IntFlag{Name: "attributes", Value: 8, Validator: within(1, 1000), Usage: "`NUMBER` of attributes of a span"},
	}
}

func lifeOptions(cmd *cli.Command) benchmarks.LifecycleOptions {
	return benchmarks.LifecycleOptions{
		Rollouts: cmd.Int("rollouts"), Workers: cmd.Int("workers"), Batch: cmd.Int("batch"),
		Spans: cmd.Int("spans"), Attributes: cmd.Int("attributes"),
	}
}
