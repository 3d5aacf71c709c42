package benchmarks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const apiPrefix = "/v1/agl"

// WorkerPrefix begins the ids of the workers that benchmarks act as.
const WorkerPrefix = "bench-worker-"

// WorkerID is the id of the worker n that a benchmark acts as.
func WorkerID(n int) string { return WorkerPrefix + strconv.Itoa(n) }

// moments is how many stretches a run is cut into to be drawn.
const moments = 60

// LifecycleOptions say what [Lifecycle] drives, and how hard.
type LifecycleOptions struct {
	// URL is the store's address, http://host:port.
	URL string
	// Others are further stores on the same database; the workers are spread
	// over all of them.
	Others []string
	// Rollouts is how many to drive. 0 is 2000.
	Rollouts int
	// Workers is how many connections work at once. 0 is 8.
	Workers int
	// Batch is how many rollouts one enqueue carries. 0 is 50.
	Batch int
	// Spans is how many spans a rollout has. 0 is 8.
	Spans int
	// Attributes is how many attributes a span has. 0 is 8.
	Attributes int
	// OTLP sends a rollout's spans in one OTLP request; else each goes alone, as
	// JSON.
	OTLP bool
	// PIDs are the server's processes, to report what they and their children
	// cost; none is fine.
	PIDs []int
	// DatabasePIDs are those of the database, likewise.
	DatabasePIDs []int
	// Canned says that the server answers from a record (see [Ceiling]), so
	// there is nothing to check.
	Canned bool
	// Record, when not nil, gets one answer of each kind.
	Record *Record
}

func (o LifecycleOptions) withDefaults() LifecycleOptions {
	o.Rollouts = cmp.Or(o.Rollouts, 2000)
	o.Workers = cmp.Or(o.Workers, 8)
	o.Batch = cmp.Or(o.Batch, 50)
	o.Spans = cmp.Or(o.Spans, 8)
	o.Attributes = cmp.Or(o.Attributes, 8)
	return o
}

// lifecycle is one run, shared by its workers.
type lifecycle struct {
	opts     LifecycleOptions
	tickets  atomic.Int64 // how many lives have begun
	enqueued atomic.Int64
	claimed  sync.Map // rollout id -> worker
	mu       sync.Mutex
	calls    *Calls
	all      []string // every id that was enqueued
}

// Lifecycle drives rollouts through their whole life and reports how fast that
// went. The store should be idle and its queue empty. It fails when a call
// fails, when a rollout is claimed twice, or when one of them, or a span, is
// missing at the end.
func Lifecycle(ctx context.Context, opts LifecycleOptions) (*Report, error) {
	opts = opts.withDefaults()
	bodies, err := newBodies(opts.Spans, opts.Attributes, opts.OTLP)
	if err != nil {
		return nil, err
	}
	run := &lifecycle{opts: opts, calls: NewCalls(time.Now())}
	stores := append([]string{opts.URL}, opts.Others...)
	workers := make([]*lifeWorker, opts.Workers)
	for i := range workers {
		c, err := Dial(stores[i%len(stores)])
		if err != nil {
			return nil, err
		}
		defer c.Close()
		workers[i] = newLifeWorker(run, i, c, bodies.clone())
	}
	if err := workers[0].enqueue(min(opts.Batch, opts.Rollouts)); err != nil {
		return nil, err
	}
	meter, err := StartMeter(opts.PIDs, opts.DatabasePIDs)
	if err != nil {
		return nil, err
	}

	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range workers {
		group.Go(func() error { return w.work(ctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(start)

	report := run.report(took)
	if report.Cost, err = meter.Cost(); err != nil {
		return nil, err
	}
	if opts.Canned {
		return report, nil
	}
	return report, run.verify(workers[0].conn)
}

func (run *lifecycle) report(took time.Duration) *Report {
	r := &Report{
		Spans: "json", Workers: run.opts.Workers, Rollouts: run.opts.Rollouts, SpansPerRollout: run.opts.Spans,
		Seconds:           took.Seconds(),
		RolloutsPerSecond: float64(run.opts.Rollouts) / took.Seconds(),
	}
	if run.opts.OTLP {
		r.Spans = "otlp"
	}
	requests := 0
	r.Calls = run.calls.Latencies()
	for _, l := range r.Calls {
		requests += l.Count
	}
	r.Timeline = run.calls.Timeline(moments, callNames[callFinish])
	r.RequestsPerSecond = float64(requests) / took.Seconds()
	return r
}

// verify reads every rollout again: each must have succeeded in its first
// attempt.
func (run *lifecycle) verify(c *Conn) error {
	const chunk = 500
	seen := 0
	for from := 0; from < len(run.all); from += chunk {
		ids := run.all[from:min(from+chunk, len(run.all))]
		body, err := json.Marshal(map[string]any{"rollout_id_in": ids, "limit": -1})
		if err != nil {
			return err
		}
		_, answer, err := c.Expect(200, "POST", apiPrefix+"/rollouts/search", body)
		if err != nil {
			return err
		}
		var page struct {
			Items []struct {
				ID      string `json:"rollout_id"`
				Status  string `json:"status"`
				Attempt struct {
					Sequence int `json:"sequence_id"`
				} `json:"attempt"`
			} `json:"items"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			return fmt.Errorf("cannot read the rollouts back: %w", err)
		}
		for _, r := range page.Items {
			if r.Status != "succeeded" || r.Attempt.Sequence != 1 {
				return fmt.Errorf("rollout %s ended %s in attempt %d, not succeeded in attempt 1", r.ID, r.Status, r.Attempt.Sequence)
			}
			if _, ok := run.claimed.Load(r.ID); !ok {
				return fmt.Errorf("rollout %s succeeded, but no worker had it", r.ID)
			}
		}
		seen += len(page.Items)
	}
	if seen != run.opts.Rollouts || len(run.all) != run.opts.Rollouts {
		return fmt.Errorf("%d of %d rollouts are there afterwards", seen, run.opts.Rollouts)
	}
	return nil
}

// lifeWorker is one connection that claims rollouts and lives them.
type lifeWorker struct {
	run    *lifecycle
	conn   *Conn
	bodies *bodies
	claim  []byte
	buf    []byte
	calls  *Calls
	ids    []string
}

func newLifeWorker(run *lifecycle, n int, c *Conn, b *bodies) *lifeWorker {
	claim := []byte(`{"limit":1,"worker_id":"` + WorkerID(n) + `"}`)
	return &lifeWorker{run: run, conn: c, bodies: b, claim: claim, calls: NewCalls(run.calls.start)}
}

// work lives rollouts until all have begun.
func (w *lifeWorker) work(ctx context.Context) error {
	defer w.hand()
	opts := &w.run.opts
	for ctx.Err() == nil {
		n := int(w.run.tickets.Add(1)) - 1
		if n >= opts.Rollouts {
			return nil
		}
		// The queue is kept one batch ahead of the workers.
		if next := n + opts.Batch; n%opts.Batch == 0 && next < opts.Rollouts {
			if err := w.enqueue(min(opts.Batch, opts.Rollouts-next)); err != nil {
				return err
			}
		}
		if err := w.life(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// hand gives what the worker measured to the run.
func (w *lifeWorker) hand() {
	w.run.mu.Lock()
	defer w.run.mu.Unlock()
	w.run.calls.Add(w.calls)
	w.run.all = append(w.run.all, w.ids...)
}

func (w *lifeWorker) enqueue(n int) error {
	first := int(w.run.enqueued.Add(int64(n))) - n
	w.buf = enqueueBody(w.buf[:0], first, n)
	answer, err := w.call(callEnqueue, 201, apiPrefix+"/queues/rollouts/enqueue", w.buf)
	if err != nil || w.run.opts.Canned {
		return err
	}
	var rollouts []struct {
		ID string `json:"rollout_id"`
	}
	if err := json.Unmarshal(answer, &rollouts); err != nil {
		return fmt.Errorf("enqueue of %d answered %.200s: %w", n, answer, err)
	}
	if len(rollouts) != n {
		return fmt.Errorf("enqueue of %d answered with %d rollouts", n, len(rollouts))
	}
	for _, r := range rollouts {
		w.ids = append(w.ids, r.ID)
	}
	return nil
}

// life takes one rollout from claim to the query of its spans.
func (w *lifeWorker) life(ctx context.Context) error {
	opts := &w.run.opts
	rollout, attempt, err := w.claimOne(ctx)
	if err != nil {
		return err
	}
	path := apiPrefix + "/spans"
	if opts.OTLP {
		path = "/v1/traces"
	}
	for _, s := range w.bodies.spans {
		if err := w.send(path, s.fill(rollout, attempt)); err != nil {
			return err
		}
	}
	if _, err := w.call(callFinish, 200, apiPrefix+"/rollouts/"+rollout+"/attempts/"+attempt, w.bodies.finish); err != nil {
		return err
	}
	answer, err := w.call(callWait, 200, apiPrefix+"/waits/rollouts", w.bodies.wait.fill(rollout, attempt))
	if err != nil {
		return err
	}
	if !opts.Canned && (!bytes.Contains(answer, []byte(rollout)) || !bytes.Contains(answer, []byte(`"status":"succeeded"`))) {
		return fmt.Errorf("a wait for rollout %s after its end answered %.200s", rollout, answer)
	}
	answer, err = w.call(callQuery, 200, apiPrefix+"/spans/search", w.bodies.query.fill(rollout, attempt))
	if err != nil {
		return err
	}
	if !opts.Canned && !bytes.Contains(answer, []byte(`"total":`+strconv.Itoa(opts.Spans)+`}`)) {
		return fmt.Errorf("the spans of rollout %s are not %d: …%s", rollout, opts.Spans, answer[max(0, len(answer)-80):])
	}
	return nil
}

// claimOne claims until it gets a rollout: another worker may just have taken
// the last one of a batch.
func (w *lifeWorker) claimOne(ctx context.Context) (rollout, attempt string, err error) {
	for ctx.Err() == nil {
		answer, err := w.call(callClaim, 200, apiPrefix+"/queues/rollouts/dequeue", w.claim)
		if err != nil {
			return "", "", err
		}
		rollout, attempt = Member(answer, "rollout_id"), Member(answer, "attempt_id")
		if rollout == "" {
			runtime.Gosched()
			continue
		}
		if len(rollout) != len(standInRollout) || len(attempt) != len(standInAttempt) {
			return "", "", fmt.Errorf("ids %q and %q are not of the usual lengths", rollout, attempt)
		}
		if _, twice := w.run.claimed.LoadOrStore(rollout, w); twice && !w.run.opts.Canned {
			return "", "", fmt.Errorf("rollout %s was claimed twice", rollout)
		}
		return rollout, attempt, nil
	}
	return "", "", ctx.Err()
}

// send posts spans.
func (w *lifeWorker) send(path string, body []byte) error {
	status, contentType := 201, "application/json"
	if w.run.opts.OTLP {
		status, contentType = 200, "application/x-protobuf"
	}
	start := time.Now()
	got, answer, err := w.conn.Do("POST", path, contentType, body)
	if err != nil {
		return err
	}
	w.note(callSpans, start, got, answer)
	if got != status {
		return fmt.Errorf("POST %s answered %d: %.300s", path, got, answer)
	}
	if !w.run.opts.OTLP && bytes.Equal(answer, []byte("null")) {
		return errors.New("a span was refused as a duplicate")
	}
	return nil
}

// call posts JSON, measures it, and wants the status.
func (w *lifeWorker) call(kind callKind, status int, path string, body []byte) ([]byte, error) {
	start := time.Now()
	got, answer, err := w.conn.Do("POST", path, "application/json", body)
	if err != nil {
		return nil, err
	}
	w.note(kind, start, got, answer)
	if got != status {
		return nil, fmt.Errorf("POST %s answered %d: %.300s", path, got, answer)
	}
	return answer, nil
}

func (w *lifeWorker) note(kind callKind, start time.Time, status int, answer []byte) {
	w.calls.Note(callNames[kind], start)
	if w.run.opts.Record != nil {
		w.run.opts.Record.keep(kind, status, answer)
	}
}

// Expect is Do for JSON that must answer with the status.
func (c *Conn) Expect(status int, method, path string, body []byte) (int, []byte, error) {
	got, answer, err := c.Do(method, path, "application/json", body)
	if err == nil && got != status {
		err = fmt.Errorf("%s %s answered %d: %.300s", method, path, got, answer)
	}
	return got, answer, err
}

// Member is the first string member of that name in compact JSON, "" for none.
func Member(answer []byte, name string) string {
	_, rest, ok := bytes.Cut(answer, []byte(`"`+name+`":"`))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}
