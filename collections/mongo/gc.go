package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/queue"
)

// InUse is how long after it was last seen a partition counts as in use: a
// process that has it open says so every minute.
const InUse = 5 * time.Minute

const (
	dropBatch  = 2000 // documents deleted by one command
	dropChunks = 50   // likewise of payloads, which are large
)

// Janitor looks after the partitions of a database, without opening any of
// them. Use OpenJanitor.
type Janitor struct {
	b *Backend
}

// OpenJanitor connects to a database. It changes nothing, and refuses one whose
// schema is newer than this version knows. Options.Partition is of no matter.
func OpenJanitor(ctx context.Context, o Options) (*Janitor, error) {
	b, err := connect(o, options.Client())
	if err != nil {
		return nil, err
	}
	if err := b.checkForJanitor(ctx); err != nil {
		_ = b.client.Disconnect(context.WithoutCancel(ctx))
		return nil, err
	}
	return &Janitor{b}, nil
}

func (b *Backend) checkForJanitor(ctx context.Context) error {
	if err := b.checkServer(ctx); err != nil {
		return err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	version := int64(0)
	err := each(ctx, b.meta.main, bson.D{{Key: "_id", Value: "schema"}}, options.Find(), func(raw bson.Raw) {
		version, _ = raw.Lookup("version").AsInt64OK()
	})
	switch {
	case err != nil:
		return wrap(err, "checking the schema version in MongoDB")
	case version == 0:
		return queue.Errorf(queue.NotFound, "database %s holds no data of aglq: check --mongo-uri and --mongo-database", b.database.Name())
	case version != schemaVersion():
		return queue.Errorf(queue.Invalid, "database %s has schema version %d and this aglq works on version %d: "+
			"open it once with aglq store of the newer version, or upgrade aglq", b.database.Name(), version, schemaVersion())
	}
	return nil
}

// Close disconnects.
func (j *Janitor) Close(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	return wrap(j.b.client.Disconnect(ctx), "disconnecting from MongoDB")
}

// Partitions lists those of the database, the one seen longest ago first. It
// counts rollouts and spans, some seconds for millions.
func (j *Janitor) Partitions(ctx context.Context) ([]Partition, error) {
	found, err := j.list(ctx, bson.D{})
	if err != nil {
		return nil, err
	}
	for i := range found {
		if err := j.count(ctx, &found[i]); err != nil {
			return nil, wrap(err, "counting in MongoDB")
		}
	}
	return found, nil
}

func (j *Janitor) list(ctx context.Context, filter bson.D) (found []Partition, err error) {
	cursor, err := j.b.partitions.main.Aggregate(ctx, driver.Pipeline{
		{{Key: "$match", Value: filter}},
		{{Key: "$set", Value: bson.D{{Key: "idle", Value: bson.D{{Key: "$subtract", Value: bson.A{"$$NOW", "$seen"}}}}}}},
		{{Key: "$sort", Value: bson.D{{Key: "seen", Value: 1}, {Key: "_id", Value: 1}}}},
	})
	if err != nil {
		return nil, wrap(err, "listing partitions in MongoDB")
	}
	defer end(ctx, cursor)
	for cursor.Next(ctx) {
		found = append(found, decodePartition(cursor.Current))
	}
	return found, wrap(cursor.Err(), "listing partitions in MongoDB")
}

func (j *Janitor) count(ctx context.Context, p *Partition) error {
	of := &Backend{database: j.b.database, partition: p.Name, rollouts: j.b.rollouts, spans: j.b.spans}
	t, _, err := of.countAll(ctx)
	if err != nil {
		return err
	}
	p.Attempts = t.attempts
	for _, n := range t.byStatus {
		p.Rollouts += n
	}
	p.Spans, err = of.spans.main.CountDocuments(ctx, of.mine(), options.Count().SetHint(bySequence))
	return err
}

// Drop deletes a partition, in batches. It refuses one that is in use. One whose
// deletion was broken off cannot be opened until another Drop has ended it.
// Progress, if not nil, is told how many documents are gone so far.
func (j *Janitor) Drop(ctx context.Context, name string, progress func(documents int64)) error {
	if err := j.beginDrop(ctx, name); err != nil {
		return err
	}
	first, end := escape(name)+"/", escape(name)+"0" // what comes after the slash
	gone := int64(0)
	for _, h := range j.b.collections() {
		if h == &j.b.partitions || h == &j.b.meta {
			continue
		}
		batch := dropBatch
		if h == &j.b.payloads {
			batch = dropChunks
		}
		for more := true; more; {
			n, err := deleteRange(ctx, h.main, first, end, batch)
			if err != nil {
				return wrap(err, "deleting from "+h.main.Name()+" in MongoDB; run it again to go on")
			}
			gone += n
			if progress != nil && n > 0 {
				progress(gone)
			}
			more = n > 0
		}
	}
	if _, err := j.b.meta.main.DeleteOne(ctx, leaseID(key(name, purgeName))); err != nil {
		return wrap(err, "deleting the leases of the partition in MongoDB; run it again to go on")
	}
	_, err := j.b.partitions.main.DeleteOne(ctx, bson.D{{Key: "_id", Value: name}})
	return wrap(err, "deleting the partition from the list in MongoDB; run it again to go on")
}

// beginDrop marks the partition, so that nobody opens it any more.
func (j *Janitor) beginDrop(ctx context.Context, name string) error {
	rested := bson.D{{Key: "$expr", Value: bson.D{{Key: "$lt", Value: bson.A{
		"$seen", bson.D{{Key: "$subtract", Value: bson.A{"$$NOW", InUse.Milliseconds()}}},
	}}}}}
	res, err := j.b.partitions.main.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: name}, {Key: "$or", Value: bson.A{rested, bson.D{{Key: "dropping", Value: true}}}}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "dropping", Value: true}}}})
	if err != nil {
		return wrap(err, "marking the partition in MongoDB")
	}
	if res.MatchedCount == 1 {
		return nil
	}
	found, err := j.list(ctx, bson.D{{Key: "_id", Value: name}})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return queue.Errorf(queue.NotFound, "there is no partition %s in database %s", name, j.b.database.Name())
	}
	return queue.Errorf(queue.Conflict, "partition %s was in use %s ago: stop its stores, and wait until it has not been seen for %s",
		name, found[0].Idle.Round(time.Second), InUse)
}

// deleteRange deletes up to limit documents whose _id lies in a range.
func deleteRange(ctx context.Context, from *driver.Collection, first, end string, limit int) (int64, error) {
	var ids []string
	err := each(ctx, from, idRange(first, "$lt", end), options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).
		SetLimit(int64(limit)).SetBatchSize(int32(limit+1)).SetProjection(bson.D{{Key: "_id", Value: 1}}),
		func(raw bson.Raw) { ids = append(ids, raw.Lookup("_id").StringValue()) })
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	_, err = from.DeleteMany(ctx, idRange(ids[0], "$lte", ids[len(ids)-1]))
	return int64(len(ids)), err
}

func idRange(first, below, last string) bson.D {
	return bson.D{{Key: "_id", Value: bson.D{{Key: "$gte", Value: first}, {Key: below, Value: last}}}}
}
