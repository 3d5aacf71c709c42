package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/where"
)

func (a *app) requeueCommand() *cli.Command {
	var copies map[string]int // of each rollout, with --copies
	return a.changeCommand("requeue", "put rollouts that have ended into the queue again", changing{
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "requeue also rollouts that a worker holds; what it still reports of them is fenced off"},
			&cli.BoolFlag{Name: "as-new", Usage: "leave them as they are, and enqueue new rollouts with their input, mode, resources, config and metadata"},
			&textsFlag{
				Name: "metadata", Validator: eachAssignment,
				Usage: "with --as-new: `NAME=VALUE` for the metadata of the new ones; JSON, or else a text; repeat it for more",
			},
			&cli.StringFlag{
				Name: "copies", Value: "1", Validator: validNumber,
				Usage: "with --as-new: `EXPRESSION` for how many new ones to enqueue of each, rounded, in the language of --where: 'max(0, 4 - 4 * (reward ?? 0))'",
			},
		},
		check:  checkRequeue,
		refuse: refuseRequeue,
		prepare: func(ctx context.Context, cmd *cli.Command, s *client.Client, ids []string) (err error) {
			if cmd.IsSet("copies") {
				copies, err = countCopies(ctx, cmd.String("copies"), s, ids)
			}
			return err
		},
		change: func(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.Rollout) (string, error) {
			if !cmd.Bool("as-new") {
				return "requeued", setStatus(ctx, s, r.RolloutID, queue.RolloutRequeuing)
			}
			n, counted := copies[r.RolloutID]
			switch {
			case !counted:
				n = 1
			case n == 0:
				return "is left out: 0 copies", nil
			}
			ids, err := enqueueAgain(ctx, cmd, s, r, n)
			return "is again " + strings.Join(ids, " "), err
		},
	})
}

func checkRequeue(cmd *cli.Command) error {
	for _, name := range []string{"metadata", "copies"} {
		if cmd.IsSet(name) && !cmd.Bool("as-new") {
			return usagef(cmd, "--%s is for new rollouts: give --as-new too", name)
		}
	}
	return nil
}

func validNumber(text string) error {
	_, err := where.CompileNumber(text)
	return err
}

func refuseRequeue(cmd *cli.Command, r *queue.Rollout) string {
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

// maxCopies is how many rollouts may be made of one: an expression without a bound,
// such as 1 / reward, had better not fill the store.
const maxCopies = 1000

// countCopies tells how many new rollouts are to be made of each. One that cannot be
// told fails the command, before it has made any.
func countCopies(ctx context.Context, expression string, s *client.Client, ids []string) (map[string]int, error) {
	number, err := where.CompileNumber(expression)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	copies := make(map[string]int, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(changeMost)
	for _, id := range ids {
		group.Go(func() error {
			n, err := copiesOf(ctx, number, s, id)
			mu.Lock()
			defer mu.Unlock()
			copies[id] = n
			return err
		})
	}
	return copies, group.Wait()
}

// copiesOf is 0 for a rollout that is not there.
func copiesOf(ctx context.Context, number *where.Number, s *client.Client, id string) (int, error) {
	r, err := s.Rollout(ctx, id)
	if err != nil || r == nil {
		return 0, err
	}
	var spans []queue.Span
	if number.NeedsSpans() {
		if spans, err = (adapter.Source{Store: s}).Spans(ctx, id); err != nil {
			return 0, err
		}
	}
	n, err := number.Of(r, spans)
	if err != nil {
		return 0, err
	}
	if n = math.Round(n); n < 0 || n > maxCopies {
		return 0, queue.Errorf(queue.Invalid, "rollout %s: --copies comes to %g; it must be from 0 to %d, as with max(0, …); nothing was enqueued", id, n, maxCopies)
	}
	return int(n), nil
}

// setStatus also ends an attempt that is open, so that a worker that still runs it, or
// has died, has no part in the rollout any more.
func setStatus(ctx context.Context, s *client.Client, id string, to queue.RolloutStatus) error {
	_, err := s.UpdateRollout(ctx, id, queue.RolloutUpdate{Status: queue.Set(to), Fence: true})
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
	most := max(1, min(enqueueMost, enqueueBytes/(1024+len(r.Input)+len(metadata))))
	var ids []string
	for len(ids) < n {
		rollouts, err := s.Enqueue(ctx, slices.Repeat([]queue.Request{again}, min(most, n-len(ids))))
		if err != nil {
			return nil, fmt.Errorf("%d of %d copies of rollout %s were enqueued (%s), the next ones were not: %w",
				len(ids), n, r.RolloutID, strings.Join(ids, " "), err)
		}
		for i := range rollouts {
			ids = append(ids, rollouts[i].RolloutID)
		}
	}
	return ids, nil
}

func eachAssignment(texts []string) error {
	for _, text := range texts {
		if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
			return fmt.Errorf("it must be NAME=VALUE, as source=hard")
		}
	}
	return nil
}
