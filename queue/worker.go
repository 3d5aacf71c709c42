package queue

import "github.com/aglq/aglq/queue/rawjson"

// WorkerSilence is how many seconds after its last sign of life a worker is at
// most taken for alive: three heartbeats of the slowest of the usual workers.
const WorkerSilence = 90

// Silence is how many seconds after its last sign of life a worker is taken for
// alive by a store with such a lease, 0 for none: what the store takes for dead
// is nowhere shown alive.
func Silence(lease float64) float64 {
	if lease <= 0 {
		return WorkerSilence
	}
	return min(lease, WorkerSilence)
}

// WorkerChange is what a change of an attempt means for its worker.
type WorkerChange int

// The changes.
const (
	WorkerTook    WorkerChange = iota // it holds the attempt
	WorkerFreed                       // it finished the attempt
	WorkerVanish                      // its attempt went silent or ran too long
	WorkerClaimed                     // it took the attempt from the queue
)

// WorkerEvent tells a worker's record of a change of an attempt.
type WorkerEvent struct {
	AttemptRef
	WorkerID string
	Change   WorkerChange
}

// workerEvents says what the state of attempt a means for its worker. An older
// attempt still at work does not claim the worker's record.
func (r *Record) workerEvents(a *Attempt, claimed bool) []WorkerEvent {
	if a.WorkerID == nil || *a.WorkerID == "" {
		return nil
	}
	e := WorkerEvent{AttemptRef: a.ref(), WorkerID: *a.WorkerID}
	switch a.Status {
	case AttemptSucceeded, AttemptFailed:
		e.Change = WorkerFreed
	case AttemptTimeout, AttemptUnresponsive:
		e.Change = WorkerVanish
	default:
		if a != r.Latest() {
			return nil
		}
		e.Change = WorkerTook
		if claimed {
			e.Change = WorkerClaimed
		}
	}
	return []WorkerEvent{e}
}

// NewWorker is the record of a worker heard of for the first time.
func NewWorker(id string) *Worker { return &Worker{WorkerID: id, Status: WorkerUnknown} }

// Apply changes the worker by an event of one of its attempts. An attempt that
// the worker no longer holds does not free it.
func (w *Worker) Apply(e WorkerEvent, now float64) {
	switch e.Change {
	case WorkerTook, WorkerClaimed:
		w.Status = WorkerBusy
		w.LastBusyTime = &now
		w.CurrentRolloutID = &e.RolloutID
		w.CurrentAttemptID = &e.AttemptID
		if e.Change == WorkerClaimed {
			w.LastDequeueTime = &now
		}
	case WorkerFreed, WorkerVanish:
		if w.CurrentAttemptID != nil && (*w.CurrentAttemptID != e.AttemptID || *w.CurrentRolloutID != e.RolloutID) {
			return
		}
		w.Status = WorkerIdle
		if e.Change == WorkerVanish {
			w.Status = WorkerUnknown
		}
		w.LastIdleTime = &now
		w.CurrentRolloutID = nil
		w.CurrentAttemptID = nil
	}
}

// FoundNothing records a claim that met an empty queue: the worker is idle and
// holds nothing.
func (w *Worker) FoundNothing(now float64) {
	w.LastDequeueTime = &now
	if w.Status != WorkerIdle {
		w.Status = WorkerIdle
		w.LastIdleTime = &now
		w.CurrentRolloutID = nil
		w.CurrentAttemptID = nil
	}
}

// Beat records a heartbeat; stats nil keeps the previous ones, unless those were
// the last of a worker that has begun again.
func (w *Worker) Beat(stats rawjson.Value, now float64) {
	w.LastHeartbeatTime = &now
	switch {
	case stats != nil:
		w.HeartbeatStats = stats
	case w.saidStopped():
		w.HeartbeatStats = rawjson.Null
	}
}

// StatStopped is the member of a heartbeat's statistics that is true in the last
// heartbeat of a worker that ends in good order.
const StatStopped = "stopped"

func (w *Worker) saidStopped() bool { return w.HeartbeatStats.Get(StatStopped).Bool() }

// Stopped reports whether the worker has said that it ends, and has not been
// heard of since.
func (w *Worker) Stopped() bool {
	return w.LastHeartbeatTime != nil && *w.LastHeartbeatTime >= w.LastSeen() && w.saidStopped()
}

// Alive reports whether the worker is taken for alive by a store with such a
// lease, see [Silence].
func (w *Worker) Alive(now, lease float64) bool {
	seen := w.LastSeen()
	return seen > 0 && now-seen <= Silence(lease) && !w.Stopped()
}

// LastSeen is the latest sign of life of the worker itself, 0 for none: a
// heartbeat or a claim.
func (w *Worker) LastSeen() float64 {
	var last float64
	for _, t := range []*float64{w.LastHeartbeatTime, w.LastDequeueTime, w.LastBusyTime} {
		if t != nil && *t > last {
			last = *t
		}
	}
	return last
}
