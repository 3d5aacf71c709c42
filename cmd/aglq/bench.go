package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", ArgsUsage: "COMMAND", Usage: "measure a store",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if name := cmd.Args().First(); name != "" {
				return unknownCommand(cmd, name)
			}
			return usagef(cmd, "which benchmark? %s", strings.Join(commandNames(cmd), ", "))
		},
		Commands: []*cli.Command{
			a.benchScenarioCommand(), a.benchMicroCommand(), a.benchCollectionCommand(), a.benchCompareCommand(), a.benchMongoCommand(),
			a.benchLifeCommand(), a.benchGrowthCommand(), a.benchExportCommand(), a.benchCeilingCommand(), a.reportCommand(),
		},
	}
}

// outcome is what a benchmark found.
type outcome interface{ WriteText(io.Writer) error }

func figuresFlag() cli.Flag {
	return &cli.StringFlag{Name: "json", Usage: "`FILE` to write the figures to as JSON besides; - is standard output, instead of the text"}
}

// report prints what a benchmark found, as --json asks for it.
func (a *app) showOutcome(cmd *cli.Command, found outcome) error {
	file := cmd.String("json")
	if file != "-" {
		if err := found.WriteText(a.stdout); err != nil {
			return err
		}
	}
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the figures as JSON: %w", err)
	}
	text = append(text, '\n')
	if file == "-" {
		_, err = a.stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o666)
}

// needsUnused ends the description of a command that checks its store by unused.
const needsUnused = "\nThe store has to be unused: one with rollouts that have not ended, or with workers, is refused."

// unused refuses a store that somebody works with: a benchmark would claim their
// tasks, and they its own. Workers of earlier benchmarks do not count.
func unused(ctx context.Context, url string) error {
	s := client.New(url, client.Options{})
	defer s.Close()
	const instead = "measure a store of its own (aglq store --partition-id), to which no worker is attached"
	open, err := s.Rollouts(ctx, queue.RolloutQuery{Statuses: unfinishedStatuses, Paging: queue.Paging{Limit: 1}})
	if err != nil {
		return fmt.Errorf("asking the store what it holds: %w", err)
	}
	if len(open.Items) > 0 {
		return fmt.Errorf("the store %s holds rollouts that have not ended, such as %s, and the benchmark would claim what is queued: "+
			"%s, or cancel them if they are of no use (aglq cancel)", url, open.Items[0].RolloutID, instead)
	}
	workers, err := s.Workers(ctx, queue.WorkerQuery{Paging: queue.All})
	if err != nil {
		return fmt.Errorf("asking the store for its workers: %w", err)
	}
	now := queue.Seconds(time.Now())
	for _, w := range workers.Items {
		if w.Alive(now, 0) && !strings.HasPrefix(w.WorkerID, benchmarks.WorkerPrefix) {
			return fmt.Errorf("worker %s is attached to the store %s, or was %.0f s ago, and would claim what the benchmark enqueues: %s",
				w.WorkerID, url, max(0, now-w.LastSeen()), instead)
		}
	}
	return nil
}

// progress tells on standard error what is being measured.
func (a *app) progress(what string) { fmt.Fprintln(a.stderr, what) }
