// Package collection measures the storage without a server: sections that insert a
// rollout, or take one from the queue as claims do, by many callers at once. It is
// the reference's collection benchmark for aglq's two backends.
package collection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Operations are the names of what can be measured.
var Operations = []string{"insert", "dequeue"}

// Options say what to measure. The backend is empty.
type Options struct {
	Operation   string // insert or dequeue
	BackendName string // for the summary
	TotalTasks  int    // 0 is 100,000
	Concurrency int    // callers; 0 is 1024
	TaskPrefix  string // "" is collection-bench
}

// preloaded is how many rollouts one section queues before dequeue is measured.
const preloaded = 512

// Summary is the outcome, with the members of the reference's. Latencies and
// the duration are in seconds.
type Summary struct {
	Backend      string  `json:"backend"`
	Name         string  `json:"name"`
	TotalTasks   int     `json:"total_tasks"`
	Concurrency  int     `json:"concurrency"`
	Successes    int     `json:"successes"`
	Failures     int     `json:"failures"`
	Duration     float64 `json:"duration"`
	Throughput   float64 `json:"throughput"`
	AvgLatency   float64 `json:"avg_latency"`
	P50Latency   float64 `json:"p50_latency"`
	P95Latency   float64 `json:"p95_latency"`
	P99Latency   float64 `json:"p99_latency"`
	MinLatency   float64 `json:"min_latency"`
	MaxLatency   float64 `json:"max_latency"`
	SuccessRate  float64 `json:"success_rate"`
	OpsPerWorker float64 `json:"ops_per_worker"`
	// Failure is the first one.
	Failure string `json:"failure,omitempty"`
}

// WriteText prints a table.
func (s *Summary) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%-8s %-8s %9s %11s %10s %10s %9s %9s %9s %9s %9s\n", "backend", "name", "tasks", "concurrency", "seconds",
		"ops/s", "avg ms", "p50 ms", "p95 ms", "p99 ms", "max ms")
	_, err := fmt.Fprintf(w, "%-8s %-8s %9d %11d %10.3f %10.1f %9.3f %9.3f %9.3f %9.3f %9.3f\n", s.Backend, s.Name, s.TotalTasks, s.Concurrency,
		s.Duration, s.Throughput, 1e3*s.AvgLatency, 1e3*s.P50Latency, 1e3*s.P95Latency, 1e3*s.P99Latency, 1e3*s.MaxLatency)
	if s.Failures > 0 {
		_, err = fmt.Fprintf(w, "%d of %d failed, the first: %s\n", s.Failures, s.TotalTasks, s.Failure)
	}
	return err
}

// bench is one measurement under way.
type bench struct {
	Options
	backend collections.Backend
	next    atomic.Int64
	taken   sync.Map
}

// Run measures. Sections that fail are counted; the error is one of the
// preparation, or of data that is not what the sections left.
func Run(ctx context.Context, backend collections.Backend, o Options) (*Summary, error) {
	o.TotalTasks, o.Concurrency = cmp.Or(o.TotalTasks, 100_000), cmp.Or(o.Concurrency, 1024)
	o.TaskPrefix = cmp.Or(o.TaskPrefix, "collection-bench")
	b := &bench{Options: o, backend: backend}
	var operate func(context.Context, int) error
	switch o.Operation {
	case "insert":
		operate = b.insert
	case "dequeue":
		operate = b.dequeue
		if err := b.preload(ctx); err != nil {
			return nil, fmt.Errorf("filling the queue: %w", err)
		}
	default:
		return nil, fmt.Errorf("there is no operation %q", o.Operation)
	}
	s, err := b.race(ctx, operate)
	if err != nil {
		return nil, err
	}
	return s, b.verify(ctx, s)
}

// race lets all callers begin at once.
func (b *bench) race(ctx context.Context, operate func(context.Context, int) error) (*Summary, error) {
	begin := make(chan struct{})
	var mu sync.Mutex
	var times []time.Duration
	var failures int
	var failure error
	var group sync.WaitGroup
	for range b.Concurrency {
		group.Go(func() {
			<-begin
			var own []time.Duration
			failed, first := 0, error(nil)
			for ctx.Err() == nil {
				n := int(b.next.Add(1)) - 1
				if n >= b.TotalTasks {
					break
				}
				start := time.Now()
				if err := operate(ctx, n); err != nil {
					failed++
					first = cmp.Or(first, err)
					continue
				}
				own = append(own, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			times, failures, failure = append(times, own...), failures+failed, cmp.Or(failure, first)
		})
	}
	start := time.Now()
	close(begin)
	group.Wait()
	took := time.Since(start)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return b.summary(times, failures, failure, took), nil
}

func (b *bench) summary(times []time.Duration, failures int, failure error, took time.Duration) *Summary {
	s := &Summary{
		Backend: b.BackendName, Name: b.Operation, TotalTasks: b.TotalTasks, Concurrency: b.Concurrency, Successes: len(times), Failures: failures,
		Duration: took.Seconds(), Throughput: float64(len(times)) / took.Seconds(), SuccessRate: float64(len(times)) / float64(b.TotalTasks),
		OpsPerWorker: float64(len(times)) / float64(b.Concurrency),
	}
	if failure != nil {
		s.Failure = failure.Error()
	}
	if len(times) == 0 {
		return s
	}
	slices.Sort(times)
	sum := time.Duration(0)
	for _, t := range times {
		sum += t
	}
	at := func(q float64) float64 { return times[min(int(q*float64(len(times))), len(times)-1)].Seconds() }
	s.AvgLatency, s.MinLatency, s.MaxLatency = sum.Seconds()/float64(len(times)), at(0), at(1)
	s.P50Latency, s.P95Latency, s.P99Latency = at(0.5), at(0.95), at(0.99)
	return s
}

func (b *bench) record(n int, queued bool) *queue.Record {
	id := b.TaskPrefix + "-" + strconv.Itoa(n)
	input := rawjson.AppendString([]byte(`{"task":`), id)
	return queue.NewRecord(id, queue.Request{Input: append(input, '}')}, queued, queue.Seconds(time.Now()))
}

// insert adds a rollout that is in no queue.
func (b *bench) insert(ctx context.Context, n int) error {
	r := b.record(n, false)
	return b.backend.Atomic(ctx, func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r}) })
}

func (b *bench) preload(ctx context.Context) error {
	for n := 0; n < b.TotalTasks; n += preloaded {
		rs := make([]*queue.Record, min(preloaded, b.TotalTasks-n))
		for i := range rs {
			rs[i] = b.record(n+i, true)
		}
		if err := b.backend.Atomic(ctx, func(tx collections.Tx) error { return tx.InsertRollouts(rs) }); err != nil {
			return err
		}
	}
	return nil
}

var errEmpty = errors.New("the queue is empty")

// dequeue takes the head of the queue and begins an attempt on it, again if another
// caller was faster.
func (b *bench) dequeue(ctx context.Context, n int) error {
	id := ""
	for lost := (collections.Lost{}); id == "" || lost.Rollouts[id]; {
		var err error
		lost, err = b.backend.Separately(ctx, func(tx collections.Tx) error {
			head, err := tx.Head(1)
			if err != nil {
				return err
			}
			if len(head) == 0 {
				return errEmpty
			}
			r := head[0].Clone()
			r.Begin("at-"+strconv.Itoa(n), nil, true, 0, queue.Seconds(time.Now()))
			id = r.Rollout.RolloutID
			return tx.PutRollout(r)
		})
		if err != nil {
			return err
		}
	}
	if _, twice := b.taken.LoadOrStore(id, n); twice {
		return fmt.Errorf("rollout %s was taken twice", id)
	}
	return nil
}

// verify counts what is there.
func (b *bench) verify(ctx context.Context, s *Summary) error {
	held, err := b.backend.Statistics(ctx)
	if err != nil {
		return err
	}
	want, got := int64(s.Successes), held.Rollouts
	if b.Operation == "dequeue" {
		got = held.Attempts
	}
	// What failed may have been written all the same, once.
	if got < want || got > want+int64(s.Failures) {
		return fmt.Errorf("%d sections of %s succeeded and %d are there", want, b.Operation, got)
	}
	return nil
}
