package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/queue/client"
)

// byHand are the options of a judgment of one's own.
func byHand() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "note", Usage: "`TEXT` that says why"},
		&cli.FloatFlag{Name: "score", DefaultText: "none", Usage: "`NUMBER` to go with the judgment; it is no reward"},
		&cli.StringFlag{Name: "attempt-id", DefaultText: "the latest", Usage: "`ID` of the attempt to judge"},
	}
}

// measureFlags are the options of a measure.
func measureFlags() []cli.Flag {
	return flags([]cli.Flag{
		&cli.StringFlag{Name: "measure", Usage: "`NAME` of a measure to take of all attempts that the options below select"},
		&cli.StringFlag{Name: "exec", Usage: "shell `COMMAND` that measures: it reads an attempt and prints its verdict"},
		&cli.BoolFlag{Name: "again", Usage: "measure also what has a verdict of that name"},
		&secondsFlag{Name: "timeout", Value: time.Minute, Usage: "`SECONDS` that the command may take for an attempt; 0 is no limit"},
		&cli.IntFlag{Name: "concurrency", Value: 4, Validator: within(1, 10_000), Usage: "`NUMBER` of attempts measured at a time"},
	}, selectionFlags())
}

func (a *app) judgeCommand() *cli.Command {
	return &cli.Command{
		Name: "judge", Usage: "judge an attempt, or have many measured", ArgsUsage: "[ROLLOUT_ID JUDGMENT]",
		Description: "JUDGMENT is acceptable, unacceptable or another word. It becomes an annotation of the rollout's latest attempt, which\n" +
			"must have ended; the last of several counts. aglq export --judgment selects by it.\n\n" +
			"With --measure a command judges: it is started for each attempt that the options select, reads it from standard\n" +
			"input as JSON, and prints {\"passed\": true or false, \"reason\": …, \"score\": …}. What has a verdict is not measured again.\n" +
			"The exit status is 1 when an attempt could not be measured. aglq export --measure selects by the verdicts.",
		Flags: flags([]cli.Flag{storeURLFlag()}, byHand(), measureFlags()),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if cmd.IsSet("measure") || cmd.IsSet("exec") {
				return a.measure(ctx, cmd)
			}
			for _, f := range measureFlags() {
				if name := f.Names()[0]; cmd.IsSet(name) {
					return usagef(cmd, "--%s needs --measure", name)
				}
			}
			return a.judge(ctx, cmd)
		}),
	}
}

func (a *app) judge(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() != 2 {
		return usagef(cmd, "name a rollout and a judgment, or a --measure")
	}
	id := cmd.Args().First()
	j := dataset.Judgment{Text: cmd.Args().Get(1), Note: cmd.String("note")}
	if cmd.IsSet("score") {
		score := cmd.Float("score")
		j.Score = &score
	}
	return a.withStore(cmd, func(s *client.Client) error { return dataset.Judge(ctx, s, id, cmd.String("attempt-id"), j) })
}

func (a *app) measure(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	if cmd.String("measure") == "" || cmd.String("exec") == "" {
		return usagef(cmd, "a measure needs its name, --measure, and its command, --exec")
	}
	for _, f := range byHand() {
		if name := f.Names()[0]; cmd.IsSet(name) {
			return usagef(cmd, "--%s is for one's own judgments, not for measures", name)
		}
	}
	filter, err := selection(cmd)
	if err != nil {
		return err
	}
	for _, s := range filter.Statuses {
		if !s.Finished() {
			return usagef(cmd, "rollouts that are %s cannot be measured: they have not finished", s)
		}
	}
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		m := dataset.Measures{
			Source: dataset.StoreSource{Store: s}, Store: s, Filter: filter,
			Name: cmd.String("measure"), Again: cmd.Bool("again"), Concurrency: cmd.Int("concurrency"),
			Ask:     dataset.ExecMeasure(cmd.String("exec"), cmd.Duration("timeout")),
			Observe: func(c *dataset.Candidate, v dataset.Verdict, err error) { writeVerdict(a.stdout, c, v, err) },
		}
		counts, err := m.Run(ctx)
		fmt.Fprintf(a.stderr, "%d passed, %d failed, %d could not be measured, %d had a verdict\n",
			counts.Passed, counts.Failed, counts.Errors, counts.Known)
		if err == nil && counts.Errors > 0 {
			err = errFailed
		}
		return err
	})
}

// writeVerdict prints a line.
func writeVerdict(w io.Writer, c *dataset.Candidate, v dataset.Verdict, err error) {
	outcome := "failed"
	switch {
	case err != nil:
		outcome, v.Reason = "error", err.Error()
	case v.Passed:
		outcome = "passed"
	}
	fmt.Fprintf(w, "%s %s %s", c.Rollout.RolloutID, c.AttemptID, outcome)
	if v.Score != nil {
		fmt.Fprintf(w, " score=%g", *v.Score)
	}
	if v.Reason != "" {
		fmt.Fprintf(w, " %q", v.Reason)
	}
	fmt.Fprintln(w)
}
