package mongo_test

import (
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// BenchmarkClaim is sections that claim and finish a batch for as many workers:
// two sections, each of a batch of rollouts, workers and the counts.
func BenchmarkClaim(b *testing.B) {
	for _, batch := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			backend := mongotest.Open(b)
			workers := make([]string, batch)
			for i := range workers {
				workers[i] = fmt.Sprintf("w-%d", i)
			}
			next := 0
			enqueue := func() {
				rs := make([]*queue.Record, max(batch, 256))
				for i := range rs {
					rs[i] = queue.NewRecord(fmt.Sprintf("ro-%08d", next), queue.Request{Input: rawjson.Value(`{"task":"what is 1 + 1"}`)}, true, float64(next))
					next++
				}
				if err := backend.Atomic(b.Context(), func(tx collections.Tx) error { return tx.InsertRollouts(rs) }); err != nil {
					b.Fatal(err)
				}
			}
			left := 0
			b.ReportAllocs()
			for b.Loop() {
				if left < batch {
					b.StopTimer()
					enqueue()
					left += max(batch, 256)
					b.StartTimer()
				}
				left -= batch
				var ids []string
				err := backend.Atomic(b.Context(), func(tx collections.Tx) error {
					ids = ids[:0]
					if err := tx.Prefetch(nil, workers); err != nil {
						return err
					}
					rs, err := tx.Head(batch)
					if err != nil {
						return err
					}
					for i, r := range rs {
						ids = append(ids, r.Rollout.RolloutID)
						if err := claimFor(tx, r, workers[i]); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil || len(ids) != batch {
					b.Fatalf("claimed %d: %v", len(ids), err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "claims/s")
		})
	}
}

// BenchmarkEnqueue is sections that insert a batch.
func BenchmarkEnqueue(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			backend := mongotest.Open(b)
			next := 0
			b.ReportAllocs()
			for b.Loop() {
				rs := make([]*queue.Record, batch)
				for i := range rs {
					rs[i] = queue.NewRecord(fmt.Sprintf("ro-%08d", next), queue.Request{Input: rawjson.Value(`{"task":"what is 1 + 1"}`)}, true, float64(next))
					next++
				}
				if err := backend.Atomic(b.Context(), func(tx collections.Tx) error { return tx.InsertRollouts(rs) }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rollouts/s")
		})
	}
}

// BenchmarkInsertSpans is inserts of spans of about 1 KB by several callers.
func BenchmarkInsertSpans(b *testing.B) {
	attributes := rawjson.Value(`{"gen_ai.prompt":"` + fmt.Sprintf("%0900d", 7) + `"}`)
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			backend := mongotest.Open(b)
			b.ReportAllocs()
			b.SetParallelism(4)
			caller := make(chan int, 1)
			caller <- 0
			b.RunParallel(func(pb *testing.PB) {
				me := <-caller
				caller <- me + 1
				for n := 0; pb.Next(); {
					spans := make([]queue.Span, batch)
					for i := range spans {
						spans[i] = queue.Span{
							RolloutID: fmt.Sprintf("ro-%d", me), AttemptID: "at-1", SpanID: fmt.Sprint(n), SequenceID: int64(n),
							TraceID: "0123456789abcdef0123456789abcdef", Name: "openai.chat.completion", Attributes: attributes,
							Status: rawjson.Value(`{"status_code":"OK","description":null}`), Events: rawjson.EmptyArray, Links: rawjson.EmptyArray,
						}
						n++
					}
					if _, err := backend.InsertSpans(b.Context(), spans); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "spans/s")
		})
	}
}

// BenchmarkHeartbeat is a section that changes one document, beside the bare
// driver's update of one.
func BenchmarkHeartbeat(b *testing.B) {
	backend := mongotest.Open(b)
	r := queue.NewRecord("ro-1", queue.Request{}, true, 1)
	w := "w-1"
	r.Begin("at-1", &w, true, 0, 2)
	if err := backend.Atomic(b.Context(), func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r}) }); err != nil {
		b.Fatal(err)
	}
	b.Run("section", func(b *testing.B) {
		b.ReportAllocs()
		now := 3.0
		for b.Loop() {
			now++
			err := backend.Atomic(b.Context(), func(tx collections.Tx) error {
				r, err := tx.Rollout("ro-1")
				if err != nil {
					return err
				}
				r = r.Clone()
				r.SpansStored("at-1", 1, now)
				return tx.PutRollout(r)
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("driver", func(b *testing.B) {
		c := backend.Handle().Collection("rollouts")
		id := bson.D{{Key: "_id", Value: mongo.Key(mongo.DefaultPartition, "ro-1")}}
		n := 0
		for b.Loop() {
			n++
			if _, err := c.UpdateOne(b.Context(), id, bson.D{{Key: "$set", Value: bson.D{{Key: "x", Value: n}}}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPage is a page of 100 of 10,000 rollouts, latest first.
func BenchmarkPage(b *testing.B) {
	backend := mongotest.Open(b)
	for from := 0; from < 10_000; from += 1000 {
		rs := make([]*queue.Record, 1000)
		for i := range rs {
			rs[i] = queue.NewRecord(fmt.Sprintf("ro-%08d", from+i), queue.Request{}, true, float64(from+i))
		}
		if err := backend.Atomic(b.Context(), func(tx collections.Tx) error { return tx.InsertRollouts(rs) }); err != nil {
			b.Fatal(err)
		}
	}
	q := queue.RolloutQuery{Paging: queue.Paging{SortBy: "start_time", Descending: true, Limit: 100}}
	b.ReportAllocs()
	for b.Loop() {
		page, err := backend.QueryRollouts(b.Context(), q)
		if err != nil || len(page.Items) != 100 || page.Total != 10_000 {
			b.Fatalf("%d of %d: %v", len(page.Items), page.Total, err)
		}
	}
}
