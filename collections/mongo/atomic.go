package mongo

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// The pauses before a section runs again: full jitter below a bound that
// doubles.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = 200 * time.Millisecond

	// triesBeforeFreeing is after how many vain tries a dead process is suspected
	// to stand in the way.
	triesBeforeFreeing = 8
)

// Atomic implements collections.Backend. It gives up with the deadline of ctx,
// after 10 s without one.
func (b *Backend) Atomic(ctx context.Context, fn func(tx collections.Tx) error) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	retrying := false
	for tries := 0; ; tries++ {
		if err := ctx.Err(); err != nil {
			return wrap(err, "running a section")
		}
		s := newSection(ctx, b)
		if err := fn(s); err != nil {
			if s.guessed() {
				s.forget()
				continue
			}
			return err
		}
		err := s.commit()
		if err == nil {
			s.remember(collections.Lost{})
			return nil
		}
		s.forget()
		if !errors.Is(err, errChanged) && !hasLabel(err, transient) {
			return err
		}
		b.log.Debug("section runs again", "tries", tries+1, "error", err)
		if tries%triesBeforeFreeing == triesBeforeFreeing-1 {
			b.freeAbandoned(ctx)
		}
		// Of the sections of this process that clash, one runs at a time: were
		// all to try at once, most would try in vain.
		if !retrying {
			select {
			case b.retrying <- struct{}{}:
				retrying = true
				defer func() { <-b.retrying }()
				if errors.Is(err, errChanged) {
					continue // whoever it clashed with is done
				}
			case <-ctx.Done():
				return gaveUp(ctx, err)
			}
		}
		if !sleep(ctx, pause(tries)) {
			return gaveUp(ctx, err)
		}
	}
}

func gaveUp(ctx context.Context, last error) error {
	return queue.Wrap(queue.Unavailable, errors.Join(ctx.Err(), last),
		"the data in MongoDB kept changing or was out of reach until the deadline; retry later")
}

func pause(tries int) time.Duration {
	limit := min(maxPause, firstPause<<min(tries, 10))
	return rand.N(limit)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
