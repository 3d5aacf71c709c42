package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/internal/sleep"
)

// together is how many rollouts a native algorithm enqueues in one request, and
// how many connections it reads results through.
const (
	enqueuedTogether = 1000
	readers          = 8
	// singleConnections bounds those of the tasks of Single, as the reference's
	// client does.
	singleConnections = 100
)

// algorithm hands tasks out and checks what comes back.
type algorithm struct {
	run *run
	s   *session
	// readers are sessions for the results of native algorithms.
	readers []*session
}

func (r *run) newAlgorithm(ctx context.Context) (*algorithm, error) {
	a := &algorithm{run: r}
	var err error
	if a.s, err = r.connect(ctx); err != nil {
		return nil, err
	}
	a.readers = []*session{a.s}
	for r.opts.Client == Native && len(a.readers) < readers {
		s, err := r.connect(ctx)
		if err != nil {
			return nil, err
		}
		a.readers = append(a.readers, s)
	}
	return a, nil
}

// work drives all tasks.
func (a *algorithm) work(ctx context.Context) error {
	switch a.run.opts.Mode {
	case Batch:
		return a.batches(ctx)
	case BatchPartial:
		return a.partialBatches(ctx)
	case Single:
		return a.run.singles(ctx)
	}
	return fmt.Errorf("there is no mode %q", a.run.opts.Mode)
}

// batches does one batch after the other.
func (a *algorithm) batches(ctx context.Context) error {
	o := &a.run.opts
	for n := 0; n < o.TotalTasks; n += o.BatchSize {
		ids, err := a.enqueue(n, min(o.BatchSize, o.TotalTasks-n))
		if err != nil {
			return err
		}
		pending := slices.Clone(ids)
		for pause := shortestPoll; len(pending) > 0; {
			asked := time.Now()
			ask, seconds := ids, 0.0
			if o.Client == Native {
				ask, seconds = pending, longPoll.Seconds()
			}
			done, err := a.s.wait(ask, seconds)
			if err != nil {
				return err
			}
			if pending, err = a.harvest(pending, done); err != nil {
				return err
			}
			if o.Debug {
				o.Log(fmt.Sprintf("waiting for %d rollouts of the batch from task %d", len(pending), n))
			}
			switch {
			case o.Client == PythonLike: // after the last one too, as the reference's does
				if err := sleep.For(ctx, o.Poll); err != nil {
					return err
				}
			case len(pending) == 0:
			case time.Since(asked) < longPoll*9/10: // the store does not wait
				if err := sleep.For(ctx, pause); err != nil {
					return err
				}
				pause = min(2*pause, longestPoll)
			}
		}
	}
	return nil
}

// partialBatches adds a batch whenever fewer than RemainingTasks are left.
func (a *algorithm) partialBatches(ctx context.Context) error {
	o := &a.run.opts
	var pending []string
	next := 0
	for next < o.TotalTasks || len(pending) > 0 {
		if next < o.TotalTasks && len(pending) < o.RemainingTasks {
			ids, err := a.enqueue(next, min(o.BatchSize, o.TotalTasks-next))
			if err != nil {
				return err
			}
			next += len(ids)
			pending = append(pending, ids...)
			continue
		}
		done, err := a.someDone(pending, o.TotalTasks-next)
		if err != nil {
			return err
		}
		if pending, err = a.harvest(pending, done); err != nil {
			return err
		}
		if len(done) > 0 {
			continue
		}
		pause := o.Poll
		if o.Client == Native {
			pause = shortestPoll
		}
		if err := sleep.For(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// someDone returns those of pending that have finished. A native algorithm waits
// for the oldest ones, as many as have to finish before more are added.
func (a *algorithm) someDone(pending []string, left int) ([]ended, error) {
	if a.run.opts.Client == PythonLike {
		return a.s.finished(pending)
	}
	oldest := len(pending)
	if left > 0 {
		oldest = len(pending) - a.run.opts.RemainingTasks + 1
	}
	return a.s.wait(pending[:min(oldest, len(pending))], longPoll.Seconds())
}

// enqueue adds tasks, under resources of their own.
func (a *algorithm) enqueue(n, count int) ([]string, error) {
	resources, err := a.s.addResources()
	if err != nil {
		return nil, err
	}
	together := 1
	if a.run.opts.Client == Native {
		together = enqueuedTogether
	}
	ids := make([]string, 0, count)
	for len(ids) < count {
		made, err := a.s.enqueue(resources, n+len(ids), min(together, count-len(ids)))
		if err != nil {
			return nil, err
		}
		ids = append(ids, made...)
		a.run.enqueued(made, n+len(ids)-len(made))
	}
	a.run.opts.Log(fmt.Sprintf("enqueued tasks %d to %d", n, n+count-1))
	return ids, nil
}

// harvest checks those of pending that are done and returns the others.
func (a *algorithm) harvest(pending []string, done []ended) ([]string, error) {
	open := make(map[string]bool, len(pending))
	for _, id := range pending {
		open[id] = true
	}
	var fresh []ended
	for _, e := range done {
		if open[e.ID] {
			delete(open, e.ID)
			fresh = append(fresh, e)
		}
	}
	next := make(chan ended, len(fresh))
	for _, e := range fresh {
		next <- e
	}
	close(next)
	var group errgroup.Group
	for _, s := range a.readers {
		group.Go(func() error {
			for e := range next {
				if err := a.run.check(s, e); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pending, func(id string) bool { return !open[id] }), nil
}

// singles keeps Concurrency tasks under way, each on its own.
func (r *run) singles(ctx context.Context) error {
	connections := min(r.opts.Concurrency, singleConnections)
	if r.opts.Client == Native {
		connections = r.opts.Concurrency // each waits on its own
	}
	free := make(chan *session, connections)
	for range connections {
		s, err := r.connect(ctx)
		if err != nil {
			return err
		}
		free <- s
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.opts.Concurrency)
	for n := 0; n < r.opts.TotalTasks && ctx.Err() == nil; n++ {
		group.Go(func() error { return r.single(ctx, free, n) })
	}
	return group.Wait()
}

// single is one task from its enqueue to the check of its result.
func (r *run) single(ctx context.Context, free chan *session, n int) error {
	var id string
	err := borrow(ctx, free, func(s *session) error {
		resources, err := s.addResources()
		if err != nil {
			return err
		}
		ids, err := s.enqueue(resources, n, 1)
		if err == nil {
			id = ids[0]
			r.enqueued(ids, n)
		}
		return err
	})
	for pause := shortestPoll; err == nil; {
		finished := false
		asked := time.Now()
		err = borrow(ctx, free, func(s *session) error {
			e, err := r.outcomeOf(s, id)
			if err != nil || !e.final() {
				return err
			}
			finished = true
			return r.check(s, e)
		})
		if err != nil || finished {
			return err
		}
		switch {
		case r.opts.Client == PythonLike:
			err = sleep.For(ctx, r.opts.Poll)
		case time.Since(asked) < longPoll*9/10:
			err = sleep.For(ctx, pause)
			pause = min(2*pause, longestPoll)
		}
	}
	return err
}

// outcomeOf asks for a rollout; a native algorithm waits for its end.
func (r *run) outcomeOf(s *session, id string) (ended, error) {
	if r.opts.Client == PythonLike {
		return s.rollout(id)
	}
	done, err := s.wait([]string{id}, longPoll.Seconds())
	if err != nil || len(done) == 0 {
		return ended{}, err
	}
	return done[0], nil
}

// borrow does something with a session of the pool.
func borrow(ctx context.Context, free chan *session, do func(s *session) error) error {
	select {
	case s := <-free:
		defer func() { free <- s }()
		return do(s)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check reads the spans of a rollout that has finished: the task must be among
// them, the last reward must be the last one the agent gave, and none may be
// missing.
func (r *run) check(s *session, e ended) error {
	if e.Status != "succeeded" {
		return fmt.Errorf("rollout %s has %s", e.ID, e.Status)
	}
	known, ok := r.tasks.LoadAndDelete(e.ID)
	if !ok {
		return fmt.Errorf("rollout %s finished twice, or was never enqueued", e.ID)
	}
	body := fmt.Appendf(nil, `{"rollout_id":%q,"attempt_id":"latest","limit":-1,"sort_by":"sequence_id","sort_order":"asc"}`, e.ID)
	spans, err := s.call("query spans", 200, "POST", "/spans/search", body)
	if err != nil {
		return err
	}
	if err := checkSpans(spans, known.(string)); err != nil {
		return fmt.Errorf("rollout %s: %w", e.ID, err)
	}
	sent, ok := r.spans.LoadAndDelete(e.ID)
	if !ok {
		return fmt.Errorf("rollout %s has finished, but no runner had it", e.ID)
	}
	if total := spanTotal(spans); total != sent.(int) {
		return fmt.Errorf("rollout %s has %d spans, and %d were sent", e.ID, total, sent)
	}
	r.progressed()
	return nil
}

// checkSpans looks into the text of the spans: to decode a store's every answer
// would cost more than the store.
func checkSpans(spans []byte, task string) error {
	if !bytes.Contains(spans, fmt.Appendf(nil, `"%s":%q`, taskKey, task)) {
		return fmt.Errorf("no span carries %s", task)
	}
	at := bytes.LastIndex(spans, []byte(`"`+rewardKey+`":`))
	if at < 0 {
		return errors.New("there is no reward")
	}
	number := spans[at+len(rewardKey)+3:]
	if end := bytes.IndexAny(number, ",}"); end >= 0 {
		number = number[:end]
	}
	if reward, err := strconv.ParseFloat(string(number), 64); err != nil || reward < 1 || reward > 2 {
		return fmt.Errorf("the last reward is %s, not from 1 to 2", number)
	}
	return nil
}

// spanTotal is the total that a page of spans tells, -1 for none.
func spanTotal(page []byte) int {
	const name = `"total":`
	at := bytes.LastIndex(page, []byte(name))
	if at < 0 {
		return -1
	}
	number, _, _ := bytes.Cut(page[at+len(name):], []byte("}"))
	n, err := strconv.Atoi(string(bytes.TrimSpace(number)))
	if err != nil {
		return -1
	}
	return n
}
