// Package mongo keeps the data of package collections in MongoDB 5.0 or newer,
// a replica set or a sharded cluster. Every key begins with the partition, so
// that trainers share a database.
//
// A rollout is one document with its attempts and its place in the queue, so it
// is never half changed. A section ([Backend.Atomic]) reads outside any
// transaction and remembers the revisions of what it read. Its writes go out
// together at the end, each under the condition that the revision is still the
// one read: a single document as one conditional write, several in one
// transaction, in which a document that was only read is written to as well
// (its field l), so that sections stay serialisable. A section that finds
// something changed runs again. Only absence is not guarded, unless the section
// creates what it found absent: ids of rollouts are made up and never reused.
//
// Sections whose records need not change together go without transactions
// ([Backend.Separately]). Counts of rollouts by status follow from the change
// stream, which tells every process what all of them write.
package mongo

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	monitor "go.mongodb.org/mongo-driver/v2/event"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/internal/recent"
	"github.com/aglq/aglq/queue"
)

// Defaults of Options.
const (
	DefaultDatabase  = "aglq"
	DefaultPartition = "default"
)

const (
	// selectTimeout is how long a call looks for a primary.
	selectTimeout = 5 * time.Second
	// callTimeout bounds a call whose context has no deadline.
	callTimeout = 10 * time.Second
)

// Options says where the data is.
type Options struct {
	// URI is the connection string of a replica set or sharded cluster.
	URI string
	// Database is its name; "" is the one in URI, and DefaultDatabase without.
	Database string
	// Partition keeps the data apart from that of others in the database; "" is
	// DefaultPartition.
	Partition string
	// SpansUnsafe acknowledges spans once the primary has them in memory. A crash of
	// the primary may then lose those of the last moment, though their senders were
	// told that they are stored.
	SpansUnsafe bool
	// Logger is where retries are reported; nil is slog.Default().
	Logger *slog.Logger
	// Commands and Pool, if not nil, are told of every command and of the
	// connections to the servers.
	Commands *monitor.CommandMonitor
	Pool     *monitor.PoolMonitor
}

// Backend implements collections.Backend. Use Open. It holds no state that
// matters: any number of processes may serve one partition.
type Backend struct {
	client    *driver.Client
	database  *driver.Database
	partition string
	log       *slog.Logger

	rollouts, workers, resources, receipts, counts, spans, counters, payloads, waste, partitions, meta handles

	id       int64 // of this process, as the holder of leases
	purging  purging
	presence presence
	writer   int64 // of this process, in revisions
	sharded  bool  // through mongos, whose answers may be older than the question
	tallied  counts
	stream   stream
	ahead    ahead
	floor    floor
	spanned  spanCount
	spansTo  *driver.Collection // under the concern that spans are written with
	retrying chan struct{}      // held by a section that runs again

	knownRollouts recent.Memory[string, cached[queue.Record]]
	knownWorkers  recent.Memory[string, cached[queue.Worker]]
	ended         ended
	recalled      recent.Memory[string, endOf] // the ends that this process has recalled
	moved         moved
	knownCounters recent.Memory[string, counter]
	receiptsMet   met
	longRollouts  met // with more spans than are read together
	spanReads     *groupcommit.Group[*spanRead]
	workerReads   *groupcommit.Group[*workerRead]
	reading       context.Context // of reads, until Close
	stopReading   context.CancelFunc
	doubtful      recent.Memory[string, []int64] // spans whose inserts were broken off: by _id, the numbers of these
}

var _ collections.Backend = (*Backend)(nil)

// handles are one collection under the concerns that calls need.
type handles struct {
	// main reads what a majority has and writes to a majority's journals.
	main *driver.Collection
	// local reads the latest, which a failover may still undo: for sections,
	// whose writes fail if it was undone.
	local *driver.Collection
	// snapshot reads one point in time, over any number of documents.
	snapshot *driver.Collection
	// fast writes to the primary's memory only.
	fast *driver.Collection
}

// Open connects and makes sure that the server can be used, that collections
// and indexes exist and that the schema is one this version knows. Several
// processes may do so at once.
func Open(ctx context.Context, o Options) (*Backend, error) {
	return open(ctx, o, options.Client())
}

// open takes driver options besides, which tests set.
func open(ctx context.Context, o Options, clientOptions *options.ClientOptions) (*Backend, error) {
	b, err := connect(o, clientOptions)
	if err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		b.leave()
		_ = b.client.Disconnect(context.WithoutCancel(ctx))
		return nil, err
	}
	return b, nil
}

func connect(o Options, clientOptions *options.ClientOptions) (*Backend, error) {
	parsed, err := connstring.Parse(o.URI)
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "reading the MongoDB URI")
	}
	clientOptions.ApplyURI(o.URI).SetAppName(appName).
		SetReadPreference(readpref.Primary()).
		SetReadConcern(readconcern.Majority()).
		SetWriteConcern(journaled()).
		SetRetryReads(true).SetRetryWrites(true).
		SetPoolMonitor(o.Pool)
	if o.Commands != nil { // else what tests have set
		clientOptions.SetMonitor(o.Commands)
	}
	clientOptions.SetMonitor(notingTerms(clientOptions.Monitor))
	if parsed.ServerSelectionTimeout == 0 {
		clientOptions.SetServerSelectionTimeout(selectTimeout)
	}
	client, err := driver.Connect(clientOptions)
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "reading the MongoDB URI")
	}
	b := &Backend{
		client:    client,
		database:  client.Database(cmp.Or(o.Database, parsed.Database, DefaultDatabase)),
		partition: cmp.Or(o.Partition, DefaultPartition),
		log:       cmp.Or(o.Logger, slog.Default()),
		retrying:  make(chan struct{}, 1),
		ahead:     ahead{turn: make(chan struct{}, 1)},
		id:        rand.Int64(),
		writer:    newWriter(),
	}
	b.knownRollouts.Limit, b.knownWorkers.Limit, b.recalled.Limit = cacheLimit, cacheLimit, cacheLimit
	b.ended.Limit = endedLimit
	b.newReads()
	b.knownCounters.Limit, b.receiptsMet.Limit, b.longRollouts.Limit, b.doubtful.Limit = metLimit, metLimit, metLimit, metLimit
	for name, h := range b.collections() {
		*h = handles{
			main:     b.database.Collection(name),
			local:    b.database.Collection(name, options.Collection().SetReadConcern(readconcern.Local())),
			snapshot: b.database.Collection(name, options.Collection().SetReadConcern(readconcern.Snapshot())),
			fast:     b.database.Collection(name, options.Collection().SetWriteConcern(&writeconcern.WriteConcern{W: 1})),
		}
	}
	if b.spansTo = b.spans.main; o.SpansUnsafe {
		b.spansTo = b.spans.fast
	}
	return b, nil
}

func journaled() *writeconcern.WriteConcern {
	journal := true
	return &writeconcern.WriteConcern{W: "majority", Journal: &journal}
}

func (b *Backend) collections() map[string]*handles {
	return map[string]*handles{
		"rollouts": &b.rollouts, "workers": &b.workers, "resources": &b.resources, "receipts": &b.receipts,
		"rollout_counts": &b.counts, "spans": &b.spans, "span_sequence_ids": &b.counters, "waste": &b.waste, "payloads": &b.payloads, "partitions": &b.partitions, "schema": &b.meta,
	}
}

// bound gives ctx a deadline if it has none.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}

// Database is the name of the database in use.
func (b *Backend) Database() string { return b.database.Name() }

// Ping implements collections.Backend: a primary answers.
func (b *Backend) Ping(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	return wrap(b.client.Ping(ctx, readpref.Primary()), "asking MongoDB for a sign of life")
}

// Shared implements collections.Backend: other processes may write.
func (b *Backend) Shared() bool { return true }

// Close implements collections.Backend.
func (b *Backend) Close(ctx context.Context) error {
	b.leave()
	ctx, cancel := bound(ctx)
	defer cancel()
	b.unfollow(ctx)
	b.endReads()
	return wrap(b.client.Disconnect(ctx), "disconnecting from MongoDB")
}

// each runs a query and hands on each document, which is valid only during the
// call.
func each(ctx context.Context, c *driver.Collection, filter any, o *options.FindOptionsBuilder, do func(bson.Raw)) error {
	cursor, err := c.Find(ctx, filter, o)
	if err != nil {
		return err
	}
	defer end(ctx, cursor)
	for cursor.Next(ctx) {
		do(cursor.Current)
	}
	return cursor.Err()
}

// idIn matches documents by the last part of their _id.
func (b *Backend) idIn(ids []string) bson.Raw {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = key(b.partition, id)
	}
	d := newDoc(64 + 48*len(ids))
	d.oneOf("_id", keys)
	return d.done()
}

// end closes a cursor, though ctx may have ended. A server that does not answer
// forgets the cursor by itself.
func end(ctx context.Context, cursor interface {
	Close(ctx context.Context) error
}) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = cursor.Close(ctx)
}
