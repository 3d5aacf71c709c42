package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// session is a run of the program. Three goroutines share it: the one that reads
// what the program writes and carries it out, the one that writes to it, and the
// one that watches for finished rollouts.
type session struct {
	Config
	store  queue.Store
	client *algorithm.Client
	hello  Hello
	since  float64 // before which nothing of the run started
	began  float64 // the store's time at the start, by which replayed results are told

	stop    func(cause error)     // ends the run
	results chan algorithm.Result // from the watch to the program
	grouper algorithm.Grouper
	told    int

	mu         sync.Mutex
	batches    map[string][]string // the rollouts of each batch, in order
	holes      map[string]bool     // batches of which the store has lost some
	unfinished int
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
		results: make(chan algorithm.Result), batches: map[string][]string{}, holes: map[string]bool{},
		changed: make(chan struct{}), fed: make(chan struct{}),
	}
}

// counted leaves it to the watch, which sees every rollout, to count what is
// enqueued.
type counted struct{ algorithm.Observer }

// Enqueued implements algorithm.Observer.
func (c counted) Enqueued(_ int, took time.Duration) { c.Observer.Enqueued(0, took) }

// load finds what the store has of the run. It reads through all rollouts, once.
func (s *session) load(ctx context.Context) error {
	s.hello = Hello{Version: ProtocolVersion, Run: s.Run, Batches: []string{}, Rollouts: map[queue.RolloutStatus]int{}}
	type place struct {
		id    string
		index int64
	}
	places := map[string][]place{}
	all := adapter.Source{Store: s.store}.Rollouts(ctx, queue.RolloutQuery{})
	for r, err := range all {
		if err != nil {
			return fmt.Errorf("looking for run %s: %w", s.Run, err)
		}
		s.began = max(s.began, r.StartTime)
		if r.EndTime != nil {
			s.began = max(s.began, *r.EndTime)
		}
		if !s.isOwn(&r.Rollout) {
			continue
		}
		if len(s.hello.Rollouts) == 0 || r.StartTime < s.since {
			s.since = r.StartTime
		}
		s.hello.Rollouts[r.Status]++
		if !r.Status.Finished() {
			s.hello.Unfinished++
		}
		name := s.batchName(&r.Rollout)
		if places[name] == nil {
			s.hello.Batches = append(s.hello.Batches, name)
		}
		index, _ := r.Metadata.Get(algorithm.BatchIndexKey).Int()
		places[name] = append(places[name], place{r.RolloutID, index})
		s.unfinished++
	}
	if len(places) == 0 {
		s.since = s.began - 60 // nothing of the run is older; clocks of stores may differ a little
	}
	for name, list := range places {
		slices.SortStableFunc(list, func(a, b place) int { return int(a.index - b.index) })
		for i, p := range list {
			s.batches[name] = append(s.batches[name], p.id)
			s.holes[name] = s.holes[name] || p.index != int64(i)
		}
	}
	resources, err := s.store.Resources(ctx, s.Run)
	if err != nil {
		return fmt.Errorf("looking for the resources of run %s: %w", s.Run, err)
	}
	if resources != nil {
		s.hello.Resources = resources.AppendJSON(nil)
	}
	s.hello.Resumed = len(places) > 0 || resources != nil
	return nil
}

func (s *session) isOwn(r *queue.Rollout) bool { return r.Metadata.Get(RunKey).Text() == s.Run }

// batchName is the name of a batch within the run.
func (s *session) batchName(r *queue.Rollout) string {
	return strings.TrimPrefix(r.Metadata.Get(algorithm.BatchIDKey).Text(), s.Run+"/")
}

// watch hands finished rollouts to the program until ctx ends.
func (s *session) watch(ctx context.Context) error {
	opts := algorithm.WatchOptions{Since: s.since, Want: s.isOwn}
	if s.All {
		opts = algorithm.WatchOptions{Since: min(s.Since, s.since)}
		opts.Want = func(r *queue.Rollout) bool { return s.isOwn(r) || r.StartTime >= s.Since }
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

// tell writes a result, and its group when it is the last of it.
func (s *session) tell(send func([]byte), r algorithm.Result) {
	own := s.isOwn(&r.Rollout)
	if own {
		defer s.change(func() { s.unfinished-- })
	}
	if s.Where != nil {
		met, err := s.Where.Match(&queue.AttemptedRollout{Rollout: r.Rollout, Attempt: r.Attempt}, r.Spans)
		if err != nil {
			s.Logger.Warn("a rollout is passed over", "rollout_id", r.Rollout.RolloutID, "error", err)
		}
		if !met {
			return
		}
	}
	f := &Finished{
		Rollout: r.Rollout.AppendJSON(nil), Attempts: r.Attempts(), Own: own, Index: r.Index, DataID: r.DataID(),
		Replayed: r.Rollout.EndTime != nil && *r.Rollout.EndTime <= s.began,
	}
	if own {
		f.Batch = s.batchName(&r.Rollout)
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
	if !s.Groups || !own {
		return
	}
	r.Spans = nil // the reward is all that is needed of them
	if group, complete := s.grouper.Add(r); complete {
		s.send(send, message{Group: s.group(group)})
	}
}

func (s *session) group(group algorithm.Group) *Group {
	out := &Group{Batch: s.batchName(&group.Results[0].Rollout), DataID: group.DataID, Statistics: group.Statistics()}
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
	s.mu.Lock()
	stored, hole := s.batches[name], s.holes[name]
	s.mu.Unlock()
	if hole {
		return nil, queue.Errorf(queue.Conflict, "the store has lost rollouts of batch %q, by its retention perhaps; give it another name to run all of it again", name)
	}
	opts := algorithm.BatchOptions{
		ID: s.Run + "/" + name, Mode: e.Mode, ResourcesID: e.ResourcesID, Repeat: e.Repeat, Metadata: s.mark(e.Metadata),
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
	if err := s.waitForRoom(ctx, len(tasks)*max(e.Repeat, 1)-len(stored)); err != nil {
		return nil, err
	}
	b, err := s.client.CompleteBatch(ctx, tasks, opts, stored)
	if b != nil && b.Len() > len(stored) {
		s.change(func() {
			s.batches[name] = b.RolloutIDs()
			s.unfinished += b.Len() - len(stored)
		})
	}
	if err != nil {
		return nil, err
	}
	return &EnqueueAnswer{Batch: name, RolloutIDs: b.RolloutIDs(), Stored: b.Len() - len(stored)}, nil
}

// mark puts the name of the run into metadata.
func (s *session) mark(metadata rawjson.Value) rawjson.Value {
	if !metadata.IsNull() && metadata.Kind() != rawjson.KindObject {
		return metadata // the batch refuses it
	}
	dst := rawjson.AppendString(rawjson.AppendMember(nil, []byte(RunKey), nil), s.Run)
	for key, val := range metadata.Members() {
		if string(key) != RunKey { // a null one
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	return append(dst, '}')
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
	var ids []string
	s.mu.Lock()
	own := map[string]bool{}
	for name, list := range s.batches {
		for _, id := range list {
			own[id] = true
		}
		if c.All || name == c.Batch {
			ids = append(ids, list...)
		}
	}
	_, known := s.batches[c.Batch]
	s.mu.Unlock()
	if c.Batch != "" && !known {
		return nil, queue.Errorf(queue.NotFound, "run %s has no batch %q", s.Run, c.Batch)
	}
	for _, id := range c.RolloutIDs {
		if !own[id] {
			return nil, queue.Errorf(queue.NotFound, "run %s has no rollout %s", s.Run, id)
		}
		ids = append(ids, id)
	}
	n, err := s.client.Cancel(ctx, ids)
	if err != nil {
		err = errors.Join(err, fmt.Errorf("%d of %d rollouts were cancelled", n, len(ids)))
	}
	return &CancelAnswer{Cancelled: n}, err
}
