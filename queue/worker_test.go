package queue

import (
	"testing"

	"github.com/aglq/aglq/queue/rawjson"
)

func TestWorkerEvents(t *testing.T) {
	change := func(s *story) string {
		if len(s.events) == 0 {
			return "none"
		}
		e := s.events[0]
		names := map[WorkerChange]string{WorkerTook: "took", WorkerFreed: "freed", WorkerVanish: "vanish", WorkerClaimed: "claimed"}
		return names[e.Change] + " " + e.WorkerID + " " + e.RolloutID + " " + e.AttemptID
	}
	started := newStory(retrying(1))
	started.events = started.Begin("a", ptr("w"), false, 0, 100)
	tests := []struct {
		name string
		s    *story
		want string
	}{
		{"claim", newStory(retrying(1)).claim("a", "w"), "claimed w ro a"},
		{"claim by nobody", newStory(retrying(1)).claim("a", ""), "none"},
		{"start", started, "took w ro a"},
		{"success", newStory(retrying(1)).claim("a", "w").report("a", AttemptSucceeded), "freed w ro a"},
		{"failure", newStory(retrying(1)).claim("a", "w").report("a", AttemptFailed), "freed w ro a"},
		{"running", newStory(retrying(1)).claim("a", "w").report("a", AttemptRunning), "took w ro a"},
		{"timeout", newStory(retrying(1)).claim("a", "w").report("a", AttemptTimeout), "vanish w ro a"},
		{"watchdog", newStory(limits(1, 0, 1)).claim("a", "w").at(200).watch(), "vanish w ro a"},
		{"older one ends", newStory(retrying(1)).claim("a", "v").claim("b", "w").report("a", AttemptSucceeded), "freed v ro a"},
		{"older one at work", newStory(retrying(1)).claim("a", "v").claim("b", "w").report("a", AttemptRunning), "none"},
	}
	for _, tt := range tests {
		if got := change(tt.s); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestWorkerApply(t *testing.T) {
	event := func(attempt string, c WorkerChange) func(*Worker, float64) {
		return func(w *Worker, now float64) {
			w.Apply(WorkerEvent{AttemptRef: AttemptRef{RolloutID: "ro", AttemptID: attempt}, WorkerID: "w", Change: c}, now)
		}
	}
	nothing := func(w *Worker, now float64) { w.FoundNothing(now) }
	beat := func(w *Worker, now float64) { w.Beat(rawjson.Value(`{"n":1}`), now) }
	tests := []struct {
		name   string
		events []func(*Worker, float64) // at 1, 2, 3 …
		want   string
	}{
		{"new", nil, `"status":"unknown","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":null,"last_busy_time":null,"last_idle_time":null,"current_rollout_id":null,"current_attempt_id":null}`},
		{"claimed", []func(*Worker, float64){event("a", WorkerClaimed)}, `"status":"busy","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":1.0,"last_busy_time":1.0,"last_idle_time":null,"current_rollout_id":"ro","current_attempt_id":"a"}`},
		{"took", []func(*Worker, float64){event("a", WorkerTook)}, `"status":"busy","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":null,"last_busy_time":1.0,"last_idle_time":null,"current_rollout_id":"ro","current_attempt_id":"a"}`},
		{"freed", []func(*Worker, float64){event("a", WorkerClaimed), event("a", WorkerFreed)}, `"status":"idle","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":1.0,"last_busy_time":1.0,"last_idle_time":2.0,"current_rollout_id":null,"current_attempt_id":null}`},
		{"vanished", []func(*Worker, float64){event("a", WorkerClaimed), event("a", WorkerVanish)}, `"status":"unknown","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":1.0,"last_busy_time":1.0,"last_idle_time":2.0,"current_rollout_id":null,"current_attempt_id":null}`},
		{"an old attempt does not free it", []func(*Worker, float64){event("a", WorkerClaimed), event("b", WorkerClaimed), event("a", WorkerFreed)}, `"status":"busy","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":2.0,"last_busy_time":2.0,"last_idle_time":null,"current_rollout_id":"ro","current_attempt_id":"b"}`},
		{"an old attempt does not make it vanish", []func(*Worker, float64){event("b", WorkerTook), event("a", WorkerVanish)}, `"status":"busy","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":null,"last_busy_time":1.0,"last_idle_time":null,"current_rollout_id":"ro","current_attempt_id":"b"}`},
		{"found nothing, new", []func(*Worker, float64){nothing}, `"status":"idle","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":1.0,"last_busy_time":null,"last_idle_time":1.0,"current_rollout_id":null,"current_attempt_id":null}`},
		{"found nothing twice", []func(*Worker, float64){nothing, nothing}, `"status":"idle","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":2.0,"last_busy_time":null,"last_idle_time":1.0,"current_rollout_id":null,"current_attempt_id":null}`},
		{"found nothing while busy", []func(*Worker, float64){event("a", WorkerClaimed), nothing}, `"status":"idle","heartbeat_stats":null,"last_heartbeat_time":null,"last_dequeue_time":2.0,"last_busy_time":1.0,"last_idle_time":2.0,"current_rollout_id":null,"current_attempt_id":null}`},
		{"heartbeat keeps the rest", []func(*Worker, float64){event("a", WorkerClaimed), beat}, `"status":"busy","heartbeat_stats":{"n":1},"last_heartbeat_time":2.0,"last_dequeue_time":1.0,"last_busy_time":1.0,"last_idle_time":null,"current_rollout_id":"ro","current_attempt_id":"a"}`},
	}
	for _, tt := range tests {
		w := NewWorker("w")
		for i, event := range tt.events {
			event(w, float64(i+1))
		}
		if got, want := string(w.AppendJSON(nil)), `{"worker_id":"w",`+tt.want; got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
	}
	w := NewWorker("w")
	beat(w, 5)
	w.Beat(nil, 6)
	if w.HeartbeatStats.String() != `{"n":1}` || w.LastSeen() != 6 {
		t.Errorf("a heartbeat without stats left %s, last seen %v", w.HeartbeatStats, w.LastSeen())
	}
}
