package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// What is too old is looked for once in a tenth of the time it is kept, within
// these bounds.
const (
	minPurgeInterval = time.Second
	maxPurgeInterval = time.Minute
)

// purgeRest is how many times as long as it took a batch of deletions is
// followed by rest: deleting takes at most a quarter of the time of one thread
// of the backend, however much there is.
const (
	purgeRest    = 3
	minPurgeRest = 5 * time.Millisecond
)

// retention is how long a store keeps what is done, 0 for ever.
type retention struct {
	finished, spans time.Duration
	purged          func(rollouts, spans int64)
}

func (r retention) interval() time.Duration {
	out := maxPurgeInterval
	for _, keep := range []time.Duration{r.finished, r.spans} {
		if keep > 0 {
			out = min(out, keep/10)
		}
	}
	return max(out, minPurgeInterval)
}

func (r retention) cutoffs(now time.Time) collections.Cutoffs {
	out := collections.Cutoffs{Now: queue.Seconds(now)}
	if r.finished > 0 {
		out.Finished = queue.Seconds(now.Add(-r.finished))
	}
	if r.spans > 0 {
		out.Spans = queue.Seconds(now.Add(-r.spans))
	}
	return out
}

// purgeEvery deletes what is too old, until the store closes. It works without a
// limit too, for what a backend leaves to be deleted.
func (s *Store) purgeEvery(r retention) {
	for sleep.For(s.closing, time.Duration(float64(r.interval())*(0.9+0.2*rand.Float64()))) == nil {
		if err := s.purge(s.closing, r); err != nil && s.closing.Err() == nil {
			s.log.Warn("deleting what is too old failed; it is tried again", "error", err)
		}
	}
}

// purge deletes all that is too old now.
func (s *Store) purge(ctx context.Context, r retention) error {
	var rollouts, spans int64
	defer func() {
		if rollouts+spans > 0 {
			s.log.Debug("deleted what was too old", "rollouts", rollouts, "spans", spans)
		}
	}()
	for {
		began := time.Now()
		got, err := s.backend.Purge(ctx, r.cutoffs(s.now()))
		rollouts, spans = rollouts+got.Rollouts, spans+got.Spans
		for _, ref := range got.Attempts {
			s.known.Forget(ref)
		}
		if r.purged != nil && got.Rollouts+got.Spans > 0 {
			r.purged(got.Rollouts, got.Spans)
		}
		if err != nil || !got.More || sleep.For(s.closing, max(minPurgeRest, purgeRest*time.Since(began))) != nil {
			return err
		}
	}
}
