package queue

import (
	"testing"
)

func limits(timeout, unresponsive float64, maxAttempts int64, on ...AttemptStatus) Config {
	c := retrying(maxAttempts, on...)
	if timeout > 0 {
		c.TimeoutSeconds = &timeout
	}
	if unresponsive > 0 {
		c.UnresponsiveSeconds = &unresponsive
	}
	return c
}

// leased is a story whose attempts have a lease.
func leased(seconds float64, c Config) *story {
	s := newStory(c)
	s.Lease = seconds
	return s
}

func beatAt(s *story, attempt string, t float64) *story {
	if _, _, err := s.UpdateAttempt(attempt, AttemptUpdate{LastHeartbeatTime: Set(t)}, s.now); err != nil {
		panic(err)
	}
	return s
}

func TestExpire(t *testing.T) {
	tests := []struct {
		name string
		s    *story
		want string
	}{
		{"no limits", newStory(retrying(1)).claim("a", "w").at(1e9).watch(), "preparing | preparing"},
		{"at the timeout", newStory(limits(10, 0, 1)).claim("a", "w").at(110).watch(), "preparing | preparing"},
		{"after the timeout", newStory(limits(10, 0, 1)).claim("a", "w").at(110.5).watch(), "failed ended@110.5 | timeout"},
		{"timeout in spite of spans", newStory(limits(10, 0, 1)).claim("a", "w").at(110).spans("a").at(111).watch(),
			"failed ended@111.0 | timeout"},
		{"timeout retried", newStory(limits(10, 0, 2, AttemptTimeout)).claim("a", "w").at(111).watch(), "requeuing tail | timeout"},
		{"timeout counts from the attempt's start", newStory(limits(10, 0, 2, AttemptTimeout)).at(150).claim("a", "w").at(159).watch(),
			"preparing | preparing"},
		{"silent from the start", newStory(limits(0, 5, 1)).claim("a", "w").at(106).watch(), "failed ended@106.0 | unresponsive"},
		{"at the silence limit", newStory(limits(0, 5, 1)).claim("a", "w").at(105).watch(), "preparing | preparing"},
		{"silent after a span", newStory(limits(0, 5, 1)).claim("a", "w").at(104).spans("a").at(109).watch(), "running | running"},
		{"silent for longer after a span", newStory(limits(0, 5, 2, AttemptUnresponsive)).claim("a", "w").at(104).spans("a").at(109.5).watch(),
			"requeuing tail | unresponsive"},
		{"timeout comes first", newStory(limits(5, 5, 1)).claim("a", "w").at(106).watch(), "failed ended@106.0 | timeout"},
		{"a heartbeat of 0 switches silence off", beatAt(newStory(limits(0, 5, 1)).claim("a", "w"), "a", 0).at(1e6).watch(),
			"preparing | preparing"},
		{"the latest attempt is watched", newStory(limits(10, 0, 1)).claim("a", "w").at(105).claim("b", "w").at(112).watch(),
			"preparing | preparing | preparing"},
		{"finished rollouts are not", newStory(limits(10, 0, 1)).claim("a", "w").set(RolloutSucceeded).at(200).watch(),
			"succeeded ended@100.0 | preparing"},
		{"queued rollouts are not", newStory(limits(10, 0, 1)).claim("a", "w").set(RolloutQueuing).at(200).watch(),
			"queuing tail | preparing"},
		{"a rollout shown running without attempts", newStory(limits(1, 1, 1)).set(RolloutRunning).at(200).watch(), "running"},
		{"a failed attempt of a rollout shown running", newStory(limits(10, 0, 1)).claim("a", "w").report("a", AttemptFailed).
			set(RolloutRunning).at(200).watch(), "failed ended@200.0 | timeout@100.0"},

		// The lease.
		{"within the lease", leased(30, retrying(1)).claim("a", "w").at(130).watch(), "preparing | preparing"},
		{"lost, whatever the condition", leased(30, retrying(1)).claim("a", "w").at(131).watch(), "requeuing tail | unresponsive lost"},
		{"a span renews the lease", leased(30, retrying(1)).claim("a", "w").at(120).spans("a").at(149).watch(), "running | running"},
		{"a limit comes before the lease", leased(30, limits(10, 0, 1)).claim("a", "w").at(131).watch(), "failed ended@131.0 | timeout"},
		{"nobody's attempt has no lease", leased(30, retrying(1)).claim("a", "").at(1e6).watch(), "preparing | preparing"},
		{"no lease", leased(0, retrying(1)).claim("a", "w").at(1e6).watch(), "preparing | preparing"},
		{"a lost attempt comes back", leased(30, retrying(1)).claim("a", "w").at(131).watch().spans("a"), "running | running"},
		{"a lost attempt succeeds late", leased(30, retrying(1)).claim("a", "w").at(131).watch().at(140).report("a", AttemptSucceeded),
			"succeeded ended@140.0 | succeeded@140.0"},
		{"a lost attempt is not charged", leased(30, retrying(2, AttemptFailed)).claim("a", "w").at(131).watch().
			claim("b", "w").at(140).report("b", AttemptFailed), "requeuing tail | unresponsive lost | failed@140.0"},
		{"others are", leased(30, retrying(2, AttemptFailed)).claim("a", "w").at(131).watch().claim("b", "w").report("b", AttemptFailed).
			claim("c", "w").at(150).report("c", AttemptFailed), "failed ended@150.0 | unresponsive lost | failed@131.0 | failed@150.0"},
		{"one that came back and failed is charged", leased(30, retrying(1, AttemptFailed)).claim("a", "w").at(131).watch().
			at(140).report("a", AttemptFailed), "failed ended@140.0 | failed@140.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.state(); got != tt.want {
				t.Errorf("state is %q\nwant     %q", got, tt.want)
			}
		})
	}
}

func TestDue(t *testing.T) {
	tests := []struct {
		name string
		s    *story
		want float64
	}{
		{"queued", newStory(limits(10, 5, 1)), 0},
		{"no limits", newStory(retrying(1)).claim("a", "w"), 0},
		{"timeout", newStory(limits(10, 0, 1)).claim("a", "w"), 110},
		{"the earlier of two", newStory(limits(10, 5, 1)).claim("a", "w"), 105},
		{"the lease", leased(3, limits(10, 5, 1)).claim("a", "w"), 103},
		{"moved on by a check", newStory(limits(10, 5, 1)).claim("a", "w").at(103).spans("a").at(105).watch(), 108},
		{"heartbeat of 0", beatAt(newStory(limits(10, 5, 1)).claim("a", "w"), "a", 0), 110},
		{"a span after a heartbeat of 0", beatAt(newStory(limits(0, 5, 1)).claim("a", "w").spans("a"), "a", 0).at(150).spans("a"), 155},
		{"heartbeat moved back", beatAt(newStory(limits(0, 5, 1)).claim("a", "w"), "a", 50), 55},
		{"deadline before the epoch", beatAt(newStory(limits(0, 5, 1)).claim("a", "w"), "a", -50), 5e-324},
		{"finished", newStory(limits(10, 5, 1)).claim("a", "w").report("a", AttemptFailed), 0},
		{"requeued", newStory(limits(10, 5, 2, AttemptFailed)).claim("a", "w").report("a", AttemptFailed), 0},
		{"revived", newStory(limits(0, 5, 2, AttemptUnresponsive)).claim("a", "w").at(106).watch().at(120).spans("a"), 125},
		{"next attempt", newStory(limits(10, 0, 2, AttemptFailed)).claim("a", "w").report("a", AttemptFailed).at(200).claim("b", "w"), 210},
		{"lost", leased(3, retrying(1)).claim("a", "w").at(104).watch(), 0},
	}
	for _, tt := range tests {
		if tt.s.Due != tt.want {
			t.Errorf("%s: due at %v, want %v", tt.name, tt.s.Due, tt.want)
		}
	}

	s := newStory(retrying(1)).claim("a", "w")
	s.Update(RolloutUpdate{Config: Set(limits(10, 0, 1))}, 101)
	if s.Due != 110 {
		t.Errorf("due at %v after a new config", s.Due)
	}
	// An attempt of nobody has no lease until somebody takes it.
	s = leased(30, retrying(1)).claim("a", "")
	if _, _, err := s.UpdateAttempt("a", AttemptUpdate{WorkerID: Set("w")}, 110); err != nil || s.Due != 130 {
		t.Errorf("due at %v after a worker took it, %v", s.Due, err)
	}
}

// TestWorkerKeepsItsLease checks that signs of life of the worker count for its
// attempt.
func TestWorkerKeepsItsLease(t *testing.T) {
	s := leased(30, retrying(1)).claim("a", "w")
	w := NewWorker("w")
	w.Beat(nil, 120)
	if _, expired := s.Expire(w, 145); expired {
		t.Fatal("expired although the worker was seen 25 seconds before")
	}
	if s.Due != 150 {
		t.Errorf("due at %v, want 150", s.Due)
	}
	events, expired := s.Expire(w, 151)
	if !expired || len(events) != 1 || events[0].Change != WorkerVanish || events[0].WorkerID != "w" {
		t.Errorf("expired %t, events %v", expired, events)
	}
}
