package agentlightning

import (
	"fmt"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// fields reads the fields of one document, and keeps the first error.
type fields struct{ err error }

func (f *fields) fail(key string, v bson.RawValue) {
	if f.err == nil {
		f.err = fmt.Errorf("its %s is %.80s", key, v.String())
	}
}

func (f *fields) text(key string, v bson.RawValue) string {
	s, ok := v.StringValueOK()
	if !ok {
		f.fail(key, v)
	}
	return s
}

func (f *fields) optText(key string, v bson.RawValue) *string {
	if v.Type == bson.TypeNull {
		return nil
	}
	s := f.text(key, v)
	return &s
}

func (f *fields) int(key string, v bson.RawValue) int64 {
	n, ok := v.AsInt64OK()
	if d, isDouble := v.DoubleOK(); !ok || isDouble && d != math.Trunc(d) {
		f.fail(key, v)
	}
	return n
}

func (f *fields) float(key string, v bson.RawValue) float64 {
	d, ok := v.AsFloat64OK()
	if !ok || math.IsNaN(d) || math.IsInf(d, 0) {
		f.fail(key, v)
	}
	return d
}

func (f *fields) optFloat(key string, v bson.RawValue) *float64 {
	if v.Type == bson.TypeNull {
		return nil
	}
	d := f.float(key, v)
	return &d
}

func word[T interface {
	~string
	Valid() bool
}](f *fields, key string, v bson.RawValue) T {
	w := T(f.text(key, v))
	if !w.Valid() {
		f.fail(key, v)
	}
	return w
}

// present fails where something that identifies the document is missing.
func (f *fields) present(key, id string) {
	if id == "" && f.err == nil {
		f.err = fmt.Errorf("it has no %s", key)
	}
}

// walk hands the fields on in order.
func walk(raw bson.Raw, do func(key string, v bson.RawValue)) {
	elements, _ := raw.Elements() // what a server sends is well formed
	for _, e := range elements {
		do(e.Key(), e.Value())
	}
}

func decodeRecord(raw bson.Raw) (*queue.Record, error) {
	var f fields
	r := &queue.Record{Attempts: []queue.Attempt{}}
	o := &r.Rollout
	o.Config, o.Input, o.Metadata = queue.DefaultConfig(), rawjson.Null, rawjson.Null
	walk(raw, func(key string, v bson.RawValue) {
		switch key {
		case "rollout_id":
			o.RolloutID = f.text(key, v)
		case "input":
			o.Input = toJSON(v, false)
		case "start_time":
			o.StartTime = f.float(key, v)
		case "end_time":
			o.EndTime = f.optFloat(key, v)
		case "mode":
			if v.Type != bson.TypeNull {
				o.Mode = word[queue.Mode](&f, key, v)
			}
		case "resources_id":
			o.ResourcesID = f.optText(key, v)
		case "status":
			o.Status = word[queue.RolloutStatus](&f, key, v)
		case "config":
			o.Config = decodeConfig(&f, v)
		case "metadata":
			o.Metadata = toJSON(v, false)
		}
	})
	f.present("rollout_id", o.RolloutID)
	f.present("status", string(o.Status))
	return r, f.err
}

func decodeConfig(f *fields, v bson.RawValue) queue.Config {
	c := queue.DefaultConfig()
	doc, ok := v.DocumentOK()
	if !ok {
		f.fail("config", v)
		return c
	}
	walk(doc, func(key string, v bson.RawValue) {
		switch key {
		case "timeout_seconds":
			c.TimeoutSeconds = f.optFloat(key, v)
		case "unresponsive_seconds":
			c.UnresponsiveSeconds = f.optFloat(key, v)
		case "max_attempts":
			c.MaxAttempts = f.int(key, v)
		case "retry_condition":
			list, ok := v.ArrayOK()
			if !ok {
				f.fail(key, v)
			}
			walk(bson.Raw(list), func(_ string, v bson.RawValue) {
				c.RetryCondition = append(c.RetryCondition, word[queue.AttemptStatus](f, key, v))
			})
		}
	})
	if err := c.Validate(); err != nil && f.err == nil {
		f.err = err
	}
	return c
}

func decodeAttempt(raw bson.Raw) (queue.Attempt, error) {
	var f fields
	a := queue.Attempt{Metadata: rawjson.Null}
	walk(raw, func(key string, v bson.RawValue) {
		switch key {
		case "rollout_id":
			a.RolloutID = f.text(key, v)
		case "attempt_id":
			a.AttemptID = f.text(key, v)
		case "sequence_id":
			a.SequenceID = f.int(key, v)
		case "start_time":
			a.StartTime = f.float(key, v)
		case "end_time":
			a.EndTime = f.optFloat(key, v)
		case "status":
			a.Status = word[queue.AttemptStatus](&f, key, v)
		case "worker_id":
			a.WorkerID = f.optText(key, v)
		case "last_heartbeat_time":
			a.LastHeartbeatTime = f.optFloat(key, v)
		case "metadata":
			a.Metadata = toJSON(v, false)
		}
	})
	f.present("rollout_id", a.RolloutID)
	f.present("attempt_id", a.AttemptID)
	f.present("status", string(a.Status))
	return a, f.err
}

func decodeWorker(raw bson.Raw) (*queue.Worker, error) {
	var f fields
	w := &queue.Worker{Status: queue.WorkerUnknown, HeartbeatStats: rawjson.Null}
	walk(raw, func(key string, v bson.RawValue) {
		switch key {
		case "worker_id":
			w.WorkerID = f.text(key, v)
		case "status":
			w.Status = word[queue.WorkerStatus](&f, key, v)
		case "heartbeat_stats":
			w.HeartbeatStats = toJSON(v, false)
		case "last_heartbeat_time":
			w.LastHeartbeatTime = f.optFloat(key, v)
		case "last_dequeue_time":
			w.LastDequeueTime = f.optFloat(key, v)
		case "last_busy_time":
			w.LastBusyTime = f.optFloat(key, v)
		case "last_idle_time":
			w.LastIdleTime = f.optFloat(key, v)
		case "current_rollout_id":
			w.CurrentRolloutID = f.optText(key, v)
		case "current_attempt_id":
			w.CurrentAttemptID = f.optText(key, v)
		}
	})
	f.present("worker_id", w.WorkerID)
	return w, f.err
}

func decodeResources(raw bson.Raw) (*queue.ResourcesUpdate, error) {
	var f fields
	u := &queue.ResourcesUpdate{Resources: rawjson.EmptyObject}
	walk(raw, func(key string, v bson.RawValue) {
		switch key {
		case "resources_id":
			u.ResourcesID = f.text(key, v)
		case "create_time":
			u.CreateTime = f.float(key, v)
		case "update_time":
			u.UpdateTime = f.float(key, v)
		case "version":
			u.Version = f.int(key, v)
		case "resources":
			u.Resources = toJSON(v, false)
		}
	})
	f.present("resources_id", u.ResourcesID)
	return u, f.err
}

func decodeSpan(raw bson.Raw) (*queue.Span, error) {
	var f fields
	s := &queue.Span{}
	var extra []byte
	walk(raw, func(key string, v bson.RawValue) {
		switch key {
		case "_id", "partition_id": // the store's own
		case "rollout_id":
			s.RolloutID = f.text(key, v)
		case "attempt_id":
			s.AttemptID = f.text(key, v)
		case "sequence_id":
			s.SequenceID = f.int(key, v)
		case "trace_id":
			s.TraceID = f.text(key, v)
		case "span_id":
			s.SpanID = f.text(key, v)
		case "parent_id":
			s.ParentID = f.optText(key, v)
		case "name":
			s.Name = f.text(key, v)
		case "status":
			s.Status = toJSON(v, false)
		case "attributes":
			s.Attributes = toJSON(v, true)
		case "events":
			s.Events = toJSON(v, true)
		case "links":
			s.Links = toJSON(v, true)
		case "start_time":
			s.StartTime = f.optFloat(key, v)
		case "end_time":
			s.EndTime = f.optFloat(key, v)
		case "context":
			s.Context = toJSON(v, false)
		case "parent":
			s.Parent = toJSON(v, false)
		case "resource":
			s.Resource = toJSON(v, true)
		default:
			text := rawjson.AppendString(nil, key)
			extra = rawjson.AppendMember(extra, text[1:len(text)-1], toJSON(v, false))
		}
	})
	if extra != nil {
		s.Extra = append(extra, '}')
	}
	s.FillIn()
	f.present("rollout_id", s.RolloutID)
	f.present("attempt_id", s.AttemptID)
	return s, f.err
}
