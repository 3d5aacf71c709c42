package mongobench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/internal/sleep"
)

// IdleTable tells what the database sees of workers that wait.
type IdleTable struct {
	Rows []*IdleRow `json:"rows"`
}

// IdleRow is one number of waiting workers.
type IdleRow struct {
	Workers  int                `json:"workers"`
	Stores   int                `json:"stores"`
	Seconds  float64            `json:"seconds"`
	Commands float64            `json:"commands_per_second"`
	ByName   map[string]float64 `json:"by_command"` // a second
}

// WriteText implements Table.
func (t *IdleTable) WriteText(w io.Writer) error {
	fmt.Fprintln(w, "commands a second that the database sees while workers long-poll an empty queue")
	_, err := fmt.Fprintf(w, "%8s %7s %9s %11s  %s\n", "workers", "stores", "seconds", "commands/s", "of which")
	for _, r := range t.Rows {
		names := slices.SortedFunc(maps.Keys(r.ByName), func(a, b string) int { return cmp.Compare(r.ByName[b], r.ByName[a]) })
		of := ""
		for _, name := range names[:min(len(names), 6)] {
			of += fmt.Sprintf("%s %.1f  ", name, r.ByName[name])
		}
		_, err = fmt.Fprintf(w, "%8d %7d %9.1f %11.1f  %s\n", r.Workers, r.Stores, r.Seconds, r.Commands, of)
	}
	return err
}

func (b *bench) idle(ctx context.Context) (Table, error) {
	t := &IdleTable{}
	for _, row := range []*IdleRow{{Workers: 0, Stores: 1}, {Workers: b.IdleWorkers, Stores: 1}, {Workers: b.IdleWorkers, Stores: 2}} {
		b.Progress(fmt.Sprintf("idle: %d workers at %d stores", row.Workers, row.Stores))
		if err := b.watchIdle(ctx, row); err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}

func (b *bench) watchIdle(ctx context.Context, row *IdleRow) error {
	name, drop := b.database()
	defer drop()
	servers, stop, err := b.servers(ctx, row.Stores, name)
	if err != nil {
		return err
	}
	defer stop()
	crew, err := startCrew(servers, row.Workers)
	if err != nil {
		return err
	}
	defer crew.stop()
	if err := sleep.For(ctx, b.IdleFor/5); err != nil { // all have said that they found nothing
		return err
	}
	before, err := b.counters(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := sleep.For(ctx, b.IdleFor); err != nil {
		return err
	}
	after, err := b.counters(ctx)
	if err != nil {
		return err
	}
	row.Seconds = time.Since(start).Seconds()
	row.ByName = map[string]float64{}
	for name, n := range after.since(before).commands {
		if name == "serverStatus" {
			n-- // our own
		}
		if n > 0 {
			row.ByName[name] = float64(n) / row.Seconds
			row.Commands += row.ByName[name]
		}
	}
	return crew.failure()
}

// crew are workers that long-poll.
type crew struct {
	conns   []*benchmarks.Conn
	mu      sync.Mutex
	stopped bool
	err     error
	running sync.WaitGroup
}

func startCrew(servers []*benchmarks.Process, workers int) (*crew, error) {
	c := &crew{}
	for i := range workers {
		conn, err := benchmarks.Dial(servers[i%len(servers)].URL)
		if err != nil {
			c.stop()
			return nil, fmt.Errorf("connecting worker %d (the limit of open files may be too low): %w", i, err)
		}
		c.conns = append(c.conns, conn)
		c.running.Go(func() { c.poll(i, conn) })
	}
	return c, nil
}

// poll claims from the empty queue until the crew stops.
func (c *crew) poll(i int, conn *benchmarks.Conn) {
	body := fmt.Appendf(nil, `{"limit":1,"worker_id":"Worker-%d","wait_seconds":30}`, i)
	for {
		_, answer, err := conn.Expect(200, "POST", "/v1/agl/queues/rollouts/dequeue", body)
		if err == nil && benchmarks.Member(answer, "rollout_id") != "" {
			err = errors.New("the empty queue gave a rollout away")
		}
		c.mu.Lock()
		stopped := c.stopped
		if err != nil && !stopped && c.err == nil {
			c.err = err
		}
		c.mu.Unlock()
		if err != nil || stopped {
			return
		}
	}
}

// failure is the first error of a worker.
func (c *crew) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *crew) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.running.Wait()
}
