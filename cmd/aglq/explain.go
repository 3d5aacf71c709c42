package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) explainCommand() *cli.Command {
	return &cli.Command{
		Name: "explain", Usage: "say why a rollout stands where it does, and what happens next", ArgsUsage: "ROLLOUT_ID",
		Flags: []cli.Flag{storeURLFlag(), &cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			id, err := oneArg(cmd, "ROLLOUT_ID")
			if err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				x, err := s.Explain(ctx, id)
				if err != nil {
					return err
				}
				if cmd.Bool("json") {
					return json.NewEncoder(a.stdout).Encode(x)
				}
				out := bufio.NewWriter(a.stdout)
				writeExplanation(out, x)
				return out.Flush()
			})
		}),
	}
}

// writeExplanation writes for people; out keeps the first error.
func writeExplanation(out *bufio.Writer, x queue.Explanation) {
	fmt.Fprintf(out, "%s is %s\n", printable(x.RolloutID), x.Status)
	for _, reason := range x.Reasons {
		fmt.Fprintf(out, "  %s\n", printable(reason.Text))
	}
	fmt.Fprintf(out, "\nenqueued  %s\n", timeCell(&x.StartTime))
	if x.EndTime != nil {
		fmt.Fprintf(out, "ended     %s\n", timeCell(x.EndTime))
	}
	fmt.Fprintf(out, "workers   %d known, %d alive, %d busy\n", x.Workers.Known, x.Workers.Alive, x.Workers.Busy)
	fmt.Fprintf(out, "attempts  %d left of max_attempts %d, retried on %s\n", x.AttemptsLeft, x.Config.MaxAttempts, retryWords(x.Config))
	if len(x.Attempts) > 0 {
		fmt.Fprintln(out)
		writeStories(out, x.Attempts)
	}
	fmt.Fprintln(out, "\nnext")
	for _, e := range x.Next {
		fmt.Fprintf(out, "  %s%s\n", timeAhead(e.At, x.Time), printable(e.Text))
	}
}

func retryWords(c queue.Config) string {
	if len(c.RetryCondition) == 0 {
		return "nothing"
	}
	return orList(names(c.RetryCondition))
}

func writeStories(out io.Writer, attempts []queue.AttemptStory) {
	t := newTable(out, "NUMBER", "ATTEMPT", "STATUS", "WORKER", "STARTED", "LAST SIGN", "STORY")
	for _, s := range attempts {
		t.row(strconv.FormatInt(s.SequenceID, 10), cell(s.AttemptID), string(s.Status), textCell(s.WorkerID),
			timeCell(&s.StartTime), timeCell(s.LastHeartbeatTime), printable(s.Text))
	}
	_ = t.end() // out keeps the error
}

// timeAhead is the time of an event and how far away it is, "" for none.
func timeAhead(at *float64, now float64) string {
	if at == nil {
		return ""
	}
	left := time.Duration((*at - now) * 1e9)
	if left < 0 {
		return fmt.Sprintf("at %s, %s ago: ", timeCell(at), shortDuration(-left))
	}
	return fmt.Sprintf("at %s, in %s: ", timeCell(at), shortDuration(left))
}
