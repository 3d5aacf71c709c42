package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
)

// listing is what the commands that list and show records have in common. T is
// the record, P a pointer to it that can write it as JSON.
type listing[T any, P appender[T]] struct {
	columns []string
	row     func(T) []string
}

type appender[T any] interface {
	*T
	AppendJSON(dst []byte) []byte
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON, a record a line"}
}

// pagingFlags are the options of a list. They are its own: show has no use for
// them.
func pagingFlags(sorts []string) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{
			Name: "limit", Value: 100, Usage: "print at most `NUMBER` records; -1 prints all",
			Validator: func(n int) error {
				if n == 0 || n < -1 {
					return fmt.Errorf("it must be 1 or more, or -1 for all")
				}
				return nil
			},
		},
		&cli.IntFlag{
			Name: "offset", Usage: "leave out the first `NUMBER` records", Validator: within(0, math.MaxInt),
		},
		&cli.StringFlag{
			Name: "sort-by", DefaultText: "order of insertion",
			Usage: "`FIELD` to sort by: " + orList(sorts), Validator: oneOf(sorts...),
		},
		&cli.BoolFlag{Name: "desc", Usage: "sort from high to low"},
	}
}

func paging(cmd *cli.Command) (queue.Paging, error) {
	p := queue.Paging{
		SortBy: cmd.String("sort-by"), Descending: cmd.Bool("desc"), Limit: cmd.Int("limit"), Offset: cmd.Int("offset"),
	}
	if p.Descending && p.SortBy == "" {
		return p, usagef(cmd, "--desc needs --sort-by")
	}
	return p, nil
}

// connect makes a client of the store that the options name.
func (a *app) connect(cmd *cli.Command) (*client.Client, error) {
	url, err := storeURL(cmd)
	if err != nil {
		return nil, err
	}
	return client.New(url, client.Options{}), nil
}

// withStore runs do with a client of the store.
func (a *app) withStore(cmd *cli.Command, do func(s *client.Client) error) error {
	s, err := a.connect(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

// storePatience is how long an algorithm waits for a store that went away: as
// long as workers do unless told otherwise.
const storePatience = worker.DefaultExitWhenStoreGone

// withPatientStore is withStore for long work, which goes on after a restart of
// the store.
func (a *app) withPatientStore(ctx context.Context, cmd *cli.Command, do func(s *client.Client) error) error {
	return a.withStore(cmd, func(s *client.Client) error { return patiently(ctx, s, do) })
}

// patiently hands do a client of the same store that waits for it when it goes
// away. A store that is not there to begin with is an error.
func patiently(ctx context.Context, s *client.Client, do func(s *client.Client) error) error {
	if _, err := s.Statistics(ctx); err != nil {
		return err
	}
	patient := client.New(s.URL(), client.Options{Patience: storePatience})
	defer patient.Close()
	return do(patient)
}

// print writes a page, as a table or as JSON lines.
func (l listing[T, P]) print(a *app, cmd *cli.Command, page queue.Page[T]) error {
	out := bufio.NewWriter(a.stdout)
	if cmd.Bool("json") {
		var line []byte
		for i := range page.Items {
			line = append(P(&page.Items[i]).AppendJSON(line[:0]), '\n')
			out.Write(line)
		}
		return out.Flush()
	}
	t := newTable(out, l.columns...)
	for _, item := range page.Items {
		t.row(l.row(item)...)
	}
	if err := t.end(); err != nil {
		return err
	}
	if n := len(page.Items); n < page.Total {
		fmt.Fprintf(a.stderr, "%d of %d; see --limit and --offset\n", n, page.Total)
	}
	return out.Flush()
}

// show writes one record.
func (a *app) show(cmd *cli.Command, record []byte) error {
	if cmd.Bool("json") {
		_, err := a.stdout.Write(append(record, '\n'))
		return err
	}
	return writeRecord(a.stdout, rawjson.Value(record))
}

// showCommand is "show ID" of a kind of records.
func (a *app) showCommand(what string, show func(ctx context.Context, cmd *cli.Command, s *client.Client, id string) error) *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "print one of them", ArgsUsage: what,
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			id, err := oneArg(cmd, what)
			if err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error { return show(ctx, cmd, s, id) })
		}),
	}
}

func textPointer(cmd *cli.Command, name string) *string {
	if !cmd.IsSet(name) {
		return nil
	}
	s := cmd.String(name)
	return &s
}

// words turns the values of a list option into a list of a string type; nil
// where the option is not given.
func words[S ~string](cmd *cli.Command, name string) []S {
	if !cmd.IsSet(name) {
		return nil
	}
	var list []S
	for _, s := range cmd.StringSlice(name) {
		list = append(list, S(s))
	}
	return list
}

func names[S ~string](list []S) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

func unique(list []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		was := seen[s]
		seen[s] = true
		return was
	})
}
