// Package store is the queue itself: queue.Store over a storage backend. It
// takes the rules from package queue and the storage from package collections,
// and adds what lies between them: group commit, claims, the watchdog, waiting,
// and the memory of idempotent calls.
//
// Every change of a rollout runs as a member of a batch. While one batch is being
// written the next one gathers. Nearly all run in a lane whose records are written
// each by itself, conditional on what was read; those that create rollouts, or need
// several to change together, in one whose batches are atomic sections of the
// backend. A member that fails leaves the others alone.
//
// A span's heartbeat changes nothing but a time, nearly always. Such heartbeats
// are therefore written together, shortly after; any read that could show one
// waits for them first, so no caller of the same process can tell.
package store

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
)

// Defaults of Options.
const (
	DefaultScanDebounce = 10 * time.Second
	DefaultScanInterval = time.Second
	DefaultWorkerTTL    = 30 * time.Second // where leases are on without a value given
)

// commitTimeout bounds one commit, whatever its callers' deadlines: a batch
// must not die of its most impatient member. The Python client gives up at 30 s.
const commitTimeout = 20 * time.Second

// flights is how many commits of a lane are useful at a time. In the process
// itself they only take turns, and each caller had best do its own. On a remote
// backend, commits of changes are kept apart: larger batches cost the database
// less than overlapping ones would gain, and claims would fight over the head of
// the queue.
type flights struct{ changes, spans, counters int }

var (
	inProcess = flights{changes: 64, spans: 64, counters: 64}
	remote    = flights{changes: 1, spans: 1, counters: 1}
)

// Options says how a Store works. The zero Options are a store without
// background scans, whose calls each scan first, and without leases.
type Options struct {
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// NewID makes identifiers; nil is queue.RandomID.
	NewID queue.IDFunc
	// WorkerTTL requeues the attempts of a worker that has shown no sign of life
	// for so long; 0 never does.
	WorkerTTL time.Duration
	// ScanDebounce is the least time between two watchdog scans before calls; 0
	// scans before each call.
	ScanDebounce time.Duration
	// ScanInterval is the time between background scans; 0 makes none.
	ScanInterval time.Duration
	// RetainFinished and RetainSpans are how long finished rollouts, with all that
	// belongs to them, and spans are kept before they are deleted in the
	// background; 0 is for ever.
	RetainFinished, RetainSpans time.Duration
	// Purged, if not nil, is told how many of them were deleted. It must not
	// block.
	Purged func(rollouts, spans int64)
	// Observer, if not nil, is told what happens.
	Observer Observer
	// Logger is where the store reports; nil is slog.Default().
	Logger *slog.Logger
}

// Store implements queue.Store. Use New.
type Store struct {
	backend  collections.Backend
	now      func() time.Time
	newID    queue.IDFunc
	lease    float64  // seconds, 0 for none
	observer Observer // nil for none
	log      *slog.Logger
	started  time.Time

	changes  *groupcommit.Group[*change] // written record by record
	sections *groupcommit.Group[*change] // written together
	spans    *groupcommit.Group[*spanBatch]
	counters *groupcommit.Group[*numbers]
	// What is written behind.
	beatFlushes, rosterFlushes *groupcommit.Group[struct{}]

	known   known
	issued  issued
	beats   beats
	roster  roster
	repeats repeats
	waits   waits
	claims  claimers
	watch   watchdog
	again   chan struct{}   // has room for one: waiters may have missed something
	unwatch func()          // ends the backend's news; nil where there are none
	closing context.Context // ends when Close begins
	close   context.CancelFunc
	running sync.WaitGroup // background goroutines
}

var _ queue.Store = (*Store)(nil)

// New makes a store over a backend, which it then owns, and starts its
// background work. The caller must Close it.
func New(backend collections.Backend, o Options) *Store {
	s := &Store{
		backend: backend,
		now:     o.Now,
		newID:   o.NewID,
		lease:   o.WorkerTTL.Seconds(),
		log:     cmp.Or(o.Logger, slog.Default()),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.newID == nil {
		s.newID = queue.RandomID
	}
	s.started = s.now()
	s.closing, s.close = context.WithCancel(context.Background())
	parallel := inProcess
	if backend.Shared() {
		parallel = remote
	}
	s.changes = groupcommit.New(s.commitChanges, (*change).weight, parallel.changes)
	s.sections = groupcommit.New(s.commitSections, (*change).weight, parallel.changes)
	s.spans = groupcommit.New(s.commitSpans, (*spanBatch).weight, parallel.spans)
	s.counters = groupcommit.New(s.commitNumbers, nil, parallel.counters)
	s.beatFlushes = newFlushes(func() { s.beats.flush(s) })
	s.rosterFlushes = newFlushes(func() { s.roster.flush(s) })
	s.observe(o.Observer)
	s.known.Limit, s.issued.Limit, s.roster.written.Limit = 100_000, 100_000, 10_000
	s.beats.wake = make(chan struct{}, 1)
	s.roster.wake, s.repeats.wake = s.beats.wake, s.beats.wake
	s.again = make(chan struct{}, 1)
	s.watch.debounce, s.watch.turn = o.ScanDebounce, make(chan struct{}, 1)
	if o.ScanInterval > 0 {
		s.running.Go(func() { s.scanEvery(o.ScanInterval) })
	}
	s.running.Go(s.writeBehind)
	if s.lease > 0 {
		s.running.Go(s.adoptLeases)
	}
	if keep := (retention{o.RetainFinished, o.RetainSpans, o.Purged}); backend.Shared() || keep.finished > 0 || keep.spans > 0 {
		s.running.Go(func() { s.purgeEvery(keep) })
	}
	if backend.Shared() {
		s.unwatch = backend.Watch(s.hear)
		s.running.Go(s.lookAgain)
	}
	return s
}

// Ready reports whether the backend can be reached.
func (s *Store) Ready(ctx context.Context) error { return s.backend.Ping(ctx) }

// EndWaits makes calls that wait return with what they have, now and from now
// on. It is the first step of a shutdown that leaves no call unanswered.
func (s *Store) EndWaits() { s.close() }

// Close ends waits, writes what is pending, and closes the backend. Calls must
// have ended, save those that wait.
func (s *Store) Close(ctx context.Context) error {
	s.close()
	if s.unwatch != nil {
		s.unwatch()
	}
	s.running.Wait()
	s.settle(context.WithoutCancel(ctx))
	s.settleWorkers(context.WithoutCancel(ctx))
	s.beatFlushes.Wait()
	s.rosterFlushes.Wait()
	s.changes.Wait()
	s.sections.Wait()
	s.spans.Wait()
	s.counters.Wait()
	return s.backend.Close(ctx)
}

func (s *Store) seconds() float64 { return queue.Seconds(s.now()) }
