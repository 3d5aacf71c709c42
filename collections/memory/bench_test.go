package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// sizes are what the benchmarks store beforehand: time per call has to be the
// same for all of them.
var sizes = []struct{ rollouts, spans int }{{100, 1_000}, {100_000, 1_000_000}}

func eachSize(b *testing.B, run func(b *testing.B, e *memory.Backend, rollouts int)) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("rollouts=%d,spans=%d", size.rollouts, size.spans), func(b *testing.B) {
			e := filled(b, size.rollouts, size.spans)
			b.ReportAllocs()
			run(b, e, size.rollouts)
		})
	}
}

func rolloutID(i int) string { return fmt.Sprintf("ro-%012d", i) }

// filled holds queued rollouts with their spans; one in a thousand has failed.
func filled(b *testing.B, rollouts, spans int) *memory.Backend {
	e := memory.New(memory.Options{MaxBytes: 1 << 40})
	attributes := rawjson.Value(`{"a":1,"b":"two"}`)
	each := spans / rollouts
	for from := 0; from < rollouts; from += 100 {
		rs := make([]*queue.Record, 100)
		batch := make([]queue.Span, 0, 100*each)
		for i := range rs {
			id := rolloutID(from + i)
			rs[i] = queue.NewRecord(id, queue.Request{Input: attributes}, true, float64(from+i))
			if (from+i)%1000 == 50 {
				rs[i].Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutFailed)}, 1)
			}
			for n := range each {
				batch = append(batch, queue.Span{
					RolloutID: id, AttemptID: "at-1", SpanID: fmt.Sprintf("%016d", n), SequenceID: int64(n), Attributes: attributes,
				})
			}
		}
		must(b, e.Atomic(context.Background(), func(tx collections.Tx) error { return tx.InsertRollouts(rs) }))
		_, err := e.InsertSpans(context.Background(), batch)
		must(b, err)
	}
	return e
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkClaimAndRequeue claims the head and puts it back at the tail.
func BenchmarkClaimAndRequeue(b *testing.B) {
	eachSize(b, func(b *testing.B, e *memory.Backend, _ int) {
		ctx := context.Background()
		for b.Loop() {
			var id string
			must(b, e.Atomic(ctx, func(tx collections.Tx) error {
				rs, err := tx.Head(1)
				if err != nil {
					return err
				}
				r := rs[0].Clone()
				id = r.Rollout.RolloutID
				r.Attempts = nil
				r.Begin("at-1", nil, true, 0, 1)
				return tx.PutRollout(r)
			}))
			must(b, requeue(ctx, e, id))
		}
	})
}

func requeue(ctx context.Context, e *memory.Backend, id string) error {
	return e.Atomic(ctx, func(tx collections.Tx) error {
		r, err := tx.Rollout(id)
		if err != nil {
			return err
		}
		r = r.Clone()
		r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}, 2)
		return tx.PutRollout(r)
	})
}

// BenchmarkFinishAndRequeue finishes rollouts from the middle and queues them
// again.
func BenchmarkFinishAndRequeue(b *testing.B) {
	eachSize(b, func(b *testing.B, e *memory.Backend, rollouts int) {
		ctx := context.Background()
		n := 0
		for b.Loop() {
			id := rolloutID(n * 7919 % rollouts)
			n++
			must(b, e.Atomic(ctx, func(tx collections.Tx) error {
				r, err := tx.Rollout(id)
				if err != nil {
					return err
				}
				r = r.Clone()
				r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutSucceeded)}, 2)
				return tx.PutRollout(r)
			}))
			must(b, requeue(ctx, e, id))
		}
	})
}

func BenchmarkPages(b *testing.B) {
	failed := []queue.RolloutStatus{queue.RolloutFailed}
	newest := queue.Paging{Limit: 100, SortBy: "start_time", Descending: true}
	fragment := "00042"
	pages := []struct {
		name string
		q    queue.RolloutQuery
	}{
		{"first", queue.RolloutQuery{Paging: queue.Paging{Limit: 100}}},
		{"newest", queue.RolloutQuery{Paging: newest}},
		{"failed", queue.RolloutQuery{Statuses: failed, Paging: queue.Paging{Limit: 100}}},
		{"newest failed", queue.RolloutQuery{Statuses: failed, Paging: newest}},
		{"by id", queue.RolloutQuery{Paging: queue.Paging{Limit: 100, SortBy: "rollout_id"}}},
		{"id contains", queue.RolloutQuery{IDContains: &fragment, Paging: newest}},
	}
	for _, page := range pages {
		b.Run(page.name, func(b *testing.B) {
			eachSize(b, func(b *testing.B, e *memory.Backend, _ int) {
				for b.Loop() {
					_, err := e.QueryRollouts(context.Background(), page.q)
					must(b, err)
				}
			})
		})
	}
}

func BenchmarkInsertSpans(b *testing.B) {
	eachSize(b, func(b *testing.B, e *memory.Backend, rollouts int) {
		batch := make([]queue.Span, 8)
		n := 0
		for b.Loop() {
			for i := range batch {
				batch[i] = queue.Span{RolloutID: rolloutID(n * 7919 % rollouts), AttemptID: "at-2", SpanID: fmt.Sprint(n, "-", i)}
			}
			n++
			_, err := e.InsertSpans(context.Background(), batch)
			must(b, err)
		}
	})
}

func BenchmarkQuerySpans(b *testing.B) {
	eachSize(b, func(b *testing.B, e *memory.Backend, rollouts int) {
		n := 0
		for b.Loop() {
			q := queue.SpanQuery{RolloutID: rolloutID(n * 7919 % rollouts), Paging: queue.Paging{Limit: 100, SortBy: "sequence_id"}}
			n++
			_, err := e.QuerySpans(context.Background(), q)
			must(b, err)
		}
	})
}

func BenchmarkOverdueAndStatistics(b *testing.B) {
	eachSize(b, func(b *testing.B, e *memory.Backend, _ int) {
		for b.Loop() {
			_, err := e.Overdue(context.Background(), 1e9, 100)
			must(b, err)
			_, err = e.Statistics(context.Background())
			must(b, err)
		}
	})
}
