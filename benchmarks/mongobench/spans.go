package mongobench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	spansTogether = 100 // spans in one call
	attributes    = 8
)

// SpansTable sets the store's spans beside bare documents.
type SpansTable struct {
	Rows []*SpansRow `json:"rows"`
}

// SpansRow is one number of callers.
type SpansRow struct {
	Callers int     `json:"callers"`
	Aglq    Sample  `json:"aglq"`
	Bare    Sample  `json:"bare"`
	Ratio   float64 `json:"ratio"`
}

// WriteText implements Table.
func (t *SpansTable) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "documents a second, %d a call; aglq numbers them and keeps the attempt alive; bare is insertMany; majority, journaled\n", spansTogether)
	_, err := fmt.Fprintf(w, "%8s %10s %16s %8s %8s %10s %16s %8s %8s %7s\n", "callers",
		"aglq/s", "spread", "p50 ms", "p99 ms", "bare/s", "spread", "p50 ms", "p99 ms", "ratio")
	for _, r := range t.Rows {
		_, err = fmt.Fprintf(w, "%8d %10.0f %16s %8.2f %8.2f %10.0f %16s %8.2f %8.2f %6.2fx\n", r.Callers,
			r.Aglq.Median, r.Aglq.spread(), r.Aglq.P50, r.Aglq.P99, r.Bare.Median, r.Bare.spread(), r.Bare.P50, r.Bare.P99, r.Ratio)
	}
	return err
}

func (b *bench) spans(ctx context.Context) (Table, error) {
	t := &SpansTable{}
	for _, n := range []int{1, 8} {
		t.Rows = append(t.Rows, &SpansRow{Callers: n})
	}
	for round := range b.Rounds {
		for _, row := range t.Rows {
			b.Progress(fmt.Sprintf("spans, round %d: %d callers", round+1, row.Callers))
			if err := b.bareSpans(ctx, row.Callers, &row.Bare); err != nil {
				return nil, fmt.Errorf("bare inserts by %d callers: %w", row.Callers, err)
			}
			if err := b.storeSpans(ctx, row.Callers, &row.Aglq); err != nil {
				return nil, fmt.Errorf("spans by %d callers: %w", row.Callers, err)
			}
			row.Ratio = benchmarks.Ratio(row.Aglq.Median, row.Bare.Median)
		}
	}
	return t, nil
}

// storeSpans is one round of the store's: each caller has an attempt.
func (b *bench) storeSpans(ctx context.Context, callers int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	s, err := b.open(ctx, name)
	if err != nil {
		return err
	}
	defer s.Close(context.WithoutCancel(ctx))
	refs := make([]queue.AttemptRef, callers)
	for i := range refs {
		a, err := s.Start(ctx, queue.Request{Input: rawjson.Value(task)}, nil)
		if err != nil {
			return err
		}
		refs[i] = queue.AttemptRef{RolloutID: a.RolloutID, AttemptID: a.Attempt.AttemptID}
	}
	attrs := rawjson.Value(spanAttributes())
	total, err := b.insert(ctx, callers, sample, func(ctx context.Context, caller, n int) error {
		spans := make([]queue.Span, spansTogether)
		for i := range spans {
			start, end := spanTimes()
			spans[i] = queue.Span{
				RolloutID: refs[caller].RolloutID, AttemptID: refs[caller].AttemptID, SequenceID: queue.NumberOnArrival,
				TraceID: traceID, SpanID: fmt.Sprintf("%016x", n+i), Name: "chat.completion", Attributes: attrs,
				Status: rawjson.Value(`{"status_code":"OK","description":null}`), StartTime: &start, EndTime: &end,
				Resource: rawjson.Value(`{"attributes":{"service.name":"benchmark"},"schema_url":""}`),
			}
			spans[i].FillIn()
		}
		added, err := s.AddSpans(ctx, spans)
		if err == nil && len(added.Stored) != spansTogether {
			err = fmt.Errorf("%d of %d spans were stored", len(added.Stored), spansTogether)
		}
		return err
	})
	if err != nil {
		return err
	}
	held, err := s.Statistics(ctx)
	if err == nil && held.Spans != int64(total) {
		err = fmt.Errorf("%d spans are there, not %d", held.Spans, total)
	}
	return err
}

// bareSpans is one round of the driver's.
func (b *bench) bareSpans(ctx context.Context, callers int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	c := b.bare(name, "spans")
	unordered := options.InsertMany().SetOrdered(false)
	attrs := spanAttributes()
	_, err := b.insert(ctx, callers, sample, func(ctx context.Context, caller, n int) error {
		docs := make([]any, spansTogether)
		for i := range docs {
			start, end := spanTimes()
			docs[i] = bson.D{
				{Key: "_id", Value: fmt.Sprintf("ro-%d/at-1/%016x", caller, n+i)}, {Key: "rollout", Value: fmt.Sprintf("ro-%d", caller)},
				{Key: "attempt", Value: "at-1"}, {Key: "sequence", Value: int64(n + i)}, {Key: "trace", Value: traceID},
				{Key: "span", Value: fmt.Sprintf("%016x", n+i)}, {Key: "name", Value: "chat.completion"}, {Key: "attributes", Value: attrs},
				{Key: "status", Value: `{"status_code":"OK","description":null}`}, {Key: "start", Value: start}, {Key: "end", Value: end},
				{Key: "resource", Value: `{"attributes":{"service.name":"benchmark"},"schema_url":""}`},
			}
		}
		_, err := c.InsertMany(ctx, docs, unordered)
		return err
	})
	return err
}

// insert lets callers insert, spansTogether at a time, until the time is up.
// The n that it hands out counts a caller's own documents; it returns how many
// there are in all.
func (b *bench) insert(ctx context.Context, callers int, sample *Sample, once func(ctx context.Context, caller, n int) error) (int, error) {
	before, err := b.counters(ctx)
	if err != nil {
		return 0, err
	}
	all := make([][]time.Duration, callers)
	start := time.Now()
	group, inner := errgroup.WithContext(ctx)
	for i := range callers {
		group.Go(func() error {
			for n := 0; time.Since(start) < b.Duration; n += spansTogether {
				asked := time.Now()
				if err := once(inner, i, n); err != nil {
					return err
				}
				all[i] = append(all[i], time.Since(asked))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(start)
	after, err := b.counters(ctx)
	if err != nil {
		return 0, err
	}
	times := slices.Concat(all...)
	total := len(times) * spansTogether
	sample.add(rate(total, took), benchmarks.LatencyOf("insert", times), after.since(before))
	return total, nil
}

const traceID = "0af7651916cd43dd8448eb211c80319c"

// spanAttributes is what one span carries, as JSON text.
func spanAttributes() string {
	text := "{"
	for i := range attributes {
		if i > 0 {
			text += ","
		}
		text += strconv.Quote("gen_ai.request.attribute_"+strconv.Itoa(i)) + ":" +
			strconv.Quote(fmt.Sprintf("value %d: the model answered with a short text that says what it did next", i))
	}
	return text + "}"
}

func spanTimes() (start, end float64) { return 1_790_000_000, 1_790_000_000.25 }
