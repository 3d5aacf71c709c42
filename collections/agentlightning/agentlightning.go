// Package agentlightning reads the database that Agent-Lightning's store
// ("agl store --backend mongo") keeps in MongoDB, as the items of an archive. It
// writes nothing.
//
// Nothing is rounded, renamed or reordered: payloads become JSON with their keys
// in order and their integers and floats told apart. The queue's entries become
// places, numbered by when they were made; counters of spans, heartbeats and
// times are taken as they are. Two things are repaired, because aglq has no such
// states: a rollout that should be queued and is in no queue goes to its tail, and
// what belongs to no rollout (attempts, spans, counters) is left behind. Both are
// told of.
package agentlightning

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/aglq/aglq/queue"
)

// DefaultDatabase is the one that agl store uses, whatever its URI names.
const DefaultDatabase = "agentlightning"

// AllPartitions names all of them.
const AllPartitions = "all"

// selectTimeout is how long opening looks for a server.
const selectTimeout = 5 * time.Second

// The collections, and the index of their partition.
const (
	rolloutsName  = "rollouts"
	attemptsName  = "attempts"
	spansName     = "spans"
	resourcesName = "resources"
	workersName   = "workers"
	queueName     = "rollout_queue"
	countersName  = "span_sequence_ids"
)

// Options says what to read.
type Options struct {
	// URI is the server's connection string. It may be a standalone one.
	URI string
	// Database is its name; "" is DefaultDatabase.
	Database string
	// Partition is one partition's id or AllPartitions; "" is the only one.
	Partition string
	// Note is told of what is not an exact copy, and Problem of what cannot be read
	// and is left out. Neither may be nil.
	Note, Problem func(text string)
}

// Source is an open database. It is used by one goroutine.
type Source struct {
	client     *driver.Client
	database   *driver.Database
	partitions []string // those to read, that used last first
	options    Options

	read map[string]int64 // documents taken, by collection
	// places of the queued rollouts, by partition and rollout
	places    map[[2]string]int64
	lastPlace map[string]int64 // by partition
	seen      map[string]bool  // workers and sets of resources taken already
}

// Open connects and finds the partitions. Its error is Invalid where the choice
// of a partition is wrong, and then lists them.
func Open(ctx context.Context, o Options) (*Source, error) {
	client, err := driver.Connect(options.Client().ApplyURI(o.URI).SetAppName("aglq import").
		SetServerSelectionTimeout(selectTimeout).SetReadPreference(readpref.PrimaryPreferred()))
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "reading the URI of Agent-Lightning's MongoDB")
	}
	s := &Source{
		client: client, database: client.Database(cmp.Or(o.Database, DefaultDatabase)), options: o,
		read: map[string]int64{}, places: map[[2]string]int64{}, lastPlace: map[string]int64{}, seen: map[string]bool{},
	}
	if err := s.choose(ctx); err != nil {
		s.Close(ctx)
		return nil, err
	}
	return s, nil
}

// Close disconnects.
func (s *Source) Close(ctx context.Context) { _ = s.client.Disconnect(context.WithoutCancel(ctx)) }

// Partition is one run of agl store, unless it was told otherwise.
type Partition struct {
	ID       string
	Rollouts int64
	Last     float64 // start of its latest rollout, Unix seconds, 0 for none
}

// Partitions lists the partitions in the database, that used last first.
func (s *Source) Partitions(ctx context.Context) ([]Partition, error) {
	byID := map[string]*Partition{}
	for _, name := range []string{rolloutsName, resourcesName, workersName, countersName} {
		var ids []string
		if err := s.database.Collection(name).Distinct(ctx, "partition_id", bson.D{}).Decode(&ids); err != nil {
			return nil, s.failed(err, "listing the partitions")
		}
		for _, id := range ids {
			byID[id] = &Partition{ID: id}
		}
	}
	var out []Partition
	for _, p := range byID {
		c := s.database.Collection(rolloutsName)
		var err error
		if p.Rollouts, err = c.CountDocuments(ctx, only(p.ID)); err != nil {
			return nil, s.failed(err, "counting rollouts")
		}
		if p.Rollouts > 0 {
			last := options.FindOne().SetSort(bson.D{{Key: "start_time", Value: -1}}).SetProjection(bson.D{{Key: "start_time", Value: 1}})
			var found struct {
				Start float64 `bson:"start_time"`
			}
			if err := c.FindOne(ctx, only(p.ID), last).Decode(&found); err != nil {
				return nil, s.failed(err, "looking for the latest rollout")
			}
			p.Last = found.Start
		}
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Partition) int { return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

func (s *Source) choose(ctx context.Context) error {
	found, err := s.Partitions(ctx)
	if err != nil {
		return err
	}
	wanted := s.options.Partition
	for _, p := range found {
		if wanted == "" && len(found) == 1 || wanted == AllPartitions || wanted == p.ID {
			s.partitions = append(s.partitions, p.ID)
		}
	}
	switch {
	case len(s.partitions) > 0:
		return nil
	case len(found) == 0:
		return queue.Errorf(queue.Invalid, "database %s holds nothing of Agent-Lightning: is its name right?", s.database.Name())
	case wanted == "":
		return queue.Errorf(queue.Invalid, "database %s has %d partitions, one for each start of agl store: name one, or %s\n%s",
			s.database.Name(), len(found), AllPartitions, list(found))
	}
	return queue.Errorf(queue.Invalid, "database %s has no partition %s; it has\n%s", s.database.Name(), wanted, list(found))
}

func list(ps []Partition) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintf(&b, "  %s  %d rollouts", p.ID, p.Rollouts)
		if p.Rollouts > 0 {
			fmt.Fprintf(&b, ", the latest of %s", time.UnixMicro(int64(p.Last*1e6)).UTC().Format(time.RFC3339))
		}
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (s *Source) failed(err error, doing string) error {
	return queue.Wrap(queue.Unavailable, err, doing+" in Agent-Lightning's database "+s.database.Name())
}

// only matches the documents of one partition.
func only(partition string) bson.D { return bson.D{{Key: "partition_id", Value: partition}} }

// of matches those of some rollouts in it.
func of(partition, field string, ids []string) bson.D {
	return append(only(partition), bson.E{Key: field, Value: bson.D{{Key: "$in", Value: ids}}})
}

// each hands on the documents that a query finds; they are valid only during
// the call.
func (s *Source) each(ctx context.Context, name string, filter any, o *options.FindOptionsBuilder, do func(bson.Raw) error) error {
	cursor, err := s.database.Collection(name).Find(ctx, filter, o)
	if err != nil {
		return s.failed(err, "reading "+name)
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	for cursor.Next(ctx) {
		if err := do(cursor.Current); err != nil {
			return err
		}
	}
	if err := cursor.Err(); err != nil {
		return s.failed(err, "reading "+name)
	}
	return nil
}
