package client

import (
	"context"
	"net/http"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/otlp"
)

// NextSequence implements queue.Store. The protocol issues one number a request,
// so n numbers take n requests and are consecutive only when nobody else asks
// meanwhile; the first is returned.
func (c *Client) NextSequence(ctx context.Context, rolloutID string, n int) (int64, error) {
	if n < 1 {
		return 0, queue.ErrNoNumbers(n)
	}
	o := newObject()
	o.text("rollout_id", rolloutID)
	o.text("attempt_id", "") // required, and ignored: numbers are the rollout's
	body := o.close()
	var first int64
	for i := range n {
		v, err := c.json(ctx, call{method: http.MethodPost, path: route("spans", "next"), body: body, key: newKey()})
		if err != nil {
			return 0, err
		}
		number, ok := v.Get("sequence_id").Int()
		if !ok {
			return 0, unexpected("sequence number", v)
		}
		if i == 0 {
			first = number
		}
	}
	return first, nil
}

// AddSpan implements queue.Store. A span without a number takes a request more.
func (c *Client) AddSpan(ctx context.Context, s queue.Span) (*queue.Span, error) {
	if s.SequenceID == queue.NumberOnArrival {
		number, err := c.NextSequence(ctx, s.RolloutID, 1)
		if err != nil {
			return nil, err
		}
		s.SequenceID = number
	}
	s.FillIn()
	v, err := c.json(ctx, call{method: http.MethodPost, path: route("spans"), body: s.AppendJSON(nil), key: newKey()})
	if err != nil {
		return nil, err
	}
	return maybe(v, decodeSpan)
}

// AddSpans implements queue.Store. The spans travel together as OTLP, which
// tells how many were rejected but not how the others were numbered: Stored is
// nil. Spans that OTLP cannot carry whole go one by one before the others.
func (c *Client) AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	var added queue.SpansAdded
	together := make([]queue.Span, 0, len(spans))
	for i := range spans {
		if portable(&spans[i]) {
			together = append(together, spans[i])
			together[len(together)-1].FillIn()
			continue
		}
		_, err := c.AddSpan(ctx, spans[i])
		switch {
		case queue.KindOf(err) == queue.NotFound:
			added.Rejected++
			if added.Reason == "" {
				added.Reason = err.Error()
			}
		case err != nil:
			return added, err
		}
	}
	if len(together) == 0 {
		return added, nil
	}
	rejected, reason, err := c.export(ctx, together)
	added.Rejected += rejected
	if added.Reason == "" {
		added.Reason = reason
	}
	return added, err
}

// export sends spans as one OTLP request.
func (c *Client) export(ctx context.Context, spans []queue.Span) (rejected int, reason string, err error) {
	size := 0
	for i := range spans {
		size += spans[i].Size()
	}
	rq := call{method: http.MethodPost, path: tracesPath, kind: protobufType, key: newKey()}
	rq.body = otlp.Append(make([]byte, 0, size), spans)
	if c.opts.CompressFrom > 0 && len(rq.body) >= c.opts.CompressFrom {
		rq.body = compress(rq.body)
		rq.coding = "gzip"
	}
	answer, err := c.do(ctx, rq)
	if err != nil {
		return 0, "", err
	}
	return partialSuccess(answer)
}

// portable reports whether OTLP carries the span without loss: ids of the W3C
// lengths, and no members of the caller's own.
func portable(s *queue.Span) bool {
	return hexOf(s.TraceID, 32) && hexOf(s.SpanID, 16) && (s.ParentID == nil || hexOf(*s.ParentID, 16)) &&
		len(s.Extra) == 0 && s.Parent.IsNull() && (s.SequenceID >= 0 || s.SequenceID == queue.NumberOnArrival)
}

func hexOf(id string, n int) bool {
	return len(id) == n && strings.Trim(id, "0123456789abcdef") == ""
}

// Spans implements queue.Store.
func (c *Client) Spans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	o := newObject()
	o.text("rollout_id", q.RolloutID)
	o.condition("attempt_id", q.AttemptID)
	o.match("trace_id", q.TraceID)
	o.match("span_id", q.SpanID)
	o.match("parent_id", q.ParentID)
	o.match("name", q.Name)
	o.logic(q.Logic)
	o.paging(q.Paging)
	v, err := c.post(ctx, route("spans", "search"), o.close())
	if err != nil {
		return queue.Page[queue.Span]{}, err
	}
	return page(v, decodeSpan)
}
