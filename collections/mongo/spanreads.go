package mongo

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
)

// When a batch of rollouts ends, many callers ask for the spans of one attempt
// each. While some of these questions are on their way to the server the next ones
// gather, and are asked together. Nobody waits long for the spans of others: what
// does not fit into two answers is read by its callers alone.

const (
	// readTogether is the most spans that one answer for several attempts brings.
	// The server brings fewer where they come to 16 MiB.
	readTogether = 1000
	// readWeight is the weight of a read in a batch, which so holds some fifty.
	readWeight = 10
	// parallelReads is how many questions are under way at a time.
	parallelReads = 2
)

// spanRead is one caller's part of a question.
type spanRead struct {
	of    queue.AttemptRef
	spans []queue.Span
	alone bool // its caller reads them itself
	long  bool // because the rollout has more than one answer brings
}

func (b *Backend) newReads() {
	b.spanReads = groupcommit.New(b.readSpans, func(*spanRead) int { return readWeight }, parallelReads)
	b.workerReads = groupcommit.New(b.readWorkers, nil, parallelReads)
	b.spanReads.Abandon, b.workerReads.Abandon = true, true
	b.reading, b.stopReading = context.WithCancel(context.Background())
}

// endReads gives up the reads that their callers have abandoned.
func (b *Backend) endReads() {
	b.stopReading()
	b.spanReads.Wait()
	b.workerReads.Wait()
}

// readContext is that of a question for several callers, of whom first is the first.
func (b *Backend) readContext(first context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := bound(collections.Detached(first))
	stop := context.AfterFunc(b.reading, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// spansOfAttempt reads all spans of an attempt.
func (b *Backend) spansOfAttempt(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	if !b.longRollouts.knows(q.RolloutID) {
		r := &spanRead{of: queue.AttemptRef{RolloutID: q.RolloutID, AttemptID: *q.AttemptID}}
		if err := b.spanReads.Do(ctx, r); err != nil {
			return queue.Page[queue.Span]{}, err
		}
		if !r.alone {
			return queue.Page[queue.Span]{Items: r.spans, Total: len(r.spans), Limit: q.Limit}, nil
		}
		if r.long {
			b.longRollouts.add(q.RolloutID)
		}
	}
	return b.spansByNumber(ctx, q)
}

// readSpans answers a batch of reads.
func (b *Backend) readSpans(batch []*groupcommit.Call[*spanRead]) {
	ctx, cancel := b.readContext(batch[0].Ctx)
	defer cancel()
	for answers := 0; len(batch) > 0 && answers < 2; answers++ {
		a := b.readAnswer(ctx, batch)
		if a.err != nil {
			for _, c := range batch {
				c.Err = a.err
			}
			return
		}
		batch = slices.DeleteFunc(slices.Clone(batch), a.answers)
	}
	for _, c := range batch {
		c.Item.alone = true
	}
}

// spanAnswer is what the server answered with. Where it is cut off, all of the
// rollouts before the last one is there.
type spanAnswer struct {
	spans       map[queue.AttemptRef][]queue.Span
	cut         bool
	first, last string // rollouts in it
	err         error
}

// answers reports whether a read has its answer.
func (a *spanAnswer) answers(c *groupcommit.Call[*spanRead]) bool {
	switch id := c.Item.of.RolloutID; {
	case !a.cut || id < a.last:
		c.Item.spans = slices.Clone(a.spans[c.Item.of]) // several may ask for the same
		return true
	case id == a.last && a.first == a.last:
		c.Item.alone, c.Item.long = true, true
		return true
	}
	return false
}

// readAnswer reads the first answer to the question for a batch.
func (b *Backend) readAnswer(ctx context.Context, batch []*groupcommit.Call[*spanRead]) *spanAnswer {
	a := &spanAnswer{spans: make(map[queue.AttemptRef][]queue.Span, len(batch))}
	for _, c := range batch {
		a.spans[c.Item.of] = []queue.Span{}
	}
	o := options.Find().SetSort(spanSort).SetHint(bySequence).SetLimit(readTogether).SetBatchSize(readTogether + 1)
	cursor, err := b.spans.snapshot.Find(ctx, b.spansOfAttempts(a.spans), o)
	if err != nil {
		a.err = err
		return a
	}
	defer end(ctx, cursor)
	n := 0
	for ; cursor.RemainingBatchLength() > 0 && cursor.Next(ctx); n++ {
		s := decodeSpan(cursor.Current)
		if a.last = s.RolloutID; n == 0 {
			a.first = a.last
		}
		ref := queue.AttemptRef{RolloutID: s.RolloutID, AttemptID: s.AttemptID}
		a.spans[ref] = append(a.spans[ref], *s)
	}
	a.cut, a.err = cursor.ID() != 0 || n == readTogether, cursor.Err()
	return a
}

// spansOfAttempts is the query for the spans of attempts. Should an attempt of one
// rollout have the id of another's, it finds more, which nobody is given.
func (b *Backend) spansOfAttempts(of map[queue.AttemptRef][]queue.Span) bson.Raw {
	rollouts, attempts := make([]string, 0, len(of)), make([]string, 0, len(of))
	for ref := range of {
		rollouts, attempts = append(rollouts, ref.RolloutID), append(attempts, ref.AttemptID)
	}
	d := newDoc(64 + 64*len(of))
	d.text("p", b.partition)
	d.oneOf("r", rollouts)
	d.oneOf("a", attempts)
	return d.done()
}
