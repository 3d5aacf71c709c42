package verify

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	// callTimeout is how long a client waits for an answer, besides what it asked
	// the store to wait.
	callTimeout = 4 * time.Second
	// mostTries is how often a call is made under one idempotency key.
	mostTries = 5
)

// caller makes the calls of one client, one at a time, and has them recorded. It
// is for one goroutine.
type caller struct {
	name   string
	stores []*client.Client
	rec    recorder
	rng    *rand.Rand
	lives  int // how many workers it has been
}

func newCaller(name string, stores []*client.Client, rec recorder, seed uint64) *caller {
	h := fnv.New64a()
	h.Write([]byte(name))
	return &caller{name: name, stores: stores, rec: rec, rng: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// dial makes clients that try each call once: what becomes of a single request
// is what is to be known.
func dial(urls []string, token string) []*client.Client {
	stores := make([]*client.Client, len(urls))
	for i, url := range urls {
		stores[i] = client.New(url, client.Options{
			RequestTimeout: callTimeout, Retry: []time.Duration{}, Probe: []time.Duration{}, AuthToken: token,
		})
	}
	return stores
}

// worker is the id under which the caller claims. It takes a new one after a
// claim of unknown outcome and after leaving work undone, so that whatever such
// a worker holds is lost with it, and so that each worker has at most one claim
// of unknown outcome.
func (c *caller) worker() string { return fmt.Sprintf("%s-%d", c.name, c.lives) }

// make makes a call. It repeats one of unknown outcome now and then, on any
// store, where a repetition is defined to change nothing.
func (c *caller) make(ctx context.Context, call *Call, repeatable bool, do func(ctx context.Context, s *client.Client) error) error {
	call.Client = c.name
	c.rec.begin(call)
	ctx = queue.WithIdempotencyKey(ctx, c.hex(16))
	var err error
	outcome := Refused
	for try := 1; ; try++ {
		call.Tries, call.Store = try, c.rng.IntN(len(c.stores))
		err = do(ctx, c.stores[call.Store])
		if err == nil {
			outcome = Ok
			break
		}
		if queue.KindOf(err) == queue.NotFound {
			call.NotFound, outcome = true, Ok
			break
		}
		if !refused(err) {
			outcome = Unknown
		}
		call.Error = err.Error()
		if outcome != Unknown || !repeatable || try == mostTries || c.rng.IntN(4) == 0 || !c.pause(ctx, 20, 300) {
			break
		}
	}
	if outcome == Ok {
		call.Error = ""
	}
	call.Outcome, call.Ended = outcome, err != nil && ctx.Err() != nil
	c.rec.end(call)
	return err
}

// refused reports whether the store has said that it did nothing. A connection
// that cannot be made says nothing: net/http may have sent the request on
// another one before.
func refused(err error) bool {
	switch queue.KindOf(err) {
	case queue.Invalid, queue.Conflict, queue.TooLarge:
		// 499: the store thinks the client has gone, whatever it did before.
		return !strings.Contains(err.Error(), "closed the connection")
	}
	return false
}

// pause sleeps between two numbers of milliseconds; false when ctx has ended.
func (c *caller) pause(ctx context.Context, least, most int) bool {
	return sleep.For(ctx, time.Duration(least+c.rng.IntN(most-least+1))*time.Millisecond) == nil
}

// hex makes up n bytes in hexadecimal digits.
func (c *caller) hex(n int) string {
	b := make([]byte, 0, 2*n)
	for range n {
		b = fmt.Appendf(b, "%02x", byte(c.rng.Uint32()))
	}
	return string(b)
}

func (c *caller) enqueue(ctx context.Context, tasks []Task) ([]string, error) {
	reqs := make([]queue.Request, len(tasks))
	for i, t := range tasks {
		config := t.Plan.config()
		reqs[i] = queue.Request{Input: inputOf(t.Mark), Mode: queue.ModeTrain, Config: &config}
	}
	call := &Call{Op: OpEnqueue, Tasks: tasks}
	var ids []string
	err := c.make(ctx, call, true, func(ctx context.Context, s *client.Client) error {
		made, err := s.Enqueue(ctx, reqs)
		for i := range made {
			ids = append(ids, made[i].RolloutID)
			call.Seen = append(call.Seen, Seen{Rollout: made[i].RolloutID, Status: made[i].Status, Mark: markOf(made[i].Input)})
		}
		return err
	})
	return ids, err
}

func (c *caller) claim(ctx context.Context, limit int, wait time.Duration) ([]queue.AttemptedRollout, error) {
	worker := c.worker()
	call := &Call{Op: OpClaim, Worker: worker, Limit: limit, Wait: wait.Seconds()}
	var claims []queue.AttemptedRollout
	err := c.make(ctx, call, true, func(ctx context.Context, s *client.Client) (err error) {
		claims, err = s.Claim(ctx, queue.Claim{Limit: limit, WorkerID: &worker, Wait: wait})
		for i := range claims {
			call.Seen = append(call.Seen, seenOf(&claims[i]))
		}
		return err
	})
	if call.Outcome == Unknown {
		c.lives++
	}
	return claims, err
}

func (c *caller) number(ctx context.Context, rollout string) (int64, error) {
	call := &Call{Op: OpNumber, Rollouts: []string{rollout}}
	err := c.make(ctx, call, false, func(ctx context.Context, s *client.Client) (err error) {
		call.Number, err = s.NextSequence(ctx, rollout, 1)
		return err
	})
	return call.Number, err
}

// span sends one span that brings its number.
func (c *caller) span(ctx context.Context, ref queue.AttemptRef, number int64) error {
	span := c.spanOf(ref, number)
	call := &Call{Op: OpSpan, Attempts: []queue.AttemptRef{ref}, Spans: []SpanMark{{ID: span.SpanID, Number: number}}}
	return c.make(ctx, call, true, func(ctx context.Context, s *client.Client) error {
		_, err := s.AddSpan(ctx, span)
		return err
	})
}

// export sends n spans that the store is to number.
func (c *caller) export(ctx context.Context, ref queue.AttemptRef, n int) error {
	call := &Call{Op: OpExport, Attempts: []queue.AttemptRef{ref}}
	spans := make([]queue.Span, n)
	for i := range spans {
		spans[i] = c.spanOf(ref, queue.NumberOnArrival)
		call.Spans = append(call.Spans, SpanMark{ID: spans[i].SpanID})
	}
	return c.make(ctx, call, true, func(ctx context.Context, s *client.Client) error {
		added, err := s.AddSpans(ctx, spans)
		if err == nil && added.Rejected > 0 {
			return queue.Errorf(queue.NotFound, "%d spans were rejected: %s", added.Rejected, added.Reason)
		}
		return err
	})
}

// end says how an attempt has ended.
func (c *caller) end(ctx context.Context, ref queue.AttemptRef, op Operation) error {
	status := queue.AttemptSucceeded
	if op == OpFail {
		status = queue.AttemptFailed
	}
	call := &Call{Op: op, Attempts: []queue.AttemptRef{ref}}
	return c.make(ctx, call, true, func(ctx context.Context, s *client.Client) error {
		a, err := s.UpdateAttempt(ctx, ref.RolloutID, ref.AttemptID, queue.AttemptUpdate{Status: queue.Set(status)})
		if err == nil {
			call.Seen = []Seen{seenAttempt(&a)}
		}
		return err
	})
}

// change cancels or requeues a rollout.
func (c *caller) change(ctx context.Context, rollout string, op Operation) error {
	status := queue.RolloutCancelled
	if op == OpRequeue {
		status = queue.RolloutRequeuing
	}
	call := &Call{Op: op, Rollouts: []string{rollout}}
	return c.make(ctx, call, false, func(ctx context.Context, s *client.Client) error {
		r, err := s.UpdateRollout(ctx, rollout, queue.RolloutUpdate{Status: queue.Set(status)})
		if err == nil {
			call.Seen = []Seen{{Rollout: r.RolloutID, Status: r.Status}}
		}
		return err
	})
}

// beat sends a heartbeat of a worker. It reports which attempts it holds; nil
// when it got no answer.
func (c *caller) beat(ctx context.Context, worker string, held []queue.AttemptRef) []bool {
	call := &Call{Op: OpBeat, Worker: worker, Attempts: held}
	err := c.make(ctx, call, false, func(ctx context.Context, s *client.Client) error {
		answer, err := s.Heartbeat(ctx, queue.Heartbeat{WorkerID: worker, Held: held})
		for _, h := range answer.Held {
			call.Held = append(call.Held, h.Held)
			call.Seen = append(call.Seen, Seen{Rollout: h.RolloutID, Status: h.RolloutStatus})
		}
		return err
	})
	if err != nil {
		return nil
	}
	return call.Held
}

func (c *caller) wait(ctx context.Context, rollouts []string, timeout time.Duration) {
	call := &Call{Op: OpWait, Rollouts: rollouts, Wait: timeout.Seconds()}
	_ = c.make(ctx, call, false, func(ctx context.Context, s *client.Client) error {
		done, err := s.Wait(ctx, rollouts, timeout)
		for i := range done {
			call.Seen = append(call.Seen, Seen{Rollout: done[i].RolloutID, Status: done[i].Status})
		}
		return err
	})
}

func (c *caller) read(ctx context.Context, rollout string) {
	call := &Call{Op: OpRead, Rollouts: []string{rollout}}
	_ = c.make(ctx, call, false, func(ctx context.Context, s *client.Client) error {
		r, err := s.Rollout(ctx, rollout)
		if err == nil && r == nil {
			return queue.ErrNoRollout(rollout)
		}
		if err == nil {
			call.Seen = []Seen{seenOf(r)}
		}
		return err
	})
}

func (c *caller) attempts(ctx context.Context, rollout string) {
	call := &Call{Op: OpAttempts, Rollouts: []string{rollout}}
	_ = c.make(ctx, call, false, func(ctx context.Context, s *client.Client) error {
		page, err := s.Attempts(ctx, queue.AttemptQuery{RolloutID: rollout, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
		for i := range page.Items {
			call.Seen = append(call.Seen, seenAttempt(&page.Items[i]))
		}
		return err
	})
}

func seenOf(r *queue.AttemptedRollout) Seen {
	s := Seen{Rollout: r.RolloutID}
	if r.Attempt != nil {
		s = seenAttempt(r.Attempt)
	}
	s.Status, s.Mark = r.Status, markOf(r.Input)
	return s
}

func seenAttempt(a *queue.Attempt) Seen {
	s := Seen{Rollout: a.RolloutID, Attempt: a.AttemptID, Sequence: a.SequenceID, AttemptStatus: a.Status}
	if a.WorkerID != nil {
		s.Worker = *a.WorkerID
	}
	return s
}

// config is the plan as the store takes it.
func (p Plan) config() queue.Config {
	c := queue.DefaultConfig()
	c.MaxAttempts = p.MaxAttempts
	c.RetryCondition = append(c.RetryCondition, p.Retry...)
	if p.Timeout > 0 {
		c.TimeoutSeconds = &p.Timeout
	}
	if p.Unresponsive > 0 {
		c.UnresponsiveSeconds = &p.Unresponsive
	}
	return c
}

func inputOf(mark string) rawjson.Value { return rawjson.Value(fmt.Sprintf(`{"verify":%q}`, mark)) }

// markOf is "" for a rollout of others.
func markOf(input rawjson.Value) string { return input.Get("verify").Text() }

func (c *caller) spanOf(ref queue.AttemptRef, number int64) queue.Span {
	id, trace := c.hex(8), c.hex(16)
	start := float64(time.Now().UnixNano()) / 1e9
	return queue.Span{
		RolloutID: ref.RolloutID, AttemptID: ref.AttemptID, SequenceID: number,
		TraceID: trace, SpanID: id, Name: spanName(id), StartTime: &start, EndTime: &start,
		Status:     rawjson.Value(`{"status_code":"OK","description":null}`),
		Attributes: rawjson.Value(fmt.Sprintf(`{"verify":%q,"text":%q}`, id, strings.Repeat(id, 8))),
		Context:    rawjson.Value(fmt.Sprintf(`{"trace_id":%q,"span_id":%q,"is_remote":false,"trace_state":{}}`, trace, id)),
	}
}

func spanName(id string) string { return "verify." + id }

// whole reports whether a stored span has the content that spanOf gave it.
func whole(s *queue.Span) bool {
	return s.Name == spanName(s.SpanID) && s.Attribute("verify").Text() == s.SpanID &&
		s.Attribute("text").Text() == strings.Repeat(s.SpanID, 8)
}
