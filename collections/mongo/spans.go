package mongo

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// InsertSpans implements collections.Spans: one insert, in which a duplicate
// stops nothing.
func (b *Backend) InsertSpans(ctx context.Context, spans []queue.Span) ([]bool, error) {
	if len(spans) == 0 {
		return nil, nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	issued, by := b.moved.take(), new(term)
	stored, docs, err := b.insertSpans(noting(ctx, by), spans)
	if err == nil {
		err = b.keepNumbers(ctx, spans, issued, by)
	}
	if err == nil {
		err = wrap(b.findInserted(ctx, docs, spans, stored), "asking MongoDB which spans were stored")
	}
	return stored, err
}

// insertSpans also returns the documents, none where one span is larger than that.
func (b *Backend) insertSpans(ctx context.Context, spans []queue.Span) (stored []bool, docs []bson.Raw, err error) {
	docs = make([]bson.Raw, len(spans))
	for i := range spans {
		docs[i] = b.encodeSpan(&spans[i])
		if len(docs[i]) > maxDocument {
			stored, err = b.insertAroundBig(ctx, spans, i)
			return stored, nil, err
		}
	}
	stored = make([]bool, len(spans))
	for at := 0; at < len(docs); {
		n, err := b.insertSome(ctx, docs[at:], spans[at:], stored[at:])
		if err != nil {
			return stored, nil, err
		}
		at += n
	}
	return stored, docs, nil
}

// insertSome inserts as many documents as one command holds, and says which of
// them are stored by it. The driver does not repeat the command: a number that is
// not durable yet may have been lost with the connection.
func (b *Backend) insertSome(ctx context.Context, docs []bson.Raw, spans []queue.Span, stored []bool) (n int, err error) {
	command, n := b.insertCommand(docs)
	err = b.database.RunCommand(ctx, command).Err()
	var refused driver.WriteException
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.WriteConcernError == nil && !slices.ContainsFunc(refused.WriteErrors, notDuplicate):
	case passing(err):
		if err := b.findStored(ctx, docs[:n], spans, stored); err != nil {
			return 0, wrap(err, "storing spans in MongoDB")
		}
		return 0, collections.ErrAgain
	default:
		return 0, wrap(err, "storing spans in MongoDB")
	}
	for i := range n {
		stored[i] = true
	}
	for _, e := range refused.WriteErrors {
		stored[e.Index] = false
	}
	b.spanned.stored(n - len(refused.WriteErrors))
	return n, nil
}

const duplicateKey = 11000

func notDuplicate(e driver.WriteError) bool { return e.Code != duplicateKey }

// insertCommand is the command for the first n documents.
func (b *Backend) insertCommand(docs []bson.Raw) (command bson.Raw, n int) {
	size := 0
	for n < len(docs) && n < maxInserts && (n == 0 || size+len(docs[n]) < maxCommand) {
		size += len(docs[n]) + 16
		n++
	}
	d := newDoc(size + 256)
	d.text("insert", b.spans.main.Name())
	d.no("ordered")
	if b.spansTo == b.spans.main {
		d.raw("writeConcern", journaledDoc)
	} else {
		d.raw("writeConcern", fastDoc)
	}
	list := d.openArray("documents")
	for i, doc := range docs[:n] {
		d.raw(strconv.Itoa(i), doc)
	}
	d.close(list)
	return d.done(), n
}

// maxInserts is how many documents one insert holds.
const maxInserts = 10_000

// findStored looks which documents an insert has stored whose answer never came.
// The others may still be stored, should the command arrive late.
func (b *Backend) findStored(ctx context.Context, docs []bson.Raw, spans []queue.Span, stored []bool) error {
	for _, doc := range docs {
		b.doubtful.Update(spanDocID(doc), func(before []int64) []int64 {
			return append(slices.Clip(before), doc.Lookup("o").AsInt64())
		})
	}
	return b.findInserted(ctx, docs, spans, stored)
}

// findInserted marks as stored, under the number that they have, the spans that
// were stored by an insert which was broken off. It repeats until ctx ends.
func (b *Backend) findInserted(ctx context.Context, docs []bson.Raw, spans []queue.Span, stored []bool) error {
	var ids bson.A
	for i, doc := range docs {
		if stored[i] {
			continue
		}
		if _, doubtful := b.doubtful.Get(spanDocID(doc)); doubtful {
			ids = append(ids, spanDocID(doc))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	for tries := 0; ; tries++ {
		found, err := b.insertedSpans(ctx, ids)
		if err == nil {
			b.markInserted(found, docs, spans, stored)
		}
		if err == nil || !passing(err) {
			return err
		}
		if !sleep(ctx, pause(tries)) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (b *Backend) markInserted(found map[string]insertedSpan, docs []bson.Raw, spans []queue.Span, stored []bool) {
	for i, doc := range docs {
		there, ok := found[spanDocID(doc)]
		if stored[i] || !ok {
			continue
		}
		if inserts, _ := b.doubtful.Get(spanDocID(doc)); !slices.Contains(inserts, there.order) {
			continue
		}
		stored[i], spans[i].SequenceID = true, there.number
		b.spanned.stored(1)
		b.doubtful.Forget(spanDocID(doc)) // one that comes later is a duplicate
	}
}

func spanDocID(doc bson.Raw) string { return doc.Lookup("_id").StringValue() }

// insertedSpan is what tells one insert of a span from another.
type insertedSpan struct{ order, number int64 }

// insertedSpans reads it of the spans that are there.
func (b *Backend) insertedSpans(ctx context.Context, ids bson.A) (map[string]insertedSpan, error) {
	found := make(map[string]insertedSpan, len(ids))
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}}
	o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}, {Key: "o", Value: 1}, {Key: "n", Value: 1}})
	err := each(ctx, b.spans.main, filter, o, func(raw bson.Raw) {
		found[spanDocID(raw)] = insertedSpan{order: raw.Lookup("o").AsInt64(), number: raw.Lookup("n").AsInt64()}
	})
	return found, err
}

// duplicates tells which documents of an unordered insert existed already. Any
// other failure it returns as it is.
func duplicates(err error) ([]int, error) {
	var failed driver.BulkWriteException
	if !errors.As(err, &failed) || failed.WriteConcernError != nil {
		return nil, err
	}
	existing := make([]int, len(failed.WriteErrors))
	for i, e := range failed.WriteErrors {
		if !driver.IsDuplicateKeyError(e) {
			return nil, err
		}
		existing[i] = e.Index
	}
	return existing, nil
}

// QuerySpans implements collections.Spans. The lists by number are read from
// the index, others from all spans of the rollout.
func (b *Backend) QuerySpans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var page queue.Page[queue.Span]
	var err error
	switch byNumber := q.SortBy == "sequence_id" && !q.Descending && q.Limit != 0 && !filtered(&q); {
	case byNumber && q.AttemptID != nil && q.Limit < 0 && q.Offset == 0:
		page, err = b.spansOfAttempt(ctx, q)
	case byNumber:
		page, err = b.spansByNumber(ctx, q)
	default:
		page, err = b.spansBySearch(ctx, q)
	}
	if err == nil {
		err = b.completeSpans(ctx, page.Items)
	}
	return page, wrap(err, "listing spans from MongoDB")
}

func filtered(q *queue.SpanQuery) bool {
	none := queue.TextMatch{}
	return q.TraceID != none || q.SpanID != none || q.ParentID != none || q.Name != none
}

func (b *Backend) spansByNumber(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	page := queue.Page[queue.Span]{Items: []queue.Span{}, Limit: q.Limit, Offset: q.Offset}
	filter := b.spansOf(&q)
	o := options.Find().SetSort(bson.D{{Key: "n", Value: 1}, {Key: "o", Value: 1}}).SetHint(bySequence).
		SetSkip(int64(q.Offset)).SetLimit(int64(max(q.Limit, 0)))
	err := each(ctx, b.spans.snapshot, filter, o, func(raw bson.Raw) { page.Items = append(page.Items, *decodeSpan(raw)) })
	if err != nil {
		return page, err
	}
	page.Total = q.Offset + len(page.Items)
	if complete(q.Paging, len(page.Items)) {
		return page, nil
	}
	n, err := b.spans.main.CountDocuments(ctx, filter, options.Count().SetHint(bySequence))
	page.Total = int(n)
	return page, err
}

func (b *Backend) spansOf(q *queue.SpanQuery) bson.Raw {
	d := newDoc(128)
	d.text("p", b.partition)
	d.text("r", q.RolloutID)
	d.optText("a", q.AttemptID)
	return d.done()
}

func (b *Backend) spansBySearch(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	filter := newDoc(256)
	filter.text("p", b.partition)
	filter.text("r", q.RolloutID)
	filter.optText("a", q.AttemptID)
	if q.Logic == queue.And {
		filter.optText("ti", q.TraceID.Equals)
		filter.optText("si", q.SpanID.Equals)
		filter.optText("pi", q.ParentID.Equals)
		filter.optText("nm", q.Name.Equals)
	}
	var found []numbered
	o := options.Find().SetHint(bySequence)
	err := each(ctx, b.spans.snapshot, filter.done(), o, func(raw bson.Raw) {
		if s := decodeSpan(raw); collections.MatchSpan(s, &q) {
			order, _ := raw.Lookup("o").AsInt64OK()
			found = append(found, numbered{s, order})
		}
	})
	if err != nil {
		return queue.Page[queue.Span]{}, err
	}
	slices.SortFunc(found, func(a, b numbered) int { return int(min(1, max(-1, a.order-b.order))) })
	spans := make([]*queue.Span, len(found))
	for i := range found {
		spans[i] = found[i].Span
	}
	return collections.PageSpans(spans, q.Paging), nil
}

// numbered is a span with its number of insertion.
type numbered struct {
	*queue.Span
	order int64
}
