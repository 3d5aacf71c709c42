package main

import (
	"bufio"
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) enqueueCommand() *cli.Command {
	return &cli.Command{
		Name: "enqueue", Usage: "put tasks into the queue, print the ids of their rollouts", ArgsUsage: "TASKS_FILE|-",
		Description: "The file has a JSON value a line: the input of a task, or an object with the member input\n" +
			"and, if wanted, mode, resources_id, config and metadata, which go before the options here.\n" +
			"A file is checked as a whole before anything is stored; standard input (-) is stored as it comes.",
		Flags: flags([]cli.Flag{storeURLFlag()}, configFlags()),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			name, err := oneArg(cmd, "TASKS_FILE")
			if err != nil {
				return err
			}
			file, base := a.taskFile(name), baseRequest(cmd)
			if file.again {
				if _, err := file.check(ctx, base); err != nil {
					return err
				}
			}
			return a.withStore(cmd, func(s *client.Client) error {
				out := bufio.NewWriter(a.stdout)
				n, err := enqueue(ctx, s, file, base, func(rollouts []queue.Rollout) error {
					for i := range rollouts {
						fmt.Fprintln(out, rollouts[i].RolloutID)
					}
					return out.Flush()
				})
				if err != nil && n > 0 {
					return fmt.Errorf("%w (%d tasks are enqueued)", err, n)
				}
				return err
			})
		}),
	}
}

// baseRequest is what the options say of all tasks.
func baseRequest(cmd *cli.Command) queue.Request {
	return queue.Request{
		Mode: queue.Mode(cmd.String("mode")), ResourcesID: textPointer(cmd, "resources-id"), Config: rolloutConfig(cmd),
	}
}
