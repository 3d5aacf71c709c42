package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name:  "compare",
		Usage: "start aglq, a reference and the ceiling in turn, and compare them",
		Flags: append(loadFlags(),
			&cli.StringFlag{Name: "aglq", Usage: "the aglq binary; none builds ./cmd/aglq"},
			&cli.StringFlag{Name: "reference", Usage: "the reference's agl command; none leaves it out"},
			&cli.StringFlag{Name: "mongod", Sources: cli.EnvVars("AGLQ_MONGOD"), Usage: "the mongod to start for the mongo backend"},
			&cli.StringSliceFlag{Name: "backend", Value: []string{"memory"}, Usage: "memory or mongo; repeatable"},
			&cli.StringSliceFlag{Name: "send", Value: []string{"json", "otlp"}, Usage: "how spans travel: json, otlp; repeatable"},
			&cli.IntFlag{Name: "rounds", Value: 3, Usage: "how often each store takes its turn"},
			&cli.IntFlag{Name: "reference-rollouts", Value: 500, Usage: "rollouts that the reference gets, and all before memory is compared"},
		),
		Action: compare,
	}
}

func compare(ctx context.Context, c *cli.Command) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	aglq := c.String("aglq")
	if aglq == "" {
		dir, err := os.MkdirTemp("", "aglq-bench-build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		aglq = filepath.Join(dir, "aglq")
		build := exec.CommandContext(ctx, "go", "build", "-o", aglq, "./cmd/aglq")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("cannot build ./cmd/aglq, from the top of the repository: %w", err)
		}
	}
	opts := benchmarks.CompareOptions{
		Spans: c.StringSlice("send"), Rounds: c.Int("rounds"), Load: load(c),
		SlowRollouts: c.Int("reference-rollouts"), Mongod: c.String("mongod"),
		Progress: func(what string) { fmt.Fprintln(os.Stderr, what) },
	}
	for _, backend := range c.StringSlice("backend") {
		subjects, err := subjectsOn(backend, aglq, c.String("reference"), self)
		if err != nil {
			return err
		}
		opts.Subjects = append(opts.Subjects, subjects...)
	}
	result, err := benchmarks.Compare(ctx, opts)
	if err != nil {
		return err
	}
	return print(c, result)
}

func subjectsOn(backend, aglq, reference, self string) ([]benchmarks.Subject, error) {
	ours := []string{aglq, "store", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "WARNING"}
	theirs := []string{reference, "store", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "WARNING"}
	switch backend {
	case "memory":
	case "mongo":
		ours = slices.Concat(ours, []string{"--backend", "mongo", "--mongo-uri", "{mongo}", "--mongo-database", "{database}"})
		theirs = slices.Concat(theirs, []string{"--backend", "mongo", "--mongo-uri", "{mongo}"})
	default:
		return nil, fmt.Errorf("no such backend: %q, use memory or mongo", backend)
	}
	subjects := []benchmarks.Subject{{Name: "aglq", Backend: backend, Command: ours}}
	if reference != "" {
		subjects = append(subjects, benchmarks.Subject{Name: "reference", Backend: backend, Command: theirs, Slow: true, Base: true})
	}
	ceiling := []string{self, "ceiling", "--port", "{port}", "--record", "{record}"}
	return append(subjects, benchmarks.Subject{Name: "ceiling", Backend: backend, Command: ceiling, Ceiling: true}), nil
}

func ceilingCommand() *cli.Command {
	return &cli.Command{
		Name:  "ceiling",
		Usage: "serve recorded answers and do nothing else",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "port", Required: true, Usage: "the port to serve on"},
			&cli.StringFlag{Name: "record", Required: true, Usage: "the file of recorded answers"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			record, err := benchmarks.ReadRecord(c.String("record"))
			if err != nil {
				return err
			}
			server := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", c.Int("port")), Handler: benchmarks.Ceiling(record)}
			stop := context.AfterFunc(ctx, func() { server.Close() })
			defer stop()
			if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
}

func growthCommand() *cli.Command {
	return &cli.Command{
		Name:  "growth",
		Usage: "compare the latency of an empty store, which must be running, with that of a full one",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "url", Required: true, Usage: "the store, http://host:port; empty"},
			&cli.IntFlag{Name: "queued", Value: 100_000, Usage: "rollouts in the queue"},
			&cli.IntFlag{Name: "spans", Value: 1_000_000, Usage: "spans in the store"},
			&cli.IntFlag{Name: "samples", Value: 500, Usage: "calls of each kind to measure"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON instead of a table"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			report, err := benchmarks.Growth(ctx, benchmarks.GrowthOptions{
				URL: c.String("url"), Queued: c.Int("queued"), Spans: c.Int("spans"), Samples: c.Int("samples"),
				Progress: func(what string) { fmt.Fprintln(os.Stderr, what) },
			})
			if err != nil {
				return err
			}
			return print(c, report)
		},
	}
}
