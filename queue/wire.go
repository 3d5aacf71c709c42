package queue

import "github.com/aglq/aglq/queue/rawjson"

// The AppendJSON methods write the wire form: every declared member, in
// declaration order, null where empty. They allocate nothing but dst.

// AppendJSON appends the rollout.
func (r *Rollout) AppendJSON(dst []byte) []byte {
	return append(r.appendOpen(dst), '}')
}

func (r *Rollout) appendOpen(dst []byte) []byte {
	dst = append(dst, `{"rollout_id":`...)
	dst = rawjson.AppendString(dst, r.RolloutID)
	dst = append(dst, `,"input":`...)
	dst = appendRaw(dst, r.Input)
	dst = append(dst, `,"start_time":`...)
	dst = rawjson.AppendFloat(dst, r.StartTime)
	dst = append(dst, `,"end_time":`...)
	dst = appendFloat(dst, r.EndTime)
	dst = append(dst, `,"mode":`...)
	if r.Mode == "" {
		dst = append(dst, "null"...)
	} else {
		dst = rawjson.AppendString(dst, string(r.Mode))
	}
	dst = append(dst, `,"resources_id":`...)
	dst = appendText(dst, r.ResourcesID)
	dst = append(dst, `,"status":`...)
	dst = rawjson.AppendString(dst, string(r.Status))
	dst = append(dst, `,"config":`...)
	dst = r.Config.AppendJSON(dst)
	dst = append(dst, `,"metadata":`...)
	return appendRaw(dst, r.Metadata)
}

// AppendJSON appends the config.
func (c *Config) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"timeout_seconds":`...)
	dst = appendFloat(dst, c.TimeoutSeconds)
	dst = append(dst, `,"unresponsive_seconds":`...)
	dst = appendFloat(dst, c.UnresponsiveSeconds)
	dst = append(dst, `,"max_attempts":`...)
	dst = rawjson.AppendInt(dst, c.MaxAttempts)
	dst = append(dst, `,"retry_condition":[`...)
	for i, s := range c.RetryCondition {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rawjson.AppendString(dst, string(s))
	}
	return append(dst, ']', '}')
}

// AppendJSON appends the rollout and, where there is one, its attempt.
func (r *AttemptedRollout) AppendJSON(dst []byte) []byte {
	dst = r.Rollout.appendOpen(dst)
	if r.Attempt != nil {
		dst = append(dst, `,"attempt":`...)
		dst = r.Attempt.AppendJSON(dst)
	}
	return append(dst, '}')
}

// AppendJSON appends the attempt.
func (a *Attempt) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"rollout_id":`...)
	dst = rawjson.AppendString(dst, a.RolloutID)
	dst = append(dst, `,"attempt_id":`...)
	dst = rawjson.AppendString(dst, a.AttemptID)
	dst = append(dst, `,"sequence_id":`...)
	dst = rawjson.AppendInt(dst, a.SequenceID)
	dst = append(dst, `,"start_time":`...)
	dst = rawjson.AppendFloat(dst, a.StartTime)
	dst = append(dst, `,"end_time":`...)
	dst = appendFloat(dst, a.EndTime)
	dst = append(dst, `,"status":`...)
	dst = rawjson.AppendString(dst, string(a.Status))
	dst = append(dst, `,"worker_id":`...)
	dst = appendText(dst, a.WorkerID)
	dst = append(dst, `,"last_heartbeat_time":`...)
	dst = appendFloat(dst, a.LastHeartbeatTime)
	dst = append(dst, `,"metadata":`...)
	dst = appendRaw(dst, a.Metadata)
	return append(dst, '}')
}

// AppendJSON appends the worker.
func (w *Worker) AppendJSON(dst []byte) []byte {
	return append(w.AppendOpen(dst), '}')
}

// AppendOpen appends the worker without its closing brace, for answers that
// add members of their own.
func (w *Worker) AppendOpen(dst []byte) []byte {
	dst = append(dst, `{"worker_id":`...)
	dst = rawjson.AppendString(dst, w.WorkerID)
	dst = append(dst, `,"status":`...)
	dst = rawjson.AppendString(dst, string(w.Status))
	dst = append(dst, `,"heartbeat_stats":`...)
	dst = appendRaw(dst, w.HeartbeatStats)
	dst = append(dst, `,"last_heartbeat_time":`...)
	dst = appendFloat(dst, w.LastHeartbeatTime)
	dst = append(dst, `,"last_dequeue_time":`...)
	dst = appendFloat(dst, w.LastDequeueTime)
	dst = append(dst, `,"last_busy_time":`...)
	dst = appendFloat(dst, w.LastBusyTime)
	dst = append(dst, `,"last_idle_time":`...)
	dst = appendFloat(dst, w.LastIdleTime)
	dst = append(dst, `,"current_rollout_id":`...)
	dst = appendText(dst, w.CurrentRolloutID)
	dst = append(dst, `,"current_attempt_id":`...)
	return appendText(dst, w.CurrentAttemptID)
}

// AppendJSON appends the resources update.
func (u *ResourcesUpdate) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"resources_id":`...)
	dst = rawjson.AppendString(dst, u.ResourcesID)
	dst = append(dst, `,"create_time":`...)
	dst = rawjson.AppendFloat(dst, u.CreateTime)
	dst = append(dst, `,"update_time":`...)
	dst = rawjson.AppendFloat(dst, u.UpdateTime)
	dst = append(dst, `,"version":`...)
	dst = rawjson.AppendInt(dst, u.Version)
	dst = append(dst, `,"resources":`...)
	dst = appendRaw(dst, u.Resources)
	return append(dst, '}')
}

// AppendJSON appends the span, extra members last.
func (s *Span) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"rollout_id":`...)
	dst = rawjson.AppendString(dst, s.RolloutID)
	dst = append(dst, `,"attempt_id":`...)
	dst = rawjson.AppendString(dst, s.AttemptID)
	dst = append(dst, `,"sequence_id":`...)
	dst = rawjson.AppendInt(dst, s.SequenceID)
	dst = append(dst, `,"trace_id":`...)
	dst = rawjson.AppendString(dst, s.TraceID)
	dst = append(dst, `,"span_id":`...)
	dst = rawjson.AppendString(dst, s.SpanID)
	dst = append(dst, `,"parent_id":`...)
	dst = appendText(dst, s.ParentID)
	dst = append(dst, `,"name":`...)
	dst = rawjson.AppendString(dst, s.Name)
	dst = append(dst, `,"status":`...)
	dst = appendRaw(dst, s.Status)
	dst = append(dst, `,"attributes":`...)
	dst = appendRaw(dst, s.Attributes)
	dst = append(dst, `,"events":`...)
	dst = appendRaw(dst, s.Events)
	dst = append(dst, `,"links":`...)
	dst = appendRaw(dst, s.Links)
	dst = append(dst, `,"start_time":`...)
	dst = appendFloat(dst, s.StartTime)
	dst = append(dst, `,"end_time":`...)
	dst = appendFloat(dst, s.EndTime)
	dst = append(dst, `,"context":`...)
	dst = appendRaw(dst, s.Context)
	dst = append(dst, `,"parent":`...)
	dst = appendRaw(dst, s.Parent)
	dst = append(dst, `,"resource":`...)
	dst = appendRaw(dst, s.Resource)
	if len(s.Extra) > 2 {
		dst = append(dst, ',')
		return append(dst, s.Extra[1:]...)
	}
	return append(dst, '}')
}

func appendRaw(dst []byte, v rawjson.Value) []byte {
	if len(v) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, v...)
}

func appendText(dst []byte, s *string) []byte {
	if s == nil {
		return append(dst, "null"...)
	}
	return rawjson.AppendString(dst, *s)
}

func appendFloat(dst []byte, f *float64) []byte {
	if f == nil {
		return append(dst, "null"...)
	}
	return rawjson.AppendFloat(dst, *f)
}
