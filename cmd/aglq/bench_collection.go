package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/benchmarks/collection"
	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
)

func (a *app) benchCollectionCommand() *cli.Command {
	return &cli.Command{
		Name: "collection", ArgsUsage: "insert|dequeue", Usage: "measure the storage without a server",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "backend", Value: "memory", Validator: oneOf("memory", "mongo"), Usage: "`PLACE` of the data: memory or mongo"},
			&cli.IntFlag{Name: "total-tasks", Value: 100_000, Validator: aCount, Usage: "`NUMBER` of sections"},
			&cli.IntFlag{Name: "concurrency", Value: 1024, Validator: aCount, Usage: "`NUMBER` of callers"},
			&cli.StringFlag{Name: "task-prefix", Value: "collection-bench", Validator: notEmpty, Usage: "`TEXT` that ids begin with"},
			summaryFileFlag("the summary as a line of JSON"),
			&cli.StringFlag{
				Name: "mongo-uri", Sources: cli.EnvVars("AGL_MONGO_URI"), DefaultText: "that of a mongod of its own",
				Usage: "`URI` of a MongoDB replica set",
			},
			&cli.StringFlag{
				Name: "mongo-database", Value: "agentlightning_collection_bench", Validator: notEmpty,
				Usage: "`NAME` of the database, which is dropped first and afterwards",
			},
			mongodFlag(), figuresFlag(),
		},
		Action: a.action(a.benchCollection),
	}
}

func (a *app) benchCollection(ctx context.Context, cmd *cli.Command) error {
	operation, err := oneArg(cmd, "what to measure, "+strings.Join(collection.Operations, " or ")+",")
	if err != nil {
		return err
	}
	if !slices.Contains(collection.Operations, operation) {
		return usagef(cmd, "%q cannot be measured, only %s", operation, strings.Join(collection.Operations, " and "))
	}
	var backend collections.Backend = memory.New(memory.Options{Logger: slog.New(slog.DiscardHandler)})
	if cmd.String("backend") == "mongo" {
		opened, release, err := benchBackend(ctx, cmd)
		if err != nil {
			return err
		}
		defer release()
		backend = opened
	}
	defer backend.Close(context.WithoutCancel(ctx))
	summary, err := collection.Run(ctx, backend, collection.Options{
		Operation: operation, BackendName: cmd.String("backend"), TotalTasks: cmd.Int("total-tasks"),
		Concurrency: cmd.Int("concurrency"), TaskPrefix: cmd.String("task-prefix"),
	})
	if err != nil {
		return err
	}
	line, err := json.Marshal(summary)
	if err != nil {
		return err
	}
	if err := appendLine(cmd.String("summary-file"), string(line)); err != nil {
		return err
	}
	if err := a.showOutcome(cmd, summary); err != nil {
		return err
	}
	if summary.Failures > 0 {
		return errFailed
	}
	return nil
}

// benchBackend opens an empty database, on a mongod of its own where none is
// named, and a function that removes what it made.
func benchBackend(ctx context.Context, cmd *cli.Command) (_ *mongo.Backend, release func(), err error) {
	uri, stop := cmd.String("mongo-uri"), func() {}
	if uri == "" {
		m, err := benchmarks.StartMongod(ctx, cmd.String("mongod"))
		if err != nil {
			return nil, nil, fmt.Errorf("%w; name another with --mongod, or one that runs with --mongo-uri", err)
		}
		uri, stop = m.URI, m.Stop
	}
	drop := func(ctx context.Context) error { return dropDatabase(ctx, uri, cmd.String("mongo-database")) }
	if err := drop(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	backend, err := mongo.Open(ctx, mongo.Options{URI: uri, Database: cmd.String("mongo-database"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		stop()
		return nil, nil, err
	}
	return backend, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_ = drop(ctx) // the next run drops it too
		stop()
	}, nil
}

func dropDatabase(ctx context.Context, uri, name string) error {
	client, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return fmt.Errorf("reading the MongoDB URI: %w", err)
	}
	defer client.Disconnect(context.WithoutCancel(ctx))
	if err := client.Database(name).RunCommand(ctx, bson.D{{Key: "dropDatabase", Value: 1}}).Err(); err != nil {
		return fmt.Errorf("cannot drop database %s: %w", name, err)
	}
	return nil
}
