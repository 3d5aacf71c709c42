package main

import (
	"context"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) attemptsCommand() *cli.Command {
	list := listing[queue.Attempt, *queue.Attempt]{
		columns: []string{"NUMBER", "ATTEMPT", "STATUS", "WORKER", "STARTED", "TOOK", "LAST SIGN", "METADATA"},
		row: func(t queue.Attempt) []string {
			return []string{
				strconv.FormatInt(t.SequenceID, 10), t.AttemptID, string(t.Status), textCell(t.WorkerID),
				timeCell(&t.StartTime), spanOfTime(t.StartTime, t.EndTime), timeCell(t.LastHeartbeatTime),
				cell(t.Metadata.String()),
			}
		},
	}
	return &cli.Command{
		Name: "attempts", Usage: "list the attempts of a rollout, or show one", ArgsUsage: "ROLLOUT_ID",
		Flags: flags([]cli.Flag{storeURLFlag(), jsonFlag()}, local(pagingFlags(queue.AttemptSorts))),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			id, err := oneArg(cmd, "ROLLOUT_ID")
			if err != nil {
				return err
			}
			q := queue.AttemptQuery{RolloutID: id}
			if q.Paging, err = paging(cmd); err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				if err := mustExist(ctx, s, id); err != nil {
					return err
				}
				page, err := s.Attempts(ctx, q)
				if err != nil {
					return err
				}
				return list.print(a, cmd, page)
			})
		}),
		Commands: []*cli.Command{{
			Name: "show", Usage: "print one of them", ArgsUsage: "ROLLOUT_ID ATTEMPT_ID|latest",
			Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
				if cmd.Args().Len() != 2 {
					return usagef(cmd, "give a rollout's id and an attempt's, or latest for the latest one")
				}
				return a.withStore(cmd, func(s *client.Client) error {
					return a.showAttempt(ctx, cmd, s, cmd.Args().Get(0), cmd.Args().Get(1))
				})
			}),
		}},
	}
}

func (a *app) showAttempt(ctx context.Context, cmd *cli.Command, s *client.Client, rolloutID, attemptID string) error {
	if err := mustExist(ctx, s, rolloutID); err != nil {
		return err
	}
	page, err := s.Attempts(ctx, queue.AttemptQuery{RolloutID: rolloutID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		return err
	}
	for i := len(page.Items) - 1; i >= 0; i-- {
		if t := &page.Items[i]; t.AttemptID == attemptID || attemptID == "latest" {
			return a.show(cmd, t.AppendJSON(nil))
		}
	}
	return queue.ErrNoAttempt(rolloutID, attemptID)
}

// mustExist tells an unknown rollout from one without attempts or spans, which
// the store's lists do not.
func mustExist(ctx context.Context, s *client.Client, rolloutID string) error {
	r, err := s.Rollout(ctx, rolloutID)
	if err == nil && r == nil {
		err = queue.ErrNoRollout(rolloutID)
	}
	return err
}
