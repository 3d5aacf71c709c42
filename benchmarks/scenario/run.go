package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/benchmarks"
)

// run is a scenario under way.
type run struct {
	opts  Options
	looks dressing
	start time.Time

	claims sync.Map // rollout id -> the runner that claimed it
	tasks  sync.Map // rollout id -> its task, until it has been checked
	spans  sync.Map // rollout id -> how many spans were sent, until it has been checked

	ends chan struct{} // an entry for each attempt whose end the store has answered

	mu       sync.Mutex
	sessions []*session
	stops    []func()
	checked  int
	last     time.Time // of the last progress
}

// Run drives a scenario to its end and says how it went. The queue of the store
// should be empty, and nobody else claim from it.
func Run(ctx context.Context, opts Options) (*Summary, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if opts.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, opts.Limit, fmt.Errorf("the scenario took more than %v", opts.Limit))
		defer cancel()
	}
	r := &run{opts: opts, looks: newDressing(opts.Seed), start: time.Now(), ends: make(chan struct{}, opts.TotalTasks)}
	r.last = r.start
	meter, err := benchmarks.StartMeter(opts.PIDs, opts.DatabasePIDs)
	if err != nil {
		return nil, err
	}
	sent, err := r.drive(ctx)
	took := time.Since(r.start)
	for _, stop := range r.stops {
		stop()
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	cost, err := meter.Cost()
	if err != nil {
		return nil, err
	}
	return r.summary(took, sent, cost)
}

// drive runs the algorithm, and the runners until it is done. It returns how
// many spans were sent.
func (r *run) drive(ctx context.Context) (sent int, err error) {
	working, done := context.WithCancel(ctx)
	defer done()
	group, working := errgroup.WithContext(working)
	algorithm, err := r.newAlgorithm(working)
	if err != nil {
		return 0, err
	}
	// What ends because the run does is no failure of it.
	part := func(do func(context.Context) error) {
		group.Go(func() error {
			if err := do(working); working.Err() == nil {
				return err
			}
			return nil
		})
	}
	runners := make([]*runner, r.opts.Runners)
	for n := range runners {
		s, err := r.connect(working)
		if err != nil {
			done()
			return 0, errors.Join(err, group.Wait())
		}
		runners[n] = &runner{run: r, n: n, s: s, rng: rand.New(rand.NewPCG(r.opts.Seed, uint64(n)))}
		part(runners[n].work)
	}
	part(r.beat)
	part(r.guard)
	finished := false
	part(func(ctx context.Context) error {
		err := algorithm.work(ctx)
		if err == nil {
			err = r.allEnded(ctx)
		}
		if finished = err == nil; finished {
			done()
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if !finished {
		return 0, ctx.Err()
	}
	for _, runner := range runners {
		sent += runner.sent
	}
	return sent, nil
}

// allEnded waits for the answers to the ends of all attempts: the algorithm can
// learn of an end before the runner that reported it.
func (r *run) allEnded(ctx context.Context) error {
	for range r.opts.TotalTasks {
		select {
		case <-r.ends:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// enqueued notes rollouts that were made for the tasks n and on.
func (r *run) enqueued(ids []string, n int) {
	for i, id := range ids {
		r.tasks.Store(id, taskName(n+i))
	}
}

// progressed notes that a rollout is done.
func (r *run) progressed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked++
	r.last = time.Now()
	if step := max(1, r.opts.TotalTasks/20); r.checked%step == 0 {
		r.opts.Log(fmt.Sprintf("%d of %d tasks are done, %.1f a second", r.checked, r.opts.TotalTasks, float64(r.checked)/r.last.Sub(r.start).Seconds()))
	}
}

// guard ends a run in which nothing finishes any more.
func (r *run) guard(ctx context.Context) error {
	tick := time.NewTicker(max(r.opts.Stall/100, 10*time.Millisecond))
	defer tick.Stop()
	warned := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.mu.Lock()
		last := r.last
		r.mu.Unlock()
		switch stalled := time.Since(last); {
		case stalled >= r.opts.Stall:
			return fmt.Errorf("nothing has finished for %.0f s; waiting for %s; workers: %s", stalled.Seconds(), r.stale(), r.workers(ctx))
		case stalled >= r.opts.Stall/2 && warned != last:
			warned = last
			r.opts.Log(fmt.Sprintf("nothing has finished for %.0f s; waiting for %s", stalled.Seconds(), r.stale()))
		}
	}
}

// stale names some of the rollouts that are not done.
func (r *run) stale() string {
	const named = 20
	var ids []string
	more := 0
	r.tasks.Range(func(id, _ any) bool {
		if len(ids) < named {
			ids = append(ids, id.(string))
		} else {
			more++
		}
		return true
	})
	text := strings.Join(ids, " ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// workers is what the store says of its workers, in its own words.
func (r *run) workers(ctx context.Context) string {
	s, err := r.connect(ctx)
	if err != nil {
		return err.Error()
	}
	answer, err := s.call("workers", 200, "GET", "/workers", nil)
	if err != nil {
		return err.Error()
	}
	return string(answer[:min(len(answer), 4000)])
}
