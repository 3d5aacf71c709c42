package where

import (
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// Subject is what a filter speaks of: its fields, under the names beside them. A
// field without a value is nil.
type Subject struct {
	RolloutID   string   `expr:"rollout_id"`
	Status      string   `expr:"status"` // of the rollout
	Finished    bool     `expr:"finished"`
	Mode        *string  `expr:"mode"`
	ResourcesID *string  `expr:"resources_id"`
	StartTime   float64  `expr:"start_time"` // Unix seconds
	EndTime     *float64 `expr:"end_time"`
	Duration    *float64 `expr:"duration"` // seconds from start to end
	MaxAttempts int      `expr:"max_attempts"`
	Input       any      `expr:"input"`
	Metadata    any      `expr:"metadata"`

	// Of the latest attempt.
	Attempts      int     `expr:"attempts"` // its number, 0 without one
	AttemptID     *string `expr:"attempt_id"`
	AttemptStatus *string `expr:"attempt_status"`
	WorkerID      *string `expr:"worker_id"`
	Error         *string `expr:"error"` // what the worker noted of its failure

	// Of the spans of the latest attempt.
	Reward  *float64 `expr:"reward"`  // the final one
	Rewards any      `expr:"rewards"` // its dimensions by name
	Tags    []any    `expr:"tags"`    // of all spans
}

// errorKey is the member of an attempt's metadata in which workers note a failure.
const errorKey = "error"

// subject fills in what the expression speaks of; to build the rest costs.
func (e *expression) subject(r *queue.AttemptedRollout, spans []queue.Span) Subject {
	s := Subject{
		RolloutID: r.RolloutID, Status: string(r.Status), Finished: r.Status.Finished(), ResourcesID: r.ResourcesID,
		StartTime: r.StartTime, EndTime: r.EndTime, MaxAttempts: int(r.Config.MaxAttempts),
	}
	if r.Mode != "" {
		mode := string(r.Mode)
		s.Mode = &mode
	}
	if r.EndTime != nil {
		d := *r.EndTime - r.StartTime
		s.Duration = &d
	}
	if e.names["input"] {
		s.Input = r.Input.Any()
	}
	if e.names["metadata"] {
		s.Metadata = r.Metadata.Any()
	}
	if a := r.Attempt; a != nil {
		status := string(a.Status)
		s.Attempts, s.AttemptID, s.AttemptStatus, s.WorkerID = int(a.SequenceID), &a.AttemptID, &status, a.WorkerID
		s.Error = a.Metadata.Get(errorKey).TextOrNil()
	}
	if e.NeedsSpans() {
		s.readSpans(spans)
	}
	return s
}

// readSpans takes rewards and tags from the spans of an attempt. What is malformed
// in them is passed over, as [semconv.FinalReward] does.
func (s *Subject) readSpans(spans []queue.Span) {
	s.Tags = []any{}
	for i := range spans {
		tags, _ := semconv.SpanTags(&spans[i])
		for _, tag := range tags {
			s.Tags = append(s.Tags, tag)
		}
		if reward, ok, _ := semconv.SpanReward(&spans[i]); ok {
			s.Reward = &reward
			dimensions := map[string]any{semconv.PrimaryReward: reward}
			if list, _ := semconv.SpanRewards(&spans[i]); len(list) > 0 {
				dimensions = make(map[string]any, len(list))
				for _, d := range list {
					dimensions[d.Name] = d.Value
				}
			}
			s.Rewards = dimensions
		}
	}
}
