package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// AddSpan implements queue.Store.
func (s *Store) AddSpan(ctx context.Context, span queue.Span) (*queue.Span, error) {
	one := []queue.Span{span}
	added, err := s.addSpans(ctx, one)
	if err != nil {
		return nil, err
	}
	if added.unknown != nil {
		// Even a span that is refused raises the counter, as in the reference.
		var raises byRollout
		s.toRaise(&raises, one)
		if err := s.raise(ctx, raises.entries); err != nil {
			return nil, err
		}
		return nil, added.unknown
	}
	if len(added.Stored) == 0 {
		s.log.Debug("span already stored", "rollout_id", span.RolloutID, "attempt_id", span.AttemptID, "span_id", span.SpanID)
		return nil, nil
	}
	return &added.Stored[0], nil
}

// AddSpans implements queue.Store.
func (s *Store) AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	added, err := s.addSpans(ctx, spans)
	return added.SpansAdded, err
}

type addedSpans struct {
	queue.SpansAdded
	unknown error // why the first rejected span was rejected
}

// attemptSpans counts the spans of one attempt in one call.
type attemptSpans struct {
	ref     queue.AttemptRef
	unknown bool
	stored  int
}

// tally is the attempts of one call.
type tally struct {
	places places[queue.AttemptRef]
	list   []attemptSpans
}

func (t *tally) find(s *queue.Span) (at int, added bool) {
	ref := queue.AttemptRef{RolloutID: s.RolloutID, AttemptID: s.AttemptID}
	at, added = t.places.find(ref)
	if added {
		t.list = append(t.list, attemptSpans{ref: ref})
	}
	return at, added
}

func (s *Store) addSpans(ctx context.Context, spans []queue.Span) (addedSpans, error) {
	var out addedSpans
	var attempts tally
	accepted, err := s.admit(ctx, spans, &attempts, &out)
	if err != nil || len(accepted) == 0 {
		return out, err
	}
	stored, err := s.store(ctx, accepted, &attempts)
	if err != nil {
		return out, err
	}
	// What was stored is left of accepted, which is this call's own.
	out.Stored = accepted[:0]
	for i := range accepted {
		if stored[i] {
			out.Stored = append(out.Stored, accepted[i])
		}
	}
	return out, nil
}

// admit sorts out spans of unknown attempts. What it returns is a copy.
func (s *Store) admit(ctx context.Context, spans []queue.Span, attempts *tally, out *addedSpans) ([]queue.Span, error) {
	accepted := make([]queue.Span, 0, len(spans))
	for i := range spans {
		at, added := attempts.find(&spans[i])
		attempt := &attempts.list[at]
		if added {
			err := s.exists(ctx, attempt.ref)
			attempt.unknown = err != nil
			if err != nil && queue.KindOf(err) != queue.NotFound {
				return nil, err
			}
			if err != nil && out.unknown == nil {
				out.unknown = err
				out.Reason = err.Error()
			}
		}
		if attempt.unknown {
			out.Rejected++
			continue
		}
		accepted = append(accepted, spans[i])
	}
	return accepted, nil
}

// exists answers NotFound for an unknown rollout or attempt.
func (s *Store) exists(ctx context.Context, ref queue.AttemptRef) error {
	if _, ok := s.known.Get(ref); ok {
		return nil
	}
	records, err := s.backend.Records(ctx, []string{ref.RolloutID})
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return queue.ErrNoRollout(ref.RolloutID)
	}
	for i := range records[0].Attempts {
		if records[0].Attempts[i].AttemptID == ref.AttemptID {
			s.known.Put(ref, knownAttempt{mayWait: records[0].SpanMayWait(ref.AttemptID)})
			return nil
		}
	}
	return queue.ErrNoAttempt(ref.RolloutID, ref.AttemptID)
}

// store inserts spans and files the heartbeats.
func (s *Store) store(ctx context.Context, spans []queue.Span, attempts *tally) ([]bool, error) {
	batch := &spanBatch{spans: spans}
	if err := s.spans.Do(ctx, batch); err != nil {
		return nil, err
	}
	for i, stored := range batch.stored {
		if stored {
			at, _ := attempts.find(&spans[i])
			attempts.list[at].stored++
		}
	}
	now := s.seconds()
	for _, a := range attempts.list {
		if a.stored == 0 {
			continue
		}
		if err := s.heartbeat(ctx, a.ref, a.stored, now); err != nil {
			return nil, err
		}
	}
	return batch.stored, nil
}

// spanBatch is one caller's spans in the lane of span inserts, where those that
// ask for it are numbered.
type spanBatch struct {
	spans  []queue.Span
	issued []bool // whose numbers were issued here; nil for none
	stored []bool
}

func (b *spanBatch) weight() int { return len(b.spans) }

// commitContext bounds a commit. In the process itself nothing can hang. Whom
// the first of its calls is for, all of it is told to be for.
func (s *Store) commitContext(first context.Context) (context.Context, context.CancelFunc) {
	first = collections.Detached(first)
	if !s.backend.Shared() {
		return first, func() {}
	}
	return context.WithTimeout(first, commitTimeout)
}

// commitSpans numbers, raises counters and inserts in one lane, one after the
// other: were each a lane of its own, batches would be a third as large. Numbers
// are issued first, as in the reference: a call that also brings numbers of its
// own does not push the issued ones up.
func (s *Store) commitSpans(batch []*groupcommit.Call[*spanBatch]) {
	ctx, cancel := s.commitContext(batch[0].Ctx)
	defer cancel()
	s.numberSpans(ctx, batch, false)
	batch = unfailed(batch)
	var raises byRollout
	for _, c := range batch {
		s.toRaise(&raises, c.Item.spans)
	}
	if err := s.raise(ctx, raises.entries); err != nil {
		for _, c := range batch {
			c.Err = err
		}
		return
	}
	s.insertSpans(ctx, batch)
}

// unfailed are the calls that go on.
func unfailed(batch []*groupcommit.Call[*spanBatch]) []*groupcommit.Call[*spanBatch] {
	failed := func(c *groupcommit.Call[*spanBatch]) bool { return c.Err != nil }
	if !slices.ContainsFunc(batch, failed) {
		return batch
	}
	return slices.DeleteFunc(slices.Clone(batch), failed)
}

func (s *Store) insertSpans(ctx context.Context, batch []*groupcommit.Call[*spanBatch]) {
	if len(batch) == 0 {
		return
	}
	if len(batch) == 1 {
		batch[0].Err = s.insert(ctx, batch[0].Item)
		return
	}
	var all spanBatch
	for _, c := range batch {
		all.spans = append(all.spans, c.Item.spans...)
		all.issued = append(all.issued, c.Item.issued...)
		all.issued = append(all.issued, make([]bool, len(all.spans)-len(all.issued))...)
	}
	err := s.insert(ctx, &all)
	if err != nil && !passing(err) {
		// One caller's span is at fault. Those already stored come back as
		// duplicates of themselves, so the batch cannot simply be run again: the
		// backend refuses what it cannot hold before it writes anything.
		for _, c := range batch {
			c.Err = s.insert(ctx, c.Item)
		}
		return
	}
	spans, stored := all.spans, all.stored
	for _, c := range batch {
		c.Err = err
		if err == nil {
			n := copy(c.Item.spans, spans)
			c.Item.stored, stored = stored[:n:n], stored[n:]
			spans = spans[n:]
		}
	}
}

// againPause keeps an insert that is broken off at once from being repeated all the
// time.
const againPause = 20 * time.Millisecond

// insert stores spans. What a broken connection left unstored it numbers anew,
// for the counters may be older than the numbers now.
func (s *Store) insert(ctx context.Context, b *spanBatch) (err error) {
	if b.stored, err = s.backend.InsertSpans(ctx, b.spans); err == nil {
		return nil
	}
	s.issued.Clear() // counters that were not durable may be lower now
	if !errors.Is(err, collections.ErrAgain) {
		return err
	}
	if err := sleep.For(ctx, againPause); err != nil {
		return err
	}
	var rest spanBatch
	var places []int
	for i, stored := range b.stored {
		if stored {
			continue
		}
		span := b.spans[i]
		if b.issued != nil && b.issued[i] {
			span.SequenceID = queue.NumberOnArrival
		}
		rest.spans, places = append(rest.spans, span), append(places, i)
	}
	again := &groupcommit.Call[*spanBatch]{Item: &rest, Ctx: ctx}
	s.numberSpans(ctx, []*groupcommit.Call[*spanBatch]{again}, true)
	if again.Err != nil {
		return again.Err
	}
	var raises byRollout
	s.toRaise(&raises, rest.spans)
	if err := s.raise(ctx, raises.entries); err != nil {
		return err
	}
	err = s.insert(ctx, &rest)
	for i, at := range places {
		b.spans[at] = rest.spans[i]
		if err == nil {
			b.stored[at] = rest.stored[i]
		}
	}
	return err
}

// toRaise adds the counters that have to rise to the numbers which spans bring
// along.
func (s *Store) toRaise(raises *byRollout, spans []queue.Span) {
	for i := range spans {
		n := spans[i].SequenceID
		if n == queue.NumberOnArrival || n <= 0 || s.issued.atLeast(spans[i].RolloutID, n) {
			continue
		}
		entry := &raises.entries[raises.find(spans[i].RolloutID)]
		entry.N = max(entry.N, n)
	}
}

// raise lifts counters.
func (s *Store) raise(ctx context.Context, entries []collections.Counter) error {
	if len(entries) == 0 {
		return nil
	}
	if err := s.backend.RaiseSequence(ctx, entries); err != nil {
		return err
	}
	for _, e := range entries {
		s.issued.learn(e.RolloutID, e.N)
	}
	return nil
}

// numberSpans numbers the spans of a batch that ask for it, in order of arrival,
// those of a rollout in one step. An insert that
// follows makes numbers durable that are not.
func (s *Store) numberSpans(ctx context.Context, batch []*groupcommit.Call[*spanBatch], durable bool) {
	var wanted byRollout
	for _, c := range batch {
		for i := range c.Item.spans {
			if span := &c.Item.spans[i]; span.SequenceID == queue.NumberOnArrival {
				wanted.entries[wanted.find(span.RolloutID)].N++
			}
		}
	}
	if len(wanted.entries) == 0 {
		return
	}
	next, err := s.backend.NextSequence(ctx, wanted.entries, durable)
	if err != nil && len(batch) > 1 && !passing(err) {
		// One rollout's numbers are used up; the others go on.
		for i := range batch {
			s.numberSpans(ctx, batch[i:i+1], durable)
		}
		return
	}
	for _, c := range batch {
		for i := range c.Item.spans {
			span := &c.Item.spans[i]
			if span.SequenceID != queue.NumberOnArrival {
				continue
			}
			if c.Err = err; err != nil {
				break
			}
			at := wanted.find(span.RolloutID)
			span.SequenceID = next[at]
			next[at]++
			if c.Item.issued == nil {
				c.Item.issued = make([]bool, len(c.Item.spans))
			}
			c.Item.issued[i] = true
		}
	}
	if err != nil {
		return
	}
	for i := range next {
		s.issued.learn(wanted.entries[i].RolloutID, next[i]-1)
	}
}

// byRollout gathers one counter for each rollout.
type byRollout struct {
	places  places[string]
	entries []collections.Counter
}

// find gives the place of a rollout's entry, which is added with 0 if new.
func (b *byRollout) find(rolloutID string) int {
	at, added := b.places.find(rolloutID)
	if added {
		b.entries = append(b.entries, collections.Counter{RolloutID: rolloutID})
	}
	return at
}

// NextSequence implements queue.Store.
func (s *Store) NextSequence(ctx context.Context, rolloutID string, n int) (int64, error) {
	if n < 1 {
		return 0, queue.ErrNoNumbers(n)
	}
	want := &numbers{Counter: collections.Counter{RolloutID: rolloutID, N: int64(n)}}
	if err := s.counters.Do(ctx, want); err != nil {
		return 0, err
	}
	s.issued.learn(rolloutID, want.first+int64(n)-1)
	return want.first, nil
}

// numbers is one caller's part in the lane of counters.
type numbers struct {
	collections.Counter
	first int64
}

// commitNumbers issues the numbers of a batch, one step for each rollout, dealt
// out in order of arrival.
func (s *Store) commitNumbers(batch []*groupcommit.Call[*numbers]) {
	ctx, cancel := s.commitContext(batch[0].Ctx)
	defer cancel()
	if len(batch) == 1 {
		c := batch[0]
		first, err := s.backend.NextSequence(ctx, []collections.Counter{c.Item.Counter}, true)
		if c.Err = err; err == nil {
			c.Item.first = first[0]
		}
		return
	}
	var wanted byRollout
	for _, c := range batch {
		at := wanted.find(c.Item.RolloutID)
		wanted.entries[at].N += c.Item.N // of at most groupcommit.MaxWaiting callers: far from an overflow
	}
	first, err := s.backend.NextSequence(ctx, wanted.entries, true)
	if err != nil && !passing(err) {
		// One rollout's numbers are used up; the others go on.
		for i := range batch {
			s.commitNumbers(batch[i : i+1])
		}
		return
	}
	for _, c := range batch {
		if c.Err = err; err != nil {
			continue
		}
		at := wanted.find(c.Item.RolloutID)
		c.Item.first = first[at]
		first[at] += c.Item.N
	}
}
