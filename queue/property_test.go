package queue

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// life drives one record through random events and checks after each of them
// what must hold whatever happened before.
type life struct {
	r       *Record
	workers map[string]*Worker
	now     float64
	next    int   // of the last attempt
	place   int64 // the last one given
}

func TestRecordInvariants(t *testing.T) {
	// A life is short, so that failures shrink well; there are many of them.
	const rounds = 40
	for range rounds {
		rapid.Check(t, liveAndCheck)
		if t.Failed() {
			return
		}
	}
}

func liveAndCheck(t *rapid.T) {
	l := &life{now: 1000, workers: map[string]*Worker{"w1": NewWorker("w1"), "w2": NewWorker("w2")}}
	config := drawConfig(t)
	l.r = NewRecord("ro", Request{Config: &config}, rapid.Bool().Draw(t, "queued"), l.now)
	l.number()
	t.Repeat(map[string]func(*rapid.T){
		"claim":         l.claim,
		"start":         l.start,
		"unclaim":       l.unclaim,
		"spans":         l.spans,
		"renew":         l.renew,
		"updateAttempt": l.updateAttempt,
		"update":        l.update,
		"expire":        l.expire,
		"heartbeat":     l.heartbeat,
		"wait":          func(t *rapid.T) { l.now += float64(rapid.IntRange(1, 40).Draw(t, "seconds")) },
		"":              l.check,
	})
}

func drawConfig(t *rapid.T) Config {
	limit := rapid.Ptr(rapid.Map(rapid.IntRange(0, 60), func(n int) float64 { return float64(n) }), true)
	return Config{
		TimeoutSeconds:      limit.Draw(t, "timeout"),
		UnresponsiveSeconds: limit.Draw(t, "unresponsive"),
		MaxAttempts:         rapid.Int64Range(1, 4).Draw(t, "max_attempts"),
		RetryCondition:      rapid.SliceOfDistinct(rapid.SampledFrom(AttemptStatuses), rapid.ID).Draw(t, "retry_condition"),
	}
}

// number does what a backend does on a write.
func (l *life) number() {
	if l.r.Place == Tail {
		l.place++
		l.r.Place = l.place
	}
}

// attemptID is that of some attempt, the later ones more often; "at-0" is none.
func (l *life) attemptID(t *rapid.T) string {
	back := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "attempts back")
	if at := len(l.r.Attempts) - 1 - back; at >= 0 {
		return l.r.Attempts[at].AttemptID
	}
	return "at-0"
}

func (l *life) begin(t *rapid.T, claimed bool) {
	l.next++
	worker := rapid.SampledFrom([]*string{nil, ptr(""), ptr("w1"), ptr("w2")}).Draw(t, "worker")
	lease := float64(rapid.SampledFrom([]int{0, 15, 50}).Draw(t, "lease"))
	l.apply(l.r.Begin(fmt.Sprint("at-", l.next), worker, claimed, lease, l.now))
}

func (l *life) apply(events []WorkerEvent) {
	for _, e := range events {
		l.workers[e.WorkerID].Apply(e, l.now)
	}
}

func (l *life) claim(t *rapid.T) {
	if l.r.Rollout.Status.Queued() {
		l.begin(t, true)
	}
}

func (l *life) start(t *rapid.T) {
	// Callers start attempts now and then, so that automatic retries have a say.
	if rapid.IntRange(0, 2).Draw(t, "rare") == 0 {
		l.begin(t, false)
	}
}

func (l *life) unclaim(t *rapid.T) {
	before := len(l.r.Attempts)
	events, ok := l.r.Unclaim(l.attemptID(t), 0)
	if ok != (len(l.r.Attempts) == before-1) {
		t.Fatalf("unclaim said %t with %d attempts before and %d after", ok, before, len(l.r.Attempts))
	}
	l.apply(events)
}

func (l *life) spans(t *rapid.T) {
	l.r.SpansStored(l.attemptID(t), rapid.IntRange(1, 3).Draw(t, "n"), l.now)
}

func (l *life) renew(t *rapid.T) { l.r.Renew(l.attemptID(t), l.now) }

func (l *life) heartbeat(t *rapid.T) {
	l.workers[rapid.SampledFrom([]string{"w1", "w2"}).Draw(t, "worker")].Beat(nil, l.now)
}

// fenced reports whether an attempt may no longer change its rollout.
func (l *life) fenced(a *Attempt) bool {
	return a != l.r.Latest() || a.Status.Terminal() || l.r.Rollout.Status.Finished()
}

func (l *life) updateAttempt(t *rapid.T) {
	id := l.attemptID(t)
	if rapid.Bool().Draw(t, "by latest") {
		id = "latest"
	}
	a := l.r.Attempt(id)
	if a == nil {
		return
	}
	var u AttemptUpdate
	if rapid.Bool().Draw(t, "status set") {
		u.Status = Set(rapid.SampledFrom(AttemptStatuses).Draw(t, "status"))
	}
	if rapid.IntRange(0, 3).Draw(t, "worker set") == 0 {
		u.WorkerID = Set(rapid.SampledFrom([]string{"", "w1", "w2"}).Draw(t, "worker"))
	}
	if rapid.IntRange(0, 3).Draw(t, "heartbeat set") == 0 {
		u.LastHeartbeatTime = Set(rapid.SampledFrom([]float64{0, 1, l.now - 5, l.now, l.now + 30}).Draw(t, "heartbeat"))
	}
	fenced, before, end := l.fenced(a), l.r.Rollout, a.EndTime
	retry := u.Status.Set && !fenced && !before.Status.Queued()
	_, events, err := l.r.UpdateAttempt(a.AttemptID, u, l.now)
	if err != nil {
		t.Fatal(err)
	}
	l.apply(events)
	after := l.r.Rollout
	if (fenced || !u.Status.Set) && (after.Status != before.Status || after.EndTime != before.EndTime) {
		t.Fatalf("a fenced report moved the rollout from %s to %s", before.Status, after.Status)
	}
	if ends := u.Status.Value == AttemptSucceeded || u.Status.Value == AttemptFailed; ends != (a.EndTime != end) {
		t.Fatalf("status %q changed the attempt's end: %t", u.Status.Value, a.EndTime != end)
	}
	if retry {
		l.retried(t, a)
	}
}

// retried checks max_attempts after an attempt ended.
func (l *life) retried(t *rapid.T, a *Attempt) {
	if l.r.Rollout.Status != RolloutRequeuing || a.Lost {
		return
	}
	charged := int64(0)
	for _, a := range l.r.Attempts {
		if !a.Lost {
			charged++
		}
	}
	if charged >= l.r.Rollout.Config.MaxAttempts {
		t.Fatalf("retried after %d attempts of %d", charged, l.r.Rollout.Config.MaxAttempts)
	}
}

func (l *life) update(t *rapid.T) {
	var u RolloutUpdate
	switch rapid.IntRange(0, 5).Draw(t, "what") {
	case 0:
		u.Status = Set(rapid.SampledFrom(RolloutStatuses).Draw(t, "status"))
	case 1:
		u.Config = Set(drawConfig(t))
	case 2:
		u.Status, u.Fence = Set(rapid.SampledFrom([]RolloutStatus{RolloutRequeuing, RolloutCancelled}).Draw(t, "status")), true
	}
	before := l.r.Rollout
	l.apply(l.r.Update(u, l.now))
	if a := l.r.Latest(); u.Fence && a != nil && !l.fenced(a) {
		t.Fatalf("behind a fence attempt %s is still %s", a.AttemptID, a.Status)
	}
	if !u.Status.Set && (l.r.Rollout.Status != before.Status || l.r.Rollout.EndTime != before.EndTime) {
		t.Fatal("an update without a status changed it")
	}
}

// worker is the one of the latest attempt.
func (l *life) worker() *Worker {
	if a := l.r.Latest(); a != nil && a.WorkerID != nil {
		return l.workers[*a.WorkerID]
	}
	return nil
}

func (l *life) expire(t *rapid.T) {
	before := *l.r.Clone()
	events, expired := l.r.Expire(l.worker(), l.now)
	l.apply(events)
	if !expired {
		if l.r.Rollout.Status != before.Rollout.Status || l.r.Due != 0 && l.r.Due < l.now {
			t.Fatalf("without a verdict: %s became %s, due %v at %v", before.Rollout.Status, l.r.Rollout.Status, l.r.Due, l.now)
		}
		return
	}
	if !before.Rollout.Status.Active() || l.r.Rollout.Status.Active() {
		t.Fatalf("a verdict moved %s to %s", before.Rollout.Status, l.r.Rollout.Status)
	}
	if l.r.Latest().EndTime != before.Latest().EndTime {
		t.Fatal("a verdict set the attempt's end")
	}
	l.retried(t, l.r.Latest())
	if _, again := l.r.Expire(l.worker(), l.now+1e6); again {
		t.Fatal("a second verdict on one attempt")
	}
}

// check holds after every event.
func (l *life) check(t *rapid.T) {
	l.number()
	r := l.r
	status := r.Rollout.Status
	if status.Queued() != (r.Place > 0) {
		t.Fatalf("%s with place %d", status, r.Place)
	}
	kinds := 0
	for _, is := range []bool{status.Queued(), status.Active(), status.Finished()} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		t.Fatalf("%s is %d of queued, active and finished", status, kinds)
	}
	if status.Finished() && r.Rollout.EndTime == nil {
		t.Fatalf("%s without an end", status)
	}
	if !status.Active() && r.Due != 0 {
		t.Fatalf("%s is due at %v", status, r.Due)
	}
	for i, a := range r.Attempts {
		if a.SequenceID != int64(i+1) || a.RolloutID != "ro" {
			t.Fatalf("attempt %d has number %d of %s", i+1, a.SequenceID, a.RolloutID)
		}
		if a.Lost && a.Status != AttemptUnresponsive {
			t.Fatalf("a lost attempt is %s", a.Status)
		}
	}
	// Due is never later than what the watchdog would find: at a time when it
	// has a verdict, the record is listed.
	for _, later := range []float64{0, 0.5, 10, 30, 100, 1000} {
		now := l.now + later
		if _, expired := r.Clone().Expire(l.worker(), now); expired && (r.Due == 0 || r.Due >= now) {
			t.Fatalf("overdue at %v and due at %v", now, r.Due)
		}
	}
}
