package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/otlp"
)

const (
	// longPoll is what a native runner asks the store to wait for work.
	longPoll = 20 * time.Second
	// A store that answers at once all the same is asked again at intervals that
	// grow from the first of these to the second.
	shortestPoll = 50 * time.Millisecond
	longestPoll  = time.Second
	pollJitter   = 500 * time.Millisecond
	// A native runner sends its spans when it has so many, or the oldest is so old.
	spansTogether = 64
	spansKept     = 200 * time.Millisecond

	heartbeatEvery = 10 * time.Second
)

// The calls that wait at the store, and the time in the queue: not answers whose
// speed says something about the store.
const (
	waitingCall  = "wait (long)"
	waitingClaim = "claim (long)"
	queueWait    = "queue wait"
)

// runner claims tasks and runs the agent.
type runner struct {
	run   *run
	n     int
	s     *session
	rng   *rand.Rand // for what is not the agent's
	kept  []queue.Span
	since time.Time // when the first of kept ended
	body  []byte
	sent  int // spans that the store took
}

// work claims until ctx ends.
func (r *runner) work(ctx context.Context) error {
	pause := shortestPoll
	for ctx.Err() == nil {
		claim, asked, err := r.claim()
		if err != nil {
			return err
		}
		if claim != nil {
			if err := r.live(ctx, claim); err != nil {
				return err
			}
			pause = shortestPoll
			continue
		}
		if r.run.opts.Client == PythonLike {
			pause = r.run.opts.Poll + time.Duration((2*r.rng.Float64()-1)*float64(min(pollJitter, r.run.opts.Poll/10)))
		} else if asked >= longPoll*9/10 {
			continue // it has waited
		}
		_ = sleep.For(ctx, pause)
		pause = min(2*pause, longestPoll)
	}
	return nil
}

// claimed is a rollout to work on.
type claimed struct {
	ID        string          `json:"rollout_id"`
	Input     json.RawMessage `json:"input"`
	Start     float64         `json:"start_time"`
	Resources *string         `json:"resources_id"`
	Attempt   struct {
		ID       string  `json:"attempt_id"`
		Sequence int     `json:"sequence_id"`
		Start    float64 `json:"start_time"`
	} `json:"attempt"`
}

// claim asks for a task, nil when there is none, and tells how long that took.
func (r *runner) claim() (*claimed, time.Duration, error) {
	name, body := "claim", fmt.Appendf(nil, `{"limit":1,"worker_id":%q}`, benchmarks.WorkerID(r.n))
	if r.run.opts.Client == Native {
		name, body = waitingClaim, fmt.Appendf(nil, `{"limit":1,"worker_id":%q,"wait_seconds":%d}`, benchmarks.WorkerID(r.n), longPoll/time.Second)
	}
	var got []claimed
	began := time.Now()
	err := r.s.post(name, 200, "/queues/rollouts/dequeue", body, &got)
	if err != nil || len(got) == 0 {
		return nil, time.Since(began), err
	}
	c := &got[0]
	if len(got) > 1 {
		return nil, 0, fmt.Errorf("a claim of 1 answered with %d rollouts", len(got))
	}
	if _, twice := r.run.claims.LoadOrStore(c.ID, r.n); twice || c.Attempt.Sequence != 1 {
		return nil, 0, fmt.Errorf("rollout %s was doubled: %s got attempt %d of it", c.ID, benchmarks.WorkerID(r.n), c.Attempt.Sequence)
	}
	r.s.calls.NoteWait(queueWait, time.Duration((c.Attempt.Start-c.Start)*1e9))
	return c, 0, nil
}

// live runs the agent and reports.
func (r *runner) live(ctx context.Context, c *claimed) error {
	path := "/resources/latest"
	if c.Resources != nil {
		path = "/resources/" + *c.Resources
	}
	if answer, err := r.s.call("get resources", 200, "GET", path, nil); err != nil {
		return err
	} else if string(answer) == "null" {
		return fmt.Errorf("rollout %s has no resources", c.ID)
	}
	var task string
	if err := json.Unmarshal(c.Input, &task); err != nil {
		return fmt.Errorf("rollout %s is not of this run: its input is %.100s", c.ID, c.Input)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(task, "task-"), 10, 63)
	if err != nil {
		return fmt.Errorf("rollout %s is not of this run: its input is %q", c.ID, task)
	}
	a := &agent{
		ref: queue.AttemptRef{RolloutID: c.ID, AttemptID: c.Attempt.ID}, task: task, rng: rand.New(rand.NewPCG(r.run.opts.Seed, number+1)),
		looks: r.run.looks, sleep: r.run.opts.Sleep, emit: r.keep,
	}
	if err := a.run(ctx, r.run.opts.MaxRounds); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	r.run.spans.Store(c.ID, a.spans)
	r.sent += a.spans
	if _, err = r.s.call("finish", 200, "POST", "/rollouts/"+c.ID+"/attempts/"+c.Attempt.ID, []byte(`{"status":"succeeded"}`)); err != nil {
		return err
	}
	select {
	case r.run.ends <- struct{}{}:
	case <-ctx.Done(): // the store had rollouts of an earlier run with the same tasks
	}
	return nil
}

// keep takes a span that has ended and sends it, alone or with others.
func (r *runner) keep(s queue.Span) error {
	if len(r.kept) == 0 {
		r.since = time.Now()
	}
	r.kept = append(r.kept, s)
	if r.run.opts.Client == Native && len(r.kept) < spansTogether && time.Since(r.since) < spansKept {
		return nil
	}
	return r.flush()
}

// flush sends the spans that are kept.
func (r *runner) flush() error {
	if len(r.kept) == 0 {
		return nil
	}
	defer func() { r.kept = r.kept[:0] }()
	if r.run.opts.JSONSpans {
		for i := range r.kept {
			if err := r.postSpan(&r.kept[i]); err != nil {
				return err
			}
		}
		return nil
	}
	r.body = otlp.Append(r.body[:0], r.kept)
	began := time.Now()
	status, answer, err := r.s.conn.Do("POST", "/v1/traces", "application/x-protobuf", r.body)
	if err != nil {
		return err
	}
	r.s.calls.Note("spans", began)
	if status != 200 {
		return fmt.Errorf("storing spans answered %d: %.300q", status, answer)
	}
	if r.run.opts.DebugSpans {
		r.run.opts.Log(fmt.Sprintf("%s sent %d spans of %s, %d bytes", benchmarks.WorkerID(r.n), len(r.kept), r.kept[0].RolloutID, len(r.body)))
	}
	return nil
}

// postSpan asks for a span's number and posts it as JSON.
func (r *runner) postSpan(s *queue.Span) error {
	var next struct {
		Number int64 `json:"sequence_id"`
	}
	ask := fmt.Appendf(nil, `{"rollout_id":%q,"attempt_id":%q}`, s.RolloutID, s.AttemptID)
	if err := r.s.post("next number", 200, "/spans/next", ask, &next); err != nil {
		return err
	}
	s.SequenceID = next.Number
	r.body = s.AppendJSON(r.body[:0])
	answer, err := r.s.call("spans", 201, "POST", "/spans", r.body)
	if err == nil && string(answer) == "null" {
		err = errors.New("a span was refused as a duplicate")
	}
	return err
}

// beat sends the heartbeats of all runners, one after another, each every ten
// seconds.
func (r *run) beat(ctx context.Context) error {
	s, err := r.connect(ctx)
	if err != nil {
		return err
	}
	body := append([]byte(`{"heartbeat_stats":`), benchmarks.Snapshot()...)
	body = append(body, '}')
	tick := time.NewTicker(heartbeatEvery / time.Duration(r.opts.Runners))
	defer tick.Stop()
	for n := 0; ; n = (n + 1) % r.opts.Runners {
		if _, err := s.call("heartbeat", 200, "POST", "/workers/"+benchmarks.WorkerID(n), body); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
