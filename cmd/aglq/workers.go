package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) workersCommand() *cli.Command {
	list := listing[queue.Worker, *queue.Worker]{
		columns: []string{"WORKER", "STATUS", "LAST SIGN", "LAST CLAIM", "ROLLOUT", "ATTEMPT"},
		row: func(w queue.Worker) []string {
			return []string{
				cell(w.WorkerID), string(w.Status), timeCell(w.LastHeartbeatTime), timeCell(w.LastDequeueTime),
				textCell(w.CurrentRolloutID), textCell(w.CurrentAttemptID),
			}
		},
	}
	statuses := names(queue.WorkerStatuses)
	return &cli.Command{
		Name: "workers", Usage: "list workers, or show one",
		Flags: flags([]cli.Flag{storeURLFlag(), jsonFlag()}, local([]cli.Flag{
			&cli.StringSliceFlag{
				Name: "status", Validator: eachOneOf(statuses...),
				Usage: "only those with one of these `STATUS`es: " + orList(statuses),
			},
			&cli.StringFlag{Name: "id-contains", Usage: "only those whose id contains `TEXT`"},
		}, pagingFlags(queue.WorkerSorts))),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			q := queue.WorkerQuery{Statuses: words[queue.WorkerStatus](cmd, "status"), IDContains: textPointer(cmd, "id-contains")}
			var err error
			if q.Paging, err = paging(cmd); err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				page, err := s.Workers(ctx, q)
				if err != nil {
					return err
				}
				return list.print(a, cmd, page)
			})
		}),
		Commands: []*cli.Command{a.showCommand("WORKER_ID",
			func(ctx context.Context, cmd *cli.Command, s *client.Client, id string) error {
				w, err := s.Worker(ctx, id)
				if err != nil {
					return err
				}
				if w == nil {
					return queue.Errorf(queue.NotFound, "worker %s not found", id)
				}
				return a.show(cmd, w.AppendJSON(nil))
			})},
	}
}
