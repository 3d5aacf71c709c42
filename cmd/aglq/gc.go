package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/collections/mongo"
)

func (a *app) gcCommand() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "list the partitions of a database, or drop old ones",
		Description: "Without --older-than and --partition it lists all partitions. With them it lists those that are to be dropped,\n" +
			"and with --yes drops them: rollouts, spans, workers, resources, everything. A partition that a store has open\n" +
			"is never dropped. It works on the database itself: no store has to run.",
		Flags: flags(mongoFlags(), []cli.Flag{
			&secondsFlag{
				Name: "older-than", Usage: "`SECONDS`, as 720h, for which no store had the partition open", DefaultText: "any time",
			},
			&cli.StringSliceFlag{Name: "partition", Usage: "`NAME` of a partition to drop; repeat it for more"},
			&cli.BoolFlag{Name: "yes", Usage: "drop them; else they are only listed"},
			&cli.BoolFlag{Name: "dry-run", Usage: "drop nothing, whatever --yes says"},
			jsonFlag(),
		}),
		Action: a.action(a.gc),
	}
}

func (a *app) gc(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	asked := cmd.IsSet("older-than") || cmd.IsSet("partition")
	if cmd.Bool("yes") && !asked {
		return usagef(cmd, "--yes drops partitions: say which, with --older-than or --partition")
	}
	j, err := mongo.OpenJanitor(ctx, mongo.Options{URI: cmd.String("mongo-uri"), Database: cmd.String("mongo-database")})
	if err != nil {
		return err
	}
	defer func() { _ = j.Close(context.WithoutCancel(ctx)) }()
	found, err := j.Partitions(ctx)
	if err != nil {
		return err
	}
	if asked {
		if found, err = gcChoose(cmd, found); err != nil {
			return err
		}
	}
	if err := a.printPartitions(cmd, found); err != nil || !asked || len(found) == 0 {
		return err
	}
	if !cmd.Bool("yes") || cmd.Bool("dry-run") {
		fmt.Fprintf(a.stderr, "%s be dropped, and nothing was; --yes drops what is listed\n", counted(len(found), "partition would", "partitions would"))
		return nil
	}
	return a.drop(ctx, j, found)
}

// gcChoose keeps the partitions that the options name. A name that is not there
// is an error, so that a slip of the pen does not pass for success.
func gcChoose(cmd *cli.Command, all []mongo.Partition) ([]mongo.Partition, error) {
	names := cmd.StringSlice("partition")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(p mongo.Partition) bool { return p.Name == name }) {
			return nil, fmt.Errorf("there is no partition %q; aglq gc without options lists them", name)
		}
	}
	least := cmd.Duration("older-than")
	return slices.DeleteFunc(all, func(p mongo.Partition) bool {
		named := len(names) == 0 || slices.Contains(names, p.Name)
		return !named || p.Idle < least && !p.Dropping
	}), nil
}

func (a *app) drop(ctx context.Context, j *mongo.Janitor, partitions []mongo.Partition) error {
	failed := false
	for _, p := range partitions {
		documents := int64(0)
		err := j.Drop(ctx, p.Name, func(n int64) { documents = n })
		if ctx.Err() != nil {
			return fmt.Errorf("partition %s is dropped in part and cannot be opened; run it again to go on: %w", p.Name, ctx.Err())
		}
		if err != nil {
			fmt.Fprintln(a.stderr, "aglq:", err)
			failed = true
			continue
		}
		fmt.Fprintf(a.stderr, "dropped partition %s: %s\n", cell(p.Name), counted(int(documents), "document", "documents"))
	}
	if failed {
		return errFailed
	}
	return nil
}

// partitionLine is a partition as JSON.
type partitionLine struct {
	Partition string    `json:"partition"`
	Created   time.Time `json:"created"`
	Seen      time.Time `json:"seen"`
	InUse     bool      `json:"in_use"`
	Dropping  bool      `json:"dropping"`
	Rollouts  int64     `json:"rollouts"`
	Attempts  int64     `json:"attempts"`
	Spans     int64     `json:"spans"`
}

func (a *app) printPartitions(cmd *cli.Command, partitions []mongo.Partition) error {
	out := bufio.NewWriter(a.stdout)
	if cmd.Bool("json") {
		lines := json.NewEncoder(out)
		for _, p := range partitions {
			line := partitionLine{p.Name, p.Created, p.Seen, p.Idle < mongo.InUse, p.Dropping, p.Rollouts, p.Attempts, p.Spans}
			if err := lines.Encode(line); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	const day = "2006-01-02 15:04:05"
	t := newTable(out, "PARTITION", "CREATED", "LAST SEEN", "STATE", "ROLLOUTS", "ATTEMPTS", "SPANS")
	for _, p := range partitions {
		state := "idle"
		switch {
		case p.Dropping:
			state = "half dropped"
		case p.Idle < mongo.InUse:
			state = "in use"
		}
		t.row(cell(p.Name), p.Created.Local().Format(day), p.Seen.Local().Format(day), state,
			strconv.FormatInt(p.Rollouts, 10), strconv.FormatInt(p.Attempts, 10), strconv.FormatInt(p.Spans, 10))
	}
	if err := t.end(); err != nil {
		return err
	}
	return out.Flush()
}
