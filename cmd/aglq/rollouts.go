package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) rolloutsCommand() *cli.Command {
	list := listing[queue.AttemptedRollout, *queue.AttemptedRollout]{
		columns: []string{"ROLLOUT", "STATUS", "MODE", "ATTEMPT", "WORKER", "STARTED", "TOOK", "INPUT"},
		row: func(r queue.AttemptedRollout) []string {
			attempt, worker := "", ""
			if r.Attempt != nil {
				attempt = fmt.Sprintf("%d %s", r.Attempt.SequenceID, r.Attempt.Status)
				worker = textCell(r.Attempt.WorkerID)
			}
			return []string{
				r.RolloutID, string(r.Status), string(r.Mode), attempt, worker, timeCell(&r.StartTime),
				spanOfTime(r.StartTime, r.EndTime), cell(r.Input.String()),
			}
		},
	}
	return &cli.Command{
		Name: "rollouts", Usage: "list rollouts, or show one",
		Flags: flags([]cli.Flag{storeURLFlag(), jsonFlag()}, local(rolloutFilterFlags(), []cli.Flag{whereFlag("only those")}, pagingFlags(queue.RolloutSorts))),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			q := rolloutFilter(cmd)
			var err error
			if q.Paging, err = paging(cmd); err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				var page queue.Page[queue.AttemptedRollout]
				if text := cmd.String("where"); text != "" {
					page, err = pageWhere(ctx, s, q, text)
				} else {
					page, err = s.Rollouts(ctx, q)
				}
				if err != nil {
					return err
				}
				return list.print(a, cmd, page)
			})
		}),
		Commands: []*cli.Command{a.showCommand("ROLLOUT_ID",
			func(ctx context.Context, cmd *cli.Command, s *client.Client, id string) error {
				r, err := s.Rollout(ctx, id)
				if err != nil {
					return err
				}
				if r == nil {
					return queue.ErrNoRollout(id)
				}
				return a.show(cmd, r.AppendJSON(nil))
			})},
	}
}

// pageWhere is a page of the rollouts that an expression is true of. All have to be
// looked at for the total.
func pageWhere(ctx context.Context, s *client.Client, q queue.RolloutQuery, text string) (queue.Page[queue.AttemptedRollout], error) {
	page := queue.Page[queue.AttemptedRollout]{Limit: q.Limit, Offset: q.Offset}
	filter, err := compileWhere(text)
	if err != nil {
		return page, err
	}
	for r, err := range matching(ctx, s, adapter.Source{Store: s}.Rollouts(ctx, q), filter) {
		if err != nil {
			return page, err
		}
		if page.Total >= q.Offset && (q.Limit < 0 || len(page.Items) < q.Limit) {
			page.Items = append(page.Items, r)
		}
		page.Total++
	}
	return page, nil
}

// rolloutFilterFlags choose rollouts by what they are.
func rolloutFilterFlags() []cli.Flag {
	statuses, modes := names(queue.RolloutStatuses), names(queue.Modes)
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "status", Validator: eachOneOf(statuses...),
			Usage: "only those with one of these `STATUS`es: " + orList(statuses) + "; repeat it or use commas",
		},
		&cli.StringSliceFlag{
			Name: "mode", Validator: eachOneOf(modes...),
			Usage: "only those with one of these `MODE`s: " + orList(modes),
		},
		&cli.StringFlag{Name: "id-contains", Validator: notEmpty, Usage: "only those whose id contains `TEXT`"},
	}
}

func rolloutFilter(cmd *cli.Command) queue.RolloutQuery {
	return queue.RolloutQuery{
		Statuses:   words[queue.RolloutStatus](cmd, "status"),
		Modes:      words[queue.Mode](cmd, "mode"),
		IDContains: textPointer(cmd, "id-contains"),
		Paging:     queue.All,
	}
}
