package queue

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue/rawjson"
)

// told is an explanation in the words that tests compare: the codes, the place
// in the queue, the holder, and what comes when.
func told(x Explanation) string {
	var parts []string
	for _, r := range x.Reasons {
		parts = append(parts, string(r.Code))
	}
	if x.Queue != nil {
		parts = append(parts, "ahead "+string(rawjson.AppendInt(nil, int64(x.Queue.Ahead))))
		if x.Queue.AheadOver {
			parts = append(parts, "or more")
		}
	}
	if x.Holder != nil {
		parts = append(parts, "held by", holderName(&Attempt{WorkerID: x.Holder.WorkerID}))
	}
	for _, e := range x.Next {
		parts = append(parts, e.Event)
		if e.At != nil {
			parts = append(parts, "@"+string(rawjson.AppendFloat(nil, *e.At)))
		}
	}
	return strings.Join(parts, " ")
}

func workerSeen(id string, status WorkerStatus, at float64) *Worker {
	w := NewWorker(id)
	w.Status = status
	if at > 0 {
		w.Beat(nil, at)
	}
	return w
}

// asked is a worker that last asked for work at a time.
func asked(w *Worker, at float64) *Worker {
	w.LastDequeueTime = &at
	return w
}

// ended is a worker whose last heartbeat said that it ends.
func ended(w *Worker, at float64) *Worker {
	w.Beat(rawjson.Value(`{"stopped":true}`), at)
	return w
}

func TestExplain(t *testing.T) {
	idle, busy := asked(workerSeen("i", WorkerIdle, 190), 195), workerSeen("b", WorkerBusy, 190)
	gone, never := workerSeen("g", WorkerBusy, 100), workerSeen("n", WorkerUnknown, 0)
	mute, deaf := asked(workerSeen("m", WorkerIdle, 195), 160), workerSeen("d", WorkerUnknown, 195)
	left := ended(workerSeen("l", WorkerIdle, 180), 195)
	tests := []struct {
		name    string
		s       *story
		now     float64
		ahead   int
		workers []*Worker
		want    string
		says    string // part of the summary
		ttl     float64
	}{
		{"no worker", newStory(retrying(1)), 200, 3, nil, "no_worker behind ahead 3 claim", "no worker has ever asked", 0},
		{"no sign ever", newStory(retrying(1)), 200, 0, []*Worker{never}, "workers_gone next ahead 0 claim", "none of 1 worker has", 0},
		{"workers gone", newStory(retrying(1)), 200, 0, []*Worker{gone, never}, "workers_gone next ahead 0 claim", "came from g, 1m40s ago", 0},
		{"at the edge of silence", newStory(retrying(1)), 190, 0, []*Worker{gone}, "workers_busy next ahead 0 claim", "1 worker is alive", 0},
		{"workers busy", newStory(retrying(1)), 200, 1, []*Worker{busy, gone}, "workers_busy behind ahead 1 claim", "behind 1 other in", 0},
		{"a worker is free", newStory(retrying(1)), 200, 0, []*Worker{busy, idle}, "next ahead 0 claim", "queuing: the next to be claimed", 0},
		{"free workers that do not ask", newStory(retrying(1)), 200, 0, []*Worker{busy, mute, deaf}, "workers_idle next ahead 0 claim",
			"2 workers are free, but without having asked for work for 40s", 0},
		{"a free worker that never asked", newStory(retrying(1)), 200, 0, []*Worker{deaf}, "workers_idle next ahead 0 claim",
			"1 worker is free, but without ever having asked for work", 0},
		{"workers gone by the lease", newStory(retrying(1)), 203, 0, []*Worker{idle, busy}, "workers_gone next ahead 0 claim", "came from i, 8s ago", 5},
		{"a lease longer than the silence", newStory(retrying(1)), 191, 0, []*Worker{gone}, "workers_gone next ahead 0 claim", "g, 1m31s ago", 600},
		{"a worker that ended", newStory(retrying(1)), 200, 0, []*Worker{left}, "workers_gone next ahead 0 claim", "no worker is alive: of 1 worker", 0},
		{"a worker that began again", newStory(retrying(1)), 200, 0, []*Worker{asked(ended(workerSeen("l", WorkerIdle, 0), 180), 195)},
			"next ahead 0 claim", "the next", 0},
		{"counted to the bound", newStory(retrying(1)), 200, 1000, []*Worker{idle}, "behind ahead 1000 claim", "behind 1000 others", 0},
		{"beyond the bound", newStory(retrying(1)), 200, 1001, []*Worker{idle}, "behind ahead 1000 or more claim", "more than 1000", 0},
		{"requeued", newStory(retrying(2, AttemptFailed)).claim("a", "w").report("a", AttemptFailed), 200, 0, []*Worker{idle},
			"next ahead 0 claim", "requeuing: ", 0},

		{"held", newStory(limits(60, 20, 1)).claim("a", "b"), 110, 0, []*Worker{workerSeen("b", WorkerBusy, 105)},
			"held held by worker b unresponsive @120.0 timeout @160.0 report", "attempt 1, held by worker b for 10s, has sent no span yet; last sign of life 5s ago", 0},
		{"held and running", newStory(limits(60, 20, 1)).claim("a", "b").at(108).spans("a"), 110, 0, nil,
			"held held by worker b unresponsive @128.0 timeout @160.0 report", "for 10s; last sign of life 2s ago", 0},
		{"under a lease", leased(30, retrying(1)).claim("a", "b"), 110, 0, []*Worker{workerSeen("b", WorkerBusy, 105)},
			"held held by worker b lease_end @135.0 report", "preparing: ", 0},
		{"by nobody in particular", newStory(retrying(1)).claim("a", ""), 110, 0, nil,
			"held unwatched held by a caller that gave no worker id report", "a caller that gave no worker id", 0},
		{"silent and unwatched", newStory(retrying(1)).claim("a", "g"), 300, 0, []*Worker{gone},
			"held silent unwatched held by worker g report", "--worker-ttl", 0},
		{"silent by the lease", newStory(retrying(1)).claim("a", "g"), 140, 0, []*Worker{gone},
			"held silent unwatched held by worker g report", "sign of life for 40s", 30},
		{"held by a worker that ended", newStory(retrying(1)).claim("a", "l"), 200, 0, []*Worker{left},
			"held silent unwatched held by worker l report", "its worker has ended", 0},
		{"a heartbeat of 0 switches silence off", beatAt(newStory(limits(0, 5, 1)).claim("a", "w"), "a", 0), 150, 0, nil,
			"held unwatched held by worker w report", "preparing", 0},
		{"overdue", newStory(limits(10, 0, 1)).claim("a", "b"), 111, 0, nil,
			"held overdue held by worker b timeout @110.0 report", "timeout_seconds are exceeded since 1s", 0},
		{"no time in a number", newStory(limits(math.MaxFloat64, 0, 1)).at(math.MaxFloat64).claim("a", "b"), 110, 0, nil,
			"held held by worker b timeout report", "held", 0},
		{"shown running without attempts", newStory(retrying(1)).set(RolloutRunning), 110, 0, []*Worker{idle},
			"unheld nothing", "aglq requeue", 0},
		{"shown running after its attempt", newStory(limits(10, 0, 1)).claim("a", "b").report("a", AttemptFailed).set(RolloutRunning),
			105, 0, nil, "unheld timeout @110.0 nothing", "number 1, has ended (failed)", 0},

		{"succeeded", newStory(retrying(1)).claim("a", "b").at(130).report("a", AttemptSucceeded), 200, 0, nil,
			"finished nothing", "attempt 1 succeeded 1m10s ago, 30s after it was enqueued", 0},
		{"failed, no retry wanted", newStory(retrying(3)).claim("a", "b").report("a", AttemptFailed), 200, 0, nil,
			"finished nothing", "failed is not in its retry_condition", 0},
		{"failed, no retry left", newStory(retrying(1, AttemptFailed)).claim("a", "b").report("a", AttemptFailed), 200, 0, nil,
			"finished nothing", "no attempt is left of max_attempts 1", 0},
		{"failed by hand", newStory(retrying(1)).set(RolloutFailed), 200, 0, nil, "finished nothing", "no attempt was made", 0},
		{"succeeded by hand", newStory(retrying(1)).claim("a", "b").set(RolloutSucceeded), 200, 0, nil,
			"finished nothing", "number 1, is preparing", 0},
		{"failed, with a config that retries", newStory(retrying(1)).claim("a", "b").report("a", AttemptFailed).configured(retrying(3, AttemptFailed)),
			200, 0, nil, "finished nothing", "the config has changed since", 0},
		{"cancelled", newStory(retrying(1)).claim("a", "b").set(RolloutCancelled), 200, 0, nil,
			"finished nothing", "cancelled by a caller 1m40s ago", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := Explain(Evidence{Record: tt.s.Record, Now: tt.now, Ahead: tt.ahead, Workers: tt.workers, WorkerTTL: tt.ttl})
			if got := told(x); got != tt.want {
				t.Errorf("it says %q\nwant    %q", got, tt.want)
			}
			if !strings.Contains(x.Summary, tt.says) {
				t.Errorf("the summary is %q, without %q", x.Summary, tt.says)
			}
			if _, err := json.Marshal(x); err != nil {
				t.Errorf("it does not go over the wire: %v", err)
			}
		})
	}
}

func (s *story) configured(c Config) *story {
	s.Update(RolloutUpdate{Config: Set(c)}, s.now)
	return s
}

// TestConsequences checks what a limit is said to mean against what the
// watchdog then does.
func TestConsequences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawActive(t)
		said := l.consequence(AttemptTimeout)
		r := l.Clone()
		now := r.Latest().StartTime + *r.Rollout.Config.TimeoutSeconds + 1
		if _, expired := r.Expire(nil, now); !expired || r.Latest().Status != AttemptTimeout {
			t.Fatalf("no timeout: %+v", r.Latest())
		}
		if requeued := r.Rollout.Status == RolloutRequeuing; requeued != strings.Contains(said, "requeued") {
			t.Fatalf("said %q, the rollout is %s", said, r.Rollout.Status)
		}
	})
}

// TestDeadlinesAreWhatTheWatchdogKeeps checks that the list of limits and the
// due time that the watchdog goes by are one rule.
func TestDeadlinesAreWhatTheWatchdogKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawActive(t)
		l.schedule(nil)
		first := math.Inf(1)
		for _, d := range l.deadlines(nil) {
			first = min(first, d.at)
		}
		if l.Due != first {
			t.Fatalf("due at %v, the earliest limit is at %v", l.Due, first)
		}
	})
}

// drawActive is a rollout held by an attempt, with a timeout and perhaps other
// limits.
func drawActive(t *rapid.T) *Record {
	c := drawConfig(t)
	timeout := float64(rapid.IntRange(1, 50).Draw(t, "timeout"))
	c.TimeoutSeconds = &timeout
	r := NewRecord("ro", Request{Config: &c}, true, 100)
	for i := range rapid.IntRange(1, 4).Draw(t, "attempts") {
		r.Begin(string(rune('a'+i)), ptr(rapid.SampledFrom([]string{"", "w"}).Draw(t, "worker")), true,
			float64(rapid.IntRange(0, 20).Draw(t, "lease")), 100+float64(i))
	}
	if rapid.Bool().Draw(t, "beaten") {
		r.beat(r.Latest(), 100+float64(rapid.IntRange(1, 9).Draw(t, "beat")))
	}
	return r
}

func TestAttemptStories(t *testing.T) {
	exception, failure := &AttemptError{Type: "ValueError", Message: "boom"}, &AttemptError{Message: "429"}
	told := `{"error":"exit status 3"}`
	tests := []struct {
		name     string
		metadata string
		trace    Trace
		want     string // of a failed attempt
	}{
		{"nothing", "", Trace{}, "failed after 5s, 0 spans"},
		{"exception", "", Trace{2, exception, failure}, "failed after 5s, 2 spans: ValueError: boom"},
		{"failure", "", Trace{1, nil, failure}, "failed after 5s, 1 span: 429"},
		{"metadata", told, Trace{}, "failed after 5s, 0 spans: exit status 3"},
		{"metadata before a guess", told, Trace{1, nil, failure}, "failed after 5s, 1 span: exit status 3"},
		{"an exception before metadata", told, Trace{1, exception, nil}, "failed after 5s, 1 span: ValueError: boom"},
		{"metadata that is no text", `{"error":{"code":3}}`, Trace{}, `failed after 5s, 0 spans: {"code":3}`},
	}
	for _, tt := range tests {
		s := newStory(retrying(1)).claim("a", "w").at(105)
		u := AttemptUpdate{Status: Set(AttemptFailed)}
		if tt.metadata != "" {
			u.Metadata = Set(rawjson.Value(tt.metadata))
		}
		if _, _, err := s.UpdateAttempt("a", u, 105); err != nil {
			t.Fatal(err)
		}
		x := Explain(Evidence{Record: s.Record, Now: 200, Traces: map[string]Trace{"a": tt.trace}})
		if got := x.Attempts[0].Text; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}

	outcomes := []struct {
		name string
		s    *story
		want []string
	}{
		{"given up", newStory(retrying(1)).claim("a", "v").claim("b", "w").at(107), []string{"given up for the next one", "at work for 7s"}},
		{"timed out", newStory(limits(5, 0, 1)).claim("a", "v").at(106).watch(), []string{"ran longer than its limit"}},
		{"silent", newStory(limits(0, 5, 1)).claim("a", "v").at(106).watch(), []string{"silent for longer"}},
		{"lost", leased(5, retrying(1)).claim("a", "v").at(106).watch(), []string{"its worker died; not charged"}},
		{"put back", newStory(retrying(1)).claim("a", "v").set(RolloutQueuing), []string{"left open: the rollout was put back"}},
		{"cancelled", newStory(retrying(1)).claim("a", "v").set(RolloutCancelled), []string{"left open: the rollout is cancelled"}},
	}
	for _, tt := range outcomes {
		for i, story := range Explain(Evidence{Record: tt.s.Record, Now: tt.s.now}).Attempts {
			if !strings.HasPrefix(story.Text, tt.want[i]) {
				t.Errorf("%s: attempt %d %q, want %q…", tt.name, i, story.Text, tt.want[i])
			}
		}
	}

	s := newStory(retrying(1)).claim("a", "w")
	traces := map[string]Trace{"a": {1, &AttemptError{Message: strings.Repeat("ä", maxErrorMessage)}, nil}}
	message := Explain(Evidence{Record: s.Record, Now: 200, Traces: traces}).Attempts[0].Error.Message
	if len(message) > maxErrorMessage+len("…") || !utf8.ValidString(message) {
		t.Errorf("a long message is %d bytes long", len(message))
	}
	s.report("a", AttemptSucceeded)
	if e := Explain(Evidence{Record: s.Record, Now: 200, Traces: traces}).Attempts[0].Error; e != nil {
		t.Errorf("an attempt that succeeded has the error %+v", e)
	}
}

func TestDurationInWords(t *testing.T) {
	for seconds, want := range map[float64]string{
		-3: "0s", 0: "0s", 0.25: "0.2s", 9: "9s", 9.96: "10s", 59.9: "59s", 60: "1m0s", 3599: "59m59s", 3600: "1h0m",
		47 * 3600: "47h0m", 49 * 3600: "2d01h", 1e12: "for ever", math.Inf(1): "for ever",
	} {
		if got := duration(seconds); got != want {
			t.Errorf("%v seconds are %q, want %q", seconds, got, want)
		}
	}
	if got := duration(math.NaN()); got != "for ever" {
		t.Errorf("no number of seconds is %q", got)
	}
}
