package mongo

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
)

// What the tests of the package see of it.

func (b *Backend) Handle() *driver.Database { return b.database }

var (
	Key      = key
	OpenWith = open
)

// RoundTrip writes a record's document and reads it again.
func (b *Backend) RoundTrip(r *queue.Record) *queue.Record {
	return decodeRecord(b.encodeRecord(r, 1, 2)).Record
}

// Document is the record's document, and Change the update to another state.
func (b *Backend) Document(r *queue.Record) bson.Raw { return b.encodeRecord(r, 1, 2) }

func Change(before, after *queue.Record) bson.Raw { return encodeChange(before, after, 2, 3) }

// DecodeRecord reads a record's document.
func DecodeRecord(raw bson.Raw) *queue.Record { return decodeRecord(raw).Record }

func RecordSize(r *queue.Record) int { return recordSize(r) }

// Counted is what the change stream adds up to.
func (b *Backend) Counted(ctx context.Context) (map[queue.RolloutStatus]int64, int64, error) {
	t, err := b.tallied.read(ctx)
	return t.byStatus, t.attempts, err
}

func NumberAfter(n int64) int64 {
	numbers.after(n)
	return numbers.next()
}

// Migrate leads the database from the present version on by further steps, each
// of them named by its function.
func (b *Backend) Migrate(ctx context.Context, further ...func(ctx context.Context, progress func(int64)) error) error {
	steps := append([]migration{}, migrations...)
	for _, run := range further {
		steps = append(steps, migration{"a step of the test", func(ctx context.Context, _ *Backend, progress func(int64)) error {
			return run(ctx, progress)
		}})
	}
	return b.checkSchema(ctx, steps)
}

// SchemaVersion is the version of a new database.
func SchemaVersion() int64 { return schemaVersion() }

// Hold and Release take and give back a lease.
func (b *Backend) Hold(ctx context.Context, name string, life time.Duration) (bool, error) {
	return b.hold(ctx, name, life)
}

func (b *Backend) Release(ctx context.Context, name string) { b.release(ctx, name) }

// EncodeRecord and EncodeSpan make the documents that inserts write.
func (b *Backend) EncodeRecord(r *queue.Record) bson.Raw {
	order := numbers.next()
	if r.Place == queue.Tail {
		r.Place = order
	}
	return b.encodeRecord(r, mark(b.newRevision(), transitionOf(nil, r)), order)
}

// InsertBigSpan stores a span as one that is larger than a document.
func (b *Backend) InsertBigSpan(ctx context.Context, s queue.Span) (bool, error) {
	return b.insertBigSpan(ctx, s)
}

func (b *Backend) EncodeSpan(s *queue.Span) bson.Raw { return b.encodeSpan(s) }

// Meet makes the backend believe that another process claims too.
func (b *Backend) Meet() { b.stream.claimed(b.writer ^ 1) }

// Recount counts as for a change stream that cannot be resumed, with writes
// that are still waited for.
func (b *Backend) Recount(ctx context.Context) error {
	section := b.newRevision()
	b.tallied.expect(section, 1)
	b.tallied.settle(section, 0)
	cs, err := b.openAnew(ctx)
	if err != nil {
		return err
	}
	return cs.Close(ctx)
}

// Awaited is how many sections' writes the counts wait for.
func (b *Backend) Awaited() int { return len(b.tallied.missing()) }

// OwnFinish is the revision of a rollout that this process has finished.
func (b *Backend) OwnFinish() int64 {
	return mark(b.newRevision(), transition{before: queue.RolloutRunning, after: queue.RolloutSucceeded})
}

// Marked is by how many attempts a revision tells that there are more.
func Marked(attempts int64) int64 {
	t, _ := read(mark(0, transition{attempts: attempts}))
	return t.attempts
}

// NumberedByAnother makes the backend believe that another primary has issued the
// numbers of the spans to come.
func (b *Backend) NumberedByAnother() {
	by := b.moved.take()
	by.of = "another"
	b.moved.by = by
}

// SeparatelyByAnother is Separately where another primary is elected between the
// receipts and the rollouts.
func (b *Backend) SeparatelyByAnother(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	s := newSection(ctx, b)
	s.separate = true
	s.wroteBy.of = "another"
	if err := fn(s); err != nil {
		return collections.Lost{}, err
	}
	return s.commitSeparately()
}

// BreakOff is an insert of a span whose answer never came: the document that it
// would have inserted, which arrives when the test inserts it, and whether the span
// was there.
func (b *Backend) BreakOff(ctx context.Context, s *queue.Span) (doc bson.Raw, stored bool, err error) {
	doc = b.encodeSpan(s)
	spans, found := []queue.Span{*s}, []bool{false}
	err = b.findStored(ctx, []bson.Raw{doc}, spans, found)
	*s = spans[0]
	return doc, found[0], err
}

// ReadTogether is how many spans of each attempt one batch of reads brings; -1 is of
// one whose caller has to read alone, -2 if it is too long for good.
func (b *Backend) ReadTogether(ctx context.Context, of ...queue.AttemptRef) (spans []int, err error) {
	batch := make([]*groupcommit.Call[*spanRead], len(of))
	for i, ref := range of {
		batch[i] = &groupcommit.Call[*spanRead]{Item: &spanRead{of: ref}, Ctx: ctx}
	}
	b.readSpans(batch)
	for _, c := range batch {
		n := len(c.Item.spans)
		for i := range c.Item.spans {
			if s := &c.Item.spans[i]; s.RolloutID != c.Item.of.RolloutID || s.AttemptID != c.Item.of.AttemptID || s.SequenceID != int64(i+1) {
				return nil, queue.Errorf(queue.Internal, "span %d of %v is %d of %s, %s", i+1, c.Item.of, s.SequenceID, s.RolloutID, s.AttemptID)
			}
		}
		switch {
		case c.Item.long:
			n = -2
		case c.Item.alone:
			n = -1
		}
		spans, err = append(spans, n), errors.Join(err, c.Err)
	}
	return spans, err
}

// AnotherMoves moves a counter as another process does.
func (b *Backend) AnotherMoves(ctx context.Context, e collections.Counter) (*driver.UpdateResult, error) {
	return b.counters.main.UpdateOne(ctx, b.idIn([]string{e.RolloutID}), moveCounter("$inc", e.N))
}

// ReadWorkers answers one question for workers, by their ids.
func (b *Backend) ReadWorkers(ctx context.Context, ids ...string) (found []string, err error) {
	batch := make([]*groupcommit.Call[*workerRead], len(ids))
	for i, id := range ids {
		batch[i] = &groupcommit.Call[*workerRead]{Item: &workerRead{id: id}, Ctx: ctx}
	}
	b.readWorkers(batch)
	for _, c := range batch {
		name := ""
		if c.Item.worker != nil {
			name = c.Item.worker.WorkerID
		}
		found, err = append(found, name), errors.Join(err, c.Err)
	}
	return found, err
}
