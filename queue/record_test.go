package queue

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue/rawjson"
)

func ptr[T any](v T) *T { return &v }

// story is a record that tests tell events to, with a clock.
type story struct {
	*Record
	now    float64
	events []WorkerEvent // of the last event
}

// newStory has a rollout in the queue with place 7 at time 100.
func newStory(c Config) *story {
	r := NewRecord("ro", Request{Config: &c}, true, 100)
	r.Place = 7
	return &story{Record: r, now: 100}
}

func retrying(maxAttempts int64, on ...AttemptStatus) Config {
	return Config{MaxAttempts: maxAttempts, RetryCondition: on}
}

func (s *story) at(now float64) *story { s.now = now; return s }

func (s *story) leased(seconds float64) *story { s.Lease = seconds; return s }

func (s *story) claim(attempt, worker string) *story {
	s.events = s.Begin(attempt, &worker, true, s.Lease, s.now)
	return s
}

func (s *story) spans(attempt string) *story {
	s.SpansStored(attempt, 1, s.now)
	return s
}

func (s *story) report(attempt string, status AttemptStatus) *story {
	_, events, err := s.UpdateAttempt(attempt, AttemptUpdate{Status: Set(status)}, s.now)
	if err != nil {
		panic(err)
	}
	s.events = events
	return s
}

func (s *story) set(status RolloutStatus) *story {
	s.Update(RolloutUpdate{Status: Set(status)}, s.now)
	return s
}

func (s *story) fence(status RolloutStatus) *story {
	s.events = s.Update(RolloutUpdate{Status: Set(status), Fence: true}, s.now)
	return s
}

func (s *story) watch() *story {
	s.events, _ = s.Expire(nil, s.now)
	return s
}

// state sums a record up: rollout status, place, end, then each attempt.
func (s *story) state() string {
	out := string(s.Rollout.Status)
	switch s.Place {
	case 0:
	case Tail:
		out += " tail"
	default:
		out += " placed"
	}
	if s.Rollout.EndTime != nil {
		out += " ended@" + string(rawjson.AppendFloat(nil, *s.Rollout.EndTime))
	}
	for _, a := range s.Attempts {
		out += " | " + string(a.Status)
		if a.EndTime != nil {
			out += "@" + string(rawjson.AppendFloat(nil, *a.EndTime))
		}
		if a.Lost {
			out += " lost"
		}
	}
	return out
}

func TestLifecycle(t *testing.T) {
	plain := retrying(1)
	tests := []struct {
		name string
		s    *story
		want string
	}{
		{"enqueued", newStory(plain), "queuing placed"},
		{"claimed", newStory(plain).claim("a", "w"), "preparing | preparing"},
		{"first span", newStory(plain).claim("a", "w").spans("a"), "running | running"},
		{"span while queuing", newStory(plain).spans("a"), "queuing placed"},
		{"succeeded", newStory(plain).claim("a", "w").spans("a").at(110).report("a", AttemptSucceeded),
			"succeeded ended@110.0 | succeeded@110.0"},
		{"succeeded without a span", newStory(plain).claim("a", "w").at(110).report("latest", AttemptSucceeded),
			"succeeded ended@110.0 | succeeded@110.0"},
		{"running by report", newStory(plain).claim("a", "w").report("a", AttemptRunning), "running | running"},
		{"back to preparing", newStory(plain).claim("a", "w").spans("a").report("a", AttemptPreparing), "preparing | preparing"},

		// Retries.
		{"failed, no retry", newStory(plain).claim("a", "w").at(110).report("a", AttemptFailed),
			"failed ended@110.0 | failed@110.0"},
		{"failed, retried", newStory(retrying(2, AttemptFailed)).claim("a", "w").at(110).report("a", AttemptFailed),
			"requeuing tail | failed@110.0"},
		{"failed, other condition", newStory(retrying(2, AttemptTimeout)).claim("a", "w").at(110).report("a", AttemptFailed),
			"failed ended@110.0 | failed@110.0"},
		{"failed for the last time", newStory(retrying(2, AttemptFailed)).claim("a", "w").report("a", AttemptFailed).
			claim("b", "w").at(120).report("b", AttemptFailed), "failed ended@120.0 | failed@100.0 | failed@120.0"},
		{"timeout has no end", newStory(retrying(2, AttemptTimeout)).claim("a", "w").report("a", AttemptTimeout),
			"requeuing tail | timeout"},
		{"unresponsive without retry", newStory(plain).claim("a", "w").at(110).report("a", AttemptUnresponsive),
			"failed ended@110.0 | unresponsive"},

		// Revival.
		{"late span revives an unresponsive attempt", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").
			report("a", AttemptUnresponsive).spans("a"), "running | running"},
		{"and it may then succeed", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").
			report("a", AttemptUnresponsive).spans("a").at(130).report("a", AttemptSucceeded), "succeeded ended@130.0 | succeeded@130.0"},
		{"late success of an unresponsive attempt", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").
			report("a", AttemptUnresponsive).at(130).report("a", AttemptSucceeded), "succeeded ended@130.0 | succeeded@130.0"},
		{"late span of a failed attempt", newStory(retrying(2, AttemptFailed)).claim("a", "w").
			report("a", AttemptFailed).spans("a"), "requeuing tail | failed@100.0"},
		{"late span of a timed out attempt", newStory(retrying(2, AttemptTimeout)).claim("a", "w").
			report("a", AttemptTimeout).spans("a"), "requeuing tail | timeout"},
		{"late span after the end", newStory(plain).claim("a", "w").at(110).report("a", AttemptUnresponsive).at(120).spans("a"),
			"failed ended@110.0 | running"},
		{"late span of an older attempt", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").
			report("a", AttemptUnresponsive).claim("b", "w").spans("a"), "preparing | running | preparing"},

		// Lost workers.
		{"lost with its worker", newStory(plain).leased(15).claim("a", "w").at(116).watch(), "requeuing tail | unresponsive lost"},
		{"lost, then over its time", newStory(Config{MaxAttempts: 1, TimeoutSeconds: ptr(50.0)}).leased(15).claim("a", "w").
			at(116).watch().set(RolloutPreparing).at(151).watch(), "failed ended@151.0 | timeout"},

		// Fencing.
		{"older attempt succeeds", newStory(retrying(3, AttemptUnresponsive)).claim("a", "w").report("a", AttemptUnresponsive).
			claim("b", "w").at(140).report("a", AttemptSucceeded), "preparing | succeeded@140.0 | preparing"},
		{"older attempt fails", newStory(retrying(3, AttemptUnresponsive)).claim("a", "w").report("a", AttemptUnresponsive).
			claim("b", "w").spans("b").at(140).report("a", AttemptFailed), "running | failed@140.0 | running"},
		{"timed out attempt succeeds late", newStory(retrying(2, AttemptTimeout)).claim("a", "w").report("a", AttemptTimeout).
			at(140).report("a", AttemptSucceeded), "requeuing tail | succeeded@140.0"},
		{"success reported twice", newStory(plain).claim("a", "w").at(110).report("a", AttemptSucceeded).at(120).report("a", AttemptSucceeded),
			"succeeded ended@110.0 | succeeded@120.0"},
		{"failure after success", newStory(retrying(5, AttemptFailed)).claim("a", "w").at(110).report("a", AttemptSucceeded).
			at(120).report("a", AttemptFailed), "succeeded ended@110.0 | failed@120.0"},

		// Updates by callers.
		{"cancelled in the queue", newStory(plain).at(105).set(RolloutCancelled), "cancelled ended@105.0"},
		{"cancelled stays so: report", newStory(plain).claim("a", "w").at(105).set(RolloutCancelled).at(110).report("a", AttemptSucceeded),
			"cancelled ended@105.0 | succeeded@110.0"},
		{"cancelled stays so: span", newStory(plain).claim("a", "w").at(105).set(RolloutCancelled).spans("a"),
			"cancelled ended@105.0 | running"},
		{"requeued behind a fence: report", newStory(plain).claim("a", "w").at(105).fence(RolloutRequeuing).at(110).report("a", AttemptSucceeded),
			"requeuing tail | succeeded@110.0"},
		{"requeued behind a fence: span", newStory(plain).claim("a", "w").at(105).fence(RolloutRequeuing).spans("a"),
			"requeuing tail | failed@105.0"},
		{"requeued behind a fence: gone worker", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").report("a", AttemptUnresponsive).
			at(105).fence(RolloutRequeuing).spans("a"), "requeuing tail | failed@105.0"},
		{"a fence leaves what has ended", newStory(plain).claim("a", "w").at(105).report("a", AttemptSucceeded).at(110).fence(RolloutRequeuing),
			"requeuing tail ended@105.0 | succeeded@105.0"},
		{"uncancelled by a caller", newStory(plain).at(105).set(RolloutCancelled).set(RolloutQueuing), "queuing tail ended@105.0"},
		{"end is stamped again", newStory(plain).at(105).set(RolloutFailed).at(106).set(RolloutFailed), "failed ended@106.0"},
		{"requeued by a caller", newStory(plain).claim("a", "w").at(110).report("a", AttemptSucceeded).set(RolloutRequeuing),
			"requeuing tail ended@110.0 | succeeded@110.0"},
		{"queued keeps its place", newStory(plain).set(RolloutRequeuing), "requeuing placed"},
		{"started again after its end", newStory(plain).claim("a", "w").at(110).report("a", AttemptSucceeded).claim("b", "w"),
			"preparing ended@110.0 | succeeded@110.0 | preparing"},
		{"started past the queue", newStory(plain).claim("a", "w"), "preparing | preparing"},
		{"revived then requeued goes to the tail", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").
			report("a", AttemptUnresponsive).spans("a").report("a", AttemptUnresponsive), "requeuing tail | unresponsive"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.state(); got != tt.want {
				t.Errorf("state is %q\nwant     %q", got, tt.want)
			}
		})
	}
}

func TestReportsWithoutStatusLeaveTheRollout(t *testing.T) {
	updates := map[string]AttemptUpdate{
		"nothing":   {},
		"worker":    {WorkerID: Set("w2")},
		"heartbeat": {LastHeartbeatTime: Set(150.0)},
		"metadata":  {Metadata: Set(rawjson.Value(`{"a":1}`))},
	}
	for name, u := range updates {
		t.Run(name, func(t *testing.T) {
			s := newStory(retrying(2, AttemptFailed)).claim("a", "w").report("a", AttemptFailed)
			before := s.state()
			a, _, err := s.UpdateAttempt("a", u, 160)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.state(); got != before {
				t.Errorf("state is %q, was %q", got, before)
			}
			if u.WorkerID.Set && *a.WorkerID != "w2" || u.LastHeartbeatTime.Set && *a.LastHeartbeatTime != 150 ||
				u.Metadata.Set && a.Metadata.String() != `{"a":1}` {
				t.Errorf("attempt is %+v", a)
			}
		})
	}
}

func TestUpdateAttemptErrors(t *testing.T) {
	tests := []struct {
		s    *story
		id   string
		want string
	}{
		{newStory(retrying(1)), "a", "No attempts found for rollout ro"},
		{newStory(retrying(1)), "latest", "No attempts found for rollout ro"},
		{newStory(retrying(1)).claim("a", "w"), "b", "Attempt b not found for rollout ro"},
	}
	for _, tt := range tests {
		before := tt.s.state()
		_, _, err := tt.s.UpdateAttempt(tt.id, AttemptUpdate{Status: Set(AttemptFailed)}, 1)
		if err == nil || err.Error() != tt.want || KindOf(err) != NotFound {
			t.Errorf("error is %v of kind %v, want %q", err, KindOf(err), tt.want)
		}
		if got := tt.s.state(); got != before {
			t.Errorf("a refused update left %q, was %q", got, before)
		}
	}
}

func TestUpdateSetsAndClears(t *testing.T) {
	r := NewRecord("ro", Request{Input: rawjson.Value(`1`), Mode: ModeTrain, ResourcesID: ptr("rs")}, true, 1)
	want := r.Rollout
	r.Update(RolloutUpdate{}, 2)
	if diff := cmp.Diff(want, r.Rollout); diff != "" {
		t.Errorf("an empty update changed (-want +got):\n%s", diff)
	}
	c := Config{TimeoutSeconds: ptr(1.0), MaxAttempts: 3, RetryCondition: []AttemptStatus{AttemptFailed}}
	r.Update(RolloutUpdate{
		Input: Set(rawjson.Null), Mode: Set(Mode("")), ResourcesID: Set[*string](nil), Config: Set(c), Metadata: Set(rawjson.Null),
	}, 2)
	want.Input, want.Mode, want.ResourcesID, want.Config, want.Metadata = rawjson.Null, "", nil, c, rawjson.Null
	if diff := cmp.Diff(want, r.Rollout); diff != "" {
		t.Errorf("after clearing (-want +got):\n%s", diff)
	}
}

func TestNewRecordDefaults(t *testing.T) {
	tests := []struct {
		name string
		req  Request
		want string
	}{
		{"nothing", Request{}, `{"rollout_id":"ro","input":null,"start_time":5.0,"end_time":null,"mode":null,"resources_id":null,"status":"queuing","config":{"timeout_seconds":null,"unresponsive_seconds":null,"max_attempts":1,"retry_condition":[]},"metadata":{}}`},
		{"null metadata, empty resources", Request{Metadata: rawjson.Null, ResourcesID: ptr("")}, `{"rollout_id":"ro","input":null,"start_time":5.0,"end_time":null,"mode":null,"resources_id":"","status":"queuing","config":{"timeout_seconds":null,"unresponsive_seconds":null,"max_attempts":1,"retry_condition":[]},"metadata":{}}`},
	}
	for _, tt := range tests {
		r := NewRecord("ro", tt.req, true, 5)
		if got := string(r.Rollout.AppendJSON(nil)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
		if r.Place != Tail || r.Due != 0 {
			t.Errorf("%s: place %d, due %v", tt.name, r.Place, r.Due)
		}
	}
	if r := NewRecord("ro", Request{}, false, 5); r.Place != 0 || r.Rollout.Status != RolloutPreparing {
		t.Errorf("not queued: place %d, %s", r.Place, r.Rollout.Status)
	}
}

func TestUnclaim(t *testing.T) {
	tests := []struct {
		name string
		s    *story
		id   string
		ok   bool
		want string
	}{
		{"fresh claim", newStory(retrying(1)).claim("a", "w"), "a", true, "queuing placed"},
		{"second claim", newStory(retrying(2, AttemptFailed)).claim("a", "w").report("a", AttemptFailed).claim("b", "w"), "b", true,
			"requeuing placed | failed@100.0"},
		{"alive", newStory(retrying(1)).claim("a", "w").spans("a"), "a", false, "running | running"},
		{"older", newStory(retrying(1)).claim("a", "w").claim("b", "w"), "a", false, "preparing | preparing | preparing"},
		{"unknown", newStory(retrying(1)), "a", false, "queuing placed"},
		{"cancelled", newStory(retrying(1)).claim("a", "w").set(RolloutCancelled), "a", false, "cancelled ended@100.0 | preparing"},
	}
	for _, tt := range tests {
		events, ok := tt.s.Unclaim(tt.id, 9)
		if ok != tt.ok || tt.s.state() != tt.want {
			t.Errorf("%s: %t, %q; want %t, %q", tt.name, ok, tt.s.state(), tt.ok, tt.want)
		}
		if ok && (len(events) != 1 || events[0].Change != WorkerFreed || tt.s.Place != 9 || tt.s.Due != 0) {
			t.Errorf("%s: events %v, place %d, due %v", tt.name, events, tt.s.Place, tt.s.Due)
		}
	}
	s := newStory(retrying(1)).claim("a", "w")
	if _, ok := s.Unclaim("a", 0); !ok || s.Place != Tail {
		t.Errorf("without a place before: %t, place %d", ok, s.Place)
	}
	s = newStory(retrying(1)).claim("a", "w")
	s.Renew("a", 101)
	if _, ok := s.Unclaim("a", 7); ok {
		t.Error("an attempt with a heartbeat was taken back")
	}
}

func TestRenew(t *testing.T) {
	tests := []struct {
		name string
		s    *story
		id   string
		held bool
	}{
		{"preparing", newStory(retrying(1)).claim("a", "w"), "a", true},
		{"running", newStory(retrying(1)).claim("a", "w").spans("a"), "a", true},
		{"older", newStory(retrying(1)).claim("a", "w").claim("b", "w"), "a", false},
		{"ended", newStory(retrying(1)).claim("a", "w").report("a", AttemptSucceeded), "a", false},
		{"cancelled", newStory(retrying(1)).claim("a", "w").set(RolloutCancelled), "a", false},
		{"requeued", newStory(retrying(2, AttemptUnresponsive)).claim("a", "w").report("a", AttemptUnresponsive), "a", false},
		{"unknown", newStory(retrying(1)).claim("a", "w"), "b", false},
		{"latest is no id", newStory(retrying(1)).claim("a", "w"), "latest", false},
		{"no attempts", newStory(retrying(1)), "a", false},
	}
	for _, tt := range tests {
		held := tt.s.Renew(tt.id, 500)
		a := tt.s.Attempt(tt.id)
		moved := a != nil && a.LastHeartbeatTime != nil && *a.LastHeartbeatTime == 500
		if held != tt.held || moved != tt.held {
			t.Errorf("%s: held %t, heartbeat moved %t; want %t", tt.name, held, moved, tt.held)
		}
	}
	s := newStory(retrying(1)).claim("a", "w").at(300).spans("a")
	s.Renew("a", 200)
	if hb := *s.Latest().LastHeartbeatTime; hb != 300 {
		t.Errorf("a late heartbeat moved the time back to %v", hb)
	}
}

func TestViewAndCloneAreCopies(t *testing.T) {
	s := newStory(retrying(1)).claim("a", "w")
	view, clone := s.View(), s.Clone()
	s.spans("a").report("a", AttemptFailed)
	if view.Attempt.Status != AttemptPreparing || view.Status != RolloutPreparing {
		t.Errorf("view became %s, %s", view.Status, view.Attempt.Status)
	}
	if got := (&story{Record: clone}).state(); got != "preparing | preparing" {
		t.Errorf("clone became %q", got)
	}
	if v := newStory(retrying(1)).View(); v.Attempt != nil {
		t.Errorf("view has attempt %v", v.Attempt)
	}
}
