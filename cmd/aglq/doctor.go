package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/operator"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "look for what is wrong with a store, its database and its workers: exit status 0 fine, 1 findings",
		Flags: []cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "mongo-uri", Usage: "`URI` of the database, to look into it as well", DefaultText: "none"},
			&cli.StringFlag{Name: "mongo-database", DefaultText: "the one in the URI, else " + mongo.DefaultDatabase, Usage: "`NAME` of the database"},
			&secondsFlag{Name: "max-queue-age", Value: operator.DefaultMaxQueueAge, Usage: "`SECONDS` that a rollout may wait for a worker"},
			&secondsFlag{Name: "within", Value: 30 * time.Second, Usage: "`SECONDS` that a single answer may take"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON, a finding a line"},
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			url, err := storeURL(cmd)
			if err != nil {
				return err
			}
			found := []operator.Finding{ownFiles()}
			if uri := cmd.String("mongo-uri"); uri != "" {
				found = append(found, database(ctx, uri, cmd.String("mongo-database"))...)
			}
			s := client.New(url, client.Options{
				RequestTimeout: max(cmd.Duration("within"), time.Millisecond), Retry: []time.Duration{}, Probe: []time.Duration{},
			})
			defer s.Close()
			d := operator.Doctor{Store: s, MaxQueueAge: cmd.Duration("max-queue-age")}
			return a.writeFindings(cmd, append(found, d.Examine(ctx)...))
		}),
	}
}

// ownFiles judges the limit of what is started from where the doctor is.
func ownFiles() operator.Finding {
	const check = "file limit here"
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return operator.Finding{Check: check, Severity: operator.Skipped, Text: err.Error()}
	}
	// The Go runtime raises the soft limit to the hard one, in the store too.
	f := operator.Finding{Check: check, Severity: operator.OK, Text: fmt.Sprintf("%d files may be open", limit.Max)}
	if limit.Max < operator.LeastFiles {
		f.Severity, f.Remedy = operator.Warning, operator.RaiseFileLimit
	}
	return f
}

func database(ctx context.Context, uri, name string) []operator.Finding {
	server, err := mongo.Examine(ctx, uri, name)
	if err == nil {
		return operator.ExamineDatabase(server)
	}
	f := operator.Finding{Check: "database", Severity: operator.Problem, Text: err.Error(), Remedy: "start mongod, or correct --mongo-uri"}
	if queue.KindOf(err) == queue.Invalid {
		f.Remedy = "correct --mongo-uri"
	}
	return []operator.Finding{f}
}

func (a *app) writeFindings(cmd *cli.Command, found []operator.Finding) error {
	bad := 0
	for _, f := range found {
		if f.Bad() {
			bad++
		}
	}
	var err error
	if cmd.Bool("json") {
		encoder := json.NewEncoder(a.stdout)
		for _, f := range found {
			if err = encoder.Encode(f); err != nil {
				return err
			}
		}
	} else if err = tableOfFindings(a.stdout, found); err != nil {
		return err
	}
	if bad > 0 {
		fmt.Fprintln(a.stderr, counted(bad, "finding", "findings"))
		return errFailed
	}
	return nil
}

func tableOfFindings(out io.Writer, found []operator.Finding) error {
	t := newTable(out, "CHECK", "RESULT", "WHAT WAS FOUND")
	for _, f := range found {
		t.row(f.Check, string(f.Severity), printable(f.Text))
		if f.Remedy != "" {
			t.row(" ", " ", "→ "+printable(f.Remedy))
		}
	}
	return t.end()
}
