package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

// changeMost is how many rollouts are changed at a time.
const changeMost = 16

// changing is how a command changes rollouts.
type changing struct {
	flags []cli.Flag // beyond those of all
	// check, which may be nil, looks at the options.
	check func(*cli.Command) error
	// refuse says why a rollout should be left alone, "" where it should not.
	refuse func(cmd *cli.Command, r *queue.Rollout) string
	// prepare, which may be nil, may fail before anything is changed.
	prepare func(ctx context.Context, cmd *cli.Command, s *client.Client, ids []string) error
	// change does it and says what was done.
	change func(ctx context.Context, cmd *cli.Command, s *client.Client, r *queue.Rollout) (string, error)
}

// changeCommand changes rollouts.
func (a *app) changeCommand(name, usage string, c changing) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[ROLLOUT_ID …]",
		Flags: flags([]cli.Flag{storeURLFlag()}, rolloutFilterFlags(), []cli.Flag{whereFlag("only those")}, c.flags),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			chosen := cmd.IsSet("status") || cmd.IsSet("mode") || cmd.IsSet("id-contains") || cmd.IsSet("where")
			if chosen == cmd.Args().Present() {
				return usagef(cmd, "give ids of rollouts, or choose them by --where, --status, --mode or --id-contains")
			}
			if c.check != nil {
				if err := c.check(cmd); err != nil {
					return err
				}
			}
			return a.withStore(cmd, func(s *client.Client) error {
				ids := unique(cmd.Args().Slice())
				if chosen {
					var err error
					if ids, err = chooseRollouts(ctx, s, cmd, c.refuse); err != nil {
						return err
					}
				}
				if c.prepare != nil {
					if err := c.prepare(ctx, cmd, s, ids); err != nil {
						return err
					}
				}
				return a.changeAll(ctx, ids, func(ctx context.Context, id string) (string, error) {
					r, err := s.Rollout(ctx, id)
					if err != nil {
						return "", err
					}
					if r == nil {
						return "", queue.ErrNoRollout(id)
					}
					if why := c.refuse(cmd, &r.Rollout); why != "" {
						return "", queue.Errorf(queue.Conflict, "rollout %s %s", id, why)
					}
					return c.change(ctx, cmd, s, &r.Rollout)
				})
			})
		}),
	}
}

// chooseRollouts lists the ids of the rollouts that the options choose and that
// are not to be left alone.
func chooseRollouts(
	ctx context.Context, s *client.Client, cmd *cli.Command, refuse func(*cli.Command, *queue.Rollout) string,
) ([]string, error) {
	filter, err := compileWhere(cmd.String("where"))
	if err != nil {
		return nil, err
	}
	candidates := func(yield func(queue.AttemptedRollout, error) bool) {
		for r, err := range (adapter.Source{Store: s}).Rollouts(ctx, rolloutFilter(cmd)) {
			if (err != nil || refuse(cmd, &r.Rollout) == "") && !yield(r, err) {
				return
			}
		}
	}
	var ids []string
	for r, err := range matching(ctx, s, candidates, filter) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, r.RolloutID)
	}
	return ids, nil
}

// changeAll changes each rollout and prints what became of it. One failure does
// not keep the others.
func (a *app) changeAll(ctx context.Context, ids []string, change func(context.Context, string) (string, error)) error {
	var mu sync.Mutex
	failed := 0
	var group errgroup.Group
	group.SetLimit(changeMost)
	for _, id := range ids {
		group.Go(func() error {
			done, err := change(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
				fmt.Fprintln(a.stderr, "aglq:", err)
			} else {
				fmt.Fprintln(a.stdout, id, done)
			}
			return nil
		})
	}
	if group.Wait(); failed > 0 {
		return errFailed
	}
	return nil
}
