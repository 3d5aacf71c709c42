package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// A lease is a document of the schema collection that names the process which
// alone does some work, and until when by the server's clock: the clocks of the
// processes do not matter. A process that dies loses its leases with time.

// hold takes or renews a lease, and reports whether this process has it.
func (b *Backend) hold(ctx context.Context, name string, life time.Duration) (bool, error) {
	free := bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: "$eq", Value: bson.A{"$owner", b.id}}},
		bson.D{{Key: "$lte", Value: bson.A{bson.D{{Key: "$ifNull", Value: bson.A{"$until", time.Time{}}}}, "$$NOW"}}},
	}}}
	taken := func(then, otherwise any) bson.D {
		return bson.D{{Key: "$cond", Value: bson.A{free, then, otherwise}}}
	}
	update := driver.Pipeline{{{Key: "$set", Value: bson.D{
		{Key: "owner", Value: taken(b.id, "$owner")},
		{Key: "until", Value: taken(bson.D{{Key: "$add", Value: bson.A{"$$NOW", life.Milliseconds()}}}, "$until")},
	}}}}
	o := options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)
	for {
		raw, err := b.meta.main.FindOneAndUpdate(ctx, leaseID(name), update, o).Raw()
		if driver.IsDuplicateKeyError(err) {
			continue // made by another process at the same time
		}
		if err != nil {
			return false, wrap(err, "taking a lease in MongoDB")
		}
		owner, _ := raw.Lookup("owner").AsInt64OK()
		return owner == b.id, nil
	}
}

// release gives a lease back, if this process has it.
func (b *Backend) release(ctx context.Context, name string) {
	filter := append(leaseID(name), bson.E{Key: "owner", Value: b.id})
	if _, err := b.meta.main.DeleteOne(ctx, filter); err != nil {
		b.log.Debug("lease not given back; it ends by itself", "lease", name, "error", err)
	}
}

func leaseID(name string) bson.D { return bson.D{{Key: "_id", Value: "lease/" + name}} }
