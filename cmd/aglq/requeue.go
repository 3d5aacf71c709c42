package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

func (a *app) requeueCommand() *cli.Command {
	more := []cli.Flag{
		&cli.BoolFlag{Name: "force", Usage: "requeue also rollouts that a worker holds; what it still reports of them is fenced off"},
		&cli.BoolFlag{Name: "as-new", Usage: "leave them as they are, and enqueue new rollouts with their input, mode, resources, config and metadata"},
		&textsFlag{
			Name: "metadata", Validator: eachAssignment,
			Usage: "with --as-new: `NAME=VALUE` for the metadata of the new ones; JSON, or else a text; repeat it for more",
		},
	}
	refuse := func(cmd *cli.Command, r *queue.Rollout) string {
		switch {
		case cmd.Bool("as-new"):
			if !r.Status.Finished() && !cmd.Bool("force") {
				return "has not finished: it is " + string(r.Status) + "; --force enqueues it anew all the same"
			}
		case r.Status.Queued():
			return "is in the queue already"
		case r.Status.Active() && !cmd.Bool("force"):
			return "is held by a worker: it is " + string(r.Status) + "; --force requeues it all the same"
		}
		return ""
	}
	check := func(cmd *cli.Command) error {
		if cmd.IsSet("metadata") && !cmd.Bool("as-new") {
			return usagef(cmd, "--metadata is for new rollouts: give --as-new too")
		}
		return nil
	}
	return a.changeCommand("requeue", "put rollouts that have ended into the queue again", check, refuse,
		func(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.Rollout) (string, error) {
			if !cmd.Bool("as-new") {
				return "requeued", setStatus(ctx, s, r, queue.RolloutRequeuing)
			}
			id, err := enqueueAgain(ctx, cmd, s, r)
			return "is again " + id, err
		}, more...)
}

func setStatus(ctx context.Context, s *client.Client, r *queue.Rollout, to queue.RolloutStatus) error {
	_, err := s.UpdateRollout(ctx, r.RolloutID, queue.RolloutUpdate{Status: queue.Set(to)})
	return err
}

// enqueueAgain makes a new rollout of an old one and returns its id.
func enqueueAgain(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.Rollout) (string, error) {
	metadata := algorithm.AgainMetadata(r)
	for _, text := range cmd.StringSlice("metadata") {
		name, value, _ := strings.Cut(text, "=")
		v, err := rawjson.Parse([]byte(value))
		if err != nil {
			v = rawjson.AppendString(nil, value)
		}
		metadata = replaceMember(metadata, name, v)
	}
	rollouts, err := s.Enqueue(ctx, []queue.Request{{
		Input: r.Input, Mode: r.Mode, ResourcesID: r.ResourcesID, Config: &r.Config, Metadata: metadata,
	}})
	if err != nil {
		return "", err
	}
	return rollouts[0].RolloutID, nil
}

func eachAssignment(texts []string) error {
	for _, text := range texts {
		if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
			return fmt.Errorf("it must be NAME=VALUE, as source=hard")
		}
	}
	return nil
}
