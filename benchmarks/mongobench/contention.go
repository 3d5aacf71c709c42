package mongobench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/otlp"
	"github.com/aglq/aglq/queue/rawjson"
)

// ContentionTable tells what concurrent span posts to one attempt do to each
// other.
type ContentionTable struct {
	Posts int              `json:"posts_at_once"`
	Rows  []*ContentionRow `json:"rows"`
}

// ContentionRow is one number of stores. Its rates are posts a second.
type ContentionRow struct {
	Stores int    `json:"stores"`
	Posts  Sample `json:"posts"`
}

// WriteText implements Table.
func (t *ContentionTable) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%d posts at once, of %d spans each, to one attempt\n", t.Posts, spansEach)
	_, err := fmt.Fprintf(w, "%7s %10s %16s %8s %8s %10s %10s %16s\n", "stores", "posts/s", "spread", "p50 ms", "p99 ms", "committed", "aborted", "write conflicts")
	for _, r := range t.Rows {
		_, err = fmt.Fprintf(w, "%7d %10.0f %16s %8.2f %8.2f %10d %10d %16d\n", r.Stores, r.Posts.Median, r.Posts.spread(),
			r.Posts.P50, r.Posts.P99, r.Posts.Committed, r.Posts.Aborted, r.Posts.Conflicts)
	}
	return err
}

const (
	spansEach = 8
	volleys   = 20 // a round
)

func (b *bench) contention(ctx context.Context) (Table, error) {
	t := &ContentionTable{Posts: b.Posts}
	for _, n := range []int{1, 2} {
		row := &ContentionRow{Stores: n}
		t.Rows = append(t.Rows, row)
		for round := range b.Rounds {
			b.Progress(fmt.Sprintf("contention, round %d: %d stores", round+1, n))
			if err := b.fireVolleys(ctx, row); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// fireVolleys posts to one attempt from many connections at once, each post
// through a connection of its own, the next volley when the last is over.
func (b *bench) fireVolleys(ctx context.Context, row *ContentionRow) error {
	name, drop := b.database()
	defer drop()
	servers, stop, err := b.servers(ctx, row.Stores, name)
	if err != nil {
		return err
	}
	defer stop()
	conns := make([]*benchmarks.Conn, b.Posts)
	for i := range conns {
		if conns[i], err = benchmarks.Dial(servers[i%len(servers)].URL); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	_, answer, err := conns[0].Expect(201, "POST", "/v1/agl/rollouts", []byte(`{"input":null}`))
	if err != nil {
		return err
	}
	ref := queue.AttemptRef{RolloutID: benchmarks.Member(answer, "rollout_id"), AttemptID: benchmarks.Member(answer, "attempt_id")}
	before, err := b.counters(ctx)
	if err != nil {
		return err
	}
	times := make([]time.Duration, volleys*b.Posts)
	start := time.Now()
	for volley := range volleys {
		group, _ := errgroup.WithContext(ctx)
		for i, conn := range conns {
			n := volley*b.Posts + i
			body := otlp.Append(nil, spansOf(ref, n))
			group.Go(func() error {
				asked := time.Now()
				status, answer, err := conn.Do("POST", "/v1/traces", "application/x-protobuf", body)
				times[n] = time.Since(asked)
				if err == nil && (status != 200 || len(answer) > 0) { // a partial success has a body
					err = fmt.Errorf("storing spans answered %d: %.300q", status, answer)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	took := time.Since(start)
	_, answer, err = conns[0].Expect(200, "POST", "/v1/agl/spans/search",
		fmt.Appendf(nil, `{"rollout_id":%q,"attempt_id":"latest","limit":1}`, ref.RolloutID))
	if err != nil {
		return err
	}
	if total := volleys * b.Posts * spansEach; !bytes.Contains(answer, fmt.Appendf(nil, `"total":%d}`, total)) {
		return fmt.Errorf("the attempt does not have its %d spans: …%s", total, answer[max(0, len(answer)-80):])
	}
	after, err := b.counters(ctx)
	if err != nil {
		return err
	}
	row.Posts.add(rate(len(times), took), benchmarks.LatencyOf("spans", times), after.since(before))
	return nil
}

// spansOf are the spans of one post.
func spansOf(ref queue.AttemptRef, post int) []queue.Span {
	attrs := rawjson.Value(spanAttributes())
	spans := make([]queue.Span, spansEach)
	for i := range spans {
		start, end := spanTimes()
		spans[i] = queue.Span{
			RolloutID: ref.RolloutID, AttemptID: ref.AttemptID, SequenceID: queue.NumberOnArrival, TraceID: traceID,
			SpanID: fmt.Sprintf("%016x", post*spansEach+i+1), Name: "chat.completion", Attributes: attrs, StartTime: &start, EndTime: &end,
		}
		spans[i].FillIn()
	}
	return spans
}
