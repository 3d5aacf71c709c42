package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) cancelCommand() *cli.Command {
	return a.changeCommand("cancel", "cancel rollouts; their workers stop them", changing{
		refuse: func(_ *cli.Command, r *queue.Rollout) string {
			if r.Status.Finished() {
				return "has ended already: it is " + string(r.Status)
			}
			return ""
		},
		change: func(ctx context.Context, _ *cli.Command, s *client.Client, r *queue.Rollout) (string, error) {
			return "cancelled", setStatus(ctx, s, r.RolloutID, queue.RolloutCancelled)
		},
	})
}
