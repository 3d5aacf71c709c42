package operator

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// TestLook follows a store over two looks.
func TestLook(t *testing.T) {
	c := open(t, store.Options{})
	top := NewTop(c, c.clock)
	look := func() View {
		t.Helper()
		v, err := top.Look(t.Context())
		c.must(err)
		return v
	}
	if v := look(); !math.IsNaN(v.Finished) || v.Rewarded != 0 || len(v.Workers)+len(v.Running)+len(v.Errors) != 0 {
		t.Errorf("an empty store: %+v", v)
	}

	c.enqueue(8)
	slow := c.claim("w-slow")
	c.pass(30 * time.Second)
	quick := c.claim("w-quick")
	for i, reward := range []string{"1.0", "0.5", "NaN"} {
		r := c.claim("w-done")
		c.span(r, "agentlightning.annotation", `"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":`+strings.Replace(reward, "NaN", `"NaN"`, 1))
		for range 25 * i { // the reward is not always the last span
			c.span(r, "step", "")
		}
		c.end(r, queue.AttemptSucceeded, "")
	}
	for _, text := range []string{`boom 12\nat line 3`, "boom 7", "bang"} {
		c.end(c.claim("w-done"), queue.AttemptFailed, `{"error":"`+text+`"}`)
	}
	c.beat("w-quick", "{}")
	c.pass(queue.WorkerSilence*time.Second - 30*time.Second + time.Second)
	c.beat("w-quick", "{}")
	c.beat("w-done", "{}")
	c.beat("w-ended", `{"stopped":true}`)

	v := look()
	seconds := queue.WorkerSilence + 1.0
	if v.Enqueued != 8/seconds || v.Finished != 6/seconds || v.Spans != 78/seconds {
		t.Errorf("rates are %v enqueued, %v finished, %v spans", v.Enqueued, v.Finished, v.Spans)
	}
	if v.Rewarded != 1 || v.Reward != 1 {
		t.Errorf("the mean reward is %v of %d", v.Reward, v.Rewarded)
	}
	var workers, running []string
	for _, w := range v.Workers {
		workers = append(workers, w.WorkerID)
	}
	for _, r := range v.Running {
		running = append(running, r.RolloutID)
	}
	if diff := cmp.Diff([]string{"w-quick", "w-done", "w-ended", "w-slow"}, workers); diff != "" || v.Known != 4 || v.Alive != 2 || v.Busy != 1 {
		t.Errorf("%d workers, %d alive, %d busy: %s", v.Known, v.Alive, v.Busy, diff)
	}
	if diff := cmp.Diff([]string{slow.RolloutID, quick.RolloutID}, running); diff != "" || v.Active != 2 {
		t.Errorf("slowest first: %s", diff)
	}
	if len(v.Errors) != 2 || v.Errors[0].Text != "boom 12" || v.Errors[0].Count != 2 || v.Errors[1].Text != "bang" {
		t.Errorf("errors are %+v", v.Errors)
	}

	c.pass(time.Second)
	c.enqueue(5)
	if v = look(); v.Enqueued != 5 || v.Finished != 0 {
		t.Errorf("in the last second %v enqueued, %v finished", v.Enqueued, v.Finished)
	}
}

// TestLookGoesByTheLease takes no worker for alive that the store takes for dead.
func TestLookGoesByTheLease(t *testing.T) {
	c := open(t, store.Options{WorkerTTL: 10 * time.Second})
	c.beat("w", "{}")
	c.pass(11 * time.Second)
	v, err := NewTop(c, c.clock).Look(t.Context())
	c.must(err)
	if v.Known != 1 || v.Alive != 0 || v.workerGrid().rows[0][1] != "silent" {
		t.Errorf("%d alive, %v", v.Alive, v.workerGrid().rows)
	}
}

// TestErrorsGroup puts together what differs by ids and figures only.
func TestErrorsGroup(t *testing.T) {
	for _, group := range [][]string{
		{"rollout ro-99d2f5cf24a8 of at-59149a77 timed out after 31.5 s", "rollout ro-fc777a56e5f2 of at-00000000 timed out after 7 s"},
		{"no tool call 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "no tool call 00000000-0000-0000-0000-000000000000"},
		{"object at 0x7f8a3c is gone", "object at 0xAB12 is gone"},
		{"bad digest 9e107d9d372bb6826bd81d3542a419d6", "bad digest e4d909c290d0fb1ca068ffaddf22cbd0"},
		{"connect: 10.0.0.1:4747 refused", "connect: 10.0.12.31:80 refused"},
	} {
		if a, b := errorKey(group[0]), errorKey(group[1]); a != b {
			t.Errorf("%q and %q", a, b)
		}
	}
	for _, pair := range [][2]string{
		{"exit: exit status 3", "exit: exit status 4"}, {"HTTP 429", "HTTP 500"}, {"Error code: 429", "Error code: 500"},
		{"a defect", "b defect"}, {"timeout", "failed"},
	} {
		if errorKey(pair[0]) == errorKey(pair[1]) {
			t.Errorf("%q and %q are one", pair[0], pair[1])
		}
	}
}

// TestLookReadsAFewAtATime bounds what one look asks for: what it did not get to
// comes with the next ones.
func TestLookReadsAFewAtATime(t *testing.T) {
	c := open(t, store.Options{})
	const failures = newErrors + 3
	c.enqueue(failures)
	for range failures {
		c.end(c.claim("w"), queue.AttemptFailed, `{"error":"no"}`)
	}
	top := NewTop(c, c.clock)
	for _, want := range []int{newErrors, failures, failures} {
		v, err := top.Look(t.Context())
		c.must(err)
		if len(v.Errors) != 1 || v.Errors[0].Count != want {
			t.Errorf("errors are %+v, want %d", v.Errors, want)
		}
	}
}

func aView() View {
	at := func(f float64) *float64 { return &f }
	id := func(s string) *string { return &s }
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	seconds := queue.Seconds(now)
	return View{
		Time: now,
		Statistics: queue.Statistics{Rollouts: 12345, Uptime: 90 * time.Minute, ByStatus: map[queue.RolloutStatus]int64{
			queue.RolloutQueuing: 12000, queue.RolloutRunning: 2, queue.RolloutSucceeded: 343}},
		Enqueued: 1234.5, Finished: 9.87, Spans: math.NaN(), Reward: 0.123456, Rewarded: 20,
		Known: 3, Alive: 2, Busy: 1,
		Workers: []queue.Worker{
			{WorkerID: "w1", Status: queue.WorkerBusy, LastHeartbeatTime: at(seconds - 3), LastBusyTime: at(seconds - 75), CurrentRolloutID: id("ro-1")},
			{WorkerID: "漢字", Status: queue.WorkerIdle, LastHeartbeatTime: at(seconds - 1), LastIdleTime: at(seconds - 8000)},
			{WorkerID: "w\x1b[2J", Status: queue.WorkerBusy, LastHeartbeatTime: at(seconds - 300000)},
		},
		Active: 2,
		Running: []queue.AttemptedRollout{
			{Rollout: queue.Rollout{RolloutID: "ro-1", Input: rawjson.Value(`{"n":1}`)},
				Attempt: &queue.Attempt{SequenceID: 2, Status: queue.AttemptRunning, StartTime: seconds - 75, LastHeartbeatTime: at(seconds), WorkerID: id("w1")}},
			{Rollout: queue.Rollout{RolloutID: "ro-2", Input: rawjson.Null}},
		},
		Errors: []ErrorGroup{{Text: "ValueError: boom", Count: 7, RolloutID: "ro-9"}},
	}
}

func TestLines(t *testing.T) {
	const whole = `up 1h30m  03:04:05
queue    12,345 rollouts, 12,000 queuing, 2 running, 343 succeeded
rates    1,235 enqueued, 9.9 finished, ? spans a second  mean reward 0.1235 of the last 20
workers  3 known, 2 alive, 1 busy

WORKER  DOES    SIGN  FOR    ROLLOUT
w1      busy    3.0s  1m15s  ro-1
漢字    idle    1.0s  2h13m  -
w [2J   silent  3d    3d     -

SLOWEST  ATTEMPT    FOR    SIGN  WORKER  INPUT
ro-1     2 running  1m15s  0.0s  w1      {"n":1}
ro-2     none       -      -     -       null

FAILING  TIMES  ERROR
ro-9     7      ValueError: boom`
	if diff := cmp.Diff(whole, strings.Join(aView().Lines(0, 0), "\n")); diff != "" {
		t.Error(diff)
	}
	const small = `12,000 queued, 2 at work, 0 fai…
2 of 3 workers alive, 1 busy
1,235 in, 9.9 out a second

WORKER  DOES  SIGN  FOR    ROLL…
w1      busy  3.0s  1m15s  ro-1

SLOWEST  ATTEMPT    FOR    SIGN…
ro-1     2 running  1m15s  0.0s…

FAILING  TIMES  ERROR
ro-9     7      ValueError: boom`
	lines := aView().Lines(32, 12)
	if diff := cmp.Diff(small, strings.Join(lines, "\n")); diff != "" {
		t.Error(diff)
	}
}

// TestLowTerminalsShowARow leaves room for a table beneath the summary.
func TestLowTerminalsShowARow(t *testing.T) {
	for _, size := range [][2]int{{40, 11}, {40, 5}, {80, 7}, {200, 5}} {
		text := strings.Join(aView().Lines(size[0], size[1]), "\n")
		if !strings.Contains(text, "queu") || !strings.Contains(text, "\nw1 ") {
			t.Errorf("on %d columns and %d lines:\n%s", size[0], size[1], text)
		}
	}
}

// TestLinesFit draws hostile text on terminals of every size.
func TestLinesFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := aView()
		v.Workers[0].WorkerID = rapid.String().Draw(t, "worker")
		v.Errors[0].Text = rapid.String().Draw(t, "error")
		for range rapid.IntRange(0, 40).Draw(t, "more") {
			v.Workers = append(v.Workers, v.Workers[0])
		}
		width, height := rapid.IntRange(1, 120).Draw(t, "width"), rapid.IntRange(1, 60).Draw(t, "height")
		lines := v.Lines(width, height)
		if len(lines) > height {
			t.Fatalf("%d lines on %d", len(lines), height)
		}
		for _, line := range lines {
			if columns(line) > width || line != printable(line) {
				t.Fatalf("%q on %d columns", line, width)
			}
		}
	})
}

// mute is a store that cannot explain, as the reference's.
type mute struct{ *clinic }

func (m mute) Explain(context.Context, string) (queue.Explanation, error) {
	return queue.Explanation{}, queue.Errorf(queue.Invalid, "cannot explain")
}

func TestLookAtAStoreThatCannotExplain(t *testing.T) {
	c := open(t, store.Options{})
	c.enqueue(1)
	c.pass(time.Second)
	c.enqueue(1)
	c.end(c.claim("w"), queue.AttemptFailed, `{"error":"no\nluck"}`)
	c.end(c.claim("w"), queue.AttemptFailed, "")
	v, err := NewTop(mute{c}, c.clock).Look(t.Context())
	c.must(err)
	if len(v.Errors) != 2 || v.Errors[0].Text != "failed" || v.Errors[1].Text != "no" {
		t.Errorf("errors are %+v", v.Errors)
	}
}
