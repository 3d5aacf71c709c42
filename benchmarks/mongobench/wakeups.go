package mongobench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aglq/aglq/benchmarks"
)

// WakeupsTable tells how soon a waiting call is answered.
type WakeupsTable struct {
	Rows []*WakeupsRow `json:"rows"`
}

// WakeupsRow is one kind of wake-up. Times are from the moment at which the
// call that wakes is sent, so they hold that call's own commit, to the waiting
// call's answer.
type WakeupsRow struct {
	What   string             `json:"what"`
	Stores int                `json:"stores"` // 2: the two calls go to different ones
	Late   int                `json:"over_20_ms"`
	Times  benchmarks.Latency `json:"latency"` // of all rounds together
	times  []time.Duration
}

// WriteText implements Table.
func (t *WakeupsTable) WriteText(w io.Writer) error {
	fmt.Fprintln(w, "from sending the call that wakes to the waiting call's answer, over HTTP")
	_, err := fmt.Fprintf(w, "%-18s %7s %8s %8s %8s %8s %8s %10s\n", "wake-up", "stores", "count", "p50 ms", "p95 ms", "p99 ms", "max ms", "over 20 ms")
	for _, r := range t.Rows {
		_, err = fmt.Fprintf(w, "%-18s %7d %8d %8.2f %8.2f %8.2f %8.2f %10d\n", r.What, r.Stores, r.Times.Count,
			r.Times.P50, r.Times.P95, r.Times.P99, r.Times.Max, r.Late)
	}
	return err
}

func (b *bench) wakeups(ctx context.Context) (Table, error) {
	t := &WakeupsTable{}
	for _, stores := range []int{1, 2} {
		t.Rows = append(t.Rows,
			&WakeupsRow{What: "enqueue to claim", Stores: stores}, &WakeupsRow{What: "finish to wait", Stores: stores})
	}
	name, drop := b.database()
	defer drop()
	servers, stop, err := b.servers(ctx, 2, name)
	if err != nil {
		return nil, err
	}
	defer stop()
	for round := range b.Rounds {
		for i := 0; i < len(t.Rows); i += 2 {
			b.Progress(fmt.Sprintf("wake-ups, round %d: through %d", round+1, t.Rows[i].Stores))
			if err := b.wake(ctx, servers[0].URL, servers[t.Rows[i].Stores-1].URL, t.Rows[i], t.Rows[i+1]); err != nil {
				return nil, err
			}
		}
	}
	for _, row := range t.Rows {
		for _, d := range row.times {
			if d > 20*time.Millisecond {
				row.Late++
			}
		}
		row.Times = benchmarks.LatencyOf(row.What, row.times)
	}
	return t, nil
}

// settle is how long a call is given to reach the store and wait there: nothing
// says from outside when it does.
const settle = 25 * time.Millisecond

// wake times wake-ups one after another: a call waits at one store, another
// call wakes it through the other.
func (b *bench) wake(ctx context.Context, waitAt, wakeAt string, enqueues, finishes *WakeupsRow) error {
	waiting, err := benchmarks.Dial(waitAt)
	if err != nil {
		return err
	}
	defer waiting.Close()
	waking, err := benchmarks.Dial(wakeAt)
	if err != nil {
		return err
	}
	defer waking.Close()
	for i := 0; i < b.Samples && ctx.Err() == nil; i++ {
		claim, took, err := timeWake(waiting, "/v1/agl/queues/rollouts/dequeue", []byte(`{"limit":1,"worker_id":"Worker-0","wait_seconds":30}`),
			func() error {
				_, _, err := waking.Expect(201, "POST", "/v1/agl/queues/rollouts/enqueue", []byte(`{"rollouts":[{"input":`+task+`}]}`))
				return err
			})
		if err != nil {
			return err
		}
		rollout, attempt := benchmarks.Member(claim, "rollout_id"), benchmarks.Member(claim, "attempt_id")
		if rollout == "" {
			return fmt.Errorf("a waiting claim answered %.200s", claim)
		}
		enqueues.times = append(enqueues.times, took)

		done, took, err := timeWake(waiting, "/v1/agl/waits/rollouts", fmt.Appendf(nil, `{"rollout_ids":[%q],"timeout":30.0}`, rollout),
			func() error {
				_, _, err := waking.Expect(200, "POST", "/v1/agl/rollouts/"+rollout+"/attempts/"+attempt, []byte(`{"status":"succeeded"}`))
				return err
			})
		if err != nil {
			return err
		}
		if !bytes.Contains(done, []byte(rollout)) {
			return fmt.Errorf("a wait for rollout %s answered %.200s", rollout, done)
		}
		finishes.times = append(finishes.times, took)
	}
	return ctx.Err()
}

// timeWake sends a call that waits, lets it settle, wakes it, and returns its
// answer and the time from the wake to the answer.
func timeWake(waiting *benchmarks.Conn, path string, body []byte, wake func() error) ([]byte, time.Duration, error) {
	var answer []byte
	var answered time.Time
	ended := make(chan error, 1)
	go func() {
		_, got, err := waiting.Expect(200, "POST", path, body)
		answer, answered = got, time.Now()
		ended <- err
	}()
	time.Sleep(settle)
	start := time.Now()
	err := wake()
	if failed := <-ended; err == nil {
		err = failed
	}
	return answer, answered.Sub(start), err
}
