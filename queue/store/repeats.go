package store

import (
	"context"
	"sync"
	"time"
)

// waitingClaim is a claim that has found nothing so far.
type waitingClaim struct {
	key      string // of the call's idempotency
	deadline *time.Timer
	ending   bool            // the deadline has passed
	earlier  <-chan lookedUp // whether an earlier call with the key was answered; nil before it is asked
}

// listen waits for the bell, until the end of the wait. That the queue is empty
// says nothing of an earlier call with the same key: whether that was answered is
// asked at the beginning, and at the end, by when whoever still served it is done.
// The bell has been left unless it has rung.
func (s *Store) listen(ctx context.Context, w *waitingClaim, b *bell) (rung, answered bool, err error) {
	if w.key != "" && w.earlier == nil {
		w.earlier = s.repeats.look(w.key)
	}
	for {
		select {
		case <-b.rung:
			return true, false, nil
		case l := <-w.earlier:
			if !l.answered && !w.ending {
				continue
			}
			answered, err = l.answered, l.err
		case <-w.deadline.C:
			w.ending = true
			if w.key != "" {
				w.earlier = s.repeats.look(w.key)
				continue
			}
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.closing.Done():
		}
		s.claims.leave(b)
		return false, answered, err
	}
}

// repeats are the keys of claims that wait, of which it is to be found out, for
// many at a time, whether earlier calls with them were answered.
type repeats struct {
	mu      sync.Mutex
	pending map[string][]chan<- lookedUp // by key
	wake    chan struct{}                // shared with beats
}

type lookedUp struct {
	answered bool
	err      error
}

// look finds it out within beatDelay or so, unless the store closes.
func (r *repeats) look(key string) <-chan lookedUp {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan lookedUp, 1)
	if r.pending == nil {
		r.pending = make(map[string][]chan<- lookedUp)
	}
	r.pending[key] = append(r.pending[key], c)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return c
}

// flush answers all that waits.
func (r *repeats) flush(s *Store) {
	r.mu.Lock()
	pending := r.pending
	r.pending = nil
	r.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	keys := make([]string, 0, len(pending))
	for key := range pending {
		keys = append(keys, key)
	}
	ctx, cancel := s.commitContext(s.asCaller(context.Background(), beatCaller))
	defer cancel()
	answered, err := s.backend.Answered(ctx, keys)
	for _, key := range answered {
		tell(pending[key], lookedUp{answered: true})
		delete(pending, key)
	}
	for _, listeners := range pending {
		tell(listeners, lookedUp{err: err})
	}
}

func tell(listeners []chan<- lookedUp, l lookedUp) {
	for _, c := range listeners {
		c <- l
	}
}
