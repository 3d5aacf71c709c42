package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/internal/atomicfile"
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
	if storeGiven(cmd) {
		return false, usagef(cmd, "--store-url and --mongo-uri name two places: give one")
	}
	return true, nil
}

// storeGiven tells whether --store-url names a store that its variable does not: what the
// environment says gives way to other options, what the command line says does not.
func storeGiven(cmd *cli.Command) bool {
	return cmd.IsSet("store-url") && cmd.String("store-url") != os.Getenv("AGL_STORE_URL")
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
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory; name the file to write", name)
	}
	write := func(w io.Writer) (archive.Counts, error) { return a.exportStore(ctx, cmd, w) }
	if direct {
		write = func(w io.Writer) (archive.Counts, error) { return a.exportDatabase(ctx, cmd, w) }
	}
	var counts archive.Counts
	if name == "-" {
		counts, err = write(a.stdout)
	} else {
		err = atomicfile.Write(name, ".partial", func(w io.Writer) (err error) {
			counts, err = write(w)
			return err
		})
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "exported %s\n", counts)
	return nil
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
