package adapter

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/aglq/aglq/queue"
)

// Trace is what one rollout left behind: the spans of an attempt, or of all, by
// number.
type Trace struct {
	Rollout queue.AttemptedRollout // with its latest attempt
	Spans   []queue.Span
}

// aheadBytes is about how much is read ahead.
const aheadBytes = 64 << 20

func (t *Trace) size() (n int) {
	for i := range t.Spans {
		n += t.Spans[i].Size()
	}
	return n
}

// Adapted is what an adapter made of one rollout.
type Adapted[T any] struct {
	Rollout queue.AttemptedRollout
	Items   []T
}

// Source reads traces from a store. Spans of few rollouts are in memory at a time,
// however many there are.
type Source struct {
	Store queue.Store
	// Ahead is how many rollouts' spans are read at a time, before they are asked
	// for: 8 when 0. Fewer are where that would be more than 64 MiB of them.
	Ahead int
	// Page is the most rollouts that one request lists: 500 when 0. Fewer are where
	// these are large.
	Page int
	// AttemptID is the attempt whose spans count: the latest when "".
	AttemptID string
	// AllAttempts reads the spans of all attempts, in place of AttemptID.
	AllAttempts bool
}

// Traces reads the spans of rollouts, in their order. Those of the next ones are
// fetched while the loop's body works. An error, or the end of ctx, is the last pair.
func (s Source) Traces(ctx context.Context, rollouts iter.Seq2[queue.AttemptedRollout, error]) iter.Seq2[Trace, error] {
	type answer struct {
		trace Trace
		err   error
	}
	return func(yield func(Trace, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		next, stop := iter.Pull2(rollouts)
		var ahead []chan answer
		defer func() {
			cancel()
			for _, c := range ahead { // each has room for its answer; none is left running
				<-c
			}
			stop()
		}()
		more := true
		fetch := func() {
			r, err, ok := next()
			if !ok {
				more = false
				return
			}
			c := make(chan answer, 1)
			ahead = append(ahead, c)
			if err != nil {
				more = false
				c <- answer{err: err}
				return
			}
			go func() {
				spans, err := s.Spans(ctx, r.RolloutID)
				if err != nil {
					c <- answer{err: err}
					return
				}
				c <- answer{trace: Trace{r, spans}}
			}()
		}
		most := cmp.Or(s.Ahead, 8)
		for allowed := most; ; {
			if ctx.Err() != nil {
				yield(Trace{}, context.Cause(ctx))
				return
			}
			for more && len(ahead) < allowed {
				fetch()
			}
			if len(ahead) == 0 {
				return
			}
			a := <-ahead[0]
			ahead = ahead[1:]
			allowed = min(most, max(1, aheadBytes/(a.trace.size()+1))) // the next ones may be alike
			if !yield(a.trace, a.err) || a.err != nil {
				return
			}
		}
	}
}

// Spans reads those of one rollout, by sequence number.
func (s Source) Spans(ctx context.Context, rolloutID string) ([]queue.Span, error) {
	q := queue.SpanQuery{RolloutID: rolloutID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}}
	if !s.AllAttempts {
		attempt := cmp.Or(s.AttemptID, "latest")
		q.AttemptID = &attempt
	}
	page, err := s.Store.Spans(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("reading the spans of rollout %s: %w", rolloutID, err)
	}
	return page.Items, nil
}

// Stream adapts traces one by one. A trace that the adapter cannot take comes with
// the error and no items, and the stream goes on; where it comes from an error of
// the source, the rollout has no id and the pair is the last. A rollout without
// spans has no items.
func Stream[T any](a Adapter[T], traces iter.Seq2[Trace, error]) iter.Seq2[Adapted[T], error] {
	return func(yield func(Adapted[T], error) bool) {
		for trace, err := range traces {
			out := Adapted[T]{Rollout: trace.Rollout}
			if err == nil && len(trace.Spans) > 0 {
				if out.Items, err = a.Adapt(trace.Spans); err != nil {
					err = fmt.Errorf("adapting the spans of rollout %s: %w", trace.Rollout.RolloutID, err)
				}
			}
			if !yield(out, err) {
				return
			}
		}
	}
}
