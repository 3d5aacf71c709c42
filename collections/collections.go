// Package collections is the contract between the store and what keeps its
// data: rollouts with their attempts and places in the queue, workers,
// resources, spans, counters, and receipts of idempotent calls.
//
// Package collectionstest is the contract as code: every backend passes it. The
// backends are collections/memory and collections/mongo.
//
// Everything that decides who holds which rollout happens in a section. Of an
// atomic one ([Backend.Atomic]) all writes take effect together or none does, and
// sections are serialisable with each other; of the other kind
// ([Backend.Separately]) each record is written by itself, unless somebody else has
// changed it. Spans and counters only grow, so they have operations of their own.
//
// Errors are *queue.Error: Unavailable when the data cannot be reached now,
// TooLarge when a value is more than the backend can hold, Conflict for an
// insert over something that exists.
package collections

import (
	"context"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Backend keeps the data of one partition. All methods are safe for concurrent
// use. Records and payloads that it returns are shared: nobody writes to them.
type Backend interface {
	Rollouts
	Workers
	Resources
	Spans
	Scans
	Retention
	Payloads
	Receipts

	// Atomic runs fn as one section. Fn may run several times, when what it read
	// was changed by another section meanwhile, so its only effects are those
	// on tx and on variables it sets anew each time. When fn returns an error,
	// nothing is written and Atomic returns that error. Fn must not keep tx.
	Atomic(ctx context.Context, fn func(tx Tx) error) error

	// Separately runs fn once, as a section whose records need not change
	// together: each record that it puts is written by itself, and only if nobody
	// has changed it since fn saw it. Lost names the records that fn read or put
	// and that were not, or may not have been, as it saw them: nothing was written
	// to these. A receipt that exists already is lost, and with it the rollouts
	// that it refers to. Fn puts no new rollouts and no resources.
	Separately(ctx context.Context, fn func(tx Tx) error) (lost Lost, err error)

	// Watch has news called with what other processes do to the data, from now
	// on until stop is called. News must not block. There is one watcher at a time.
	Watch(news func(News)) (stop func())

	// Statistics counts; Name, Uptime and Memory are filled in by the backend
	// where it knows them.
	Statistics(ctx context.Context) (queue.Statistics, error)
	// Ping reports whether the data can be reached.
	Ping(ctx context.Context) error
	// Shared reports whether other processes may write to the same data.
	Shared() bool
	// Close releases everything. The backend is not used afterwards.
	Close(ctx context.Context) error
}

// Lost are the records that [Backend.Separately] did not write.
type Lost struct {
	Rollouts, Workers, Receipts map[string]bool // by id
}

// Some reports whether there are any.
func (l Lost) Some() bool { return len(l.Rollouts)+len(l.Workers)+len(l.Receipts) > 0 }

// ErrTogether is the answer of PutRollout in a section whose records are written
// separately, when the record cannot be: it has other staged payloads than before.
var ErrTogether = queue.Errorf(queue.Internal, "this change has to be written by an atomic section")

// ErrRemembered is the answer of PutRollout when other processes may remember the
// rollout as it was when it finished. It can be changed after Recall.
var ErrRemembered = queue.Errorf(queue.Internal, "this finished rollout has to be recalled before it is changed")

// News is one thing that another process has done.
type News struct {
	Finished string // the rollout that it finished, if any
	Queued   bool   // it put a rollout into the queue
	Missed   bool   // anything may have happened: look for it
}

// Tx is what an atomic section sees and changes. It is used by one goroutine.
// Reads see the section's own writes. Get-methods return nil, nil for what does
// not exist; what they return is shared, so a section that changes a record
// clones it first and puts the clone.
type Tx interface {
	// Prefetch says which records the section will read, so that a remote
	// backend fetches them in one go. It is only a hint.
	Prefetch(rolloutIDs, workerIDs []string) error
	// Rollout gets a record.
	Rollout(id string) (*queue.Record, error)
	// Head gets up to n queued records, by Place, leaving out those that this
	// section has put already.
	Head(n int) ([]*queue.Record, error)
	// InsertRollouts adds new records; an id that exists is a Conflict. A Place of
	// queue.Tail is replaced by the next place in the queue, in order.
	InsertRollouts(rs []*queue.Record) error
	// PutRollout replaces a record that the section has read, numbering
	// queue.Tail likewise.
	PutRollout(r *queue.Record) error

	// Worker gets a worker's record.
	Worker(id string) (*queue.Worker, error)
	// PutWorker inserts or replaces a worker's record.
	PutWorker(w *queue.Worker) error

	// Resources gets a set of resources.
	Resources(id string) (*queue.ResourcesUpdate, error)
	// PutResources inserts or replaces a set and makes it the latest.
	PutResources(u *queue.ResourcesUpdate) error

	// Receipt gets what an idempotent call left behind.
	Receipt(key string) (*Receipt, error)
	// PutReceipt leaves it.
	PutReceipt(r *Receipt) error
}

// Receipt is the memory of an idempotent call: enough to give its first answer
// again. A backend may forget receipts older than [ReceiptLife].
type Receipt struct {
	Key       string
	Operation string  // the method, so that a key is not used for two
	Time      float64 // Unix seconds
	// Refs are what was created, in order; AttemptID is empty where no attempt was,
	// and of resources RolloutID is the resources id.
	Refs []queue.AttemptRef
}

// Receipts are the reads of receipts outside sections.
type Receipts interface {
	// Answered lists those of the keys that have receipts, in any order. A section
	// that does not put the receipt of a key may take it for new, on
	// [Backend.Separately]; not one that begins after it has been listed here.
	Answered(ctx context.Context, keys []string) ([]string, error)
}

// ReceiptLife is how long receipts are kept, in seconds: longer than any client
// keeps trying, short enough that a memory backend can hold those of every claim.
const ReceiptLife = 15 * 60

// Rollouts are the reads of rollouts outside atomic sections.
type Rollouts interface {
	// Records gets the records of those ids that exist, in any order.
	Records(ctx context.Context, ids []string) ([]*queue.Record, error)
	// Finished gets the records of those ids that have finished, in any order,
	// and reports how many of the ids exist and have not. Ids are distinct.
	// The attempts but for the latest's id may be as they were when it finished.
	Finished(ctx context.Context, ids []string) (done []*queue.Record, pending int, err error)
	// LatestAttemptID is the id of a rollout's latest attempt, "" where there is
	// none.
	LatestAttemptID(ctx context.Context, id string) (string, error)
	// Recall has all processes forget what they remember of finished rollouts, so
	// that they can be changed. It may take some tenths of a second.
	Recall(ctx context.Context, ids []string) error
	// QueryRollouts lists records. Order without a sort is that of StartTime,
	// then of insertion; ties of a sort are in that order too; null sorts
	// smallest, text by code point.
	QueryRollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error)
	// Overdue lists up to limit ids of records with 0 < Due < now, earliest first,
	// of equals the one inserted first.
	Overdue(ctx context.Context, now float64, limit int) ([]string, error)
	// HasQueued reports whether anything waits in the queue.
	HasQueued(ctx context.Context) (bool, error)
	// QueuedBefore counts the rollouts in the queue before a place, up to limit.
	QueuedBefore(ctx context.Context, place int64, limit int) (int, error)
}

// Workers are the reads of workers outside atomic sections.
type Workers interface {
	// Worker returns nil, nil when there is none.
	Worker(ctx context.Context, id string) (*queue.Worker, error)
	QueryWorkers(ctx context.Context, q queue.WorkerQuery) (queue.Page[*queue.Worker], error)
}

// Resources are the reads of resources outside atomic sections.
type Resources interface {
	// Resources returns nil, nil when there is none.
	Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error)
	// LatestResources is the set with the greatest UpdateTime, of equals the one
	// written last, hidden ones aside (see [queue.Hidden]); nil, nil when there is
	// none.
	LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error)
	QueryResources(ctx context.Context, q queue.ResourcesQuery) (queue.Page[*queue.ResourcesUpdate], error)
}

// Spans are spans and the counters that number them.
type Spans interface {
	// InsertSpans stores spans, each on its own. stored[i] is false when the
	// attempt of spans[i] already has a span of that id, in the store or earlier
	// in spans. On an error some may have been stored. When that is [ErrAgain],
	// stored says which, and the others may be inserted again: one that the insert
	// broken off has stored late is stored, and gets the number it has.
	InsertSpans(ctx context.Context, spans []queue.Span) (stored []bool, err error)
	// QuerySpans lists spans of one rollout; AttemptID is literal here. Order as
	// for QueryRollouts, insertion order without a sort.
	QuerySpans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error)
	// NextSequence issues numbers: for each entry n numbers of a rollout, the
	// first of which is returned. Entries are of distinct rollouts. When durable
	// is false the caller vouches that a durable write follows before anyone
	// sees the numbers. When one of the counters cannot rise so far the error is
	// [ErrNumbersUsedUp], and numbers of the others may be lost.
	NextSequence(ctx context.Context, entries []Counter, durable bool) (first []int64, err error)
	// RaiseSequence makes each counter at least Counter.N. It is durable once a
	// later durable write is.
	RaiseSequence(ctx context.Context, entries []Counter) error
}

// Counter is a number for a rollout's span counter.
type Counter struct {
	RolloutID string
	N         int64
}

// ErrAgain is the error of an insert of spans that was broken off, perhaps with
// the backend, which may have lost counters that were not durable: spans that got
// their numbers from them need others.
var ErrAgain = queue.Errorf(queue.Unavailable, "storing spans was broken off: send them again")

// ErrNumbersUsedUp is the Conflict of a counter that stands so high that the
// numbers asked for are more than an int64 holds: a span brought that number.
func ErrNumbersUsedUp(rolloutID string) error {
	return queue.Errorf(queue.Conflict, "the span numbers of rollout %s are used up; number its spans yourself, below the largest sequence_id stored", rolloutID)
}

// Payloads are what callers own: any JSON, up to [MaxPayload] bytes if it is
// staged. Records that a section reads may hold stubs in place of large ones.
// A section writes a stub as it does any payload, and only Complete shows what
// it stands for; records and spans read otherwise are complete.
type Payloads interface {
	// Stage writes those payloads that are larger than over bytes ahead of the
	// section that will refer to them, and puts stubs in their places, where that
	// is of use. A payload is referred to once, and within a minute.
	Stage(ctx context.Context, over int, payloads ...*rawjson.Value) error
	// Complete replaces stubs by what they stand for.
	Complete(ctx context.Context, payloads ...*rawjson.Value) error
}

// MaxPayload is the size of the largest payload that every backend keeps, in
// bytes.
const MaxPayload = 64 << 20

// The sizes in bytes above which payloads are staged. What belongs to a rollout
// is carried by each of its claims, finishes and lists; a set of resources is
// read as a whole each time.
const (
	StageOver          = 64 << 10
	StageResourcesOver = 8 << 20
)

// Retention deletes what is old, a batch at a time. Any number of processes may
// do so at once, and any of them may die at any moment: the next call goes on.
type Retention interface {
	// Purge deletes one batch of what is older than it is to be. A rollout goes
	// with its attempts at once and as a whole, unless it is revived before; its
	// spans, counter and payloads go in the batches that begin PurgeGrace later.
	Purge(ctx context.Context, old Cutoffs) (Purged, error)
}

// PurgeGrace is how long, in seconds, what hangs on a deleted rollout stays:
// those who are reading it come to their end, and a span that comes late goes
// with the others.
const PurgeGrace = 60

// Cutoffs say what is old, in Unix seconds. 0 is the beginning: nothing is.
type Cutoffs struct {
	Now      float64 // the time by which PurgeGrace is measured
	Finished float64 // rollouts that ended before are old
	Spans    float64 // spans that were stored before are old
}

// Purged counts what a batch deleted.
type Purged struct {
	Rollouts, Spans int64
	Attempts        []queue.AttemptRef // those of the rollouts
	// More tells that the next batch need not wait for something to grow old.
	More bool
}
