// Command lifecycle measures a store over HTTP: whole lives of rollouts, the
// ceiling of its HTTP server, growth, and comparisons.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cli.Command{
		Name:     "lifecycle",
		Usage:    "measure a rollout store over HTTP",
		Commands: []*cli.Command{runCommand(), compareCommand(), growthCommand(), ceilingCommand()},
	}
	if err := root.Run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "lifecycle:", err)
		os.Exit(1)
	}
}

// loadFlags are what every run of the driver takes.
func loadFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "rollouts", Value: 2000, Usage: "how many rollouts to drive"},
		&cli.IntFlag{Name: "workers", Value: 8, Usage: "how many connections work at once"},
		&cli.IntFlag{Name: "batch", Value: 50, Usage: "rollouts in one enqueue"},
		&cli.IntFlag{Name: "spans", Value: 8, Usage: "spans of a rollout"},
		&cli.IntFlag{Name: "attributes", Value: 8, Usage: "attributes of a span"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON instead of a table"},
	}
}

func load(c *cli.Command) benchmarks.LifecycleOptions {
	return benchmarks.LifecycleOptions{
		Rollouts: c.Int("rollouts"), Workers: c.Int("workers"), Batch: c.Int("batch"),
		Spans: c.Int("spans"), Attributes: c.Int("attributes"),
	}
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "drive whole lives of rollouts against a running store",
		Flags: append(loadFlags(),
			&cli.StringFlag{Name: "url", Required: true, Usage: "the store, http://host:port"},
			&cli.BoolFlag{Name: "otlp", Usage: "send a rollout's spans in one OTLP request"},
			&cli.IntSliceFlag{Name: "pid", Usage: "a process of the server, to measure its CPU and memory; repeatable"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			opts := load(c)
			opts.URL, opts.OTLP, opts.PIDs = c.String("url"), c.Bool("otlp"), c.IntSlice("pid")
			report, err := benchmarks.Lifecycle(ctx, opts)
			if err != nil {
				return err
			}
			return print(c, report)
		},
	}
}
