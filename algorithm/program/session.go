package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
)

// session is a run of the program. Three goroutines share it: the one that reads
// what the program writes and carries it out, the one that writes to it, and the
// one that watches for finished rollouts.
type session struct {
	Config
	store  queue.Store
	client *algorithm.Client
	hello  Hello
	run    *algorithm.Run

	stop    func(cause error)     // ends the run
	results chan algorithm.Result // from the watch to the program
	grouper algorithm.Grouper
	told    int

	mu         sync.Mutex
	unfinished int // rollouts of the run that were not told
	answers    [][]byte
	unread     int // bytes of answers
	done       bool
	late       bool          // a line came after that
	changed    chan struct{} // closed and made anew when any of the above changes
	fed        chan struct{} // closed when nothing is told any more
}

func newSession(store queue.Store, config Config) *session {
	return &session{
		Config: config, store: store,
		client:  algorithm.New(store, algorithm.Options{Observer: counted{config.Observer}}),
		results: make(chan algorithm.Result), changed: make(chan struct{}), fed: make(chan struct{}),
	}
}

// counted leaves it to the watch, which sees every rollout, to count what is
// enqueued.
type counted struct{ algorithm.Observer }

// Enqueued implements algorithm.Observer.
func (c counted) Enqueued(_ int, took time.Duration) { c.Observer.Enqueued(0, took) }

// load finds what the store has of the run.
func (s *session) load(ctx context.Context) (err error) {
	if s.run, err = s.client.FindRun(ctx, s.Run); err != nil {
		return err
	}
	s.hello = Hello{Version: ProtocolVersion, Run: s.Run, Batches: s.run.Batches, Rollouts: s.run.Coverage}
	if s.hello.Batches == nil {
		s.hello.Batches = []string{}
	}
	for status, n := range s.run.Coverage {
		s.unfinished += n
		if !status.Finished() {
			s.hello.Unfinished += n
		}
	}
	resources, err := s.store.Resources(ctx, s.Run)
	if err != nil {
		return fmt.Errorf("looking for the resources of run %s: %w", s.Run, err)
	}
	if resources != nil {
		s.hello.Resources = resources.AppendJSON(nil)
	}
	s.hello.Resumed = s.unfinished > 0 || resources != nil
	return nil
}

// watch hands finished rollouts to the program until ctx ends.
func (s *session) watch(ctx context.Context) error {
	opts := algorithm.WatchOptions{Since: s.run.Began, Want: s.run.Owns}
	if s.All {
		opts.Since = min(s.Since, s.run.Began)
		opts.Want = func(r *queue.Rollout) bool { return s.run.Owns(r) || r.StartTime >= s.Since }
	}
	observed := algorithm.New(s.store, algorithm.Options{Observer: s.Observer})
	for r, err := range observed.Watch(opts).Results(ctx) {
		if err != nil {
			return err
		}
		select {
		case s.results <- r:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// feed writes to the program: answers first, results as it reads them.
func (s *session) feed(ctx context.Context, stdin io.WriteCloser) {
	defer close(s.fed)
	defer stdin.Close()
	deaf := false // it reads no more; what it is owed is dropped, so that all goes on
	send := func(text []byte) {
		if deaf {
			return
		}
		if _, err := stdin.Write(text); err != nil && ctx.Err() == nil {
			deaf = true
			s.Logger.Warn("the algorithm reads no more", "run", s.Run, "error", err)
		}
	}
	s.send(send, message{Hello: &s.hello})
	for ctx.Err() == nil {
		answers, done, changed := s.take()
		for _, text := range answers {
			send(text)
		}
		if len(answers) > 0 {
			continue
		}
		if done {
			return
		}
		select {
		case r := <-s.results:
			s.tell(send, r)
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (s *session) send(send func([]byte), m message) {
	text, err := m.line()
	if err != nil {
		s.Logger.Error("a line for the algorithm cannot be written", "run", s.Run, "error", err)
		return
	}
	send(text)
}

// take takes the answers that are due.
func (s *session) take() (answers [][]byte, done bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers, s.answers, s.unread = s.answers, nil, 0
	return answers, s.done, s.changed
}

// change changes what goroutines share and wakes those who wait for it.
func (s *session) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
}

// tell writes a result if it is wanted, and its group when it is the last of it.
// Groups are whole, whatever the filter.
func (s *session) tell(send func([]byte), r algorithm.Result) {
	own := s.run.Owns(&r.Rollout)
	if own {
		defer s.change(func() { s.unfinished-- })
	}
	if s.wanted(&r) {
		s.finished(send, r, own)
	}
	if !s.Groups || !own {
		return
	}
	r.Spans = nil // the reward is all that is needed of them
	if group, complete := s.grouper.Add(r); complete {
		s.send(send, message{Group: s.group(group)})
	}
}

// wanted applies the filter.
func (s *session) wanted(r *algorithm.Result) bool {
	if s.Where == nil {
		return true
	}
	met, err := s.Where.Match(&queue.AttemptedRollout{Rollout: r.Rollout, Attempt: r.Attempt}, r.Spans)
	if err != nil {
		s.Logger.Warn("a rollout is passed over", "rollout_id", r.Rollout.RolloutID, "error", err)
	}
	return met
}

// finished writes a result.
func (s *session) finished(send func([]byte), r algorithm.Result, own bool) {
	f := &Finished{
		Rollout: r.Rollout.AppendJSON(nil), Attempts: r.Attempts(), Own: own, Index: r.Index, DataID: r.DataID(),
		Replayed: r.Rollout.EndTime != nil && *r.Rollout.EndTime <= s.run.Seen,
	}
	if own {
		f.Batch = s.run.BatchOf(&r.Rollout)
	}
	if r.Attempt != nil {
		f.Attempt = r.Attempt.AppendJSON(nil)
	}
	if reward, ok := r.FiniteReward(); ok {
		f.Reward = &reward
	}
	s.adapt(f, r.Spans)
	s.send(send, message{Finished: f})
	s.told++
	if s.OnResult != nil {
		s.OnResult(r)
	}
}

func (s *session) group(group algorithm.Group) *Group {
	out := &Group{Batch: s.run.BatchOf(&group.Results[0].Rollout), DataID: group.DataID, Statistics: group.Statistics()}
	for i, advantage := range group.Advantages() {
		r := &group.Results[i]
		m := Member{RolloutID: r.Rollout.RolloutID, Status: r.Rollout.Status, Advantage: advantage}
		if reward, ok := r.FiniteReward(); ok {
			m.Reward = &reward
		}
		out.Members = append(out.Members, m)
	}
	return out
}

// command carries out a line of the program and answers it.
func (s *session) command(ctx context.Context, line []byte, n int) {
	s.mu.Lock()
	over, known := s.done, s.late
	s.late = over
	s.mu.Unlock()
	if over {
		if !known {
			s.Logger.Warn("what the algorithm writes after it was done counts for nothing", "run", s.Run, "line", n)
		}
		return
	}
	c, err := Command{}, errTooLong
	if line != nil {
		c, err = ParseCommand(line)
	}
	answer := &Answer{ID: c.ID}
	if err == nil {
		err = s.carryOut(ctx, c, answer)
	}
	m := message{OK: answer}
	if err != nil {
		s.Logger.Warn("a line of the algorithm is refused", "run", s.Run, "line", n, "error", err)
		m = message{Error: &Fault{ID: c.ID, Line: n, Kind: queue.KindOf(err).String(), Message: err.Error()}}
	}
	text, err := m.line()
	if err != nil {
		s.stop(err)
		return
	}
	select {
	case <-s.fed: // nobody is there to read an answer
		text = nil
	default:
	}
	s.change(func() {
		s.done = m.OK != nil && !c.Done.IsNull()
		s.answers = append(s.answers, text)
		s.unread += len(text)
		if s.unread > s.unreadMost {
			s.stop(fmt.Errorf("the algorithm writes and does not read: %d bytes of answers wait for it", s.unread))
		}
	})
}

var errTooLong = queue.Errorf(queue.Invalid, "a line is longer than %d MiB; split the batch", longestLine>>20)

func (s *session) carryOut(ctx context.Context, c Command, answer *Answer) (err error) {
	switch {
	case c.Enqueue != nil:
		answer.Enqueue, err = s.enqueue(ctx, c.Enqueue)
	case c.Resources != nil:
		answer.Resources, err = s.storeResources(ctx, c.Resources)
	case c.Cancel != nil:
		answer.Cancel, err = s.cancel(ctx, c.Cancel)
	default:
		var all bool
		if all, err = c.cancels(); err == nil && all {
			answer.Cancel, err = s.cancel(ctx, &Cancel{All: true})
		}
	}
	return err
}

func (s *session) enqueue(ctx context.Context, e *Enqueue) (*EnqueueAnswer, error) {
	name := e.Batch
	if name == "" {
		name = queue.RandomID(algorithm.BatchPrefix)
	}
	opts := algorithm.BatchOptions{
		Mode: e.Mode, ResourcesID: e.ResourcesID, Repeat: e.Repeat, Metadata: e.Metadata,
	}
	if opts.Mode == "" {
		opts.Mode = s.Mode
	}
	var err error
	if opts.Config, err = e.config(s.Rollout); err != nil {
		return nil, err
	}
	tasks := make([]algorithm.Task, len(e.Tasks))
	for i, t := range e.Tasks {
		tasks[i] = algorithm.Task{Input: t.Input, Metadata: t.Metadata, DataID: t.DataID}
	}
	if err := opts.Validate(len(tasks)); err != nil {
		return nil, err
	}
	if err := s.waitForRoom(ctx, len(tasks)*max(e.Repeat, 1)-len(s.run.RolloutIDs(name))); err != nil {
		return nil, err
	}
	b, stored, err := s.run.Batch(ctx, name, tasks, opts)
	if b != nil && b.Len() > stored {
		s.change(func() { s.unfinished += b.Len() - stored })
	}
	if err != nil {
		return nil, err
	}
	return &EnqueueAnswer{Batch: name, RolloutIDs: b.RolloutIDs(), Stored: b.Len() - stored}, nil
}

// waitForRoom waits until n more rollouts may be unfinished. When nothing is told
// any more there is nothing to wait for.
func (s *session) waitForRoom(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		room := s.unfinished <= 0 || s.unfinished+n <= s.MaxUnfinished
		changed := s.changed
		s.mu.Unlock()
		if room || n <= 0 {
			return nil
		}
		select {
		case <-changed:
		case <-s.fed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *session) storeResources(ctx context.Context, r *Resources) (*ResourcesAnswer, error) {
	id := r.ResourcesID
	if id == "" {
		id = s.Run
	}
	stored, err := s.store.Resources(ctx, id)
	if err == nil && (stored == nil || string(stored.Resources) != string(r.Resources)) {
		var update queue.ResourcesUpdate
		update, err = s.store.UpdateResources(ctx, id, r.Resources)
		stored = &update
	}
	if err != nil {
		return nil, fmt.Errorf("storing resources %s: %w", id, err)
	}
	return &ResourcesAnswer{ResourcesID: stored.ResourcesID, Version: stored.Version}, nil
}

func (s *session) cancel(ctx context.Context, c *Cancel) (*CancelAnswer, error) {
	ids, err := s.toCancel(c)
	if err != nil {
		return nil, err
	}
	n, err := s.client.Cancel(ctx, ids)
	if err != nil {
		err = errors.Join(err, fmt.Errorf("%d of %d rollouts were cancelled", n, len(ids)))
	}
	return &CancelAnswer{Cancelled: n}, err
}

// toCancel lists the rollouts that a command means.
func (s *session) toCancel(c *Cancel) (ids []string, err error) {
	switch {
	case c.All:
		for _, batch := range s.run.Names() {
			ids = append(ids, s.run.RolloutIDs(batch)...)
		}
	case c.Batch != "":
		if ids = s.run.RolloutIDs(c.Batch); ids == nil {
			err = queue.Errorf(queue.NotFound, "run %s has no batch %q", s.Run, c.Batch)
		}
	default:
		own := map[string]bool{}
		for _, batch := range s.run.Names() {
			for _, id := range s.run.RolloutIDs(batch) {
				own[id] = true
			}
		}
		for _, id := range c.RolloutIDs {
			if !own[id] {
				return nil, queue.Errorf(queue.NotFound, "run %s has no rollout %s", s.Run, id)
			}
		}
		ids = c.RolloutIDs
	}
	return ids, err
}
