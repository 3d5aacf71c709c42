package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
)

func (a *app) benchLifeCommand() *cli.Command {
	return &cli.Command{
		Name: "life", Usage: "drive whole lives of rollouts: enqueue, claim, spans, finish, wait, query",
		Description: "It fails when a rollout is claimed twice, or when one, or a span, is missing at the end." + needsUnused,
		Flags: flags(
			[]cli.Flag{
				storeURLFlag(),
				&cli.BoolFlag{Name: "otlp", Usage: "send the spans of a rollout in one OTLP request instead of one by one as JSON"},
				&cli.IntSliceFlag{Name: "pid", Usage: "`PROCESS` of the server, to report its CPU and memory; repeat it for more"},
			},
			lifeFlags(), []cli.Flag{plotFlag(), figuresFlag()}),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			url, err := unusedStoreURL(ctx, cmd)
			if err != nil {
				return err
			}
			o := lifeOptions(cmd)
			o.URL, o.OTLP, o.PIDs = url, cmd.Bool("otlp"), cmd.IntSlice("pid")
			report, err := benchmarks.Lifecycle(ctx, o)
			if err != nil {
				return err
			}
			if err := draw(cmd, "Whole lives", report, []benchmarks.Drawn{{Name: url, Timeline: report.Timeline}}); err != nil {
				return err
			}
			return a.showOutcome(cmd, report)
		}),
	}
}

// onlyStoreURL is the store of a command that takes options only.
func onlyStoreURL(cmd *cli.Command) (string, error) {
	if err := noArgs(cmd); err != nil {
		return "", err
	}
	return storeURL(cmd)
}

// unusedStoreURL is onlyStoreURL of a store that nobody uses.
func unusedStoreURL(ctx context.Context, cmd *cli.Command) (string, error) {
	url, err := onlyStoreURL(cmd)
	if err != nil {
		return "", err
	}
	return url, unused(ctx, url)
}

func (a *app) benchGrowthCommand() *cli.Command {
	return &cli.Command{
		Name: "growth", Usage: "compare the latencies of an empty store with those of the same store when it is full",
		Description: strings.TrimSpace(needsUnused),
		Flags: []cli.Flag{
			storeURLFlag(),
			&cli.IntFlag{Name: "queued", Value: 100_000, Validator: aCount, Usage: "`NUMBER` of rollouts to queue"},
			&cli.IntFlag{Name: "spans", Value: 1_000_000, Validator: aCount, Usage: "`NUMBER` of spans to store"},
			&cli.IntFlag{Name: "samples", Value: 500, Validator: aCount, Usage: "`NUMBER` of calls of each kind to measure"},
			figuresFlag(),
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			url, err := unusedStoreURL(ctx, cmd)
			if err != nil {
				return err
			}
			report, err := benchmarks.Growth(ctx, benchmarks.GrowthOptions{
				URL: url, Queued: cmd.Int("queued"), Spans: cmd.Int("spans"), Samples: cmd.Int("samples"), Progress: a.progress,
			})
			if err != nil {
				return err
			}
			return a.showOutcome(cmd, report)
		}),
	}
}

func (a *app) benchCeilingCommand() *cli.Command {
	return &cli.Command{
		Name: "ceiling", Usage: "serve recorded answers and do nothing else; compare starts it",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "port", Required: true, Validator: within(1, 65535), Usage: "`PORT` to serve on, of 127.0.0.1"},
			&cli.StringFlag{Name: "record", Required: true, Usage: "`FILE` of recorded answers"},
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			record, err := benchmarks.ReadRecord(cmd.String("record"))
			if err != nil {
				return err
			}
			server := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", cmd.Int("port")), Handler: benchmarks.Ceiling(record)}
			stop := context.AfterFunc(ctx, func() { server.Close() })
			defer stop()
			if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}),
	}
}
