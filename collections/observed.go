package collections

import (
	"context"
	"time"

	"github.com/aglq/aglq/queue"
)

// Operation is something that a backend does.
type Operation uint8

// The operations. What a section does is part of OpAtomic: a backend may write it
// all at the end.
const (
	OpAtomic Operation = iota
	OpSeparately
	OpRecords
	OpFinished
	OpQueryRollouts
	OpOverdue
	OpHasQueued
	OpAnswered
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

	numOperations
)

// Operations says of each operation what it is, and of which collection, in the
// words of the reference. "router" is all of them.
var Operations = [numOperations]struct{ Name, Collection string }{
	OpAtomic:          {"atomic", "router"},
	OpSeparately:      {"separately", "router"},
	OpRecords:         {"get", "rollouts"},
	OpFinished:        {"query", "rollouts"},
	OpQueryRollouts:   {"query", "rollouts"},
	OpOverdue:         {"query", "rollouts"},
	OpHasQueued:       {"peek", "rollout_queue"},
	OpAnswered:        {"get", "receipts"},
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
}

// Observer is told what a backend does. Its methods are called by many
// goroutines and must not block.
type Observer interface {
	// Operation tells of one that has ended.
	Operation(op Operation, took time.Duration, err error)
	// SectionRan tells of a section that ran more than once, because others had
	// changed what it had read, until it was written or given up.
	SectionRan(times int)
}

type observerKey struct{}

// WithObserver has o, instead of the backend's own observer, told of operations
// under ctx: those of one caller.
func WithObserver(ctx context.Context, o Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

// Detached is a context without end that keeps only the observer of ctx.
func Detached(ctx context.Context) context.Context {
	o := ctx.Value(observerKey{})
	if o == nil {
		return context.Background()
	}
	return context.WithValue(context.Background(), observerKey{}, o)
}

// epoch makes readings of the monotonic clock alone, which cost half of those of
// both clocks.
var epoch = time.Now()

// Observed is a backend whose operations an observer is told of. What it does
// not list above goes through untold.
type Observed struct {
	Backend
	observer Observer
}

// Observe wraps a backend.
func Observe(b Backend, o Observer) *Observed { return &Observed{b, o} }

func (b *Observed) observerOf(ctx context.Context) Observer {
	if o, ok := ctx.Value(observerKey{}).(Observer); ok {
		return o
	}
	return b.observer
}

func (b *Observed) told(ctx context.Context, op Operation, began time.Duration, err error) {
	b.observerOf(ctx).Operation(op, time.Since(epoch)-began, err)
}

// Atomic implements Backend.
func (b *Observed) Atomic(ctx context.Context, fn func(tx Tx) error) error {
	began := time.Since(epoch)
	var err error
	times := 1
	if b.Shared() {
		times, err = b.counted(ctx, fn)
	} else { // sections take turns
		err = b.Backend.Atomic(ctx, fn)
	}
	b.told(ctx, OpAtomic, began, err)
	if times > 1 {
		b.observerOf(ctx).SectionRan(times)
	}
	return err
}

func (b *Observed) counted(ctx context.Context, fn func(tx Tx) error) (times int, err error) {
	err = b.Backend.Atomic(ctx, func(tx Tx) error {
		times++
		return fn(tx)
	})
	return times, err
}

// Separately implements Backend. A section that lost something counts as one that
// has to run again.
func (b *Observed) Separately(ctx context.Context, fn func(tx Tx) error) (Lost, error) {
	began := time.Since(epoch)
	lost, err := b.Backend.Separately(ctx, fn)
	b.told(ctx, OpSeparately, began, err)
	if lost.Some() {
		b.observerOf(ctx).SectionRan(2)
	}
	return lost, err
}

// Records implements Rollouts.
func (b *Observed) Records(ctx context.Context, ids []string) ([]*queue.Record, error) {
	began := time.Since(epoch)
	out, err := b.Backend.Records(ctx, ids)
	b.told(ctx, OpRecords, began, err)
	return out, err
}

// Finished implements Rollouts.
func (b *Observed) Finished(ctx context.Context, ids []string) ([]*queue.Record, int, error) {
	began := time.Since(epoch)
	done, pending, err := b.Backend.Finished(ctx, ids)
	b.told(ctx, OpFinished, began, err)
	return done, pending, err
}

// LatestAttemptID implements Rollouts.
func (b *Observed) LatestAttemptID(ctx context.Context, id string) (string, error) {
	began := time.Since(epoch)
	latest, err := b.Backend.LatestAttemptID(ctx, id)
	b.told(ctx, OpRecords, began, err)
	return latest, err
}

// QueryRollouts implements Rollouts.
func (b *Observed) QueryRollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	began := time.Since(epoch)
	page, err := b.Backend.QueryRollouts(ctx, q)
	b.told(ctx, OpQueryRollouts, began, err)
	return page, err
}

// Overdue implements Rollouts.
func (b *Observed) Overdue(ctx context.Context, now float64, limit int) ([]string, error) {
	began := time.Since(epoch)
	ids, err := b.Backend.Overdue(ctx, now, limit)
	b.told(ctx, OpOverdue, began, err)
	return ids, err
}

// HasQueued implements Rollouts.
func (b *Observed) HasQueued(ctx context.Context) (bool, error) {
	began := time.Since(epoch)
	has, err := b.Backend.HasQueued(ctx)
	b.told(ctx, OpHasQueued, began, err)
	return has, err
}

// Answered implements Receipts.
func (b *Observed) Answered(ctx context.Context, keys []string) ([]string, error) {
	began := time.Since(epoch)
	answered, err := b.Backend.Answered(ctx, keys)
	b.told(ctx, OpAnswered, began, err)
	return answered, err
}

// Worker implements Workers.
func (b *Observed) Worker(ctx context.Context, id string) (*queue.Worker, error) {
	began := time.Since(epoch)
	w, err := b.Backend.Worker(ctx, id)
	b.told(ctx, OpWorker, began, err)
	return w, err
}

// QueryWorkers implements Workers.
func (b *Observed) QueryWorkers(ctx context.Context, q queue.WorkerQuery) (queue.Page[*queue.Worker], error) {
	began := time.Since(epoch)
	page, err := b.Backend.QueryWorkers(ctx, q)
	b.told(ctx, OpQueryWorkers, began, err)
	return page, err
}

// Resources implements Resources.
func (b *Observed) Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error) {
	began := time.Since(epoch)
	u, err := b.Backend.Resources(ctx, id)
	b.told(ctx, OpResources, began, err)
	return u, err
}

// LatestResources implements Resources.
func (b *Observed) LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error) {
	began := time.Since(epoch)
	u, err := b.Backend.LatestResources(ctx)
	b.told(ctx, OpLatestResources, began, err)
	return u, err
}

// QueryResources implements Resources.
func (b *Observed) QueryResources(ctx context.Context, q queue.ResourcesQuery) (queue.Page[*queue.ResourcesUpdate], error) {
	began := time.Since(epoch)
	page, err := b.Backend.QueryResources(ctx, q)
	b.told(ctx, OpQueryResources, began, err)
	return page, err
}

// InsertSpans implements Spans.
func (b *Observed) InsertSpans(ctx context.Context, spans []queue.Span) ([]bool, error) {
	began := time.Since(epoch)
	stored, err := b.Backend.InsertSpans(ctx, spans)
	b.told(ctx, OpInsertSpans, began, err)
	return stored, err
}

// QuerySpans implements Spans.
func (b *Observed) QuerySpans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	began := time.Since(epoch)
	page, err := b.Backend.QuerySpans(ctx, q)
	b.told(ctx, OpQuerySpans, began, err)
	return page, err
}

// NextSequence implements Spans.
func (b *Observed) NextSequence(ctx context.Context, entries []Counter, durable bool) ([]int64, error) {
	began := time.Since(epoch)
	first, err := b.Backend.NextSequence(ctx, entries, durable)
	b.told(ctx, OpNextSequence, began, err)
	return first, err
}

// RaiseSequence implements Spans.
func (b *Observed) RaiseSequence(ctx context.Context, entries []Counter) error {
	began := time.Since(epoch)
	err := b.Backend.RaiseSequence(ctx, entries)
	b.told(ctx, OpRaiseSequence, began, err)
	return err
}

// Statistics implements Backend.
func (b *Observed) Statistics(ctx context.Context) (queue.Statistics, error) {
	began := time.Since(epoch)
	st, err := b.Backend.Statistics(ctx)
	b.told(ctx, OpStatistics, began, err)
	return st, err
}
