package mongo

import (
	"context"
	"errors"
	"slices"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// spanStageOver is the size in bytes above which a part of a span that is larger
// than a document is kept beside it.
const spanStageOver = 64 << 10

// insertBigSpan stores a span that is larger than a document.
func (b *Backend) insertBigSpan(ctx context.Context, s queue.Span) (stored bool, err error) {
	parts := slices.DeleteFunc(spanPayloads(&s), func(p *rawjson.Value) bool { return len(*p) <= spanStageOver })
	order := numbers.next()
	stubs, err := b.stage(ctx, parts, func(d *doc) {
		d.text("r", s.RolloutID)
		d.int("o", order)
	})
	if err != nil {
		return false, err
	}
	var waste []string
	for i, p := range parts {
		*p = stubs[i]
		name, _ := readStub(string(stubs[i]))
		waste = append(waste, key(b.partition, name))
	}
	d := b.encodeSpan(&s)
	err = b.inTransaction(ctx, func(ctx context.Context) error {
		if _, err := b.spans.main.InsertOne(ctx, d); err != nil {
			return err
		}
		return takeBack(ctx, b.waste.main, waste)
	})
	if driver.IsDuplicateKeyError(err) {
		return false, nil // the waste stays, and the payloads go
	}
	if err != nil {
		return false, wrap(err, "storing a large span in MongoDB")
	}
	b.spanned.stored(1)
	return true, nil
}

// spanPayloads are the parts of a span that callers make as large as they like.
func spanPayloads(s *queue.Span) []*rawjson.Value {
	return []*rawjson.Value{&s.Status, &s.Attributes, &s.Events, &s.Links, &s.Context, &s.Parent, &s.Resource, &s.Extra}
}

// spanTooLarge refuses a span that is larger than a document without its large
// parts too.
func spanTooLarge(s *queue.Span) error {
	size := 1024 + 2*(len(s.RolloutID)+len(s.AttemptID)+len(s.SpanID)) + len(s.TraceID) + len(s.Name)
	for _, p := range spanPayloads(s) {
		if err := payloadTooLarge(*p); err != nil {
			return err
		}
		if len(*p) <= spanStageOver {
			size += len(*p)
		}
	}
	return tooLarge("span", s.SpanID, size)
}

// completeSpans fills in the payloads of spans that were read.
func (b *Backend) completeSpans(ctx context.Context, spans []queue.Span) error {
	var all []*rawjson.Value
	for i := range spans {
		for _, p := range spanPayloads(&spans[i]) {
			if isStub(*p) {
				all = append(all, p)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return b.Complete(ctx, all...)
}

// insertAroundBig stores spans of which the i-th is larger than a document. It
// refuses them all before it stores any if one of them cannot be kept.
func (b *Backend) insertAroundBig(ctx context.Context, spans []queue.Span, i int) ([]bool, error) {
	for j := range spans[i:] {
		if err := spanTooLarge(&spans[i+j]); err != nil {
			return nil, err
		}
	}
	before, err := b.InsertSpans(ctx, spans[:i])
	if err != nil {
		return nil, brokenOff(err)
	}
	stored, err := b.insertBigSpan(ctx, spans[i])
	if err != nil {
		return nil, err
	}
	after, err := b.InsertSpans(ctx, spans[i+1:])
	return append(append(before, stored), after...), brokenOff(err)
}

// brokenOff makes collections.ErrAgain, which is said of a whole insert, an error
// like others.
func brokenOff(err error) error {
	if errors.Is(err, collections.ErrAgain) {
		return queue.Errorf(queue.Unavailable, "%v", err)
	}
	return err
}
