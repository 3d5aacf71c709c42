package mongobench

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// StoresTable sets several stores on one database beside one.
type StoresTable struct {
	Claimers int          `json:"claiming_workers"`
	Workers  int          `json:"life_workers"`
	Rows     []*StoresRow `json:"rows"`
}

// StoresRow is one number of stores. The ratios are to the first row.
type StoresRow struct {
	Stores int `json:"stores"`
	// Claims are claims without HTTP, each store with connections of its own.
	Claims Sample `json:"claims"`
	// HTTP are claims through as many processes, over HTTP.
	HTTP Sample `json:"claims_over_http"`
	// Life are whole lives through the processes.
	Life Sample `json:"life"`

	OfClaims float64 `json:"claims_ratio"`
	OfHTTP   float64 `json:"claims_over_http_ratio"`
	OfLife   float64 `json:"life_ratio"`
}

// WriteText implements Table.
func (t *StoresTable) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "stores on one database: claims a second by %d workers, rollouts a second of whole lives (8 OTLP spans) by %d\n", t.Claimers, t.Workers)
	_, err := fmt.Fprintf(w, "%7s %10s %14s %7s %10s %14s %7s %10s %14s %7s %9s %9s\n", "stores",
		"claims/s", "spread", "of one", "HTTP/s", "spread", "of one", "lives/s", "spread", "of one", "aborted", "conflicts")
	for _, r := range t.Rows {
		aborted, conflicts := int64(0), int64(0)
		for _, s := range []Sample{r.Claims, r.HTTP, r.Life} {
			aborted, conflicts = aborted+s.Aborted, conflicts+s.Conflicts
		}
		_, err = fmt.Fprintf(w, "%7d %10.0f %14s %6.2fx %10.0f %14s %6.2fx %10.0f %14s %6.2fx %9d %9d\n", r.Stores,
			r.Claims.Median, r.Claims.spread(), r.OfClaims, r.HTTP.Median, r.HTTP.spread(), r.OfHTTP,
			r.Life.Median, r.Life.spread(), r.OfLife, aborted, conflicts)
	}
	return err
}

const storeClaimers = 64

func (b *bench) stores(ctx context.Context) (Table, error) {
	t := &StoresTable{Claimers: storeClaimers, Workers: b.Workers}
	for _, n := range b.Stores {
		t.Rows = append(t.Rows, &StoresRow{Stores: n})
	}
	for round := range b.Rounds {
		for _, row := range t.Rows {
			b.Progress(fmt.Sprintf("stores, round %d: %d", round+1, row.Stores))
			if err := b.claimsOfStores(ctx, row.Stores, &row.Claims); err != nil {
				return nil, fmt.Errorf("claims through %d stores: %w", row.Stores, err)
			}
			if err := b.httpClaims(ctx, row.Stores, &row.HTTP); err != nil {
				return nil, fmt.Errorf("claims over HTTP through %d stores: %w", row.Stores, err)
			}
			if err := b.ownLife(ctx, row.Stores, &row.Life); err != nil {
				return nil, fmt.Errorf("lives through %d stores: %w", row.Stores, err)
			}
		}
	}
	one := t.Rows[0]
	for _, row := range t.Rows {
		row.OfClaims = benchmarks.Ratio(row.Claims.Median, one.Claims.Median)
		row.OfHTTP = benchmarks.Ratio(row.HTTP.Median, one.HTTP.Median)
		row.OfLife = benchmarks.Ratio(row.Life.Median, one.Life.Median)
	}
	return t, nil
}

// claimsOfStores is one round of claims through stores in this process that
// share nothing but the database.
func (b *bench) claimsOfStores(ctx context.Context, n int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	stores := make([]*store.Store, n)
	for i := range stores {
		s, err := b.open(ctx, name)
		if err != nil {
			return err
		}
		defer s.Close(context.WithoutCancel(ctx))
		stores[i] = s
	}
	if err := queueTasks(ctx, stores[0], b.stock(storeClaimers, 3000, 25_000)); err != nil {
		return err
	}
	return b.measureClaims(ctx, storeClaimers, stores[0], sample, func(ctx context.Context, i int, worker string) (string, error) {
		got, err := stores[i%n].Claim(ctx, queue.Claim{Limit: 1, WorkerID: &worker})
		if err != nil || len(got) == 0 {
			return "", err
		}
		return got[0].RolloutID, nil
	})
}

// httpClaims is one round of claims through processes.
func (b *bench) httpClaims(ctx context.Context, n int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	servers, stop, err := b.servers(ctx, n, name)
	if err != nil {
		return err
	}
	defer stop()
	s, err := b.open(ctx, name)
	if err != nil {
		return err
	}
	defer s.Close(context.WithoutCancel(ctx))
	if err := queueTasks(ctx, s, b.stock(storeClaimers, 3000, 15_000)); err != nil {
		return err
	}
	conns, bodies := make([]*benchmarks.Conn, storeClaimers), make([][]byte, storeClaimers)
	for i := range conns {
		if conns[i], err = benchmarks.Dial(servers[i%n].URL); err != nil {
			return err
		}
		defer conns[i].Close()
		bodies[i] = fmt.Appendf(nil, `{"limit":1,"worker_id":"Worker-%d"}`, i)
	}
	return b.measureClaims(ctx, storeClaimers, s, sample, func(_ context.Context, i int, _ string) (string, error) {
		_, answer, err := conns[i].Expect(200, "POST", "/v1/agl/queues/rollouts/dequeue", bodies[i])
		if err != nil {
			return "", err
		}
		return benchmarks.Member(answer, "rollout_id"), nil
	})
}

// ownLife is one round of whole lives through aglq's processes.
func (b *bench) ownLife(ctx context.Context, n int, sample *Sample) error {
	name, drop := b.database()
	defer drop()
	servers, stop, err := b.servers(ctx, n, name)
	if err != nil {
		return err
	}
	defer stop()
	_, err = b.drive(ctx, servers, b.Rollouts, sample)
	return err
}

// drive warms servers up and measures whole lives through them.
func (b *bench) drive(ctx context.Context, servers []*benchmarks.Process, rollouts int, sample *Sample) (*benchmarks.Report, error) {
	o := benchmarks.LifecycleOptions{
		URL: servers[0].URL, Rollouts: min(rollouts, 4*b.Workers), Workers: b.Workers, Batch: 2 * b.Workers, OTLP: true, PIDs: b.PIDs,
	}
	for _, s := range servers {
		o.PIDs = append(o.PIDs, s.PID)
	}
	for _, s := range servers[1:] {
		o.Others = append(o.Others, s.URL)
	}
	if _, err := benchmarks.Lifecycle(ctx, o); err != nil {
		return nil, err
	}
	before, err := b.counters(ctx)
	if err != nil {
		return nil, err
	}
	o.Rollouts = rollouts
	report, err := benchmarks.Lifecycle(ctx, o)
	if err != nil {
		return nil, err
	}
	after, err := b.counters(ctx)
	if err != nil {
		return nil, err
	}
	sample.add(report.RolloutsPerSecond, benchmarks.Latency{}, after.since(before))
	return report, nil
}

// queueTasks fills the queue.
func queueTasks(ctx context.Context, s *store.Store, n int) error {
	for from := 0; from < n; from += inserted {
		reqs := make([]queue.Request, min(inserted, n-from))
		for i := range reqs {
			reqs[i] = queue.Request{Input: rawjson.Value(task)}
		}
		if _, err := s.Enqueue(ctx, reqs); err != nil {
			return fmt.Errorf("filling the queue: %w", err)
		}
	}
	return nil
}

// measureClaims races workers, each of which claims by its own number, and
// checks through s that what was claimed is what was answered.
func (b *bench) measureClaims(ctx context.Context, workers int, s *store.Store, sample *Sample, claim func(ctx context.Context, i int, worker string) (string, error)) error {
	before, err := b.counters(ctx)
	if err != nil {
		return err
	}
	var seen sync.Map
	times, took, err := b.race(ctx, workers, func(ctx context.Context, i int, worker string) (bool, error) {
		id, err := claim(ctx, i, worker)
		if err != nil || id == "" {
			return false, err
		}
		if _, twice := seen.LoadOrStore(id, worker); twice {
			return false, fmt.Errorf("rollout %s was claimed twice", id)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	after, err := b.counters(ctx)
	if err != nil {
		return err
	}
	if err := claimsHeld(ctx, s, int64(len(times))); err != nil {
		return err
	}
	sample.add(rate(len(times), took), benchmarks.LatencyOf("claim", times), after.since(before))
	return nil
}

// claimsHeld wants that so many rollouts are claimed, once each. Counts may come a
// moment after what they count, where another process wrote it.
func claimsHeld(ctx context.Context, s *store.Store, want int64) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		held, err := s.Statistics(ctx)
		if err != nil {
			return err
		}
		claimed := held.ByStatus[queue.RolloutPreparing]
		if claimed == want && held.Attempts == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d claims were answered, but %d rollouts are claimed, with %d attempts", want, claimed, held.Attempts)
		}
		if err := sleep.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func rate(n int, took time.Duration) float64 { return float64(n) / took.Seconds() }
