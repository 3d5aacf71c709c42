package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/collections/agentlightning"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue/client"
)

func (a *app) importCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "store what is in an archive, or in the database of agl store", ArgsUsage: "[FILE]",
		Description: "FILE is what aglq export has written; - is standard input. A file that was cut short or changed is refused before\n" +
			"anything is stored; of standard input what came before the fault is stored, and the report says what.\n" +
			"It goes into a running store, or with --mongo-uri into its database. The partition has to be empty, unless\n" +
			"--merge is given, which also finishes an import that was interrupted.",
		Flags: flags(placeFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "merge", Usage: "store what is missing; what is there stays, and is reported where it differs"},
			&cli.StringFlag{
				Name: "from-agentlightning", Usage: "`URI` of the MongoDB of Agent-Lightning's store, to read instead of a file; nothing must write to it meanwhile",
			},
			&cli.StringFlag{
				Name: "source-database", Value: agentlightning.DefaultDatabase, Usage: "`NAME` of Agent-Lightning's database", Validator: notEmpty,
			},
			&cli.StringFlag{
				Name: "source-partition", DefaultText: "the only one",
				Usage: "`ID` of the partition in it to read, or " + agentlightning.AllPartitions + "; each start of agl store has made one",
			},
		}),
		Action: a.action(a.doImport),
	}
}

func (a *app) doImport(ctx context.Context, cmd *cli.Command) error {
	direct, err := directly(cmd)
	if err != nil {
		return err
	}
	from, err := a.importSource(ctx, cmd)
	if err != nil {
		return err
	}
	defer from.close()
	var report archive.Report
	if direct {
		report, err = a.importDatabase(ctx, cmd, from)
	} else {
		report, err = a.importStore(ctx, cmd, from)
	}
	return a.importReport(&report, from, err)
}

// importReport prints what was done. Err is what ended the import early.
func (a *app) importReport(report *archive.Report, from *importFrom, err error) error {
	for _, p := range append(from.problems, report.Problems...) {
		fmt.Fprintln(a.stderr, "problem:", p)
	}
	if n := report.Unnamed(); n > 0 {
		fmt.Fprintf(a.stderr, "problem: and %d more\n", n)
	}
	if report.Nothing() && err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "stored:        %s\nthere already: %s\n", report.Stored, report.Present)
	if n := report.Conflicts; n > 0 {
		fmt.Fprintf(a.stdout, "conflicts:     %d, left as they were\n", n)
	}
	if n := report.Refused + int64(len(from.problems)); n > 0 {
		fmt.Fprintf(a.stdout, "refused:       %d\n", n)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.stderr, "aglq: the import was interrupted; with --merge it goes on from here")
		return err
	}
	if err != nil {
		return fmt.Errorf("the import is incomplete; with --merge it goes on from here: %w", err)
	}
	if report.Conflicts+report.Refused > 0 || len(from.problems) > 0 {
		return errors.New("not everything was taken in: see the problems above")
	}
	return nil
}

// importFrom is what an import reads: items, or an archive.
type importFrom struct {
	items    archive.Items
	file     io.Reader // nil where items come from elsewhere
	problems []string  // of the source
	close    func()
}

// importSource opens what is to be read.
func (a *app) importSource(ctx context.Context, cmd *cli.Command) (*importFrom, error) {
	if cmd.IsSet("from-agentlightning") {
		if err := noArgs(cmd); err != nil {
			return nil, err
		}
		return a.importAgentLightning(ctx, cmd)
	}
	for _, name := range []string{"source-database", "source-partition"} {
		if cmd.IsSet(name) {
			return nil, usagef(cmd, "--%s goes with --from-agentlightning", name)
		}
	}
	name, err := oneArg(cmd, "FILE, or --from-agentlightning,")
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory; give the file that aglq export has written", name)
	}
	in := a.inputFile(name)
	file, err := in.reader(ctx, nil)
	if err != nil {
		return nil, err
	}
	if in.again {
		if err := checkArchive(in); err != nil {
			file.Close()
			return nil, fmt.Errorf("%s: nothing was imported: %w", name, err)
		}
	}
	return readArchive(file, func() { file.Close() })
}

// checkArchive reads a file to its end.
func checkArchive(in inputFile) error {
	file, err := in.open()
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = archive.Check(file)
	return err
}

func readArchive(file io.Reader, closeFile func()) (*importFrom, error) {
	r, err := archive.NewReader(file)
	if err != nil {
		closeFile()
		return nil, err
	}
	return &importFrom{items: r.Items(), file: file, close: func() { r.Close(); closeFile() }}, nil
}

func (a *app) importAgentLightning(ctx context.Context, cmd *cli.Command) (*importFrom, error) {
	from := &importFrom{}
	source, err := agentlightning.Open(ctx, agentlightning.Options{
		URI: cmd.String("from-agentlightning"), Database: cmd.String("source-database"), Partition: cmd.String("source-partition"),
		Note:    func(text string) { fmt.Fprintln(a.stderr, "note:", text) },
		Problem: func(text string) { from.problems = append(from.problems, text) },
	})
	if err != nil {
		return nil, err
	}
	from.items, from.close = source.Items(ctx), func() { source.Close(ctx) }
	return from, nil
}

func (a *app) importDatabase(ctx context.Context, cmd *cli.Command, from *importFrom) (archive.Report, error) {
	b, err := a.openPlace(ctx, cmd)
	if err != nil {
		return archive.Report{}, err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	return archive.Import(ctx, b, from.items, archive.Options{Merge: cmd.Bool("merge")})
}

// importStore sends an archive to a store: the file, or one that is made on the
// way.
func (a *app) importStore(ctx context.Context, cmd *cli.Command, from *importFrom) (report archive.Report, err error) {
	body := from.file
	if body == nil {
		read, stop := archived(from.items)
		defer stop()
		body = read
	}
	err = a.withStore(cmd, func(s *client.Client) error {
		answer, err := s.Import(ctx, body, cmd.Bool("merge"))
		if answer != nil {
			report = archive.DecodeReport(answer)
		}
		return err
	})
	return report, err
}

// archived makes an archive of items while it is read. Stop waits until the
// source is no longer used.
func archived(items archive.Items) (read io.Reader, stop func()) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := archive.Write(w, items)
		w.CloseWithError(err)
	}()
	return r, func() {
		r.Close()
		<-done
	}
}
