package mongo

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/queue"
)

// The partitions of a database are listed, so that those nobody uses can be
// found and dropped:
//
//	_id  partition    created    seen  when a process last had it open
//	dropping  it is being deleted
//
// Times are the server's.

// seenEvery is how often a process says that it has the partition open.
const seenEvery = time.Minute

// presence is the goroutine that says so.
type presence struct {
	running sync.WaitGroup
	stop    context.CancelFunc
}

// enter lists the partition and keeps its record young until leave is called.
func (b *Backend) enter(ctx context.Context) error {
	if err := b.see(ctx); err != nil {
		return err
	}
	ctx, b.presence.stop = context.WithCancel(context.WithoutCancel(ctx))
	b.presence.running.Go(func() {
		for sleep(ctx, time.Duration(float64(seenEvery)*(0.9+0.2*rand.Float64()))) {
			if err := b.see(ctx); err != nil && ctx.Err() == nil {
				b.log.Warn("the partition was not marked as in use", "partition", b.partition, "error", err)
			}
		}
	})
	return nil
}

func (b *Backend) leave() {
	if b.presence.stop != nil {
		b.presence.stop()
		b.presence.running.Wait()
	}
}

// see marks the partition as in use. It fails where it is being dropped.
func (b *Backend) see(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	dropping := false
	for {
		raw, err := b.partitions.main.FindOneAndUpdate(ctx, bson.D{{Key: "_id", Value: b.partition}}, seen,
			options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)).Raw()
		if driver.IsDuplicateKeyError(err) {
			continue // listed by another process at the same time
		}
		if err != nil {
			return wrap(err, "listing the partition in MongoDB")
		}
		dropping = decodePartition(raw).Dropping
		break
	}
	if dropping {
		return queue.Errorf(queue.Conflict, "partition %s is being dropped: let aglq gc --partition %s --yes come to its end, or use another partition",
			b.partition, b.partition)
	}
	return nil
}

// seen keeps the time of creation, and does not make a partition young that is
// being dropped.
var seen = driver.Pipeline{{{Key: "$set", Value: bson.D{
	{Key: "created", Value: bson.D{{Key: "$ifNull", Value: bson.A{"$created", "$$NOW"}}}},
	{Key: "seen", Value: bson.D{{Key: "$cond", Value: bson.A{
		bson.D{{Key: "$eq", Value: bson.A{"$dropping", true}}}, "$seen", "$$NOW",
	}}}},
}}}}

// Partition is what a database knows of one.
type Partition struct {
	Name string
	// Created is when it was first opened, Seen when it was last known to be open.
	Created, Seen time.Time
	// Idle is the time since Seen by the server's clock.
	Idle time.Duration
	// Dropping tells that its deletion has begun and not ended.
	Dropping                  bool
	Rollouts, Attempts, Spans int64
}

func decodePartition(raw bson.Raw) (p Partition) {
	for key, v := range fields(raw) {
		switch string(key) {
		case "_id":
			p.Name = v.text()
		case "created":
			p.Created, _ = v.TimeOK()
		case "seen":
			p.Seen, _ = v.TimeOK()
		case "dropping":
			p.Dropping, _ = v.BooleanOK()
		case "idle":
			ms, _ := v.AsInt64OK()
			p.Idle = time.Duration(ms) * time.Millisecond
		}
	}
	return p
}

// listPartitions is the migration that lists those that hold anything.
func listPartitions(ctx context.Context, b *Backend, progress func(int64)) error {
	listed := int64(0)
	for _, c := range []*driver.Collection{b.rollouts.main, b.workers.main, b.resources.main} {
		var names []string
		if err := c.Distinct(ctx, "p", bson.D{}).Decode(&names); err != nil {
			return err
		}
		for _, name := range names {
			_, err := b.partitions.main.UpdateOne(ctx, bson.D{{Key: "_id", Value: name}}, seen, options.UpdateOne().SetUpsert(true))
			if err != nil {
				return err
			}
			listed++
			progress(listed)
		}
	}
	return nil
}

// dropLanes is the migration that drops the counts that were kept by transactions.
// Counts that processes leave now have a place in the change stream.
func dropLanes(ctx context.Context, b *Backend, progress func(int64)) error {
	res, err := b.counts.main.DeleteMany(ctx, bson.D{{Key: "token", Value: bson.D{{Key: "$exists", Value: false}}}})
	if err == nil {
		progress(res.DeletedCount)
	}
	return err
}
