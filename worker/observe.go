package worker

import (
	"time"

	"github.com/aglq/aglq/worker/trace"
)

// Observer is told what a worker does. Several workers may share one; its methods
// are called by many goroutines and must not block.
type Observer interface {
	// WorkerStarted tells of a worker that can run so many tasks at a time, and
	// whether it sends heartbeats.
	WorkerStarted(workerID string, slots int, beats bool)
	// WorkerEnded tells that it has ended.
	WorkerEnded(workerID string)
	// HeartbeatAnswered tells that the store has answered a heartbeat.
	HeartbeatAnswered(workerID string)
	// TaskStarted tells of a claimed task.
	TaskStarted()
	// TaskEnded tells how a task ended: with the status that the store took, as
	// NotHeld, or as Unreported.
	TaskEnded(rolloutID, status string, took time.Duration)
	// SpansDropped tells of spans that are not stored, and why: Refused, NotHeld
	// or Stopped.
	SpansDropped(n int, reason string)
	// StoreFailed tells of a call of the store that failed.
	StoreFailed(call string)
}

// What an observer is told of the ends of tasks besides the statuses of attempts,
// and of spans that are dropped.
const (
	NotHeld    = "not_held"   // the store had taken the attempt away
	Unreported = "unreported" // the store took no report, or could not be reached
	Refused    = trace.Refused
	Stopped    = trace.Stopped
)

// The calls of the store whose failures an observer is told of.
const (
	CallClaim     = "claim"
	CallHeartbeat = "heartbeat"
	CallSpans     = "spans"
	CallReport    = "report"
)

// unobserved is the observer where none is given.
type unobserved struct{}

func (unobserved) WorkerStarted(string, int, bool)         {}
func (unobserved) WorkerEnded(string)                      {}
func (unobserved) HeartbeatAnswered(string)                {}
func (unobserved) TaskStarted()                            {}
func (unobserved) TaskEnded(string, string, time.Duration) {}
func (unobserved) SpansDropped(int, string)                {}
func (unobserved) StoreFailed(string)                      {}
