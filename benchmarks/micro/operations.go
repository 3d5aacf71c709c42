package micro

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/otlp"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	api       = "/v1/agl"
	workerIDs = 1024
	spansEach = 4
)

// caller makes operations, one after another.
type caller struct {
	run      *run
	n        int
	conn     *benchmarks.Conn // nil until there is one
	calls    *benchmarks.Calls
	failures int
	failure  error
	body     []byte
}

// try makes one operation, on a connection of its own unless connections are
// kept. A connection on which something failed is not used again.
func (c *caller) try(ctx context.Context, op int, operate func(*caller, int) error) error {
	if c.conn == nil {
		conn, err := benchmarks.Dial(c.run.opts.StoreURL)
		if err != nil {
			return err
		}
		c.conn = conn
	}
	stop := context.AfterFunc(ctx, c.conn.Close)
	err := operate(c, op)
	stop()
	if err != nil || !c.run.opts.Kept {
		c.drop()
	}
	return err
}

func (c *caller) drop() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// call posts JSON, times it and wants the status.
func (c *caller) call(name string, want int, path string, body []byte) ([]byte, error) {
	began := time.Now()
	_, answer, err := c.conn.Expect(want, "POST", api+path, body)
	if err == nil {
		c.calls.Note(name, began)
	}
	return answer, err
}

// enqueue queues a rollout for each operation, all in one call.
func (r *run) enqueue() error {
	body := []byte(`{"rollouts":[`)
	for i := range r.ops {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"input":{"task":`...)
		body = append(strconv.AppendInt(body, int64(i), 10), `}}`...)
	}
	conn, err := benchmarks.Dial(r.opts.StoreURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _, err = conn.Expect(201, "POST", api+"/queues/rollouts/enqueue", append(body, `]}`...))
	return err
}

func (c *caller) heartbeat(op int) error {
	body := append([]byte(`{"heartbeat_stats":`), benchmarks.Snapshot()...)
	_, err := c.call("update worker", 200, "/workers/"+benchmarks.WorkerID(op%workerIDs), append(body, '}'))
	return err
}

func (c *caller) dequeueEmpty(op int) error {
	answer, err := c.call("claim", 200, "/queues/rollouts/dequeue", fmt.Appendf(nil, `{"limit":1,"worker_id":%q}`, benchmarks.WorkerID(op%workerIDs)))
	if err != nil {
		return err
	}
	if string(answer) != "[]" {
		return errors.New("the queue is not empty: this mode needs an empty store")
	}
	return c.heartbeat(op)
}

func (c *caller) dequeueOnly(int) error {
	_, err := c.claim([]byte(`{"limit":1}`))
	return err
}

// claim takes a rollout that nobody had before.
func (c *caller) claim(body []byte) (queue.AttemptRef, error) {
	answer, err := c.call("claim", 200, "/queues/rollouts/dequeue", body)
	if err != nil {
		return queue.AttemptRef{}, err
	}
	ref := queue.AttemptRef{RolloutID: benchmarks.Member(answer, "rollout_id"), AttemptID: benchmarks.Member(answer, "attempt_id")}
	if ref.RolloutID == "" {
		return ref, errors.New("the queue is empty: a rollout is lost, or somebody else claims")
	}
	if _, twice := c.run.seen.LoadOrStore(ref.RolloutID, c.n); twice {
		return ref, fmt.Errorf("rollout %s was claimed twice", ref.RolloutID)
	}
	return ref, nil
}

func (c *caller) dequeueUpdate(op int) error {
	ref, err := c.claim(fmt.Appendf(nil, `{"limit":1,"worker_id":%q}`, benchmarks.WorkerID(c.n)))
	if err != nil {
		return err
	}
	if !c.run.opts.Kept {
		if err := c.askNumbers(ref, spansEach); err != nil {
			return err
		}
	}
	return c.finish(ref, op, manyAttributes)
}

func (c *caller) rollout(op int) error {
	answer, err := c.call("start rollout", 201, "/rollouts", []byte(`{"input":{"task":`+strconv.Itoa(op)+`}}`))
	if err != nil {
		return err
	}
	ref := queue.AttemptRef{RolloutID: benchmarks.Member(answer, "rollout_id"), AttemptID: benchmarks.Member(answer, "attempt_id")}
	return c.finish(ref, op, rawjson.Value(`{"index":1}`))
}

// finish sends the spans of an attempt and its end.
func (c *caller) finish(ref queue.AttemptRef, op int, attributes rawjson.Value) error {
	spans := make([]queue.Span, spansEach)
	for i := range spans {
		spans[i] = span(ref, op*spansEach+i, attributes)
	}
	send := c.sendJSON
	if c.run.opts.Kept {
		send = c.sendOTLP
	}
	if err := send(spans); err != nil {
		return err
	}
	_, err := c.call("finish", 200, "/rollouts/"+ref.RolloutID+"/attempts/"+ref.AttemptID, []byte(`{"status":"succeeded"}`))
	return err
}

// askNumbers asks for the numbers of n spans, one by one, which are 1 and on for
// an attempt that has none.
func (c *caller) askNumbers(ref queue.AttemptRef, n int) error {
	ask := fmt.Appendf(nil, `{"rollout_id":%q,"attempt_id":%q}`, ref.RolloutID, ref.AttemptID)
	for i := range n {
		answer, err := c.call("next number", 200, "/spans/next", ask)
		if err != nil {
			return err
		}
		var next struct {
			Number int64 `json:"sequence_id"`
		}
		if err := json.Unmarshal(answer, &next); err != nil || next.Number != int64(i+1) {
			return fmt.Errorf("asking for number %d was answered %.200s", i+1, answer)
		}
	}
	return nil
}

// sendJSON sends spans one by one, numbered from 1.
func (c *caller) sendJSON(spans []queue.Span) error {
	for i := range spans {
		spans[i].SequenceID = int64(i + 1)
		c.body = spans[i].AppendJSON(c.body[:0])
		answer, err := c.call("span", 201, "/spans", c.body)
		if err != nil {
			return err
		}
		if string(answer) == "null" {
			return errors.New("a span was refused as a duplicate")
		}
	}
	return nil
}

func (c *caller) sendOTLP(spans []queue.Span) error {
	c.body = otlp.Append(c.body[:0], spans)
	began := time.Now()
	status, answer, err := c.conn.Do("POST", "/v1/traces", "application/x-protobuf", c.body)
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("storing spans answered %d: %.300q", status, answer)
	}
	c.calls.Note("spans", began)
	return nil
}

// manyAttributes are 32, in about 5.5 KB.
var manyAttributes = func() rawjson.Value {
	text := []byte{'{'}
	for i := range 32 {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `"attribute_%02d":"%0150d"`, i, i)
	}
	return append(text, '}')
}()

func span(ref queue.AttemptRef, n int, attributes rawjson.Value) queue.Span {
	start := queue.Seconds(time.Now())
	end := start + 0.01
	s := queue.Span{
		RolloutID: ref.RolloutID, AttemptID: ref.AttemptID, SequenceID: queue.NumberOnArrival, TraceID: fmt.Sprintf("%032x", n+1),
		SpanID: fmt.Sprintf("%016x", n+1), Name: "micro.span", Attributes: attributes, StartTime: &start, EndTime: &end,
		Status: rawjson.Value(`{"status_code":"OK","description":null}`),
	}
	s.FillIn()
	return s
}

// observe counts and times on two consoles.
func observe(ctx context.Context, n int) error {
	consoles := []*metrics.Recorder{metrics.New(metrics.Options{Console: io.Discard}), metrics.New(metrics.Options{Console: io.Discard})}
	for i := range n {
		if i%10_000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for _, c := range consoles {
			c.HTTP("/v1/agl/rollouts", "POST", 200, time.Duration(i%1000)*time.Microsecond)
		}
	}
	return nil
}
