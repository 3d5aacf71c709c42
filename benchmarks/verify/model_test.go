package verify

import (
	"fmt"
	"testing"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// inTurn makes a history of events that follow each other.
func inTurn(events ...event) []entry {
	var out []entry
	for i, e := range events {
		out = append(out, entry{begin: int64(10 * i), end: int64(10*i + 5), event: e})
	}
	return out
}

func TestLives(t *testing.T) {
	retrying := Plan{MaxAttempts: 2, Retry: []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptUnresponsive}}
	watched := retrying
	watched.Unresponsive = 1
	seen := func(status standing, attempt, number int, latest standing) event {
		return looked{status: status, attempt: attempt, number: number, latest: latest}
	}
	tests := []struct {
		name   string
		rules  rules
		events []event
		wrong  bool
	}{
		{"a life", rules{}, []event{created{}, claimed{0, 1}, ended{0, succeeded}, seen(succeeded, 0, 1, succeeded)}, false},
		{"claimed before it was enqueued", rules{}, []event{claimed{0, 1}, created{}}, true},
		{"claimed twice", rules{}, []event{created{}, claimed{0, 1}, claimed{1, 2}}, true},
		{"claimed again after a failure", rules{plan: retrying}, []event{created{}, claimed{0, 1}, ended{0, failed}, claimed{1, 2}}, false},
		{"claimed again after the last failure", rules{plan: retrying},
			[]event{created{}, claimed{0, 1}, ended{0, failed}, claimed{1, 2}, ended{1, failed}, claimed{2, 3}}, true},
		{"claimed again without a lease", rules{}, []event{created{}, claimed{0, 1}, claimed{1, 2}}, true},
		{"claimed again with a lease", rules{leased: true}, []event{created{}, claimed{0, 1}, claimed{1, 2}}, false},
		{"fenced", rules{leased: true}, []event{created{}, claimed{0, 1}, claimed{1, 2}, ended{0, succeeded}, seen(active, 1, 2, active)}, false},
		{"not fenced", rules{leased: true}, []event{created{}, claimed{0, 1}, claimed{1, 2}, ended{0, succeeded}, seen(succeeded, 1, 2, active)}, true},
		{"cancelled stays cancelled", rules{}, []event{created{}, claimed{0, 1}, set{cancelled}, ended{0, succeeded}, seen(cancelled, 0, 1, succeeded)}, false},
		{"cancelled does not stay", rules{}, []event{created{}, claimed{0, 1}, set{cancelled}, ended{0, succeeded}, seen(succeeded, 0, 1, succeeded)}, true},
		{"revived by a span", rules{plan: watched},
			[]event{created{}, claimed{0, 1}, spanSent{0}, seen(requeuing, 0, 1, silent), seen(active, 0, 1, active)}, false},
		{"revived by nothing", rules{plan: watched},
			[]event{created{}, claimed{0, 1}, seen(requeuing, 0, 1, silent), seen(active, 0, 1, active)}, true},
		{"lost is not charged", rules{plan: Plan{MaxAttempts: 1}, leased: true},
			[]event{created{}, claimed{0, 1}, seen(requeuing, 0, 1, silent), claimed{1, 2}, seen(requeuing, 1, 2, silent)}, false},
		{"silence is charged", rules{plan: watched},
			[]event{created{}, claimed{0, 1}, seen(requeuing, 0, 1, silent), claimed{1, 2}, seen(requeuing, 1, 2, silent)}, true},
		{"held", rules{}, []event{created{}, claimed{0, 1}, held{0, true, active}}, false},
		{"held after its end", rules{}, []event{created{}, claimed{0, 1}, ended{0, failed}, held{0, true, active}}, true},
		{"a wait that is right", rules{}, []event{created{}, unfinished{}, claimed{0, 1}, ended{0, failed}, finishedAs{failed}}, false},
		{"a wait that forgets", rules{}, []event{created{}, claimed{0, 1}, ended{0, failed}, unfinished{}}, true},
		{"a number too many", rules{}, []event{created{}, claimed{0, 2}}, true},
		{"unknown, and it did", rules{}, []event{created{}, maybe{claimed{0, 1}}, seen(active, 0, 1, active)}, false},
		{"unknown, and it did not", rules{}, []event{created{}, maybe{set{cancelled}}, seen(queuing, -1, 0, absent)}, false},
		{"gone", rules{}, []event{created{}, noRollout{}}, true},
		{"no attempt", rules{}, []event{created{}, claimed{0, 1}, noAttempt{0}}, true},
		{"listed", rules{leased: true}, []event{created{}, claimed{0, 1}, claimed{1, 2}, &listed{[]int{0, 1}, []standing{silent, active}}}, false},
		{"one missing in the list", rules{leased: true}, []event{created{}, claimed{0, 1}, claimed{1, 2}, &listed{[]int{1}, []standing{active}}}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.rules.plan.MaxAttempts == 0 {
				test.rules.plan.MaxAttempts = 1
			}
			want := porcupine.Ok
			if test.wrong {
				want = porcupine.Illegal
			}
			if got := test.rules.judge(inTurn(test.events...)); got != want {
				t.Errorf("the verdict is %s, want %s", got, want)
			}
		})
	}
}

// TestModelTakesTheRules plays random lives by the rules of package queue: the
// model must find each of them right.
func TestModelTakesTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := Plan{MaxAttempts: rapid.Int64Range(1, 3).Draw(t, "max")}
		for _, s := range []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout, queue.AttemptUnresponsive} {
			if rapid.Bool().Draw(t, "retry "+string(s)) {
				plan.Retry = append(plan.Retry, s)
			}
		}
		plan.Timeout = rapid.SampledFrom([]float64{0, 30}).Draw(t, "timeout")
		plan.Unresponsive = rapid.SampledFrom([]float64{0, 10}).Draw(t, "unresponsive")
		lease := rapid.SampledFrom([]float64{0, 20}).Draw(t, "lease")
		r := &recordedLife{plan: plan, lease: lease, now: 1000}
		r.begin()
		for range rapid.IntRange(0, 25).Draw(t, "steps") {
			r.step(t)
		}
		rules := rules{plan: plan, leased: lease > 0}
		if verdict := rules.judge(inTurn(r.events...)); verdict != porcupine.Ok {
			t.Fatalf("the verdict on a right life is %s: %v", verdict, r.events)
		}
	})
}

// recordedLife is a queue.Record and what was seen of it.
type recordedLife struct {
	plan   Plan
	lease  float64
	now    float64
	record *queue.Record
	events []event
}

func (r *recordedLife) begin() {
	config := r.plan.config()
	r.record = queue.NewRecord("ro-1", queue.Request{Input: rawjson.Null, Config: &config}, true, r.now)
	r.events = append(r.events, created{})
}

func (r *recordedLife) step(t *rapid.T) {
	r.now += rapid.SampledFrom([]float64{0, 1, 15, 40}).Draw(t, "time")
	if rapid.Bool().Draw(t, "scan") {
		r.record.Expire(nil, r.now)
	}
	worker, n := "w", len(r.record.Attempts)
	pick := func() int { return rapid.IntRange(0, n-1).Draw(t, "attempt") }
	switch kind := rapid.IntRange(0, 6).Draw(t, "kind"); {
	case kind == 0 && r.record.Rollout.Status.Queued():
		r.record.Begin(fmt.Sprint(n), &worker, true, r.lease, r.now)
		r.events = append(r.events, claimed{n, n + 1})
	case kind == 1 && n > 0:
		i := pick()
		r.events = append(r.events, spanSent{i})
		r.record.SpansStored(fmt.Sprint(i), 1, r.now)
	case kind == 2 && n > 0:
		i, as, s := pick(), succeeded, queue.AttemptSucceeded
		if rapid.Bool().Draw(t, "fails") {
			as, s = failed, queue.AttemptFailed
		}
		if _, _, err := r.record.UpdateAttempt(fmt.Sprint(i), queue.AttemptUpdate{Status: queue.Set(s)}, r.now); err != nil {
			t.Fatal(err)
		}
		r.events = append(r.events, ended{i, as})
	case kind == 3:
		to, s := cancelled, queue.RolloutCancelled
		if rapid.Bool().Draw(t, "requeues") {
			to, s = requeuing, queue.RolloutRequeuing
		}
		r.record.Update(queue.RolloutUpdate{Status: queue.Set(s)}, r.now)
		r.events = append(r.events, set{to})
	case kind == 4 && n > 0:
		i := pick()
		is := r.record.Renew(fmt.Sprint(i), r.now)
		r.events = append(r.events, held{i, is, standingOf(r.record.Rollout.Status)})
	case kind == 5:
		r.events = append(r.events, r.look())
	}
}

func (r *recordedLife) look() event {
	e := looked{status: standingOf(r.record.Rollout.Status), attempt: -1}
	if a := r.record.Latest(); a != nil {
		e.attempt, e.number, e.latest = len(r.record.Attempts)-1, int(a.SequenceID), attemptStanding(a.Status)
	}
	return e
}
