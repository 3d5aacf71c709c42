package baseline

import (
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func (r *runner) logStatus(rollout *queue.AttemptedRollout) {
	was, seen := r.status[rollout.RolloutID]
	switch {
	case !seen:
		r.Logger.Info("rollout has its first status", "rollout_id", rollout.RolloutID, "status", string(rollout.Status))
	case was != rollout.Status:
		r.Logger.Info("rollout changed", "rollout_id", rollout.RolloutID, "status", string(rollout.Status))
	default:
		r.Logger.Debug("rollout unchanged", "rollout_id", rollout.RolloutID, "status", string(rollout.Status))
	}
	r.status[rollout.RolloutID] = rollout.Status
}

func (r *runner) logSpan(s *queue.Span) {
	if r.SpanVerbosity == None {
		return
	}
	attrs := []any{
		"rollout_id", s.RolloutID, "attempt_id", s.AttemptID, "span_id", s.SpanID,
		"sequence", s.SequenceID, "name", s.Name, "from", clock(s.StartTime), "to", clock(s.EndTime),
	}
	if s.StartTime != nil && s.EndTime != nil {
		attrs = append(attrs, "seconds", *s.EndTime-*s.StartTime)
	}
	if r.SpanVerbosity == KeyValues {
		attrs = append(attrs, "attributes", string(s.Attributes))
	} else {
		attrs = append(attrs, "attribute_keys", keys(s.Attributes))
	}
	r.Logger.Info("span", attrs...)
}

// clock writes Unix seconds as a time of day.
func clock(seconds *float64) string {
	if seconds == nil {
		return "unknown"
	}
	return time.UnixMicro(int64(*seconds * 1e6)).UTC().Format(time.RFC3339Nano)
}

func keys(object rawjson.Value) string {
	var names []string
	for key := range object.Members() {
		names = append(names, rawjson.Unescape(key))
	}
	return strings.Join(names, ", ")
}
