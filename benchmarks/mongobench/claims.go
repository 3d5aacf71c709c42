package mongobench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/queue"
)

const task = `{"task":1,"question":"What is the sum of the first hundred primes?","options":{"temperature":0.7,"tools":["search","python"]}}`

// ClaimsTable sets the store's claims beside bare ones.
type ClaimsTable struct {
	Rows []*ClaimsRow `json:"rows"`
}

// ClaimsRow is one number of workers.
type ClaimsRow struct {
	Workers int     `json:"workers"`
	Aglq    Sample  `json:"aglq"`
	Bare    Sample  `json:"bare"`
	Ratio   float64 `json:"ratio"`         // of the median rates
	P50     float64 `json:"latency_ratio"` // of the median latencies
}

// WriteText implements Table.
func (t *ClaimsTable) WriteText(w io.Writer) error {
	fmt.Fprintln(w, "claims a second: aglq writes rollout, attempt and worker; bare is one findOneAndUpdate; majority, journaled")
	_, err := fmt.Fprintf(w, "%8s %10s %16s %8s %8s %10s %16s %8s %8s %7s %8s %9s %9s\n", "workers",
		"aglq/s", "spread", "p50 ms", "p99 ms", "bare/s", "spread", "p50 ms", "p99 ms", "ratio", "latency", "aborted", "conflicts")
	for _, r := range t.Rows {
		_, err = fmt.Fprintf(w, "%8d %10.0f %16s %8.2f %8.2f %10.0f %16s %8.2f %8.2f %6.2fx %7.2fx %9d %9d\n", r.Workers,
			r.Aglq.Median, r.Aglq.spread(), r.Aglq.P50, r.Aglq.P99, r.Bare.Median, r.Bare.spread(), r.Bare.P50, r.Bare.P99,
			r.Ratio, r.P50, r.Aglq.Aborted, r.Aglq.Conflicts)
	}
	return err
}

func (b *bench) claims(ctx context.Context) (Table, error) {
	t := &ClaimsTable{}
	for _, n := range b.Claimers {
		t.Rows = append(t.Rows, &ClaimsRow{Workers: n})
	}
	for round := range b.Rounds {
		for _, row := range t.Rows {
			b.Progress(fmt.Sprintf("claims, round %d: %d workers", round+1, row.Workers))
			if err := b.bareClaims(ctx, row.Workers, &row.Bare); err != nil {
				return nil, fmt.Errorf("bare claims with %d workers: %w", row.Workers, err)
			}
			if err := b.storeClaims(ctx, row.Workers, &row.Aglq); err != nil {
				return nil, fmt.Errorf("claims with %d workers: %w", row.Workers, err)
			}
			row.Ratio, row.P50 = benchmarks.Ratio(row.Aglq.Median, row.Bare.Median), benchmarks.Ratio(row.Aglq.P50, row.Bare.P50)
		}
	}
	return t, nil
}

// stock is how many rollouts are queued for a measurement: more than the
// workers can claim in its time.
func (b *bench) stock(workers, perWorker, most int) int {
	return max(int(b.Duration.Seconds()*float64(min(workers*perWorker, most))), workers)
}

const inserted = 1000 // documents in one insert of the stock

// storeClaims is one round of the store's.
func (b *bench) storeClaims(ctx context.Context, workers int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	s, err := b.open(ctx, name)
	if err != nil {
		return err
	}
	defer s.Close(context.WithoutCancel(ctx))
	if err := queueTasks(ctx, s, b.stock(workers, 3000, 25_000)); err != nil {
		return err
	}
	return b.measureClaims(ctx, workers, s, sample, func(ctx context.Context, _ int, worker string) (string, error) {
		got, err := s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: &worker})
		if err != nil || len(got) == 0 {
			return "", err
		}
		return got[0].RolloutID, nil
	})
}

// bareClaims is one round of the driver's.
func (b *bench) bareClaims(ctx context.Context, workers int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	c := b.bare(name, "queue")
	if _, err := c.Indexes().CreateOne(ctx, driver.IndexModel{Keys: bson.D{{Key: "status", Value: 1}, {Key: "place", Value: 1}}}); err != nil {
		return err
	}
	stock := b.stock(workers, 3000, 10_000)
	for n := 0; n < stock; n += inserted {
		docs := make([]any, min(inserted, stock-n))
		for i := range docs {
			docs[i] = bson.D{
				{Key: "_id", Value: fmt.Sprintf("ro-%012x", n+i)}, {Key: "status", Value: "queuing"},
				{Key: "place", Value: int64(n + i)}, {Key: "input", Value: task},
			}
		}
		if _, err := c.InsertMany(ctx, docs); err != nil {
			return err
		}
	}
	before, err := b.counters(ctx)
	if err != nil {
		return err
	}
	first := bson.D{{Key: "status", Value: "queuing"}}
	byPlace := options.FindOneAndUpdate().SetSort(bson.D{{Key: "place", Value: 1}})
	times, took, err := b.race(ctx, workers, func(ctx context.Context, _ int, worker string) (bool, error) {
		take := bson.D{{Key: "$set", Value: bson.D{{Key: "status", Value: "preparing"}, {Key: "worker", Value: worker}}}}
		err := c.FindOneAndUpdate(ctx, first, take, byPlace).Err()
		if errors.Is(err, driver.ErrNoDocuments) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	after, err := b.counters(ctx)
	if err != nil {
		return err
	}
	sample.add(rate(len(times), took), benchmarks.LatencyOf("claim", times), after.since(before))
	return nil
}

// race lets workers claim until the time is up or the stock is gone. It returns
// how long each claim took, and all of them together.
func (b *bench) race(ctx context.Context, workers int, claim func(ctx context.Context, i int, worker string) (bool, error)) ([]time.Duration, time.Duration, error) {
	all := make([][]time.Duration, workers)
	start := time.Now()
	end := start.Add(b.Duration)
	group, ctx := errgroup.WithContext(ctx)
	for i := range workers {
		worker := fmt.Sprintf("Worker-%d", i)
		group.Go(func() error {
			for asked := time.Now(); asked.Before(end); asked = time.Now() {
				ok, err := claim(ctx, i, worker)
				if err != nil || !ok {
					return err
				}
				all[i] = append(all[i], time.Since(asked))
			}
			return nil
		})
	}
	err := group.Wait()
	return slices.Concat(all...), time.Since(start), err
}
