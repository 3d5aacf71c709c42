package main

import (
	"context"
	"fmt"
	"math"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/program"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) execCommand() *cli.Command {
	return &cli.Command{
		Name: "exec", Usage: "run an algorithm in any language", ArgsUsage: "-- COMMAND [ARG …]",
		Description: "The command after -- reads finished rollouts from its standard input and writes tasks and resources\n" +
			"to its standard output, as JSON lines; see docs/algorithms.md. Its exit status decides.",
		Flags: flags([]cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "run", DefaultText: "a new one", Usage: "`NAME` of the run; that of an earlier one goes on with it"},
			&cli.StringFlag{
				Name: "mode", Validator: oneOf(names(queue.Modes)...), DefaultText: "none",
				Usage: "`MODE` of rollouts whose batch says none: train, val or test",
			},
			&cli.BoolFlag{Name: "spans", Usage: "tell the spans of each rollout's latest attempt"},
			&cli.BoolFlag{Name: "messages", Usage: "tell the conversations in them"},
			&cli.StringFlag{
				Name: "triplets", DefaultText: "none", Validator: oneOf(string(program.TracerTriplets), string(program.ProxyTriplets)),
				Usage: "tell triplets of prompt, response and reward, made of the spans of a `SOURCE`: tracer or proxy",
			},
			&cli.BoolFlag{Name: "groups", Usage: "tell the statistics of the repeats of a task when all have finished"},
			&cli.BoolFlag{Name: "all", Usage: "tell also the rollouts of others, as for learning online"},
			momentFlag("since", "all", "with --all: tell those of others that were enqueued or started at `TIME` or later"),
			whereFlag("tell only the rollouts"),
			&cli.IntFlag{
				Name: "max-unfinished", Value: program.DefaultMaxUnfinished, Validator: within(1, math.MaxInt),
				Usage: "`NUMBER` of rollouts that may be enqueued and not told; what would exceed it waits",
			},
			&secondsFlag{Name: "grace", Value: program.DefaultGrace, Usage: "`SECONDS` that the command gets to end after a signal before it is killed"},
		}, rolloutLimitFlags(), []cli.Flag{metricsAddrFlag()}, logFlags()),
		Action: a.action(a.exec),
	}
}

func (a *app) exec(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return usagef(cmd, "%q is not expected here: the algorithm's command comes after --", cmd.Args().First())
	}
	if len(a.agent) == 0 || a.agent[0] == "" {
		return usagef(cmd, "there is no algorithm to run: give its command after --, as in %s -- python3 algorithm.py", cmd.FullName())
	}
	if cmd.IsSet("since") && !cmd.Bool("all") {
		return usagef(cmd, "--since is about the rollouts of others: give --all too")
	}
	filter, err := compileWhere(cmd.String("where"))
	if err != nil {
		return err
	}
	log := a.logger(cmd).of("algorithm")
	halt, err := a.serveMetrics(cmd, log)
	if err != nil {
		return err
	}
	defer halt()
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		tally := newTally(0)
		stop := a.reportTally(ctx, log, tally, s)
		summary, err := program.Run(ctx, s, program.Config{
			Command: a.agent, Run: cmd.String("run"), StoreURL: s.URL(), Mode: queue.Mode(cmd.String("mode")), Rollout: rolloutConfig(cmd),
			Spans: cmd.Bool("spans"), Messages: cmd.Bool("messages"), Triplets: program.Triplets(cmd.String("triplets")),
			Groups: cmd.Bool("groups"), All: cmd.Bool("all"), Since: since(cmd), Where: filter,
			MaxUnfinished: cmd.Int("max-unfinished"), Grace: cmd.Duration("grace"),
			Stderr: a.stderr, Logger: log, Observer: a.algorithmObserver(cmd),
			OnResult: func(r algorithm.Result) { tally.add(r) },
		})
		stop()
		if summary.Run != "" {
			fmt.Fprintf(a.stderr, "run %s: %d rollouts told, %d unfinished\n", summary.Run, summary.Told, summary.Unfinished)
		}
		return err
	})
}
