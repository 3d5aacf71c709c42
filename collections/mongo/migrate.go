package mongo

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/queue"
)

// The layout of a database has a version. A process that meets an older one
// leads it on, step by step, while others that open the database wait; one that
// meets a newer one refuses it. Stores of the older version must be stopped
// before: they do not look at the version again once they run.

// migration is one step of the layout. Run leads all partitions on. It may be
// interrupted at any moment, and begins anew then: it finds out itself what is
// done already, and does no harm where all is. It calls progress now and then
// with the number of documents that it has dealt with.
type migration struct {
	name string
	run  func(ctx context.Context, b *Backend, progress func(documents int64)) error
}

// migrations are the steps in order; the first leads from version 1 to 2. To
// change the layout, add one, and write what reads the new layout only.
var migrations = []migration{
	// Version 2 may have payloads beside their documents, which version 1 cannot
	// read, and lists the partitions.
	{"list the partitions", listPartitions},
	// Version 3 counts by the change stream.
	{"drop the counts of version 2", dropLanes},
}

// schemaVersion is the layout that this version of aglq reads and writes.
func schemaVersion() int64 { return int64(1 + len(migrations)) }

const (
	// migrationLease is after how long another process takes a migration over
	// whose process died.
	migrationLease = 15 * time.Second
	migrationPoll  = 200 * time.Millisecond
	progressEvery  = 5 * time.Second
	migrationName  = "migration"
)

// checkSchema brings the layout of the database to this version's.
func (b *Backend) checkSchema(ctx context.Context, steps []migration) error {
	known := int64(1 + len(steps))
	for waited := false; ; {
		version, err := b.readSchema(ctx, known)
		switch {
		case err != nil:
			return err
		case version > known:
			return queue.Errorf(queue.Invalid, "database %s has schema version %d and this aglq knows versions up to %d: upgrade aglq",
				b.database.Name(), version, known)
		case version == known:
			return nil
		}
		held, err := b.hold(ctx, migrationName, migrationLease)
		if err != nil {
			return err
		}
		if held {
			if err := b.migrate(ctx, version, steps); err != nil {
				return err
			}
			continue
		}
		if !waited {
			b.log.Info("waiting for another process that migrates the database", "database", b.database.Name(), "version", version)
			waited = true
		}
		if !sleep(ctx, migrationPoll) {
			return queue.Wrap(queue.Unavailable, ctx.Err(), "waiting for another process that migrates the database")
		}
	}
}

// readSchema reads the version, and writes that of a new database.
func (b *Backend) readSchema(ctx context.Context, known int64) (int64, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var found struct {
		Version int64 `bson:"version"`
	}
	err := b.meta.main.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: "schema"}},
		bson.D{{Key: "$setOnInsert", Value: bson.D{{Key: "version", Value: known}}}},
		options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After),
	).Decode(&found)
	return found.Version, wrap(err, "checking the schema version in MongoDB")
}

// migrate runs the steps that are left, under the lease that this process holds.
func (b *Backend) migrate(ctx context.Context, from int64, steps []migration) error {
	ctx, lost := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { b.keep(ctx, migrationName, migrationLease, lost) })
	defer func() {
		lost(nil)
		renewing.Wait()
		b.release(context.WithoutCancel(ctx), migrationName)
	}()
	// Another process may have come further since the version was read.
	version, err := b.readSchema(ctx, from)
	for ; err == nil && version < int64(1+len(steps)); version++ {
		step := steps[version-1]
		if err = b.runStep(ctx, version, step); err != nil {
			err = wrap(errors.Join(err, context.Cause(ctx)), "migrating the database: "+step.name)
		}
	}
	return err
}

func (b *Backend) runStep(ctx context.Context, from int64, step migration) error {
	log := b.log.With("database", b.database.Name(), "step", step.name, "from", from, "to", from+1)
	log.Info("migrating the database")
	began, told := time.Now(), time.Now()
	documents := int64(0)
	err := step.run(ctx, b, func(n int64) {
		documents = n
		if time.Since(told) >= progressEvery {
			told = time.Now()
			log.Info("still migrating the database", "documents", n, "seconds", time.Since(began).Seconds())
		}
	})
	if err != nil {
		return err
	}
	res, err := b.meta.main.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: "schema"}, {Key: "version", Value: from}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: from + 1}}}})
	if err == nil && res.MatchedCount != 1 {
		err = queue.Errorf(queue.Conflict, "another process has migrated the database at the same time; start again")
	}
	if err == nil {
		log.Info("migrated the database", "documents", documents, "seconds", time.Since(began).Seconds())
	}
	return err
}

// keep renews a lease until ctx ends, or lost is called since it cannot.
func (b *Backend) keep(ctx context.Context, name string, life time.Duration, lost context.CancelCauseFunc) {
	renewed := time.Now()
	for sleep(ctx, life/5) {
		held, err := b.hold(ctx, name, life)
		switch {
		case err == nil && held:
			renewed = time.Now()
		case err == nil || time.Since(renewed) > life*3/5:
			lost(queue.Errorf(queue.Unavailable, "the lease that kept other processes away was lost; start again"))
			return
		}
	}
}
