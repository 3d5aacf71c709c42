package mongo

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
)

// openTimeout bounds Open under a context without a deadline. Building indexes
// over existing data may take long.
const openTimeout = 5 * callTimeout

// The names of indexes that queries name, so that no plan depends on luck.
const (
	byPlace      = "place"
	byDue        = "due"
	byStart      = "start"
	byStartDesc  = "start_desc"
	byStatus     = "status_start"
	byStatusDesc = "status_start_desc"
	byOrder      = "order"
	byUpdate     = "update"
	bySequence   = "sequence"
	byRollout    = "rollout"
)

// prepare makes the database fit for use.
func (b *Backend) prepare(ctx context.Context) error {
	if err := b.checkServer(ctx); err != nil {
		return err
	}
	if err := b.checkSchema(ctx, migrations); err != nil { // a migration takes as long as it takes
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		bounded, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		ctx = bounded
	}
	if err := b.createCollections(ctx); err != nil {
		return wrap(err, "creating collections in MongoDB")
	}
	if err := b.createIndexes(ctx); err != nil {
		return wrap(err, "creating indexes in MongoDB")
	}
	if err := b.resumeNumbers(ctx); err != nil {
		return wrap(err, "reading the end of the queue in MongoDB")
	}
	if err := b.enter(ctx); err != nil {
		return err
	}
	return b.follow(ctx)
}

func (b *Backend) checkServer(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	var hello struct {
		SetName string `bson:"setName"`
		Message string `bson:"msg"`
	}
	err := b.client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
	if err != nil {
		return wrap(err, "connecting to MongoDB (check the URI, that mongod runs, and that its replica set has been initiated)")
	}
	b.sharded = hello.Message == "isdbgrid"
	if hello.SetName == "" && !b.sharded {
		return queue.Errorf(queue.Invalid, "this MongoDB server is not a member of a replica set, and transactions need one: "+
			"start mongod with --replSet rs0, then run once: mongosh --eval 'rs.initiate()'")
	}
	return nil
}

// createCollections makes them before the first transaction writes to them.
func (b *Backend) createCollections(ctx context.Context) error {
	existing, err := b.database.ListCollectionNames(ctx, bson.D{})
	if err != nil {
		return err
	}
	has := make(map[string]bool, len(existing))
	for _, name := range existing {
		has[name] = true
	}
	for name := range b.collections() {
		if has[name] {
			continue
		}
		o := options.CreateCollection()
		if name == "spans" {
			o.SetStorageEngine(bson.D{{Key: "wiredTiger", Value: bson.D{{Key: "configString", Value: "block_compressor=zstd"}}}})
		}
		const namespaceExists = 48 // another process was faster
		if err := b.database.CreateCollection(ctx, name, o); err != nil && !hasCode(err, []int{namespaceExists}) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b *Backend) createIndexes(ctx context.Context) error {
	above0 := func(field string) bson.D { return bson.D{{Key: field, Value: bson.D{{Key: "$gt", Value: 0}}}} }
	index := func(name string, fields ...any) driver.IndexModel {
		keys := bson.D{}
		for i := 0; i < len(fields); i += 2 {
			keys = append(keys, bson.E{Key: fields[i].(string), Value: fields[i+1]})
		}
		return driver.IndexModel{Keys: keys, Options: options.Index().SetName(name)}
	}
	partial := func(on string, m driver.IndexModel) driver.IndexModel {
		m.Options.SetPartialFilterExpression(above0(on))
		return m
	}
	ofRollouts := index(byRollout, "p", 1, "r", 1)
	ofRollouts.Options.SetPartialFilterExpression(bson.D{{Key: "r", Value: bson.D{{Key: "$exists", Value: true}}}})
	ttl := index("expiry", "at", 1)
	// The document says when it expires, so that another life needs no other index.
	ttl.Options.SetExpireAfterSeconds(0)
	// Order o is part of each key that sorts, for ties are in order of insertion
	// whatever the direction.
	wanted := map[*driver.Collection][]driver.IndexModel{
		b.rollouts.main: {
			partial("q", index(byPlace, "p", 1, "q", 1)),
			partial("due", index(byDue, "p", 1, "due", 1, "o", 1, "r", 1)),
			index(byStart, "p", 1, "t0", 1, "o", 1),
			index(byStartDesc, "p", 1, "t0", -1, "o", 1),
			index(byStatus, "p", 1, "st", 1, "t0", 1, "o", 1),
			index(byStatusDesc, "p", 1, "st", 1, "t0", -1, "o", 1),
		},
		b.workers.main:   {index(byOrder, "p", 1, "o", 1)},
		b.resources.main: {index(byOrder, "p", 1, "o", 1), index(byUpdate, "p", 1, "ut", -1, "w", -1)},
		b.receipts.main:  {ttl},
		b.waste.main:     {index(byDue, "p", 1, "at", 1)},
		b.payloads.main:  {partial("o", index(byStored, "p", 1, "o", 1)), ofRollouts},
		// The attempt is there to be filtered by without reading the span.
		b.spans.main: {index(bySequence, "p", 1, "r", 1, "n", 1, "o", 1, "a", 1)},
	}
	group, ctx := errgroup.WithContext(ctx)
	for c, models := range wanted {
		group.Go(func() error {
			_, err := c.Indexes().CreateMany(ctx, models)
			if err != nil {
				return fmt.Errorf("on %s: %w", c.Name(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// resumeNumbers keeps the queue in order when the clock was set back since the
// last run.
func (b *Backend) resumeNumbers(ctx context.Context) error {
	filter := bson.D{{Key: "p", Value: b.partition}, {Key: "q", Value: bson.D{{Key: "$gt", Value: 0}}}}
	o := options.Find().SetSort(bson.D{{Key: "p", Value: -1}, {Key: "q", Value: -1}}).SetLimit(1).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "q", Value: 1}}).SetHint(byPlace)
	return each(ctx, b.rollouts.main, filter, o, func(raw bson.Raw) {
		for _, v := range fields(raw) {
			numbers.after(v.int())
		}
	})
}
