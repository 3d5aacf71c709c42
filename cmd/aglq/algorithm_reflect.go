package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/reflection"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) reflectCommand() *cli.Command {
	return &cli.Command{
		Name: "reflect", Usage: "judge finished rollouts, and learn heuristics from them", ArgsUsage: "[-- COMMAND [ARG …]]",
		Description: "The critic is the command after --, started for each rollout, or the language model of --critic-model.\n" +
			"Its verdicts are filed with the attempts, its suggestions are proposals for a set of heuristics that agents\n" +
			"get; see docs/algorithms.md.",
		Flags: flags([]cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "run", Value: reflection.DefaultRun, Usage: "`NAME` of the reflection; that of an earlier one goes on with it", Validator: notEmpty},
			&secondsFlag{Name: "critic-timeout", Value: time.Minute, Usage: "`SECONDS` that the command may take for a rollout; 0 is no limit"},
			&cli.StringFlag{Name: "critic-model", DefaultText: "none", Usage: "`MODEL` that judges, where no command does"},
			whereFlag("judge only the rollouts"),
			momentFlag("since", "all", "judge only rollouts that started at `TIME` or later"),
			&cli.BoolFlag{Name: "once", Usage: "end when no rollout is unfinished"},
			&cli.StringFlag{Name: "heuristics-id", DefaultText: "--run", Usage: "`ID` of the resources that the heuristics go to"},
			&cli.IntFlag{
				Name: "lessons", DefaultText: "none", Validator: within(0, math.MaxInt),
				Usage: "`NUMBER` of the latest verdicts of other runs to begin with, at the first start of the run",
			},
			&cli.BoolFlag{Name: "auto-apply", Usage: "apply proposals at once, without waiting for aglq resources promote"},
			countFlag("max-heuristics", reflection.DefaultMaxHeuristics, "heuristics to keep; the oldest go"),
			&cli.StringFlag{Name: "val", Usage: "with --auto-apply: `FILE` with a validation task a line; what does not earn strictly more on them is not applied"},
			&secondsFlag{Name: "val-timeout", Value: reflection.DefaultGuardTimeout, Usage: "`SECONDS` after which the rest of the validation tasks is cancelled"},
			&cli.FloatFlag{Name: "threshold", Value: reflection.DefaultThreshold, Usage: "`SCORE` below which a rollout is a hard case"},
			&cli.BoolFlag{Name: "requeue-hard", Usage: "run the tasks of hard cases again"},
			countFlag("max-generations", reflection.DefaultMaxGenerations, "times that a task is run again at most"),
			&cli.BoolFlag{Name: "json", Usage: "print verdicts as JSON"},
		}, modelFlags(), rolloutLimitFlags(), []cli.Flag{metricsAddrFlag()}, logFlags()),
		Action: a.action(a.reflect),
	}
}

func (a *app) reflect(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return usagef(cmd, "%q is not expected here: the critic's command comes after --", cmd.Args().First())
	}
	config := reflection.Config{
		Run: cmd.String("run"), Since: since(cmd), Once: cmd.Bool("once"), Target: cmd.String("heuristics-id"),
		Lessons: cmd.Int("lessons"), AutoApply: cmd.Bool("auto-apply"), MaxHeuristics: cmd.Int("max-heuristics"), GuardTimeout: cmd.Duration("val-timeout"),
		Threshold: cmd.Float("threshold"), RequeueHard: cmd.Bool("requeue-hard"), MaxGenerations: cmd.Int("max-generations"),
		Rollout: rolloutConfig(cmd), Logger: a.logger(cmd).of("algorithm"),
	}
	if config.Threshold == 0 {
		config.Threshold = -1 // 0 would be the default
	}
	var err error
	switch model := cmd.String("critic-model"); {
	case len(a.agent) > 0 && a.agent[0] != "" && model == "":
		if config.Critic, err = reflection.ProgramCritic(a.agent, cmd.Duration("critic-timeout")); err != nil {
			return usagef(cmd, "%s", err)
		}
	case len(a.agent) == 0 && model != "":
		config.Critic = reflection.ModelCritic(modelServer(cmd), model, config.Logger)
	default:
		return usagef(cmd, "who is to judge? Give either a command after --, or --critic-model")
	}
	if cmd.String("val") != "" && !config.AutoApply {
		return usagef(cmd, "--val guards what --auto-apply does: give it too")
	}
	if config.Where, err = compileWhere(cmd.String("where")); err != nil {
		return err
	}
	if config.Val, err = a.loadTasks(ctx, cmd.String("val")); err != nil {
		return err
	}
	halt, err := a.serveMetrics(cmd, config.Logger)
	if err != nil {
		return err
	}
	defer halt()
	var broken error // of the first verdict that could not be printed
	config.OnVerdict = func(v reflection.Verdict) { broken = cmp.Or(broken, a.printVerdict(v, cmd.Bool("json"))) }
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		sum, err := reflection.Run(ctx, algorithm.New(s, algorithm.Options{Observer: a.algorithmObserver(cmd)}), config)
		fmt.Fprintf(a.stderr, "%d rollouts judged, %d known, %d passed over; %d hard, %d requeued; %d proposals, %d applied\n",
			sum.Judged, sum.Known, sum.Failed, sum.Hard, sum.Requeued, sum.Proposals, sum.Applied)
		if err = cmp.Or(err, broken); err == nil && sum.Failed > 0 {
			err = errFailed
		}
		return err
	})
}

func (a *app) printVerdict(v reflection.Verdict, asJSON bool) error {
	if asJSON {
		return writeLine(a.stdout, v)
	}
	line := fmt.Sprintf("%s score=%.4g suggestions=%d", v.RolloutID, v.Score, v.Suggestions)
	if v.Hard {
		line += " hard"
	}
	if v.Proposal != "" {
		line += " proposal=" + v.Proposal
	}
	if v.Applied {
		line += " applied"
	}
	if v.Requeued != "" {
		line += " requeued=" + v.Requeued
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}

func (a *app) promoteCommand() *cli.Command {
	return &cli.Command{
		Name: "promote", Usage: "make resources count: apply a proposal, or bring an earlier version back", ArgsUsage: "RESOURCES_ID",
		Description: "A proposal of aglq algorithm reflect is added to the heuristics it is for; a version of these takes their\n" +
			"place; any other resources replace those of --to.",
		Flags: local([]cli.Flag{
			&cli.StringFlag{Name: "to", DefaultText: "what they are for", Usage: "`ID` of the resources to change"},
			&cli.IntFlag{
				Name: "max-heuristics", Value: reflection.DefaultMaxHeuristics, Validator: within(1, math.MaxInt),
				Usage: "`NUMBER` of heuristics to keep; the oldest go",
			},
		}),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			id, err := oneArg(cmd, "RESOURCES_ID")
			if err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				target, record, err := reflection.Promote(ctx, s, id, cmd.String("to"), cmd.Int("max-heuristics"))
				if err != nil {
					return err
				}
				if record == nil {
					_, err = fmt.Fprintln(a.stdout, target)
				} else {
					_, err = fmt.Fprintf(a.stdout, "%s version %d, %d heuristics, kept as %s\n",
						target, record.Version, len(record.Heuristics), reflection.VersionID(target, record.Version))
				}
				return err
			})
		}),
	}
}
