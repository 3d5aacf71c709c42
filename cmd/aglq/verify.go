package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks/verify"
	"github.com/aglq/aglq/collections/mongo/mongod"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "break a deployment on purpose and check that it keeps its promises",
		Description: "Starts stores (and a MongoDB, unless one is given), or takes stores that run (--store), drives mixed\n" +
			"traffic, injects faults, and checks every answer against what a queue that loses nothing could have said.\n" +
			"Stores that run are to be empty and without workers: give them a partition of their own.\n" +
			"Exit status: 0 no violation, 1 violations or no verdict, 2 wrong usage.",
		Flags: local([]cli.Flag{
			&secondsFlag{Name: "duration", Value: 30 * time.Second, Usage: "`SECONDS` of traffic", Validator: notZero},
			&secondsFlag{Name: "settle", Value: 30 * time.Second, Usage: "`SECONDS` that everything gets to end after the traffic", Validator: notZero},
			&cli.IntFlag{Name: "clients", Value: 24, Usage: "`NUMBER` of clients", Validator: within(8, 10_000)},
			&cli.StringFlag{
				Name: "backend", Value: "memory", Validator: oneOf("memory", "mongo"),
				Usage: "`PLACE` of the data of the stores to start: memory or mongo",
			},
			&cli.IntFlag{
				Name: "stores", DefaultText: "1 on memory, 2 on mongo", Usage: "`NUMBER` of stores to start", Validator: within(1, 64),
			},
			&cli.StringFlag{Name: "mongo-uri", Usage: "`URI` of a MongoDB to use, in a database of the run's own, instead of starting one"},
			&cli.IntFlag{Name: "members", Value: 1, Usage: "`NUMBER` of members of the replica set to start", Validator: within(1, 7)},
			&cli.StringFlag{
				Name: "mongod", Sources: cli.EnvVars("AGLQ_MONGOD"), DefaultText: "the one on PATH, else scripts/get-mongod's",
				Usage: "`FILE` of the mongod to start",
			},
			&cli.StringSliceFlag{Name: "store", Usage: "`URL` of a store that runs already; repeat it for more of one queue"},
			&cli.StringSliceFlag{
				Name: "faults", DefaultText: "all that can be injected",
				Usage: "`KIND` of fault to inject, none or some of " + strings.Join(faultNames(verify.FaultKinds), ", ") + "; repeat it or use commas",
			},
			&cli.Uint64Flag{Name: "seed", DefaultText: "made up", Usage: "`NUMBER` that the schedule of faults and the clients' choices follow from"},
			&cli.StringFlag{Name: "history", Usage: "keep the history in this `FILE`, JSON lines compressed with zstd"},
		}, logFlags()),
		Action: a.action(a.verify),
		Commands: []*cli.Command{
			{
				Name: "check", Usage: "check a history again", ArgsUsage: "FILE",
				Action: a.action(a.verifyCheck),
			},
			{
				Name: "worker", Usage: "claim and work for aglq verify, which starts this itself", Hidden: true,
				Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
					if err := noArgs(cmd); err != nil {
						return err
					}
					return verify.Work(ctx, a.stdin, a.stdout)
				}),
			},
		},
	}
}

func notZero(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("it must be more than 0")
	}
	return nil
}

func (a *app) verify(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	o, err := verifyOptions(cmd)
	if err != nil {
		return err
	}
	log := a.logger(cmd).of("verify")
	o.Logger = log
	path := cmd.String("history")
	if path != "" { // not to find out at the end
		f, err := os.Create(path)
		if err != nil {
			return fmt.Errorf("cannot write the history: %w", err)
		}
		f.Close()
	}
	seen := &verify.Progress{}
	reporting, stop := context.WithCancel(ctx)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		a.report(reporting, log, func() status { return verifying{seen, o.Duration} })
	}()
	h, err := verify.Run(ctx, o, seen)
	stop()
	<-reported
	if err != nil {
		return err
	}
	if path != "" {
		if err := h.Write(path); err != nil {
			return err
		}
	}
	return a.verdict(ctx, h)
}

// verifyOptions refuses what cannot be before anything is started.
func verifyOptions(cmd *cli.Command) (verify.Options, error) {
	o := verify.Options{
		URLs: cmd.StringSlice("store"), Backend: cmd.String("backend"), Stores: cmd.Int("stores"), MongoURI: cmd.String("mongo-uri"),
		Members: cmd.Int("members"), Mongod: cmd.String("mongod"), Duration: cmd.Duration("duration"), Settle: cmd.Duration("settle"),
		Clients: cmd.Int("clients"), Seed: cmd.Uint64("seed"),
	}
	for _, url := range o.URLs {
		if err := validStoreURL(url); err != nil || url == "" {
			return o, usagef(cmd, "invalid value %q for option --store: it must be the URL of a store, as %s", url, localStoreURL)
		}
	}
	if len(o.URLs) > 0 {
		for _, name := range []string{"backend", "stores", "mongo-uri", "members"} {
			if cmd.IsSet(name) {
				return o, usagef(cmd, "--%s is for stores that verify starts, and --store names stores that run already; leave one out", name)
			}
		}
	}
	mongo := o.Backend == "mongo"
	switch {
	case !mongo && (o.MongoURI != "" || cmd.IsSet("members")):
		return o, usagef(cmd, "--mongo-uri and --members need --backend mongo")
	case o.MongoURI != "" && cmd.IsSet("members"):
		return o, usagef(cmd, "--members is for a MongoDB that verify starts, and --mongo-uri names one that runs already; leave one out")
	case !mongo && o.Stores > 1:
		return o, usagef(cmd, "--stores %d needs --backend mongo: on memory each store has a queue of its own", o.Stores)
	case o.Stores == 0:
		o.Stores = 1
		if mongo {
			o.Stores = 2
		}
	}
	if mongo && o.MongoURI == "" && o.Mongod == "" && mongod.Find() == "" {
		return o, fmt.Errorf("there is no mongod to start; %s, or give --mongod or --mongo-uri", mongod.HowTo)
	}
	if !cmd.IsSet("seed") {
		o.Seed = uint64(rand.Uint32())
	}
	program, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("finding the program that is to be started: %w", err)
	}
	o.Command = []string{program}
	o.Faults, err = verifyFaults(cmd, o)
	return o, err
}

// verifyFaults are the kinds asked for, all possible ones without a word.
func verifyFaults(cmd *cli.Command, o verify.Options) ([]verify.FaultKind, error) {
	possible := o.Possible()
	if !cmd.IsSet("faults") {
		return possible, nil
	}
	var kinds []verify.FaultKind
	for _, name := range cmd.StringSlice("faults") {
		kind := verify.FaultKind(strings.TrimSpace(name))
		switch {
		case kind == "none" || kind == "":
		case !slices.Contains(verify.FaultKinds, kind):
			return nil, usagef(cmd, "there is no fault %q; the faults are %s", kind, strings.Join(faultNames(verify.FaultKinds), ", "))
		case !slices.Contains(possible, kind):
			return nil, usagef(cmd, "fault %s cannot be injected here; these can: %s", kind, strings.Join(faultNames(possible), ", "))
		default:
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

func faultNames(kinds []verify.FaultKind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return names
}

func (a *app) verifyCheck(ctx context.Context, cmd *cli.Command) error {
	path, err := oneArg(cmd, "FILE of a history")
	if err != nil {
		return err
	}
	h, err := verify.ReadHistory(path)
	if err != nil {
		return err
	}
	return a.verdict(ctx, h)
}

// verdict checks a history and prints the report.
func (a *app) verdict(ctx context.Context, h *verify.History) error {
	report, err := verify.Check(ctx, h)
	if err != nil {
		return err
	}
	if err := report.Write(a.stdout); err != nil {
		return err
	}
	if len(report.Violations) > 0 || len(report.Undecided) > 0 {
		return errFailed
	}
	return nil
}

// verifying is how far a verification is.
type verifying struct {
	seen  *verify.Progress
	total time.Duration
}

func (v verifying) line(width int) string {
	phase, _ := v.seen.Phase.Load().(verify.Phase)
	elapsed := min(time.Duration(v.seen.Elapsed.Load()), v.total)
	line := strings.Join([]string{
		string(phase), fmt.Sprintf("%s of %s", shortDuration(elapsed), shortDuration(v.total)),
		strconv.FormatInt(v.seen.Calls.Load(), 10) + " calls", strconv.FormatInt(v.seen.Enqueued.Load(), 10) + " rollouts",
		strconv.FormatInt(v.seen.Unended.Load(), 10) + " to end", strconv.FormatInt(v.seen.Faults.Load(), 10) + " faults",
	}, "  ")
	if phase == "" {
		line = "starting"
	}
	if long := bar(int(elapsed/time.Millisecond), int(min(v.total/time.Millisecond, math.MaxInt32)), 20) + "  " + line; width <= 0 || len(long) <= width {
		return long
	}
	if width > 0 && len(line) > width {
		line = line[:width]
	}
	return line
}

func (v verifying) attrs() []any {
	phase, _ := v.seen.Phase.Load().(verify.Phase)
	return []any{
		slog.String("phase", string(phase)), slog.String("elapsed", shortDuration(time.Duration(v.seen.Elapsed.Load()))),
		slog.Int64("calls", v.seen.Calls.Load()), slog.Int64("rollouts", v.seen.Enqueued.Load()),
		slog.Int64("to_end", v.seen.Unended.Load()), slog.Int64("faults", v.seen.Faults.Load()),
	}
}
