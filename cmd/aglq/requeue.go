package main

import (
	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
)

func (a *app) requeueCommand() *cli.Command {
	force := &cli.BoolFlag{Name: "force", Usage: "requeue also rollouts that a worker holds; what it still reports of them is fenced off"}
	return a.changeCommand("requeue", "put rollouts that have ended into the queue again", queue.RolloutRequeuing, "requeued",
		func(cmd *cli.Command, r *queue.Rollout) string {
			switch {
			case r.Status.Queued():
				return "is in the queue already"
			case r.Status.Active() && !cmd.Bool("force"):
				return "is held by a worker: it is " + string(r.Status) + "; --force requeues it all the same"
			}
			return ""
		}, force)
}
