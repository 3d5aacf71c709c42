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
// gather, and are asked together. Nobody waits for more spans of others than fit
// in one answer: an attempt with more is read by its caller alone.

const (
	// readTogether is the most spans that one question for several attempts brings.
	// The server brings fewer where they come to 16 MiB.
	readTogether = 1000
	// parallelReads is how many questions are under way at a time.
	parallelReads = 2
)

// spanRead is one caller's part of a question.
type spanRead struct {
	of    queue.AttemptRef
	spans []queue.Span
	alone bool // there were too many: its caller reads them itself
}

// spansOfAttempt reads all spans of an attempt.
func (b *Backend) spansOfAttempt(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	if !b.longAttempts.knows(*q.AttemptID) {
		r := &spanRead{of: queue.AttemptRef{RolloutID: q.RolloutID, AttemptID: *q.AttemptID}}
		if err := b.spanReads.Do(ctx, r); err != nil {
			return queue.Page[queue.Span]{}, err
		}
		if !r.alone {
			return queue.Page[queue.Span]{Items: r.spans, Total: len(r.spans), Limit: q.Limit}, nil
		}
		b.longAttempts.add(*q.AttemptID)
	}
	return b.spansByNumber(ctx, q)
}

// readSpans answers a batch of reads.
func (b *Backend) readSpans(batch []*groupcommit.Call[*spanRead]) {
	ctx, cancel := bound(collections.Detached(batch[0].Ctx))
	defer cancel()
	found := make(map[queue.AttemptRef][]queue.Span, len(batch))
	for _, c := range batch {
		found[c.Item.of] = []queue.Span{}
	}
	cut, last, err := b.readAnswer(ctx, found)
	for _, c := range batch {
		switch {
		case err != nil:
			c.Err = err
		case cut && c.Item.of.RolloutID >= last: // or never reached
			c.Item.alone = true
		default:
			c.Item.spans = slices.Clone(found[c.Item.of]) // several may ask for the same
		}
	}
}

// readAnswer reads the first answer to the question for the spans of some attempts.
// Where it is cut off, all of rollouts before the last one is there.
func (b *Backend) readAnswer(ctx context.Context, found map[queue.AttemptRef][]queue.Span) (cut bool, last string, err error) {
	o := options.Find().SetSort(spanSort).SetHint(bySequence).SetLimit(readTogether).SetBatchSize(readTogether + 1)
	cursor, err := b.spans.snapshot.Find(ctx, b.spansOfAttempts(found), o)
	if err != nil {
		return false, "", err
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	n := 0
	for cursor.RemainingBatchLength() > 0 && cursor.Next(ctx) {
		s := decodeSpan(cursor.Current)
		n, last = n+1, s.RolloutID
		ref := queue.AttemptRef{RolloutID: s.RolloutID, AttemptID: s.AttemptID}
		found[ref] = append(found[ref], *s)
	}
	return cursor.ID() != 0 || n == readTogether, last, cursor.Err()
}

// spansOfAttempts is the query for the spans of attempts. It may find those of one
// attempt's id under another's rollout, of which there are none.
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

// oneOf adds the condition that a field has one of some values.
func (d *doc) oneOf(name string, values []string) {
	slices.Sort(values)
	if values = slices.Compact(values); len(values) == 1 {
		d.text(name, values[0])
		return
	}
	at := d.open(name)
	d.texts("$in", values)
	d.close(at)
}
