package client

import (
	"fmt"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// The decoders read answers. Members they do not know are passed over, so a
// store may add some; a record without its id or with a status that does not
// exist is an error, for acting on it would be a guess. Payloads share the
// answer's memory.

// unexpected says that an answer is not what the protocol promises.
func unexpected(what string, v rawjson.Value) error {
	return queue.Errorf(queue.Internal, "the store's answer is no %s: %.200s", what, v)
}

func decodeRollout(v rawjson.Value) (queue.Rollout, error) {
	r := queue.Rollout{Input: rawjson.Null, Config: queue.DefaultConfig(), Metadata: rawjson.Null}
	for key, val := range v.Members() {
		switch string(key) {
		case "rollout_id":
			r.RolloutID = val.Text()
		case "input":
			r.Input = val
		case "start_time":
			r.StartTime, _ = val.Float()
		case "end_time":
			r.EndTime = val.FloatOrNil()
		case "mode":
			r.Mode = queue.Mode(val.Text())
		case "resources_id":
			r.ResourcesID = val.TextOrNil()
		case "status":
			r.Status = queue.RolloutStatus(val.Text())
		case "config":
			r.Config = decodeConfig(val)
		case "metadata":
			r.Metadata = val
		}
	}
	if r.RolloutID == "" || !r.Status.Valid() {
		return r, unexpected("rollout", v)
	}
	return r, nil
}

func decodeConfig(v rawjson.Value) queue.Config {
	c := queue.DefaultConfig()
	for key, val := range v.Members() {
		switch string(key) {
		case "timeout_seconds":
			c.TimeoutSeconds = val.FloatOrNil()
		case "unresponsive_seconds":
			c.UnresponsiveSeconds = val.FloatOrNil()
		case "max_attempts":
			if n, ok := val.Int(); ok {
				c.MaxAttempts = n
			}
		case "retry_condition":
			for s := range val.Elements() {
				c.RetryCondition = append(c.RetryCondition, queue.AttemptStatus(s.Text()))
			}
		}
	}
	return c
}

func decodeAttempted(v rawjson.Value) (queue.AttemptedRollout, error) {
	r, err := decodeRollout(v)
	if err != nil {
		return queue.AttemptedRollout{}, err
	}
	out := queue.AttemptedRollout{Rollout: r}
	if a := v.Get("attempt"); !a.IsNull() {
		attempt, err := decodeAttempt(a)
		if err != nil {
			return queue.AttemptedRollout{}, err
		}
		out.Attempt = &attempt
	}
	return out, nil
}

// decodeBegun is decodeAttempted where an attempt was asked for.
func decodeBegun(v rawjson.Value) (queue.AttemptedRollout, error) {
	r, err := decodeAttempted(v)
	if err == nil && r.Attempt == nil {
		err = unexpected("rollout with an attempt", v)
	}
	return r, err
}

func decodeAttempt(v rawjson.Value) (queue.Attempt, error) {
	a := queue.Attempt{Metadata: rawjson.Null}
	for key, val := range v.Members() {
		switch string(key) {
		case "rollout_id":
			a.RolloutID = val.Text()
		case "attempt_id":
			a.AttemptID = val.Text()
		case "sequence_id":
			a.SequenceID, _ = val.Int()
		case "start_time":
			a.StartTime, _ = val.Float()
		case "end_time":
			a.EndTime = val.FloatOrNil()
		case "status":
			a.Status = queue.AttemptStatus(val.Text())
		case "worker_id":
			a.WorkerID = val.TextOrNil()
		case "last_heartbeat_time":
			a.LastHeartbeatTime = val.FloatOrNil()
		case "metadata":
			a.Metadata = val
		}
	}
	if a.RolloutID == "" || a.AttemptID == "" || !a.Status.Valid() {
		return a, unexpected("attempt", v)
	}
	return a, nil
}

func decodeWorker(v rawjson.Value) (queue.Worker, error) {
	w := queue.Worker{HeartbeatStats: rawjson.Null}
	for key, val := range v.Members() {
		switch string(key) {
		case "worker_id":
			w.WorkerID = val.Text()
		case "status":
			w.Status = queue.WorkerStatus(val.Text())
		case "heartbeat_stats":
			w.HeartbeatStats = val
		case "last_heartbeat_time":
			w.LastHeartbeatTime = val.FloatOrNil()
		case "last_dequeue_time":
			w.LastDequeueTime = val.FloatOrNil()
		case "last_busy_time":
			w.LastBusyTime = val.FloatOrNil()
		case "last_idle_time":
			w.LastIdleTime = val.FloatOrNil()
		case "current_rollout_id":
			w.CurrentRolloutID = val.TextOrNil()
		case "current_attempt_id":
			w.CurrentAttemptID = val.TextOrNil()
		}
	}
	if !w.Status.Valid() {
		return w, unexpected("worker", v)
	}
	return w, nil
}

func decodeResources(v rawjson.Value) (queue.ResourcesUpdate, error) {
	var u queue.ResourcesUpdate
	for key, val := range v.Members() {
		switch string(key) {
		case "resources_id":
			u.ResourcesID = val.Text()
		case "create_time":
			u.CreateTime, _ = val.Float()
		case "update_time":
			u.UpdateTime, _ = val.Float()
		case "version":
			u.Version, _ = val.Int()
		case "resources":
			u.Resources = val
		}
	}
	if u.Resources.Kind() != rawjson.KindObject {
		return u, unexpected("set of resources", v)
	}
	return u, nil
}

func decodeSpan(v rawjson.Value) (queue.Span, error) {
	s := queue.DecodeSpan(v)
	if s.RolloutID == "" || s.AttemptID == "" {
		return s, unexpected("span", v)
	}
	return s, nil
}

// list decodes an array.
func list[T any](v rawjson.Value, decode func(rawjson.Value) (T, error)) ([]T, error) {
	if v.Kind() != rawjson.KindArray {
		return nil, unexpected("list", v)
	}
	out := []T{}
	for item := range v.Elements() {
		x, err := decode(item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", len(out), err)
		}
		out = append(out, x)
	}
	return out, nil
}

// page decodes a page of a list.
func page[T any](v rawjson.Value, decode func(rawjson.Value) (T, error)) (queue.Page[T], error) {
	items, err := list(v.Get("items"), decode)
	if err != nil {
		return queue.Page[T]{}, err
	}
	p := queue.Page[T]{Items: items}
	for key, to := range map[string]*int{"limit": &p.Limit, "offset": &p.Offset, "total": &p.Total} {
		n, ok := v.Get(key).Int()
		if !ok {
			return queue.Page[T]{}, unexpected("page", v)
		}
		*to = int(n)
	}
	return p, nil
}

// maybe decodes a record that may be null: nil.
func maybe[T any](v rawjson.Value, decode func(rawjson.Value) (T, error)) (*T, error) {
	if v.IsNull() {
		return nil, nil
	}
	x, err := decode(v)
	if err != nil {
		return nil, err
	}
	return &x, nil
}
