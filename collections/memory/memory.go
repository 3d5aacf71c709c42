// Package memory keeps the collections in the memory of the process: the
// default of aglq, and gone with the process.
//
// Records are immutable. A section collects the records it writes and swaps
// them in at its end, so a failing one has nothing to undo, readers never wait
// for a section's work and never copy a payload. What the store asks for often
// has an index: the queue by place, due times, rollouts by start time with
// their status and mode in a column beside them.
//
// Spans live in shards by rollout, apart from sections, so that storing them
// never holds up a claim. Above [Options.MaxBytes] the spans of finished
// rollouts go, oldest first.
package memory

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

var _ collections.Backend = (*Backend)(nil)

// Options configure a backend. The zero Options are fine.
type Options struct {
	// MaxBytes is how much memory spans may take by estimate, before those of
	// finished rollouts are evicted down to 80 % of it; 0 is 70 % of the
	// machine's memory.
	MaxBytes int64
	// Logger hears of evictions; nil is slog.Default.
	Logger *slog.Logger
}

// Backend keeps one partition in memory. Create it with [New].
type Backend struct {
	// sections is held by the one atomic section that runs; mu is taken inside
	// it, never the other way round. Only the end of a section writes what mu
	// guards, so the section itself reads it without mu.
	sections sync.Mutex
	tx       section

	mu        sync.RWMutex
	rollouts  table
	workers   keyed[*queue.Worker]
	resources keyed[*queue.ResourcesUpdate]
	latest    *queue.ResourcesUpdate
	receipts  receipts

	shards    [shardCount]shard
	spans     atomic.Int64
	spanBytes atomic.Int64
	eviction  eviction

	purging sync.Mutex // held by the one Purge that runs; guards purge
	purge   purge

	started time.Time
}

// New makes an empty backend.
func New(o Options) *Backend {
	capacity := physicalMemory()
	limit := o.MaxBytes
	if limit <= 0 {
		limit = capacity / 10 * 7
	}
	b := &Backend{started: time.Now()}
	b.rollouts.rows = map[string]*row{}
	b.workers.at = map[string]int{}
	b.resources.at = map[string]int{}
	b.receipts.byKey = map[string]*collections.Receipt{}
	b.tx = newSection(b)
	for i := range b.shards {
		b.shards[i].lists = map[string]*spanList{}
		b.shards[i].counters = map[string]int64{}
	}
	b.eviction.log = cmp.Or(o.Logger, slog.Default())
	b.eviction.limit, b.eviction.safe, b.eviction.capacity = limit, limit-limit/5, capacity
	return b
}

// Worker implements collections.Workers.
func (b *Backend) Worker(_ context.Context, id string) (*queue.Worker, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.workers.find(id), nil
}

// QueryWorkers implements collections.Workers.
func (b *Backend) QueryWorkers(_ context.Context, q queue.WorkerQuery) (queue.Page[*queue.Worker], error) {
	b.mu.RLock()
	matches := b.workers.matches(func(w *queue.Worker) bool { return collections.MatchWorker(w, &q) })
	b.mu.RUnlock()
	return collections.PageWorkers(matches, q.Paging), nil
}

// Resources implements collections.Resources.
func (b *Backend) Resources(_ context.Context, id string) (*queue.ResourcesUpdate, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.resources.find(id), nil
}

// LatestResources implements collections.Resources.
func (b *Backend) LatestResources(context.Context) (*queue.ResourcesUpdate, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.latest, nil
}

// QueryResources implements collections.Resources.
func (b *Backend) QueryResources(_ context.Context, q queue.ResourcesQuery) (queue.Page[*queue.ResourcesUpdate], error) {
	b.mu.RLock()
	matches := b.resources.matches(func(u *queue.ResourcesUpdate) bool { return collections.MatchResources(u, &q) })
	b.mu.RUnlock()
	return collections.PageResources(matches, q.Paging), nil
}

// Statistics implements collections.Backend. Its cost does not depend on how
// much is stored.
func (b *Backend) Statistics(context.Context) (queue.Statistics, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	st := queue.Statistics{
		Name:      "InMemoryLightningStore", // the reference's name, which its clients show
		Rollouts:  int64(len(b.rollouts.records)),
		Attempts:  int64(b.rollouts.attempts),
		Spans:     b.spans.Load(),
		Resources: int64(len(b.resources.items)),
		Workers:   int64(len(b.workers.items)),
		Uptime:    time.Since(b.started),
		ByStatus:  b.rollouts.byStatus(),
		Memory: &queue.MemoryStatistics{
			SpanBytes:         b.spanBytes.Load(),
			EvictionThreshold: b.eviction.limit,
			SafeThreshold:     b.eviction.safe,
			Capacity:          b.eviction.capacity,
			EvictedSpans:      b.eviction.spans.Load(),
		},
	}
	return st, nil
}

// Ping implements collections.Backend; memory can always be reached.
func (b *Backend) Ping(context.Context) error { return nil }

// Shared implements collections.Backend: no other process sees this memory.
func (b *Backend) Shared() bool { return false }

// Close implements collections.Backend. There is nothing to release: the data
// goes with the last reference to b.
func (b *Backend) Close(context.Context) error { return nil }

// keyed is a list in order of insertion with an index by id.
type keyed[T any] struct {
	items []item[T]
	at    map[string]int
	puts  int64
}

type item[T any] struct {
	value T
	put   int64 // when it was last written, counted in puts
}

func (k *keyed[T]) find(id string) (value T) {
	if at, ok := k.at[id]; ok {
		value = k.items[at].value
	}
	return value
}

func (k *keyed[T]) put(id string, value T) {
	k.puts++
	at, ok := k.at[id]
	if !ok {
		at = len(k.items)
		k.at[id] = at
		k.items = append(k.items, item[T]{})
	}
	k.items[at] = item[T]{value, k.puts}
}

func (k *keyed[T]) matches(match func(T) bool) (out []T) {
	for _, i := range k.items {
		if match(i.value) {
			out = append(out, i.value)
		}
	}
	return out
}

// putResources replaces a set and keeps latest the one with the greatest
// update time.
func (b *Backend) putResources(u *queue.ResourcesUpdate) {
	b.resources.put(u.ResourcesID, u)
	switch {
	case queue.Hidden(u.ResourcesID):
	case b.latest == nil || u.UpdateTime >= b.latest.UpdateTime:
		b.latest = u
	case u.ResourcesID == b.latest.ResourcesID: // the clock went back
		best := item[*queue.ResourcesUpdate]{value: u}
		for _, i := range b.resources.items {
			if queue.Hidden(i.value.ResourcesID) {
				continue
			}
			order := cmp.Or(cmp.Compare(i.value.UpdateTime, best.value.UpdateTime), cmp.Compare(i.put, best.put))
			if order > 0 {
				best = i
			}
		}
		b.latest = best.value
	}
}

// receipts forgets by the time in the receipts themselves: each new one drops
// those that are older than it by more than their life.
type receipts struct {
	byKey map[string]*collections.Receipt
	order []*collections.Receipt
}

func (rs *receipts) put(r *collections.Receipt) {
	for len(rs.order) > 0 && rs.order[0].Time < r.Time-collections.ReceiptLife {
		old := rs.order[0]
		rs.order[0] = nil
		rs.order = rs.order[1:]
		if rs.byKey[old.Key] == old {
			delete(rs.byKey, old.Key)
		}
	}
	rs.byKey[r.Key] = r
	rs.order = append(rs.order, r)
}

// Answered implements collections.Receipts.
func (b *Backend) Answered(_ context.Context, keys []string) (answered []string, _ error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, key := range keys {
		if b.receipts.byKey[key] != nil {
			answered = append(answered, key)
		}
	}
	return answered, nil
}

// Stage implements collections.Payloads: memory holds any payload.
func (b *Backend) Stage(context.Context, int, ...*rawjson.Value) error { return nil }

// Complete implements collections.Payloads: nothing is left out.
func (b *Backend) Complete(context.Context, ...*rawjson.Value) error { return nil }
