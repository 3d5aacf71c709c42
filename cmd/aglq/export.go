package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/queue/client"
)

// archiveFormat is the format of what aglq import reads.
const archiveFormat = "archive"

func (a *app) exportCommand() *cli.Command {
	formats := append([]string{archiveFormat}, names(dataset.Formats)...)
	return &cli.Command{
		Name: "export", Usage: "write all that a store holds into a file, or make a dataset of it", ArgsUsage: "[FILE]",
		Description: "With the format archive FILE gets all there is, as JSON lines under zstd, which aglq import reads; - is standard output.\n" +
			"It comes from a running store, or with --mongo-uri from its database, in which case no store has to run. Until it is\n" +
			"complete it is FILE.partial, so an export that was interrupted is simply made again.\n\n" +
			"The other formats make training data of attempts, of those that all the options select, and write it to --out with\n" +
			"a manifest beside it. Until they are complete the files are .partial, too.",
		Flags: flags(placeFlags(), []cli.Flag{
			&cli.StringFlag{Name: "format", Value: archiveFormat, Usage: "`FORMAT`: " + orList(formats), Validator: oneOf(formats...)},
		}, datasetFlags()),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if cmd.String("format") != archiveFormat {
				return a.exportDataset(ctx, cmd)
			}
			for _, f := range datasetFlags() {
				if name := f.Names()[0]; cmd.IsSet(name) {
					return usagef(cmd, "--%s is for datasets, and an archive holds everything: give another --format with it", name)
				}
			}
			return a.export(ctx, cmd)
		}),
	}
}

// placeFlags say where data is: behind a store's URL or in a database.
func placeFlags() []cli.Flag {
	return []cli.Flag{
		storeURLFlag(),
		&cli.StringFlag{
			Name: "mongo-uri", DefaultText: "none: the store is asked",
			Usage: "`URI` of the MongoDB to work on directly",
		},
		&cli.StringFlag{
			Name: "mongo-database", Sources: cli.EnvVars("AGL_MONGO_DATABASE"),
			DefaultText: "the one in the URI, else " + mongo.DefaultDatabase, Usage: "`NAME` of the database, with --mongo-uri",
		},
		&cli.StringFlag{
			Name: "partition-id", Value: mongo.DefaultPartition, Sources: cli.EnvVars("AGL_PARTITION_ID"),
			Usage: "`NAME` of the part of the database, with --mongo-uri", Validator: notEmpty,
		},
	}
}

// directly tells whether to work on a database, and not through a store.
func directly(cmd *cli.Command) (bool, error) {
	if !cmd.IsSet("mongo-uri") {
		return false, nil
	}
	if cmd.Count("store-url") > 0 && os.Getenv("AGL_STORE_URL") == "" {
		return false, usagef(cmd, "--store-url and --mongo-uri name two places: give one")
	}
	return true, nil
}

// openPlace opens the database that the options name.
func (a *app) openPlace(ctx context.Context, cmd *cli.Command) (*mongo.Backend, error) {
	return mongo.Open(ctx, mongo.Options{
		URI: cmd.String("mongo-uri"), Database: cmd.String("mongo-database"), Partition: cmd.String("partition-id"),
	})
}

func (a *app) export(ctx context.Context, cmd *cli.Command) error {
	name, err := oneArg(cmd, "FILE")
	if err != nil {
		return err
	}
	direct, err := directly(cmd)
	if err != nil {
		return err
	}
	write := func(w io.Writer) (archive.Counts, error) { return a.exportStore(ctx, cmd, w) }
	if direct {
		write = func(w io.Writer) (archive.Counts, error) { return a.exportDatabase(ctx, cmd, w) }
	}
	var counts archive.Counts
	if name == "-" {
		counts, err = write(a.stdout)
	} else {
		counts, err = exportFile(name, write)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "exported %s\n", counts)
	return nil
}

// exportFile gives a file its name when it is complete and on disk.
func exportFile(name string, write func(io.Writer) (archive.Counts, error)) (archive.Counts, error) {
	partial := name + ".partial"
	file, err := os.Create(partial)
	if err != nil {
		return archive.Counts{}, err
	}
	counts, err := write(file)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return counts, errors.Join(err, os.Remove(partial))
	}
	if err := os.Rename(partial, name); err != nil {
		return counts, err
	}
	if dir, err := os.Open(filepath.Dir(name)); err == nil { // so that the name is on disk too
		_ = dir.Sync()
		dir.Close()
	}
	return counts, nil
}

func (a *app) exportDatabase(ctx context.Context, cmd *cli.Command, w io.Writer) (archive.Counts, error) {
	b, err := a.openPlace(ctx, cmd)
	if err != nil {
		return archive.Counts{}, err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	return archive.Write(w, archive.Scan(ctx, b))
}

// exportStore copies what the store sends, and checks it on the way.
func (a *app) exportStore(ctx context.Context, cmd *cli.Command, w io.Writer) (counts archive.Counts, err error) {
	err = a.withStore(cmd, func(s *client.Client) error {
		sent, err := s.Export(ctx)
		if err != nil {
			return err
		}
		defer sent.Close()
		counts, err = archive.Check(io.TeeReader(sent, w))
		return err
	})
	return counts, err
}
