package collections

import (
	"context"
	"time"

	"github.com/aglq/aglq/queue"
)

// Operation is something that a backend does.
type Operation uint8

// The operations: those of a backend, then those inside a section. A backend
// that writes a section at its end does the work of the latter in [OpAtomic].
const (
	OpAtomic Operation = iota
	OpRecords
	OpFinished
	OpQueryRollouts
	OpOverdue
	OpHasQueued
	OpWorker
	OpQueryWorkers
	OpResources
	OpLatestResources
	OpQueryResources
	OpInsertSpans
	OpQuerySpans
	OpNextSequence
	OpRaiseSequence
	OpStatistics

	OpPrefetch
	OpTxRollout
	OpHead
	OpInsertRollouts
	OpPutRollout
	OpTxWorker
	OpPutWorker
	OpTxResources
	OpPutResources
	OpReceipt
	OpPutReceipt

	numOperations
)

// Operations says of each operation what it is, and of which collection, in the
// words of the reference. "router" is all of them.
var Operations = [numOperations]struct{ Name, Collection string }{
	OpAtomic:          {"atomic", "router"},
	OpRecords:         {"get", "rollouts"},
	OpFinished:        {"query", "rollouts"},
	OpQueryRollouts:   {"query", "rollouts"},
	OpOverdue:         {"query", "rollouts"},
	OpHasQueued:       {"peek", "rollout_queue"},
	OpWorker:          {"get", "workers"},
	OpQueryWorkers:    {"query", "workers"},
	OpResources:       {"get", "resources"},
	OpLatestResources: {"get", "resources"},
	OpQueryResources:  {"query", "resources"},
	OpInsertSpans:     {"insert", "spans"},
	OpQuerySpans:      {"query", "spans"},
	OpNextSequence:    {"inc", "span_sequence_ids"},
	OpRaiseSequence:   {"chmax", "span_sequence_ids"},
	OpStatistics:      {"size", "router"},
	OpPrefetch:        {"query", "router"},
	OpTxRollout:       {"get", "rollouts"},
	OpHead:            {"dequeue", "rollout_queue"},
	OpInsertRollouts:  {"insert", "rollouts"},
	OpPutRollout:      {"update", "rollouts"},
	OpTxWorker:        {"get", "workers"},
	OpPutWorker:       {"upsert", "workers"},
	OpTxResources:     {"get", "resources"},
	OpPutResources:    {"upsert", "resources"},
	OpReceipt:         {"get", "receipts"},
	OpPutReceipt:      {"insert", "receipts"},
}

// Observer is told what a backend does. Its methods are called by many
// goroutines and must not block.
type Observer interface {
	// Operation tells of one that has ended, on behalf of a caller.
	Operation(caller string, op Operation, took time.Duration, err error)
	// SectionRan tells how often a section ran, which has been written or given
	// up; more than once means that others changed what it had read.
	SectionRan(caller string, times int)
}

type callerKey struct{}

// WithCaller names what operations under ctx are done for.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// Caller is the name that ctx carries, "unknown" for none.
func Caller(ctx context.Context) string {
	if name, ok := ctx.Value(callerKey{}).(string); ok {
		return name
	}
	return "unknown"
}

// Observed is a backend whose operations an observer is told of. What it does
// not list above goes through untold.
type Observed struct {
	Backend
	observer Observer
}

// Observe wraps a backend.
func Observe(b Backend, o Observer) *Observed { return &Observed{b, o} }

func (b *Observed) told(ctx context.Context, op Operation, began time.Time, err error) {
	b.observer.Operation(Caller(ctx), op, time.Since(began), err)
}

// Atomic implements Backend.
func (b *Observed) Atomic(ctx context.Context, fn func(tx Tx) error) error {
	began := time.Now()
	tx := observedTx{observer: b.observer, caller: Caller(ctx)}
	times := 0
	err := b.Backend.Atomic(ctx, func(inner Tx) error {
		tx.Tx = inner
		times++
		return fn(&tx)
	})
	b.observer.Operation(tx.caller, OpAtomic, time.Since(began), err)
	b.observer.SectionRan(tx.caller, times)
	return err
}

// Records implements Rollouts.
func (b *Observed) Records(ctx context.Context, ids []string) ([]*queue.Record, error) {
	began := time.Now()
	out, err := b.Backend.Records(ctx, ids)
	b.told(ctx, OpRecords, began, err)
	return out, err
}

// Finished implements Rollouts.
func (b *Observed) Finished(ctx context.Context, ids []string) ([]*queue.Record, int, error) {
	began := time.Now()
	done, pending, err := b.Backend.Finished(ctx, ids)
	b.told(ctx, OpFinished, began, err)
	return done, pending, err
}

// QueryRollouts implements Rollouts.
func (b *Observed) QueryRollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	began := time.Now()
	page, err := b.Backend.QueryRollouts(ctx, q)
	b.told(ctx, OpQueryRollouts, began, err)
	return page, err
}

// Overdue implements Rollouts.
func (b *Observed) Overdue(ctx context.Context, now float64, limit int) ([]string, error) {
	began := time.Now()
	ids, err := b.Backend.Overdue(ctx, now, limit)
	b.told(ctx, OpOverdue, began, err)
	return ids, err
}

// HasQueued implements Rollouts.
func (b *Observed) HasQueued(ctx context.Context) (bool, error) {
	began := time.Now()
	has, err := b.Backend.HasQueued(ctx)
	b.told(ctx, OpHasQueued, began, err)
	return has, err
}

// Worker implements Workers.
func (b *Observed) Worker(ctx context.Context, id string) (*queue.Worker, error) {
	began := time.Now()
	w, err := b.Backend.Worker(ctx, id)
	b.told(ctx, OpWorker, began, err)
	return w, err
}

// QueryWorkers implements Workers.
func (b *Observed) QueryWorkers(ctx context.Context, q queue.WorkerQuery) (queue.Page[*queue.Worker], error) {
	began := time.Now()
	page, err := b.Backend.QueryWorkers(ctx, q)
	b.told(ctx, OpQueryWorkers, began, err)
	return page, err
}

// Resources implements Resources.
func (b *Observed) Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error) {
	began := time.Now()
	u, err := b.Backend.Resources(ctx, id)
	b.told(ctx, OpResources, began, err)
	return u, err
}

// LatestResources implements Resources.
func (b *Observed) LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error) {
	began := time.Now()
	u, err := b.Backend.LatestResources(ctx)
	b.told(ctx, OpLatestResources, began, err)
	return u, err
}

// QueryResources implements Resources.
func (b *Observed) QueryResources(ctx context.Context, q queue.ResourcesQuery) (queue.Page[*queue.ResourcesUpdate], error) {
	began := time.Now()
	page, err := b.Backend.QueryResources(ctx, q)
	b.told(ctx, OpQueryResources, began, err)
	return page, err
}

// InsertSpans implements Spans.
func (b *Observed) InsertSpans(ctx context.Context, spans []queue.Span) ([]bool, error) {
	began := time.Now()
	stored, err := b.Backend.InsertSpans(ctx, spans)
	b.told(ctx, OpInsertSpans, began, err)
	return stored, err
}

// QuerySpans implements Spans.
func (b *Observed) QuerySpans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	began := time.Now()
	page, err := b.Backend.QuerySpans(ctx, q)
	b.told(ctx, OpQuerySpans, began, err)
	return page, err
}

// NextSequence implements Spans.
func (b *Observed) NextSequence(ctx context.Context, entries []Counter, durable bool) ([]int64, error) {
	began := time.Now()
	first, err := b.Backend.NextSequence(ctx, entries, durable)
	b.told(ctx, OpNextSequence, began, err)
	return first, err
}

// RaiseSequence implements Spans.
func (b *Observed) RaiseSequence(ctx context.Context, entries []Counter) error {
	began := time.Now()
	err := b.Backend.RaiseSequence(ctx, entries)
	b.told(ctx, OpRaiseSequence, began, err)
	return err
}

// Statistics implements Backend.
func (b *Observed) Statistics(ctx context.Context) (queue.Statistics, error) {
	began := time.Now()
	st, err := b.Backend.Statistics(ctx)
	b.told(ctx, OpStatistics, began, err)
	return st, err
}
