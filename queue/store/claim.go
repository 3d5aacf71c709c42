package store

import (
	"context"
	"fmt"
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
	deadline := time.NewTimer(c.Wait)
	defer deadline.Stop()
	for first := true; ; first = false {
		// Listen before looking: what is enqueued in between is heard.
		bell := s.claims.listen()
		out, err := s.claimAll(ctx, c, first)
		if err != nil || len(out) > 0 {
			s.claims.leave(bell)
			return out, err
		}
		select {
		case <-bell.rung:
			continue
		case <-deadline.C:
		case <-ctx.Done():
		case <-s.closing.Done():
		}
		s.claims.leave(bell)
		return out, ctx.Err()
	}
}

// maxClaim is how many rollouts one section claims.
const maxClaim = 1000

// claimAll takes what is queued, as many as are asked for. What has been claimed
// when an error comes is the answer.
func (s *Store) claimAll(ctx context.Context, c queue.Claim, idle bool) ([]queue.AttemptedRollout, error) {
	key := queue.IdempotencyKey(ctx)
	wanted := c.Limit
	var out []queue.AttemptedRollout
	for part := 0; ; part++ {
		c.Limit = min(wanted-len(out), maxClaim)
		if key != "" && part > 0 {
			ctx = queue.WithIdempotencyKey(ctx, fmt.Sprintf("%s#%d", key, part))
		}
		got, err := s.claimNow(ctx, c, idle && part == 0)
		if err != nil && len(out) == 0 {
			return nil, err
		}
		if out == nil {
			out = got
		} else {
			out = append(out, got...)
		}
		if err != nil || len(got) < c.Limit || len(out) == wanted {
			return out, nil
		}
	}
}

// claimNow takes what is queued, maxClaim at most. When there is nothing, idle tells whether to
// note that in the worker's record.
func (s *Store) claimNow(ctx context.Context, c queue.Claim, idle bool) ([]queue.AttemptedRollout, error) {
	var out []queue.AttemptedRollout
	var places []int64
	change := &change{claim: c.Limit}
	change.run = func(sec *section) error {
		out, places = make([]queue.AttemptedRollout, 0, len(change.claimed)), nil
		return sec.once(ctx, "claim", func(refs []queue.AttemptRef) error {
			return sec.replay(refs, func(r *queue.Record, ref queue.AttemptRef) {
				out = append(out, asBegun(r, ref.AttemptID))
			})
		}, func() ([]queue.AttemptRef, error) {
			if len(change.claimed) == 0 && idle && c.WorkerID != nil && *c.WorkerID != "" {
				found := duty{event: queue.WorkerEvent{WorkerID: *c.WorkerID}, at: sec.now, idle: true}
				change.duties = append(change.duties, found)
				return nil, nil
			}
			var refs []queue.AttemptRef
			var events []queue.WorkerEvent
			for _, before := range change.claimed {
				r := before.Clone()
				events = r.Begin(s.newID(queue.AttemptID), c.WorkerID, true, s.lease, sec.now)
				if err := sec.put(before, r); err != nil {
					return nil, err
				}
				view := r.View()
				out = append(out, view)
				places = append(places, before.Place)
				refs = append(refs, attemptRef(view.Attempt))
			}
			// Of a batch the worker's record shows the last.
			sec.tell(events)
			return refs, nil
		})
	}
	change.lost = func(lost collections.Lost) bool {
		if lost.Receipts[change.receipt] {
			return true
		}
		kept := 0
		for i := range out {
			if !lost.Rollouts[out[i].RolloutID] {
				out[kept] = out[i]
				if places != nil {
					places[kept] = places[i]
				}
				kept++
			}
		}
		none := kept == 0 && len(out) > 0
		out, places = out[:kept], places[:min(kept, len(places))]
		return none
	}
	if err := s.do(ctx, change); err != nil {
		return nil, err
	}
	for i := range places { // none where the answer was given before
		s.known.learn(attemptRef(out[i].Attempt), knownAttempt{place: places[i], mayWait: true})
	}
	if err := s.unstageClaims(ctx, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Unclaim implements queue.Store.
func (s *Store) Unclaim(ctx context.Context, claims []queue.AttemptRef) error {
	s.settle()
	for _, ref := range claims {
		a, _ := s.known.look(ref) // the place of an unknown one is 0: the tail
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
			s.known.forget(ref)
		}
	}
	return nil
}

// claimers are the claims that wait for the queue to fill, longest first. One
// new rollout wakes one of them.
type claimers struct {
	mu      sync.Mutex
	waiting []*bell
}

// bell wakes one waiting claim.
type bell struct {
	rung chan struct{} // closed when there may be something
}

func (c *claimers) listen() *bell {
	b := &bell{rung: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, b)
	return b
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

func (c *claimers) ring(n int) {
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
