// Package micro measures one kind of call at a time, as the reference's micro
// benchmark does: the same modes, numbers of callers and of calls, and the same
// line of output.
package micro

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/benchmarks"
)

// Mode is one of the benchmarks.
type Mode struct {
	Name       string
	About      string
	Callers    int // at a time
	Operations int
	prepare    func(*run) error
	operate    func(*caller, int) error
}

// NeedsStore tells whether the mode makes calls.
func (m Mode) NeedsStore() bool { return m.operate != nil }

// Modes are all of them.
var Modes = []Mode{
	{"worker", "heartbeats of 1024 workers", 1024, 10_240, nil, (*caller).heartbeat},
	{"dequeue-empty", "claims from an empty queue, each with a heartbeat", 1024, 10_240, nil, (*caller).dequeueEmpty},
	{"dequeue-only", "claims without a worker", 512, 8192, (*run).enqueue, (*caller).dequeueOnly},
	{"dequeue-update-attempt", "claims with 4 spans of 32 attributes each, and the end", 512, 8192, (*run).enqueue, (*caller).dequeueUpdate},
	{"rollout", "rollouts started past the queue, 4 small spans, and the end", 256, 4096, nil, (*caller).rollout},
	{"metrics", "a counter and a histogram, on two consoles; needs no store", 1, 10_000_000, nil, nil},
}

// Options say against what a mode runs, and how.
type Options struct {
	// StoreURL is the store, http://host:port, with an empty queue.
	StoreURL string
	// Kept has each caller keep its connection and send the spans of a rollout
	// in one OTLP request, as aglq's workers do. Else each operation makes a
	// connection, and each span travels on its own, as JSON.
	Kept bool
	// Scale multiplies the operations and the callers. 0 is 1.
	Scale float64
	// Callers are that many, whatever the scale. 0 is the mode's number.
	Callers int
}

// Result is the outcome of a mode.
type Result struct {
	Mode       string               `json:"mode"`
	Callers    int                  `json:"callers"`
	Kept       bool                 `json:"kept_connections"`
	Operations int                  `json:"operations"`
	Successes  int                  `json:"successes"`
	Seconds    float64              `json:"seconds"`
	Throughput float64              `json:"throughput"` // successes a second
	Calls      []benchmarks.Latency `json:"calls,omitempty"`
	// Failure is the first one.
	Failure string `json:"failure,omitempty"`
}

// SuccessRate is the part of the operations that did what they should.
func (r *Result) SuccessRate() float64 { return float64(r.Successes) / float64(r.Operations) }

// Line is the line of output that the reference's benchmark writes.
func (r *Result) Line() string {
	return fmt.Sprintf("[summary] mode=%s success_rate=%.3f throughput=%.3f ops/s duration=%.3fs success=%d/%d",
		r.Mode, r.SuccessRate(), r.Throughput, r.Seconds, r.Successes, r.Operations)
}

// WriteText prints the latencies and the line.
func (r *Result) WriteText(w io.Writer) error {
	if len(r.Calls) > 0 {
		if err := benchmarks.WriteLatencies(w, r.Calls); err != nil {
			return err
		}
	}
	if r.Failure != "" {
		fmt.Fprintln(w, "the first failure:", r.Failure)
	}
	_, err := fmt.Fprintln(w, r.Line())
	return err
}

// run is one mode under way.
type run struct {
	opts  Options
	start time.Time
	ops   int
	next  atomic.Int64
	seen  sync.Map // rollouts that were claimed

	mu       sync.Mutex
	calls    *benchmarks.Calls
	failures int
	failure  error
}

// Run runs a mode. Operations that fail are counted; the error is one of the
// preparation. The time holds the making of connections, and the enqueue where
// there is one.
func Run(ctx context.Context, m Mode, o Options) (*Result, error) {
	o.Scale = cmp.Or(o.Scale, 1)
	if !(o.Scale > 0) {
		return nil, fmt.Errorf("a scale of %v is not above 0", o.Scale)
	}
	scaled := func(n int) int { return max(1, int(math.Round(float64(n)*o.Scale))) }
	r := &run{opts: o, ops: scaled(m.Operations), start: time.Now()}
	r.calls = benchmarks.NewCalls(r.start)
	callers := min(cmp.Or(o.Callers, scaled(m.Callers)), r.ops)
	if !m.NeedsStore() {
		callers = 1
		if err := observe(ctx, r.ops); err != nil {
			return nil, err
		}
		return r.result(m, callers), nil
	}
	if m.prepare != nil {
		if err := m.prepare(r); err != nil {
			return nil, fmt.Errorf("preparing %s: %w", m.Name, err)
		}
	}
	var group sync.WaitGroup
	for n := range callers {
		group.Go(func() { r.work(ctx, n, m.operate) })
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r.result(m, callers), nil
}

func (r *run) result(m Mode, callers int) *Result {
	took := time.Since(r.start).Seconds()
	res := &Result{
		Mode: m.Name, Callers: callers, Kept: r.opts.Kept, Operations: r.ops, Successes: r.ops - r.failures, Seconds: took,
		Calls: r.calls.Latencies(),
	}
	res.Throughput = float64(res.Successes) / took
	if r.failure != nil {
		res.Failure = r.failure.Error()
	}
	return res
}

// work is one caller, which takes operations until there are none.
func (r *run) work(ctx context.Context, n int, operate func(*caller, int) error) {
	c := &caller{run: r, n: n, calls: benchmarks.NewCalls(r.start)}
	defer c.hand()
	for ctx.Err() == nil {
		op := int(r.next.Add(1)) - 1
		if op >= r.ops {
			return
		}
		if err := c.try(ctx, op, operate); err != nil {
			c.failures++
			if c.failure == nil {
				c.failure = err
			}
		}
	}
}

// hand gives what the caller measured to the run.
func (c *caller) hand() {
	c.drop()
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	c.run.calls.Add(c.calls)
	c.run.failures += c.failures
	if c.run.failure == nil {
		c.run.failure = c.failure
	}
}
