package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// Claim implements queue.Store.
func (s *Store) Claim(ctx context.Context, c queue.Claim) ([]queue.AttemptedRollout, error) {
	if c.Limit <= 0 {
		return []queue.AttemptedRollout{}, nil
	}
	s.scanBefore(ctx)
	if c.Wait <= 0 {
		return s.claimAll(ctx, c, true)
	}
	w := &waitingClaim{key: queue.IdempotencyKey(ctx), deadline: time.NewTimer(c.Wait)}
	defer w.deadline.Stop()
	for called := false; ; called = true {
		// Listen before looking: what is enqueued in between is heard.
		bell, empty := s.claims.listen()
		var out []queue.AttemptedRollout
		var err error
		if empty {
			out = s.claimNothing(c.WorkerID, !called)
		} else {
			out, err = s.claimAll(ctx, c, !called)
		}
		if err != nil || len(out) > 0 {
			s.claims.leave(bell)
			if err != nil && called {
				s.claims.wake(1) // what it was called for is still there
			}
			return out, err
		}
		rung, answered, err := s.listen(ctx, w, bell)
		switch {
		case answered:
			return s.claimAll(ctx, c, false)
		case !rung:
			return out, err
		}
	}
}

// claimNothing is the claim of a queue that is known to be empty.
func (s *Store) claimNothing(workerID *string, idle bool) []queue.AttemptedRollout {
	if idle && workerID != nil && *workerID != "" {
		s.roster.add([]duty{{kind: foundNothing, event: queue.WorkerEvent{WorkerID: *workerID}, at: s.seconds()}})
	}
	return []queue.AttemptedRollout{}
}

// maxClaim is how many rollouts one section claims.
const maxClaim = 1000

// claimAll takes what is queued, as many as are asked for. What has been claimed
// when an error comes is the answer.
func (s *Store) claimAll(ctx context.Context, c queue.Claim, idle bool) ([]queue.AttemptedRollout, error) {
	key := queue.IdempotencyKey(ctx)
	wanted := c.Limit
	var out []queue.AttemptedRollout
	for part := 0; ; { // a part that got nothing has left no receipt
		c.Limit = min(wanted-len(out), maxClaim)
		if key != "" && part > 0 {
			ctx = queue.WithIdempotencyKey(ctx, fmt.Sprintf("%s#%d", key, part))
			c.Wait = 0
		}
		got, lost, err := s.claimNow(ctx, c, idle && part == 0)
		if err != nil && len(out) == 0 {
			return nil, err
		}
		if out == nil {
			out = got
		} else {
			out = append(out, got...)
		}
		if err != nil || (len(got) < c.Limit && !lost) || len(out) == wanted {
			return out, nil
		}
		if len(got) > 0 {
			part++
		}
	}
}

// claim is one claim of up to maxClaim rollouts.
type claim struct {
	change
	queue.Claim
	key  string // of the call's idempotency
	idle bool   // note in the worker's record when there is nothing

	out    []queue.AttemptedRollout
	places []int64 // that out was queued at; nil where the answer was given before
	lost   bool    // others took some of what it was to have
}

// claimNow takes what is queued, maxClaim at most, and reports whether there may
// be more because others took some of it.
func (s *Store) claimNow(ctx context.Context, c queue.Claim, idle bool) (out []queue.AttemptedRollout, lost bool, err error) {
	for looked := c.Wait > 0; ; looked = true { // a claim that waits looks in listen
		n := &claim{Claim: c, key: queue.IdempotencyKey(ctx), idle: idle}
		n.claim = c.Limit
		n.run = func(sec *section) error { return s.runClaim(sec, n) }
		n.change.lost = n.keep
		if err := s.do(ctx, &n.change); err != nil {
			return nil, false, err
		}
		for i := range n.places {
			s.known.Put(attemptRef(n.out[i].Attempt), knownAttempt{place: n.places[i], mayWait: true})
		}
		if err := s.unstageClaims(ctx, n.out); err != nil {
			return nil, false, err
		}
		if len(n.out) > 0 || n.key == "" || looked {
			return n.out, n.lost, nil
		}
		// Nothing was written that would have met the receipt of an earlier call.
		answered, err := s.backend.Answered(ctx, []string{n.key})
		if err != nil || len(answered) == 0 {
			return n.out, n.lost, err
		}
	}
}

func (s *Store) runClaim(sec *section, c *claim) error {
	c.out, c.places, c.lost = make([]queue.AttemptedRollout, 0, len(c.claimed)), nil, false
	if c.key != "" {
		answered, err := c.repeat(sec)
		if err != nil || answered {
			return err
		}
	}
	if len(c.claimed) == 0 && c.idle && c.WorkerID != nil && *c.WorkerID != "" {
		c.duties = append(c.duties, duty{kind: foundNothing, event: queue.WorkerEvent{WorkerID: *c.WorkerID}, at: sec.now})
		return nil
	}
	var refs []queue.AttemptRef
	var events []queue.WorkerEvent
	for _, head := range c.claimed {
		// A call before this one in the batch may have changed it.
		before, err := sec.Rollout(head.Rollout.RolloutID)
		if err != nil {
			return err
		}
		if before == nil || before.Place == 0 {
			c.lost = true
			continue
		}
		r := before.Clone()
		events = r.Begin(s.newID(queue.AttemptID), c.WorkerID, true, s.lease, sec.now)
		if err := sec.put(before, r); err != nil {
			return err
		}
		view := r.View()
		c.out = append(c.out, view)
		c.places = append(c.places, before.Place)
		refs = append(refs, attemptRef(view.Attempt))
	}
	sec.tell(events) // of a batch the worker's record shows the last
	if c.key == "" || len(refs) == 0 {
		return nil
	}
	return sec.PutReceipt(&collections.Receipt{Key: c.key, Operation: claimOperation, Time: sec.now, Refs: refs})
}

const claimOperation = "claim"

// repeat gives the answer that an earlier call with the same key got. The receipt
// of a claim is written before the rollouts, and says what was to be claimed.
func (c *claim) repeat(sec *section) (answered bool, err error) {
	receipt, err := sec.receipt(c.key, claimOperation)
	if err != nil || receipt == nil {
		return false, err
	}
	missing := make([]*queue.Record, 0, len(receipt.Refs))
	for _, ref := range receipt.Refs {
		r, err := sec.Rollout(ref.RolloutID)
		if err != nil {
			return false, err
		}
		if r != nil && r.Attempt(ref.AttemptID) != nil {
			c.out = append(c.out, asBegun(r, ref.AttemptID))
		} else if r != nil {
			missing = append(missing, r)
		}
	}
	if len(c.out) > 0 {
		c.lost = len(missing) > 0
		return true, nil
	}
	// Whoever wrote the receipt got no further, or is about to. Writing to the
	// rollouts keeps it from that.
	if !sec.together {
		return false, collections.ErrTogether
	}
	for _, r := range missing {
		if err := sec.PutRollout(r.Clone()); err != nil {
			return false, err
		}
	}
	return false, nil
}

// keep drops from the answer what others took. A claim that got nothing for that
// reason runs again.
func (c *claim) keep(lost collections.Lost) (again bool) {
	if lost.Receipts[c.receipt] {
		return true
	}
	if c.places == nil { // nothing was put: what lost names was not as it seemed
		return slices.ContainsFunc(c.seen, func(id string) bool { return lost.Rollouts[id] })
	}
	kept := 0
	for i := range c.out {
		if lost.Rollouts[c.out[i].RolloutID] {
			c.lost = true
			continue
		}
		c.out[kept], c.places[kept] = c.out[i], c.places[i]
		kept++
	}
	if 0 < kept && kept < len(c.out) && len(c.duties) > 0 {
		last := &c.duties[len(c.duties)-1].event
		last.AttemptRef = attemptRef(c.out[kept-1].Attempt)
	}
	c.out, c.places = c.out[:kept], c.places[:kept]
	return kept == 0
}

// Unclaim implements queue.Store.
func (s *Store) Unclaim(ctx context.Context, claims []queue.AttemptRef) error {
	s.settle(ctx)
	for _, ref := range claims {
		a, _ := s.known.Get(ref) // the place of an unknown one is 0: the tail
		undone := false
		err := s.do(ctx, &change{rollouts: []string{ref.RolloutID}, run: func(sec *section) error {
			_, err := sec.edit(ref.RolloutID, func(r *queue.Record) (events []queue.WorkerEvent, _ bool, _ error) {
				events, undone = r.Unclaim(ref.AttemptID, a.place)
				return events, undone, nil
			})
			return err
		}})
		if err != nil {
			return err
		}
		if undone {
			s.known.Forget(ref)
		}
	}
	return nil
}

// claimers are the claims that wait for the queue to fill, longest first. One
// new rollout wakes one of them.
//
// It also knows whether the queue is empty: a look has found it so, and nothing
// has been heard since. Claims that wait need not look then, for they will hear.
// Those that do not wait look all the same, since another process may have been
// answered before this one hears of it.
type claimers struct {
	mu      sync.Mutex
	waiting []*bell
	heard   int       // how often something may have been queued
	empty   time.Time // when a look found it so; zero once something was heard
}

// emptyFor is how long a look that found nothing is relied on, should news be
// lost in a failure.
const emptyFor = 5 * time.Second

// bell wakes one waiting claim.
type bell struct {
	rung chan struct{} // closed when there may be something
}

func (c *claimers) listen() (b *bell, empty bool) {
	b = &bell{rung: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, b)
	return b, time.Since(c.empty) < emptyFor
}

// leave ends listening. A bell that was rung and not followed rings the next.
func (c *claimers) leave(b *bell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, w := range c.waiting {
		if w == b {
			c.waiting = append(c.waiting[:i:i], c.waiting[i+1:]...)
			return
		}
	}
	c.ring(1)
}

func (c *claimers) wake(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring(n)
}

// looks begins a look at the queue, and found ends it.
func (c *claimers) looks() (heard int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

func (c *claimers) found(n, heard int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.empty = time.Time{}
	if n == 0 && c.heard == heard {
		c.empty = time.Now()
	}
}

func (c *claimers) ring(n int) {
	c.heard++
	c.empty = time.Time{}
	n = min(n, len(c.waiting))
	for _, b := range c.waiting[:n] {
		close(b.rung)
	}
	c.waiting = c.waiting[n:]
}

func (c *claimers) wakeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring(len(c.waiting))
}
