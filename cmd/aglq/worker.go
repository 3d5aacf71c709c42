package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/worker"
)

func (a *app) workerCommand() *cli.Command {
	return &cli.Command{
		Name: "worker", Usage: "claim rollouts and run an agent for each", ArgsUsage: "-- COMMAND [ARG …]",
		Description: "The command after -- is started once a rollout: its task is JSON on standard input, its reward the\n" +
			"last line of standard output. With --bridge pool it stays, and is told of each task by a line. There is no\n" +
			"command with --http, which asks a server, and with --react, which runs an agent of a model and tools. The first\n" +
			"signal lets running agents end, the second stops them.",
		Flags:  flags([]cli.Flag{storeURLFlag()}, onceFlags(), agentFlags(), workerFlags(), workerExitFlags(), []cli.Flag{metricsAddrFlag()}, logFlags()),
		Action: a.action(a.worker),
	}
}

func workerExitFlags() []cli.Flag {
	return []cli.Flag{
		&secondsFlag{
			Name: "exit-when-idle", DefaultText: "never",
			Usage: "`SECONDS` without work after which a worker ends; 0 is never",
		},
		&secondsFlag{
			Name: "exit-when-store-gone", Value: worker.DefaultExitWhenStoreGone,
			Usage: "`SECONDS` without an answer of the store after which a worker ends; 0 is never",
		},
	}
}

func (a *app) worker(ctx context.Context, cmd *cli.Command) (err error) {
	if cmd.Args().Present() {
		return usagef(cmd, "%q is not expected here: the agent's command comes after --", cmd.Args().First())
	}
	if err := a.needAgent(cmd); err != nil {
		return err
	}
	if cmd.Bool("once") {
		return a.once(ctx, cmd)
	}
	for _, name := range onceOnly {
		if cmd.IsSet(name) {
			return usagef(cmd, "--%s is for --once: other tasks come from the queue", name)
		}
	}
	url, err := storeURL(cmd)
	if err != nil {
		return err
	}
	logs := a.logger(cmd)
	stop, err := a.serveMetrics(cmd, logs.of("worker"))
	if err != nil {
		return err
	}
	defer stop()
	x, err := a.newExtras(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	s := client.New(url, client.Options{})
	defer s.Close()
	return a.startWorkers(cmd, logs, s, url, nil, x).wait(ctx)
}

// workerIDs are the ids of n workers; "" leaves the choice to the worker.
func workerIDs(base string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = base
		if base != "" && n > 1 {
			ids[i] = fmt.Sprintf("%s-%d", base, i)
		}
	}
	return ids
}
