package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

// changeMost is how many rollouts are changed at a time.
const changeMost = 16

// changeCommand sets the status of rollouts. Refuse says why a rollout should
// be left alone, "" where it should not.
func (a *app) changeCommand(name, usage string, to queue.RolloutStatus, done string,
	refuse func(cmd *cli.Command, r *queue.Rollout) string, more ...cli.Flag,
) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[ROLLOUT_ID …]",
		Flags: flags([]cli.Flag{storeURLFlag()}, rolloutFilterFlags(), more),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			chosen := cmd.IsSet("status") || cmd.IsSet("mode") || cmd.IsSet("id-contains")
			if chosen == cmd.Args().Present() {
				return usagef(cmd, "give ids of rollouts, or choose them by --status, --mode or --id-contains")
			}
			return a.withStore(cmd, func(s *client.Client) error {
				ids := unique(cmd.Args().Slice())
				if chosen {
					var err error
					if ids, err = chooseRollouts(ctx, s, cmd, refuse); err != nil {
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
					if why := refuse(cmd, &r.Rollout); why != "" {
						return "", queue.Errorf(queue.Conflict, "rollout %s %s", id, why)
					}
					_, err = s.UpdateRollout(ctx, id, queue.RolloutUpdate{Status: queue.Set(to)})
					return done, err
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
	q := rolloutFilter(cmd)
	q.Limit = 1000
	var ids []string
	for {
		page, err := s.Rollouts(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			if refuse(cmd, &page.Items[i].Rollout) == "" {
				ids = append(ids, page.Items[i].RolloutID)
			}
		}
		if q.Offset += len(page.Items); len(page.Items) < q.Limit {
			return ids, nil
		}
	}
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
