package main

import (
	"context"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) spansCommand() *cli.Command {
	list := listing[queue.Span, *queue.Span]{
		columns: []string{"NUMBER", "ATTEMPT", "SPAN", "PARENT", "NAME", "STATUS", "STARTED", "TOOK", "ATTRIBUTES"},
		row: func(s queue.Span) []string {
			took := ""
			if s.StartTime != nil {
				took = spanOfTime(*s.StartTime, s.EndTime)
			}
			return []string{
				strconv.FormatInt(s.SequenceID, 10), s.AttemptID, cell(s.SpanID), textCell(s.ParentID), cell(s.Name),
				s.StatusCode(), timeCell(s.StartTime), took, cell(s.Attributes.String()),
			}
		},
	}
	return &cli.Command{
		Name: "spans", Usage: "list the spans of a rollout, or show one", ArgsUsage: "ROLLOUT_ID",
		Flags: flags([]cli.Flag{
			storeURLFlag(), jsonFlag(),
			&cli.StringFlag{Name: "attempt", DefaultText: "all", Usage: "only spans of the attempt with this `ID`, or of the latest"},
		}, local([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "only spans with this `NAME`"},
			&cli.StringFlag{Name: "name-contains", Usage: "only spans whose name contains `TEXT`"},
			&cli.StringFlag{Name: "trace-id", Usage: "only spans of the trace with this `ID`"},
		}, pagingFlags(queue.SpanSorts))),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			id, err := oneArg(cmd, "ROLLOUT_ID")
			if err != nil {
				return err
			}
			q := queue.SpanQuery{
				RolloutID: id, AttemptID: textPointer(cmd, "attempt"),
				Name:    queue.TextMatch{Equals: textPointer(cmd, "name"), Contains: textPointer(cmd, "name-contains")},
				TraceID: queue.TextMatch{Equals: textPointer(cmd, "trace-id")},
			}
			if q.Paging, err = paging(cmd); err != nil {
				return err
			}
			if q.SortBy == "" {
				q.SortBy = "sequence_id"
			}
			return a.withStore(cmd, func(s *client.Client) error {
				if err := mustExist(ctx, s, id); err != nil {
					return err
				}
				page, err := s.Spans(ctx, q)
				if err != nil {
					return err
				}
				return list.print(a, cmd, page)
			})
		}),
		Commands: []*cli.Command{{
			Name: "show", Usage: "print one of them", ArgsUsage: "ROLLOUT_ID SPAN_ID",
			Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
				if cmd.Args().Len() != 2 {
					return usagef(cmd, "give a rollout's id and a span's")
				}
				rolloutID, spanID := cmd.Args().Get(0), cmd.Args().Get(1)
				return a.withStore(cmd, func(s *client.Client) error {
					page, err := s.Spans(ctx, queue.SpanQuery{
						RolloutID: rolloutID, AttemptID: textPointer(cmd, "attempt"),
						SpanID: queue.TextMatch{Equals: &spanID}, Paging: queue.Paging{SortBy: "sequence_id", Descending: true, Limit: 1},
					})
					if err != nil {
						return err
					}
					if len(page.Items) == 0 {
						return queue.Errorf(queue.NotFound, "rollout %s has no span %s", rolloutID, spanID)
					}
					return a.show(cmd, page.Items[0].AppendJSON(nil))
				})
			}),
		}},
	}
}
