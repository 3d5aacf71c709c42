package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks/exportbench"
)

func (a *app) benchExportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "measure how fast, and in how much memory, datasets are made, beside only reading the spans",
		Description: "It fills the store, which must be empty, reads all spans with the Go client, and exports them in several formats,\n" +
			"each in a process of its own, whose peak of memory it reports.",
		Flags: []cli.Flag{
			storeURLFlag(),
			aglqFlag(),
			&cli.IntFlag{Name: "spans", Value: 1_000_000, Validator: aCount, Usage: "`NUMBER` of spans to store"},
			&cli.IntFlag{Name: "spans-per-rollout", Value: 20, Validator: within(5, 100_000), Usage: "`NUMBER` of spans that an attempt has"},
			figuresFlag(),
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			url, err := onlyStoreURL(cmd)
			if err != nil {
				return err
			}
			program, err := ownProgram(cmd)
			if err != nil {
				return err
			}
			report, err := exportbench.Run(ctx, exportbench.Options{
				URL: url, Aglq: program, Spans: cmd.Int("spans"), SpansPerRollout: cmd.Int("spans-per-rollout"), Progress: a.progress,
			})
			if report != nil && len(report.Measured) > 0 {
				err = errors.Join(err, a.showOutcome(cmd, report))
			}
			return err
		}),
	}
}
