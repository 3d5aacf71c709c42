package benchmarks

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"time"
)

// GrowthOptions say how much [Growth] puts into a store.
type GrowthOptions struct {
	// URL is the address of a store that is empty.
	URL string
	// Queued is how many rollouts wait in the queue. 0 is 100,000.
	Queued int
	// Spans is how many spans there are. 0 is 1,000,000.
	Spans int
	// Samples is how many calls of each kind are measured. 0 is 500.
	Samples int
	// Progress, when not nil, is told what is being done.
	Progress func(what string)
}

// GrowthReport holds the latencies of the same calls on an empty and on a full
// store.
type GrowthReport struct {
	Queued int       `json:"queued"`
	Spans  int       `json:"spans"`
	Empty  []Latency `json:"empty"`
	Full   []Latency `json:"full"`
}

// WriteText prints both lists and the ratios of the medians.
func (r *GrowthReport) WriteText(w io.Writer) error {
	fmt.Fprintln(w, "empty store:")
	if err := WriteLatencies(w, r.Empty); err != nil {
		return err
	}
	fmt.Fprintf(w, "with %d queued rollouts and %d spans:\n", r.Queued, r.Spans)
	if err := WriteLatencies(w, r.Full); err != nil {
		return err
	}
	for i, full := range r.Full {
		fmt.Fprintf(w, "  %-14s median %.2f times, p95 %.2f times the empty store's\n",
			full.Call, Ratio(full.P50, r.Empty[i].P50), Ratio(full.P95, r.Empty[i].P95))
	}
	return nil
}

const (
	spansPerPost    = 500
	spansPerRollout = 1000
	growthPage      = 100
	growthBatch     = 1000
)

// Growth measures claims, finishes and pages of 100 on an empty store, fills
// it, and measures the same calls again, one at a time.
func Growth(ctx context.Context, opts GrowthOptions) (*GrowthReport, error) {
	opts.Queued = cmp.Or(opts.Queued, 100_000)
	opts.Spans = cmp.Or(opts.Spans, 1_000_000)
	opts.Samples = cmp.Or(opts.Samples, 500)
	c, err := Dial(opts.URL)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	g := &growth{opts: opts, conn: c}
	for first := 0; first < spansPerRollout; first += spansPerPost {
		body, err := otlpBody(standInRollout, standInAttempt, first, spansPerPost, 2)
		if err != nil {
			return nil, err
		}
		g.posts = append(g.posts, newTemplate(body))
	}
	report := &GrowthReport{Queued: opts.Queued, Spans: opts.Spans}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"preparing the empty store", func() error { return g.fill(ctx, 2*opts.Samples, spansPerRollout) }},
		{"measuring the empty store", func() (err error) { report.Empty, err = g.measure(ctx); return err }},
		{"filling", func() error { return g.fill(ctx, opts.Queued, opts.Spans) }},
		{"measuring the full store", func() (err error) { report.Full, err = g.measure(ctx); return err }},
	} {
		if opts.Progress != nil {
			opts.Progress(step.what)
		}
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return report, nil
}

type growth struct {
	opts    GrowthOptions
	conn    *Conn
	posts   []*template // a rollout's spans
	rollout string      // one that has spans
}

// fill adds queued rollouts, and others with spans.
func (g *growth) fill(ctx context.Context, queued, spans int) error {
	var body []byte
	for n := 0; n < queued && ctx.Err() == nil; n += growthBatch {
		body = enqueueBody(body[:0], n, min(growthBatch, queued-n))
		if _, _, err := g.conn.Expect(201, "POST", apiPrefix+"/queues/rollouts/enqueue", body); err != nil {
			return err
		}
	}
	for n := 0; n < spans && ctx.Err() == nil; n += spansPerRollout {
		_, answer, err := g.conn.Expect(201, "POST", apiPrefix+"/rollouts", []byte(`{"input":null}`))
		if err != nil {
			return err
		}
		rollout, attempt := Member(answer, "rollout_id"), Member(answer, "attempt_id")
		for _, post := range g.posts {
			status, answer, err := g.conn.Do("POST", "/v1/traces", "application/x-protobuf", post.fill(rollout, attempt))
			if err == nil && (status != 200 || len(answer) > 0) { // a partial success has a body
				err = fmt.Errorf("storing spans answered %d: %.300q", status, answer)
			}
			if err != nil {
				return err
			}
		}
		g.rollout = rollout
	}
	return ctx.Err()
}

// measure times each kind of call.
func (g *growth) measure(ctx context.Context) ([]Latency, error) {
	rollouts := fmt.Appendf(nil, `{"limit":%d,"sort_by":"start_time","sort_order":"desc"}`, growthPage)
	waiting := fmt.Appendf(nil, `{"limit":%d,"status_in":["queuing"],"sort_by":"start_time","sort_order":"desc"}`, growthPage)
	spans := fmt.Appendf(nil, `{"rollout_id":"%s","attempt_id":"latest","limit":%d,"offset":200}`, g.rollout, growthPage)

	times := make([][]time.Duration, 5)
	timed := func(kind int, path string, body []byte) ([]byte, error) {
		start := time.Now()
		_, answer, err := g.conn.Expect(200, "POST", apiPrefix+path, body)
		times[kind] = append(times[kind], time.Since(start))
		return answer, err
	}
	for i := 0; i < g.opts.Samples && ctx.Err() == nil; i++ {
		answer, err := timed(0, "/queues/rollouts/dequeue", []byte(`{"limit":1,"worker_id":"`+WorkerID(0)+`"}`))
		if err != nil {
			return nil, err
		}
		rollout, attempt := Member(answer, "rollout_id"), Member(answer, "attempt_id")
		if rollout == "" {
			return nil, fmt.Errorf("the queue is empty after %d claims", i)
		}
		if _, err := timed(1, "/rollouts/"+rollout+"/attempts/"+attempt, []byte(`{"status":"succeeded"}`)); err != nil {
			return nil, err
		}
		if _, err := timed(2, "/rollouts/search", rollouts); err != nil {
			return nil, err
		}
		if _, err := timed(3, "/rollouts/search", waiting); err != nil {
			return nil, err
		}
		answer, err = timed(4, "/spans/search", spans)
		if err == nil && !bytes.Contains(answer, fmt.Appendf(nil, `"total":%d}`, spansPerRollout)) {
			err = fmt.Errorf("the rollout does not have its %d spans", spansPerRollout)
		}
		if err != nil {
			return nil, err
		}
	}
	var out []Latency
	for i, name := range []string{"claim", "finish", "rollouts page", "queued page", "spans page"} {
		out = append(out, LatencyOf(name, times[i]))
	}
	return out, ctx.Err()
}
