package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/where"
)

func (a *app) requeueCommand() *cli.Command {
	more := []cli.Flag{
		&cli.BoolFlag{Name: "force", Usage: "requeue also rollouts that a worker holds; what it still reports of them is fenced off"},
		&cli.BoolFlag{Name: "as-new", Usage: "leave them as they are, and enqueue new rollouts with their input, mode, resources, config and metadata"},
		&textsFlag{
			Name: "metadata", Validator: eachAssignment,
			Usage: "with --as-new: `NAME=VALUE` for the metadata of the new ones; JSON, or else a text; repeat it for more",
		},
		&cli.StringFlag{
			Name: "copies", Value: "1",
			Usage: "with --as-new: `EXPRESSION` for how many new ones to enqueue of each, rounded, in the language of --where: 'reward == nil ? 4 : 4 * (1 - reward)'",
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
		for _, name := range []string{"metadata", "copies"} {
			if cmd.IsSet(name) && !cmd.Bool("as-new") {
				return usagef(cmd, "--%s is for new rollouts: give --as-new too", name)
			}
		}
		if _, err := where.CompileNumber(cmd.String("copies")); err != nil {
			return usagef(cmd, "--copies: %v", err)
		}
		return nil
	}
	return a.changeCommand("requeue", "put rollouts that have ended into the queue again", check, refuse,
		func(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.AttemptedRollout) (string, error) {
			if !cmd.Bool("as-new") {
				return "requeued", setStatus(ctx, s, r.RolloutID, queue.RolloutRequeuing)
			}
			n, err := copiesOf(ctx, cmd, s, r)
			if err != nil || n == 0 {
				return "is left at that", err
			}
			ids, err := enqueueAgain(ctx, cmd, s, &r.Rollout, n)
			return "is again " + strings.Join(ids, " "), err
		}, more...)
}

// maxCopies is how many rollouts may be made of one: an expression without a bound,
// such as 1 / reward, had better not fill the store.
const maxCopies = 1000

// copiesOf is how many new rollouts are to be made of one.
func copiesOf(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.AttemptedRollout) (int, error) {
	number, err := where.CompileNumber(cmd.String("copies"))
	if err != nil {
		return 0, err
	}
	var spans []queue.Span
	if number.NeedsSpans() {
		if spans, err = (adapter.Source{Store: s}).Spans(ctx, r.RolloutID); err != nil {
			return 0, err
		}
	}
	n, err := number.Of(r, spans)
	if err != nil {
		return 0, err
	}
	if n = math.Round(n); n < 0 || n > maxCopies {
		return 0, queue.Errorf(queue.Invalid, "rollout %s: --copies comes to %g; it must be from 0 to %d", r.RolloutID, n, maxCopies)
	}
	return int(n), nil
}

func setStatus(ctx context.Context, s *client.Client, id string, to queue.RolloutStatus) error {
	_, err := s.UpdateRollout(ctx, id, queue.RolloutUpdate{Status: queue.Set(to)})
	return err
}

// enqueueAgain makes n new rollouts of an old one and returns their ids.
func enqueueAgain(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.Rollout, n int) ([]string, error) {
	metadata := algorithm.AgainMetadata(r)
	for _, text := range cmd.StringSlice("metadata") {
		name, value, _ := strings.Cut(text, "=")
		v, err := rawjson.Parse([]byte(value))
		if err != nil {
			v = rawjson.AppendString(nil, value)
		}
		metadata = replaceMember(metadata, name, v)
	}
	again := queue.Request{Input: r.Input, Mode: r.Mode, ResourcesID: r.ResourcesID, Config: &r.Config, Metadata: metadata}
	rollouts, err := s.Enqueue(ctx, slices.Repeat([]queue.Request{again}, n))
	ids := make([]string, len(rollouts))
	for i := range rollouts {
		ids[i] = rollouts[i].RolloutID
	}
	return ids, err
}

func eachAssignment(texts []string) error {
	for _, text := range texts {
		if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
			return fmt.Errorf("it must be NAME=VALUE, as source=hard")
		}
	}
	return nil
}
