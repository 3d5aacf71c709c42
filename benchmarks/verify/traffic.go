package verify

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// board is what the clients of this process know of each other's rollouts.
type board struct {
	mu     sync.Mutex
	recent []string // the last rollouts enqueued, newest last

	queued   atomic.Int64 // rollouts in the queue, as last looked at
	enqueued atomic.Int64 // rollouts acknowledged
}

const boardSize = 300

func (b *board) post(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recent = append(b.recent, ids...)
	b.recent = b.recent[max(0, len(b.recent)-boardSize):]
	b.enqueued.Add(int64(len(ids)))
}

// pick takes up to n rollouts, newer ones rather than older ones.
func (b *board) pick(c *caller, n int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.recent) == 0 {
		return nil
	}
	reach := len(b.recent)
	if c.rng.IntN(3) > 0 {
		reach = min(reach, 40)
	}
	seen := make(map[string]bool, n)
	var out []string
	for range n {
		id := b.recent[len(b.recent)-1-c.rng.IntN(reach)]
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

// habits are the parameters of the traffic.
type habits struct {
	// Silence is how long a worker must be silent to lose what it holds, as far
	// as is known.
	Silence time.Duration
	// Leased says that the stores give leases: a rollout needs no limits of its
	// own to come back from a dead worker.
	Leased bool
}

// plan makes up the config of a rollout.
func (h habits) plan(c *caller) Plan {
	all := []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout, queue.AttemptUnresponsive}
	silence := h.Silence.Seconds()
	switch n := c.rng.IntN(10); {
	case n < 4 && h.Leased:
		return Plan{MaxAttempts: 1}
	case n < 6 && h.Leased:
		return Plan{MaxAttempts: 3, Retry: []queue.AttemptStatus{queue.AttemptFailed}}
	case n < 8:
		return Plan{MaxAttempts: 5, Retry: all, Unresponsive: silence * 0.6}
	case n < 9:
		return Plan{MaxAttempts: 3, Retry: all, Timeout: silence * 1.5, Unresponsive: silence}
	}
	return Plan{MaxAttempts: 2, Retry: all, Timeout: silence, Unresponsive: 0}
}

// produce enqueues until ctx ends: in bursts, up to a length of the queue, and
// then in a trickle that leaves it empty, so that claims have to wait.
func (c *caller) produce(ctx context.Context, b *board, h habits, backlog int64) {
	began := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		trickle := int(time.Since(began)/(2*time.Second))%2 == 1
		if b.queued.Load() > backlog || trickle {
			if !c.pause(ctx, 40, 160) {
				return
			}
		}
		if b.queued.Load() > backlog {
			continue
		}
		tasks := make([]Task, 1)
		if !trickle && c.rng.IntN(3) == 0 {
			tasks = make([]Task, 2+c.rng.IntN(7))
		}
		for i := range tasks {
			tasks[i] = Task{Mark: fmt.Sprintf("%s/%d/%d", c.name, n, i), Plan: h.plan(c)}
		}
		if ids, err := c.enqueue(ctx, tasks); err == nil {
			b.post(ids)
		}
		c.pause(ctx, 1, 10)
	}
}

// watch waits for rollouts and reads them until going ends; ctx is that of its
// calls.
func (c *caller) watch(ctx, going context.Context, b *board) {
	for going.Err() == nil {
		ids := b.pick(c, 1+c.rng.IntN(4))
		switch n := c.rng.IntN(10); {
		case len(ids) == 0:
		case n < 3:
			c.wait(ctx, ids, time.Duration(c.rng.IntN(500))*time.Millisecond)
		case n < 6:
			c.wait(ctx, ids, longWait)
		case n < 9:
			c.read(ctx, ids[0])
		default:
			c.attempts(ctx, ids[0])
		}
		c.pause(going, 2, 40)
	}
}

// race enqueues rollouts until going ends, has each waited for, and cancels it at
// about the moment at which the wait begins: a waiter that reads first and
// listens then misses it. Ctx is that of the calls.
func (c *caller) race(ctx, going context.Context, waiter *caller, h habits) {
	for n := 0; going.Err() == nil; n++ {
		ids, err := c.enqueue(ctx, []Task{{Mark: fmt.Sprintf("%s/%d", c.name, n), Plan: h.plan(c)}})
		if err == nil {
			var waiting sync.WaitGroup
			waiting.Go(func() {
				_ = sleep.For(ctx, time.Duration(waiter.rng.IntN(30_000))*time.Microsecond)
				waiter.wait(ctx, ids, longWait)
			})
			_ = sleep.For(ctx, time.Duration(c.rng.IntN(10_000))*time.Microsecond)
			_ = c.change(ctx, ids[0], OpCancel)
			waiting.Wait()
		}
		c.pause(going, 10, 60)
	}
}

// longWait is the timeout of a wait that nobody wants to see run out.
const longWait = 20 * time.Second

// meddle cancels and requeues rollouts until ctx ends, whatever they are at.
func (c *caller) meddle(ctx context.Context, b *board) {
	for ctx.Err() == nil {
		if ids := b.pick(c, 1); len(ids) > 0 {
			op := OpCancel
			if c.rng.IntN(5) < 2 {
				op = OpRequeue
			}
			_ = c.change(ctx, ids[0], op)
		}
		c.pause(ctx, 30, 250)
	}
}

// work claims and works off rollouts until ctx ends, as workers do: most in good
// order, some slowly, some not at all, and some come back when it is too late.
func (c *caller) work(ctx context.Context, h habits) {
	waits := []time.Duration{0, 100 * time.Millisecond, time.Second, 8 * time.Second}
	for ctx.Err() == nil {
		limit := 1
		if c.rng.IntN(5) == 0 {
			limit = 2 + c.rng.IntN(3)
		}
		claims, err := c.claim(ctx, limit, waits[c.rng.IntN(len(waits))])
		if err != nil || len(claims) == 0 {
			c.pause(ctx, 5, 60)
		}
		worker := c.worker()
		held := make([]queue.AttemptRef, len(claims))
		for i := range claims {
			held[i] = refOf(&claims[i])
		}
		for i := range held {
			if ctx.Err() != nil || !c.live(ctx, h, worker, held[i:]) {
				break
			}
		}
	}
}

func refOf(r *queue.AttemptedRollout) queue.AttemptRef {
	return queue.AttemptRef{RolloutID: r.RolloutID, AttemptID: r.Attempt.AttemptID}
}

// live does one of the attempts that the worker holds, the first. It reports
// false when the worker dies and leaves everything.
func (c *caller) live(ctx context.Context, h habits, worker string, held []queue.AttemptRef) bool {
	ref := held[0]
	end := OpFinish
	switch n := c.rng.IntN(100); {
	case n < 45:
		c.report(ctx, ref)
	case n < 60:
		end = OpFail
		c.report(ctx, ref)
	case n < 72: // too late, perhaps
		c.report(ctx, ref)
		_ = sleep.For(ctx, h.Silence/2+time.Duration(c.rng.Int64N(int64(2*h.Silence))))
		c.report(ctx, ref)
		if c.rng.IntN(2) == 0 {
			c.beat(ctx, worker, held)
		}
	case n < 80: // slow, but alive
		for range 6 {
			c.beat(ctx, worker, held)
			_ = sleep.For(ctx, h.Silence/4)
		}
		c.report(ctx, ref)
	case n < 86:
		c.lives++
		return false
	default: // at once
	}
	_ = c.end(ctx, ref, end)
	if c.rng.IntN(8) == 0 { // what comes too late is kept with the attempt
		_ = c.export(ctx, ref, 1)
	}
	return true
}

// report sends some spans of an attempt.
func (c *caller) report(ctx context.Context, ref queue.AttemptRef) {
	for range c.rng.IntN(3) {
		if c.rng.IntN(2) == 0 {
			_ = c.export(ctx, ref, 1+c.rng.IntN(4))
			continue
		}
		if number, err := c.number(ctx, ref.RolloutID); err == nil {
			_ = c.span(ctx, ref, number)
		}
	}
}

// finish works off what is left until ctx ends, in good order.
func (c *caller) finish(ctx context.Context) {
	for ctx.Err() == nil {
		claims, err := c.claim(ctx, 2, time.Second)
		if err != nil {
			c.pause(ctx, 50, 200)
		}
		for i := range claims {
			ref := refOf(&claims[i])
			c.report(ctx, ref)
			_ = c.end(ctx, ref, OpFinish)
		}
	}
}
