package collections

import (
	"cmp"
	"strings"

	"github.com/aglq/aglq/queue"
)

// The orders by which lists sort, ascending, one for each name in the lists of
// sortable fields of package queue. Null is smallest; text is by code point.

var attemptOrders = map[string]func(a, b *queue.Attempt) int{
	"rollout_id":          func(a, b *queue.Attempt) int { return strings.Compare(a.RolloutID, b.RolloutID) },
	"attempt_id":          func(a, b *queue.Attempt) int { return strings.Compare(a.AttemptID, b.AttemptID) },
	"sequence_id":         func(a, b *queue.Attempt) int { return cmp.Compare(a.SequenceID, b.SequenceID) },
	"start_time":          func(a, b *queue.Attempt) int { return cmp.Compare(a.StartTime, b.StartTime) },
	"end_time":            func(a, b *queue.Attempt) int { return optional(a.EndTime, b.EndTime) },
	"status":              func(a, b *queue.Attempt) int { return cmp.Compare(a.Status, b.Status) },
	"worker_id":           func(a, b *queue.Attempt) int { return optional(a.WorkerID, b.WorkerID) },
	"last_heartbeat_time": func(a, b *queue.Attempt) int { return optional(a.LastHeartbeatTime, b.LastHeartbeatTime) },
}

var rolloutOrders = map[string]func(a, b *queue.Record) int{
	"rollout_id":   func(a, b *queue.Record) int { return strings.Compare(a.Rollout.RolloutID, b.Rollout.RolloutID) },
	"start_time":   func(a, b *queue.Record) int { return cmp.Compare(a.Rollout.StartTime, b.Rollout.StartTime) },
	"end_time":     func(a, b *queue.Record) int { return optional(a.Rollout.EndTime, b.Rollout.EndTime) },
	"mode":         func(a, b *queue.Record) int { return cmp.Compare(a.Rollout.Mode, b.Rollout.Mode) },
	"resources_id": func(a, b *queue.Record) int { return optional(a.Rollout.ResourcesID, b.Rollout.ResourcesID) },
	"status":       func(a, b *queue.Record) int { return cmp.Compare(a.Rollout.Status, b.Rollout.Status) },
	"duration": func(a, b *queue.Record) int {
		return optional(since(&a.Rollout.StartTime, a.Rollout.EndTime), since(&b.Rollout.StartTime, b.Rollout.EndTime))
	},
	"attempt_id":          byLatest(func(a *queue.Attempt) *string { return &a.AttemptID }),
	"worker_id":           byLatest(func(a *queue.Attempt) *string { return a.WorkerID }),
	"last_heartbeat_time": byLatest(func(a *queue.Attempt) *float64 { return a.LastHeartbeatTime }),
}

var workerOrders = map[string]func(a, b *queue.Worker) int{
	"worker_id":           func(a, b *queue.Worker) int { return strings.Compare(a.WorkerID, b.WorkerID) },
	"status":              func(a, b *queue.Worker) int { return cmp.Compare(a.Status, b.Status) },
	"last_heartbeat_time": func(a, b *queue.Worker) int { return optional(a.LastHeartbeatTime, b.LastHeartbeatTime) },
	"last_dequeue_time":   func(a, b *queue.Worker) int { return optional(a.LastDequeueTime, b.LastDequeueTime) },
	"last_busy_time":      func(a, b *queue.Worker) int { return optional(a.LastBusyTime, b.LastBusyTime) },
	"last_idle_time":      func(a, b *queue.Worker) int { return optional(a.LastIdleTime, b.LastIdleTime) },
	"current_rollout_id":  func(a, b *queue.Worker) int { return optional(a.CurrentRolloutID, b.CurrentRolloutID) },
	"current_attempt_id":  func(a, b *queue.Worker) int { return optional(a.CurrentAttemptID, b.CurrentAttemptID) },
}

var resourcesOrders = map[string]func(a, b *queue.ResourcesUpdate) int{
	"resources_id": func(a, b *queue.ResourcesUpdate) int { return strings.Compare(a.ResourcesID, b.ResourcesID) },
	"create_time":  func(a, b *queue.ResourcesUpdate) int { return cmp.Compare(a.CreateTime, b.CreateTime) },
	"update_time":  func(a, b *queue.ResourcesUpdate) int { return cmp.Compare(a.UpdateTime, b.UpdateTime) },
	"version":      func(a, b *queue.ResourcesUpdate) int { return cmp.Compare(a.Version, b.Version) },
}

var spanOrders = map[string]func(a, b *queue.Span) int{
	"rollout_id":  func(a, b *queue.Span) int { return strings.Compare(a.RolloutID, b.RolloutID) },
	"attempt_id":  func(a, b *queue.Span) int { return strings.Compare(a.AttemptID, b.AttemptID) },
	"sequence_id": func(a, b *queue.Span) int { return cmp.Compare(a.SequenceID, b.SequenceID) },
	"trace_id":    func(a, b *queue.Span) int { return strings.Compare(a.TraceID, b.TraceID) },
	"span_id":     func(a, b *queue.Span) int { return strings.Compare(a.SpanID, b.SpanID) },
	"parent_id":   func(a, b *queue.Span) int { return optional(a.ParentID, b.ParentID) },
	"name":        func(a, b *queue.Span) int { return strings.Compare(a.Name, b.Name) },
	"start_time":  func(a, b *queue.Span) int { return optional(a.StartTime, b.StartTime) },
	"end_time":    func(a, b *queue.Span) int { return optional(a.EndTime, b.EndTime) },
	"duration": func(a, b *queue.Span) int {
		return optional(since(a.StartTime, a.EndTime), since(b.StartTime, b.EndTime))
	},
	"status_code": func(a, b *queue.Span) int { return strings.Compare(a.StatusCode(), b.StatusCode()) },
}

// optional compares values that may be null.
func optional[T cmp.Ordered](a, b *T) int {
	switch {
	case a != nil && b != nil:
		return cmp.Compare(*a, *b)
	case a != nil:
		return 1
	case b != nil:
		return -1
	}
	return 0
}

// since is end - start, null where either is.
func since(start, end *float64) *float64 {
	if start == nil || end == nil {
		return nil
	}
	d := *end - *start
	return &d
}

// byLatest compares a field of the latest attempts; a rollout without attempts
// counts as null.
func byLatest[T cmp.Ordered](field func(*queue.Attempt) *T) func(a, b *queue.Record) int {
	return func(a, b *queue.Record) int {
		var x, y *T
		if latest := a.Latest(); latest != nil {
			x = field(latest)
		}
		if latest := b.Latest(); latest != nil {
			y = field(latest)
		}
		return optional(x, y)
	}
}
