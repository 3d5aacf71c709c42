// Command digits is aglq's demonstration: a cross-entropy search that tunes a
// classifier of handwritten digits through the queue.
//
//	digits                                   store, workers and search together
//	digits --store-url http://host:4747      the search alone, on a running store
//
// In the first form the store is in memory, the workers are processes of their
// own, started by the aglq command line that is printed, and one of them is killed
// on the way: its rollout goes back to the queue and another worker takes it. The
// exit status is 0 when the best validation accuracy is above 98 %.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/cem"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

//go:embed space.json
var spaceText []byte

// accuracyWanted is what the search has to get past.
const accuracyWanted = 0.98

var errTooLow = errors.New("the best accuracy is too low")

type options struct {
	storeURL   string
	aglq       string
	python     string
	agent      string
	workers    int
	kill       bool
	rounds     int
	population int
	seed       uint64
	run        string
}

func main() {
	var o options
	flag.StringVar(&o.storeURL, "store-url", "", "`URL` of a running store; empty starts one and workers too")
	flag.StringVar(&o.aglq, "aglq", "bin/aglq", "`path` of the aglq command")
	flag.StringVar(&o.python, "python", "python3", "`path` of a Python that has requirements.txt")
	flag.StringVar(&o.agent, "agent", "examples/digits/agent.py", "`path` of the agent")
	flag.IntVar(&o.workers, "workers", 2, "`number` of worker processes")
	flag.BoolVar(&o.kill, "kill", true, "kill a worker in the second round")
	flag.IntVar(&o.rounds, "rounds", 6, "`number` of rounds")
	flag.IntVar(&o.population, "population", 12, "`number` of trials a round")
	flag.Uint64Var(&o.seed, "seed", 1, "`seed` of the search")
	flag.StringVar(&o.run, "run", "", "`name` of the search; that of an earlier one resumes it")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "digits:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	started := time.Now()
	space, err := cem.ParseSpace(spaceText)
	if err != nil {
		return fmt.Errorf("space.json: %w", err)
	}
	table := &table{out: out}
	if o.storeURL == "" {
		cluster, err := startCluster(ctx, out, o)
		if err != nil {
			return err
		}
		defer cluster.stop()
		o.storeURL = cluster.url
		if o.kill {
			table.between = cluster.killOne
		}
	}
	store := client.New(o.storeURL, client.Options{})
	defer store.Close()

	state, err := cem.Run(ctx, algorithm.New(store, algorithm.Options{}), cem.Config{
		Space: space, Run: o.run, Rounds: o.rounds, Population: o.population, Seed: o.seed,
		Rollout:  algorithm.Resilient(time.Minute, 30*time.Second),
		OnResult: table.result, OnRound: table.round,
	})
	if err != nil {
		return err
	}
	best := state.Best
	fmt.Fprintf(out, "\nbest accuracy %.2f %% (round %d, rollout %s) after %.0f s, with\n  %s\n",
		100*best.Reward, best.Round, best.RolloutID, time.Since(started).Seconds(), best.Params)
	if best.Reward <= accuracyWanted {
		return fmt.Errorf("%w: %.4f; more than %.2f was expected", errTooLow, best.Reward, accuracyWanted)
	}
	return nil
}

// table prints a line a round.
type table struct {
	out     io.Writer
	between func() // called once, after the first result of the second round
	begun   bool
	retried []algorithm.Result
}

func (t *table) result(round int, r algorithm.Result) {
	if !t.begun {
		t.begun = true
		fmt.Fprintf(t.out, "\n%5s  %6s  %6s  %6s  %7s  %7s\n", "round", "best", "mean", "failed", "retried", "seconds")
	}
	if round == 2 && t.between != nil {
		t.between()
		t.between = nil
	}
	if r.Attempts() > 1 {
		t.retried = append(t.retried, r)
	}
}

func (t *table) round(r cem.Round) {
	fmt.Fprintf(t.out, "%5d  %6.4f  %6.4f  %6d  %7d  %7.1f\n", r.Round, r.Best, r.Mean, r.Failed, r.Retried, r.Seconds)
	for _, again := range t.retried {
		fmt.Fprintf(t.out, "       rollout %s was run again: attempt %d, by %s, %s\n",
			again.Rollout.RolloutID, again.Attempts(), workerOf(again.Attempt), again.Rollout.Status)
	}
	t.retried = nil
}

func workerOf(a *queue.Attempt) string {
	if a.WorkerID == nil {
		return "nobody"
	}
	return *a.WorkerID
}

// logger writes what deserves attention only: the table is the output.
func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}
