package main

import (
	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
)

func (a *app) cancelCommand() *cli.Command {
	return a.changeCommand("cancel", "cancel rollouts; their workers stop them", queue.RolloutCancelled, "cancelled",
		func(_ *cli.Command, r *queue.Rollout) string {
			if r.Status.Finished() {
				return "has ended already: it is " + string(r.Status)
			}
			return ""
		})
}
