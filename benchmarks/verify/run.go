package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	crand "crypto/rand"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

// Options says what to verify, and how hard.
type Options struct {
	// URLs are stores that run already; none starts some.
	URLs []string
	// AuthToken is the bearer token that those ask for, "" for none.
	AuthToken string
	// Command is aglq: the path of the program, whose store and verify worker
	// commands are started.
	Command []string
	// Backend is memory or mongo, for stores that are started.
	Backend string
	// Stores is how many to start: 1 on memory.
	Stores int
	// MongoURI is a MongoDB to use; "" starts one of Members members.
	MongoURI string
	Members  int
	// Mongod is the program for it; "" looks for one.
	Mongod string
	// Duration is how long the traffic lasts, Settle how long everything may take
	// to end after it.
	Duration, Settle time.Duration
	// Clients is how many clients there are, 8 or more.
	Clients int
	// Faults are the kinds to inject; see Possible.
	Faults []FaultKind
	// Seed makes the schedule of faults and the choices of clients.
	Seed uint64
	// Logger tells of faults as they come; nil is slog.Default().
	Logger *slog.Logger
}

// Possible lists the kinds of fault that can be injected where o points to.
func (o Options) Possible() []FaultKind {
	kinds := []FaultKind{WorkerKill}
	started := len(o.URLs) == 0
	if started {
		kinds = append(kinds, StorePause)
	}
	if started || !slices.ContainsFunc(o.URLs, func(url string) bool { _, ok := plainHost(url); return !ok }) {
		kinds = append(kinds, ClientCut, ClientDelay, ClientHang, ClientReset)
	}
	if started && o.Backend == "mongo" {
		kinds = append(kinds, StoreKill)
		if o.MongoURI == "" {
			kinds = append(kinds, MongodKill, StepDown)
		}
		if o.MongoURI == "" || Proxied(o.MongoURI) {
			kinds = append(kinds, MongoCut, MongoDelay, MongoHang, MongoReset)
		}
	}
	return kinds
}

// Progress is how far a run is. Its fields may be read at any time.
type Progress struct {
	Phase              atomic.Value // Phase
	Calls, Faults      atomic.Int64
	Enqueued, Unended  atomic.Int64
	Elapsed, Remaining atomic.Int64 // nanoseconds of the traffic
}

// run is a run in progress.
type run struct {
	o       Options
	log     *slog.Logger
	d       *deployment
	book    *notebook
	board   board
	pool    *workerPool
	inject  *injector
	direct  []*client.Client // past the proxies, patient: for looking
	habits  habits
	seen    *Progress
	history *History
	tag     string // begins every name
}

// Run does a whole run and returns its history. The error is one of verify or
// its surroundings; what the stores did wrong is for Check to find.
func Run(ctx context.Context, o Options, seen *Progress) (*History, error) {
	r := &run{o: o, log: o.Logger, book: newNotebook(), seen: seen, tag: "v" + strings.ToLower(crand.Text()[:8])}
	if r.log == nil {
		r.log = slog.Default()
	}
	var err error
	if r.d, err = deploy(ctx, o); err != nil {
		return nil, err
	}
	defer r.d.close()
	for _, url := range r.d.direct {
		r.direct = append(r.direct, client.New(url, client.Options{Patience: 20 * time.Second, AuthToken: o.AuthToken,
			Retry: []time.Duration{100 * time.Millisecond}}))
	}
	defer closeAll(r.direct)
	r.habits = habits{Silence: lease, Leased: len(o.URLs) == 0}
	if err := r.empty(ctx); err != nil {
		return nil, err
	}
	workers, err := os.Create(filepath.Join(r.d.dir, "workers.log"))
	if err != nil {
		return nil, err
	}
	defer workers.Close()
	r.pool = &workerPool{
		command: slices.Concat(o.Command, []string{"verify", "worker"}), book: r.book, log: workers,
		job: workerJob{Name: r.tag, URLs: r.d.urls, Token: o.AuthToken, Seed: o.Seed, Silence: r.habits.Silence, Leased: r.habits.Leased},
	}
	defer r.pool.stop()
	r.inject = &injector{d: r.d, workers: r.pool, log: r.log}
	r.history = &History{Meta: r.meta()}
	if err := r.all(ctx); err != nil {
		return nil, err
	}
	return r.history, nil
}

func (r *run) meta() Meta {
	m := Meta{
		Version: formatVersion, Tag: r.tag, Backend: r.o.Backend, Stores: len(r.d.direct), Clients: r.o.Clients, Seed: r.o.Seed,
		Faults: r.o.Faults, Lease: lease.Seconds(), Begin: now(), Phases: map[Phase]int64{},
	}
	if len(r.o.URLs) > 0 {
		m.Backend, m.Lease = "", -1
	}
	if r.d.mongod != nil {
		m.Members = r.d.mongod.Members()
	}
	return m
}

// live are the statuses of a rollout that has not ended.
var live = []queue.RolloutStatus{queue.RolloutQueuing, queue.RolloutPreparing, queue.RolloutRunning, queue.RolloutRequeuing}

// empty refuses stores that have work of others: the traffic would take it.
func (r *run) empty(ctx context.Context) error {
	n, err := r.count(ctx, live)
	if err != nil {
		return fmt.Errorf("asking the store what it holds: %w", err)
	}
	if n > 0 {
		return fmt.Errorf("the store has %d rollouts that have not ended, and verify would claim them: "+
			"verify a store with a partition of its own (aglq store --partition-id), to which no worker is attached", n)
	}
	return nil
}

// count counts rollouts, up to mostCounted. It does not trust the store's own
// count, which is among the things to verify.
func (r *run) count(ctx context.Context, statuses []queue.RolloutStatus) (int, error) {
	page, err := r.direct[0].Rollouts(ctx, queue.RolloutQuery{Statuses: statuses, Paging: queue.Paging{Limit: mostCounted}})
	return len(page.Items), err
}

const mostCounted = 1000

func (r *run) phase(p Phase) {
	r.history.Meta.Phases[p] = now()
	r.seen.Phase.Store(p)
}

func (r *run) dial() []*client.Client { return dial(r.d.urls, r.o.AuthToken) }

func closeAll(stores []*client.Client) {
	for _, s := range stores {
		s.Close()
	}
}

// all is the traffic with the faults, the drain, and the reading of what is
// there.
func (r *run) all(ctx context.Context) error {
	w := r.watchers(ctx)
	defer w.end(0)
	w.running.Go(func() { r.look(w.going) })

	r.phase(PhaseTraffic)
	if err := r.traffic(ctx, w); err != nil {
		return err
	}
	r.phase(PhaseDrain)
	if err := r.d.heal(ctx); err != nil {
		return fmt.Errorf("what was broken does not come back: %w", err)
	}
	deadline := time.Now().Add(r.o.Settle)
	if err := r.drain(ctx, deadline); err != nil {
		return err
	}
	w.end(promptness + time.Second) // by now nobody has anything to wait for
	r.phase(PhaseRead)
	for {
		finals, err := r.readAll(ctx)
		if err != nil {
			return err
		}
		r.history.Finals = finals
		r.history.Stuck = stuck(finals)
		if len(r.history.Stuck) == 0 || time.Now().After(deadline) {
			break
		}
		if err := r.drain(ctx, deadline); err != nil { // something came late
			return err
		}
	}
	r.history.Calls = r.book.all()
	slices.SortFunc(r.history.Calls, func(a, b Call) int { return int(a.Begin - b.Begin) })
	r.history.Faults = r.inject.all()
	r.history.Crashes = r.d.crashes()
	if len(r.history.Stuck) == 0 && len(r.history.Crashes) == 0 {
		return r.d.drop(ctx)
	}
	return nil
}

// watchers are the clients that go on through the drain.
type watchers struct {
	calls, going  context.Context // of their calls, and of themselves
	cancel, leave context.CancelFunc
	running       sync.WaitGroup
}

func (r *run) watchers(ctx context.Context) *watchers {
	w := &watchers{}
	w.calls, w.cancel = context.WithCancel(ctx)
	w.going, w.leave = context.WithCancel(w.calls)
	return w
}

// end ends them when their calls have returned, or after a time.
func (w *watchers) end(after time.Duration) {
	w.leave()
	timer := time.AfterFunc(after, w.cancel)
	w.running.Wait()
	timer.Stop()
	w.cancel()
}

// stuck are the rollouts that have not ended.
func stuck(finals []Final) (ids []string) {
	for i := range finals {
		if !finals[i].Status.Finished() {
			ids = append(ids, finals[i].Rollout)
		}
	}
	return ids
}

// shares is how the clients divide.
type shares struct{ producers, watchers, meddlers, racers, workers, processes, perProcess int }

func share(clients int) shares {
	s := shares{producers: max(1, clients/8), watchers: max(2, clients/4), meddlers: max(1, clients/10), racers: max(1, clients/24), processes: 2}
	rest := max(4, clients-s.producers-s.watchers-s.meddlers-2*s.racers)
	s.perProcess = max(1, rest/4)
	s.workers = max(1, rest-s.processes*s.perProcess)
	return s
}

// traffic drives all clients while faults are injected. Watchers go on after it.
func (r *run) traffic(ctx context.Context, w *watchers) error {
	s := share(r.o.Clients)
	stores := r.dial()
	caller := func(kind string, i int) *caller {
		return newCaller(fmt.Sprintf("%s-%s%d", r.tag, kind, i), stores, r.book, r.o.Seed)
	}
	ctx, stop := context.WithTimeout(ctx, r.o.Duration)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	backlog := int64(2 * (s.workers + s.processes*s.perProcess))
	for i := range s.producers {
		group.Go(func() error { caller("producer", i).produce(ctx, &r.board, r.habits, backlog); return nil })
	}
	for i := range s.meddlers {
		group.Go(func() error { caller("meddler", i).meddle(ctx, &r.board); return nil })
	}
	for i := range s.workers {
		group.Go(func() error { caller("worker", i).work(ctx, r.habits); return nil })
	}
	for i := range s.watchers {
		w.running.Go(func() { caller("watcher", i).watch(w.calls, w.going, &r.board) })
	}
	for i := range s.racers {
		w.running.Go(func() { caller("racer", i).race(w.calls, ctx, caller("waiter", i), r.habits) })
	}
	r.pool.job.Clients = s.perProcess
	if err := r.pool.start(s.processes); err != nil {
		stop()
		return errors.Join(err, group.Wait())
	}
	plan := schedule(rand.New(rand.NewPCG(r.o.Seed, 0)), r.o.Faults, r.o.Duration)
	group.Go(func() error { return r.inject.run(ctx, plan) })
	err := group.Wait()
	return errors.Join(err, w.calls.Err(), r.pool.healthy(), r.pool.stop())
}

// look keeps the board and the progress up to date.
func (r *run) look(ctx context.Context) {
	began := time.Now()
	for sleep.For(ctx, 200*time.Millisecond) == nil {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		if n, err := r.count(ask, []queue.RolloutStatus{queue.RolloutQueuing, queue.RolloutRequeuing}); err == nil {
			r.board.queued.Store(int64(n))
		}
		if n, err := r.count(ask, live); err == nil {
			r.seen.Unended.Store(int64(n))
		}
		cancel()
		r.seen.Calls.Store(int64(r.book.count()))
		r.seen.Faults.Store(int64(r.inject.count()))
		r.seen.Enqueued.Store(r.board.enqueued.Load())
		r.seen.Elapsed.Store(int64(time.Since(began)))
	}
}

// drain works off everything that is left, with clients that do as they should,
// until nothing is or the deadline has passed.
func (r *run) drain(ctx context.Context, deadline time.Time) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	var finishers sync.WaitGroup
	stores := r.dial()
	for i := range 8 {
		c := newCaller(fmt.Sprintf("%s-finisher%d-%d", r.tag, i, time.Until(deadline).Milliseconds()), stores, r.book, r.o.Seed)
		finishers.Go(func() { c.finish(working) })
	}
	defer func() {
		stop()
		finishers.Wait()
		closeAll(stores)
	}()
	for calm := 0; calm < 3 && time.Now().Before(deadline); {
		n, err := r.count(ctx, live)
		if err != nil {
			return fmt.Errorf("asking the store what is left: %w", err)
		}
		r.seen.Unended.Store(int64(n))
		calm++
		if n > 0 {
			calm = 0
		}
		if sleep.For(ctx, 200*time.Millisecond) != nil {
			return ctx.Err()
		}
	}
	return nil
}

// readAll reads every rollout of this run with its attempts and spans.
func (r *run) readAll(ctx context.Context) ([]Final, error) {
	page, err := r.direct[0].Rollouts(ctx, queue.RolloutQuery{Paging: queue.All})
	if err != nil {
		return nil, fmt.Errorf("reading what is stored: %w", err)
	}
	if r.history.Counts, err = r.counts(ctx, page.Items); err != nil {
		return nil, err
	}
	var mine []queue.AttemptedRollout
	for i := range page.Items {
		if strings.HasPrefix(markOf(page.Items[i].Input), r.tag+"-") {
			mine = append(mine, page.Items[i])
		}
	}
	finals := make([]Final, len(mine))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range mine {
		group.Go(func() (err error) {
			finals[i], err = readFinal(ctx, r.direct[i%len(r.direct)], &mine[i])
			return err
		})
	}
	return finals, group.Wait()
}

// counts compares a list of all rollouts with what the stores count.
func (r *run) counts(ctx context.Context, all []queue.AttemptedRollout) ([]Count, error) {
	var out []Count
	for i, status := range queue.RolloutStatuses {
		listed := 0
		for j := range all {
			if all[j].Status == status {
				listed++
			}
		}
		s := r.direct[i%len(r.direct)]
		page, err := s.Rollouts(ctx, queue.RolloutQuery{Statuses: []queue.RolloutStatus{status}, Paging: queue.Paging{Limit: 1}})
		if err != nil {
			return nil, fmt.Errorf("asking a store how many rollouts are %s: %w", status, err)
		}
		out = append(out, Count{Status: status, Listed: listed, Counted: page.Total})
	}
	return out, nil
}

func readFinal(ctx context.Context, s *client.Client, r *queue.AttemptedRollout) (Final, error) {
	f := Final{Begin: now(), Rollout: r.RolloutID, Mark: markOf(r.Input)}
	attempts, err := s.Attempts(ctx, queue.AttemptQuery{RolloutID: r.RolloutID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		return f, fmt.Errorf("reading the attempts of rollout %s: %w", r.RolloutID, err)
	}
	for i := range attempts.Items {
		f.Attempts = append(f.Attempts, seenAttempt(&attempts.Items[i]))
	}
	latest, err := s.Rollout(ctx, r.RolloutID)
	if err != nil {
		return f, fmt.Errorf("reading rollout %s: %w", r.RolloutID, err)
	}
	if latest != nil {
		f.Status = latest.Status
	}
	spans, err := s.Spans(ctx, queue.SpanQuery{RolloutID: r.RolloutID, Paging: queue.All})
	if err != nil {
		return f, fmt.Errorf("reading the spans of rollout %s: %w", r.RolloutID, err)
	}
	for i := range spans.Items {
		span := &spans.Items[i]
		f.Spans = append(f.Spans, FinalSpan{
			Attempt: span.AttemptID, SpanMark: SpanMark{ID: span.SpanID, Number: span.SequenceID}, Whole: whole(span),
		})
	}
	f.End = now()
	return f, nil
}
