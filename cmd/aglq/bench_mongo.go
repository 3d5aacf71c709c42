package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/benchmarks/mongobench"
)

func (a *app) benchMongoCommand() *cli.Command {
	names := mongoBenchmarks()
	about := "The benchmarks, all of them where none is named:\n"
	for _, b := range mongobench.Benchmarks {
		about += fmt.Sprintf("\n- %s: %s", b.Name, b.About)
	}
	return &cli.Command{
		Name: "mongo", ArgsUsage: "[BENCHMARK...]", Usage: "measure what aglq makes of a MongoDB",
		Description: about,
		Flags: []cli.Flag{
			mongodFlag(),
			&cli.StringFlag{
				Name: "mongo-uri", DefaultText: "that of a mongod of its own",
				Usage: "`URI` of a replica set on which nothing else happens; its databases aglq_bench_… are dropped",
			},
			aglqFlag(),
			&cli.StringFlag{Name: "reference", Usage: "`COMMAND` of the reference, agl, to set beside in life; none leaves it out"},
			&cli.IntFlag{Name: "rounds", Value: 5, Validator: within(1, 1000), Usage: "`NUMBER` of times that each thing is measured; medians are reported"},
			&secondsFlag{Name: "seconds", Value: 2 * time.Second, Usage: "`SECONDS` that one measurement lasts"},
			&cli.IntSliceFlag{Name: "claimers", Value: []int{1, 8, 64, 128}, Validator: someCounts(10_000), Usage: "`NUMBERS` of waiting workers in claims"},
			&cli.IntSliceFlag{Name: "stores", Value: []int{1, 2, 4}, Validator: someCounts(100), Usage: "`NUMBERS` of processes in stores and life"},
			&cli.IntFlag{Name: "workers", Value: 32, Validator: within(1, 10_000), Usage: "`NUMBER` of workers that live whole lives"},
			&cli.IntFlag{Name: "rollouts", Value: 3000, Validator: aCount, Usage: "`NUMBER` of lives in one measurement"},
			&cli.IntFlag{Name: "reference-rollouts", Value: 300, Validator: aCount, Usage: "`NUMBER` of lives in one measurement of the reference"},
			&cli.IntFlag{Name: "samples", Value: 200, Validator: aCount, Usage: "`NUMBER` of wake-ups in one measurement"},
			&cli.IntFlag{Name: "idle-workers", Value: 1000, Validator: within(1, 100_000), Usage: "`NUMBER` of workers that wait in idle"},
			&secondsFlag{Name: "idle-seconds", Value: 15 * time.Second, Usage: "`SECONDS` that they are watched"},
			&cli.IntFlag{Name: "posts", Value: 50, Validator: within(1, 10_000), Usage: "`NUMBER` of posts at once in contention"},
			figuresFlag(),
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			for _, name := range cmd.Args().Slice() {
				if _, ok := names[name]; !ok {
					return usagef(cmd, "there is no benchmark %q; they are %s", name, strings.Join(mongoNames(), ", "))
				}
			}
			return a.benchMongo(ctx, cmd, names)
		}),
	}
}

// someCounts validates a list of counts.
func someCounts(most int) func([]int) error {
	return func(list []int) error {
		for _, n := range list {
			if n < 1 || n > most {
				return fmt.Errorf("each must be 1 to %d", most)
			}
		}
		return nil
	}
}

func mongoBenchmarks() map[string]mongobench.Benchmark {
	all := map[string]mongobench.Benchmark{}
	for _, b := range mongobench.Benchmarks {
		all[b.Name] = b
	}
	return all
}

func mongoNames() (names []string) {
	for _, b := range mongobench.Benchmarks {
		names = append(names, b.Name)
	}
	return names
}

func mongodFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "mongod", Value: "mongod", Sources: cli.EnvVars("AGLQ_MONGOD"), Usage: "`PROGRAM` to start where a MongoDB is needed",
	}
}

func aglqFlag() cli.Flag {
	return &cli.StringFlag{Name: "aglq", DefaultText: "this program", Usage: "`PROGRAM` whose stores are started"}
}

// ownProgram is the aglq that a benchmark starts stores of.
func ownProgram(cmd *cli.Command) (string, error) {
	if given := cmd.String("aglq"); given != "" {
		return given, nil
	}
	return os.Executable()
}

func (a *app) benchMongo(ctx context.Context, cmd *cli.Command, all map[string]mongobench.Benchmark) error {
	program, err := ownProgram(cmd)
	if err != nil {
		return err
	}
	o := mongobench.Options{
		URI: cmd.String("mongo-uri"), Aglq: program, Reference: cmd.String("reference"), Rounds: cmd.Int("rounds"),
		Duration: max(cmd.Duration("seconds"), time.Millisecond), Claimers: cmd.IntSlice("claimers"), Stores: cmd.IntSlice("stores"),
		Workers: cmd.Int("workers"), Rollouts: cmd.Int("rollouts"), ReferenceRollouts: cmd.Int("reference-rollouts"),
		Samples: cmd.Int("samples"), IdleWorkers: cmd.Int("idle-workers"), IdleFor: cmd.Duration("idle-seconds"), Posts: cmd.Int("posts"), Progress: a.progress,
	}
	if o.URI == "" {
		m, err := benchmarks.StartMongod(ctx, cmp.Or(cmd.String("mongod"), "mongod"))
		if err != nil {
			return fmt.Errorf("%w; name another with --mongod, or one that runs with --mongo-uri", err)
		}
		defer m.Stop()
		o.URI, o.PIDs = m.URI, []int{m.PID}
	}
	names := cmd.Args().Slice()
	if len(names) == 0 {
		names = mongoNames()
	}
	found := tables{}
	for _, name := range names {
		table, err := mongobench.Run(ctx, all[name], o)
		if err != nil { // what was found before is not lost
			return errors.Join(err, a.showOutcome(cmd, found))
		}
		found = append(found, named{name, table})
	}
	return a.showOutcome(cmd, found)
}

// tables are the outcomes of several benchmarks.
type tables []named

type named struct {
	name  string
	table mongobench.Table
}

// WriteText implements outcome.
func (t tables) WriteText(w io.Writer) error {
	for _, n := range t {
		fmt.Fprintf(w, "\n%s: ", n.name)
		if err := n.table.WriteText(w); err != nil {
			return err
		}
	}
	return nil
}

// MarshalJSON makes an object of the outcomes, by name.
func (t tables) MarshalJSON() ([]byte, error) {
	all := map[string]mongobench.Table{}
	for _, n := range t {
		all[n.name] = n.table
	}
	return json.Marshal(all)
}
