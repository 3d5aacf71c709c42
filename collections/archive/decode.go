package archive

import (
	"fmt"
	"math"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// decoder reads the members of one line. It takes nothing on trust: a member of
// the wrong type, or one that this version does not know, is an error, for to
// leave it out would be to lose data. It keeps the first error.
type decoder struct{ err error }

func (d *decoder) fail(key []byte, format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%q "+format, append([]any{key}, args...)...)
	}
}

func (d *decoder) unknown(key []byte) {
	d.fail(key, "is a member that this version of aglq does not know")
}

func (d *decoder) text(key []byte, v rawjson.Value) string {
	if v.Kind() != rawjson.KindString {
		d.fail(key, "is not a string")
	}
	return v.Text()
}

// id is a text that is not empty.
func (d *decoder) id(key []byte, v rawjson.Value) string {
	s := d.text(key, v)
	if s == "" {
		d.fail(key, "is empty")
	}
	return s
}

func (d *decoder) optText(key []byte, v rawjson.Value) *string {
	if v.IsNull() {
		return nil
	}
	s := d.text(key, v)
	return &s
}

func (d *decoder) int(key []byte, v rawjson.Value) int64 {
	n, ok := v.Int()
	if !ok {
		d.fail(key, "is not an integer of 64 bits")
	}
	return n
}

// count is an integer of 0 or more.
func (d *decoder) count(key []byte, v rawjson.Value) int64 {
	n := d.int(key, v)
	if n < 0 {
		d.fail(key, "is negative")
	}
	return n
}

func (d *decoder) float(key []byte, v rawjson.Value) float64 {
	f, ok := v.Float()
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		d.fail(key, "is not a number")
	}
	return f
}

func (d *decoder) optFloat(key []byte, v rawjson.Value) *float64 {
	if v.IsNull() {
		return nil
	}
	f := d.float(key, v)
	return &f
}

func (d *decoder) bool(key []byte, v rawjson.Value) bool {
	if v.Kind() != rawjson.KindBool {
		d.fail(key, "is neither true nor false")
	}
	return v.Bool()
}

// object is one, or null.
func (d *decoder) object(key []byte, v rawjson.Value) rawjson.Value {
	if !v.IsNull() && v.Kind() != rawjson.KindObject {
		d.fail(key, "is not an object")
	}
	return v
}

// word is one of a list.
func word[T interface {
	~string
	Valid() bool
}](d *decoder, key []byte, v rawjson.Value) T {
	w := T(d.text(key, v))
	if !w.Valid() {
		d.fail(key, "is %q, which this version of aglq does not know", string(w))
	}
	return w
}

// present fails when a member that has to be there was not.
func (d *decoder) present(there bool, name string) {
	if !there {
		d.fail([]byte(name), "is missing")
	}
}

func (d *decoder) resources(v rawjson.Value) (u *queue.ResourcesUpdate, latest bool) {
	u = &queue.ResourcesUpdate{}
	for key, val := range v.Members() {
		switch string(key) {
		case "kind":
		case "resources_id":
			u.ResourcesID = d.id(key, val)
		case "create_time":
			u.CreateTime = d.float(key, val)
		case "update_time":
			u.UpdateTime = d.float(key, val)
		case "version":
			u.Version = d.int(key, val)
		case "resources":
			u.Resources = val
		case "latest":
			latest = d.bool(key, val)
		default:
			d.unknown(key)
		}
	}
	d.present(u.ResourcesID != "", "resources_id")
	d.present(u.Resources != nil, "resources")
	return u, latest
}

func (d *decoder) worker(v rawjson.Value) *queue.Worker {
	w := &queue.Worker{}
	for key, val := range v.Members() {
		switch string(key) {
		case "kind":
		case "worker_id":
			w.WorkerID = d.id(key, val)
		case "status":
			w.Status = word[queue.WorkerStatus](d, key, val)
		case "heartbeat_stats":
			w.HeartbeatStats = d.object(key, val)
		case "last_heartbeat_time":
			w.LastHeartbeatTime = d.optFloat(key, val)
		case "last_dequeue_time":
			w.LastDequeueTime = d.optFloat(key, val)
		case "last_busy_time":
			w.LastBusyTime = d.optFloat(key, val)
		case "last_idle_time":
			w.LastIdleTime = d.optFloat(key, val)
		case "current_rollout_id":
			w.CurrentRolloutID = d.optText(key, val)
		case "current_attempt_id":
			w.CurrentAttemptID = d.optText(key, val)
		default:
			d.unknown(key)
		}
	}
	d.present(w.WorkerID != "", "worker_id")
	d.present(w.Status != "", "status")
	return w
}

// maxPlace leaves room for places to come.
const maxPlace = 1 << 60

// record reads a rollout's line, whose attempts follow.
func (d *decoder) record(v rawjson.Value) (r *queue.Record, attempts, counter int64) {
	r = &queue.Record{Attempts: []queue.Attempt{}}
	o := &r.Rollout
	started, configured := false, false
	for key, val := range v.Members() {
		switch string(key) {
		case "kind":
		case "rollout_id":
			o.RolloutID = d.id(key, val)
		case "input":
			o.Input = val
		case "start_time":
			o.StartTime, started = d.float(key, val), true
		case "end_time":
			o.EndTime = d.optFloat(key, val)
		case "mode":
			if !val.IsNull() {
				o.Mode = word[queue.Mode](d, key, val)
			}
		case "resources_id":
			o.ResourcesID = d.optText(key, val)
		case "status":
			o.Status = word[queue.RolloutStatus](d, key, val)
		case "config":
			o.Config, configured = d.config(val), true
		case "metadata":
			o.Metadata = d.object(key, val)
		case "attempts":
			attempts = d.count(key, val)
		case "place":
			r.Place = d.count(key, val)
		case "due":
			r.Due = d.float(key, val)
		case "lease":
			r.Lease = d.float(key, val)
		case "spans":
			r.Spans = d.count(key, val)
		case "counter":
			counter = d.count(key, val)
		default:
			d.unknown(key)
		}
	}
	d.present(o.RolloutID != "", "rollout_id")
	d.present(o.Input != nil, "input")
	d.present(started, "start_time")
	d.present(o.Status != "", "status")
	d.present(configured, "config")
	if queued := o.Status.Queued(); queued != (r.Place > 0) || r.Place > maxPlace {
		d.fail([]byte("place"), "is %d, which does not go with status %s", r.Place, o.Status)
	}
	if r.Due < 0 || r.Lease < 0 {
		d.fail([]byte("due"), "or the lease is negative")
	}
	return r, attempts, counter
}

func (d *decoder) config(v rawjson.Value) queue.Config {
	c := queue.Config{RetryCondition: []queue.AttemptStatus{}}
	for key, val := range v.Members() {
		switch string(key) {
		case "timeout_seconds":
			c.TimeoutSeconds = d.optFloat(key, val)
		case "unresponsive_seconds":
			c.UnresponsiveSeconds = d.optFloat(key, val)
		case "max_attempts":
			c.MaxAttempts = d.int(key, val)
		case "retry_condition":
			for s := range val.Elements() {
				c.RetryCondition = append(c.RetryCondition, word[queue.AttemptStatus](d, key, s))
			}
		default:
			d.unknown(key)
		}
	}
	if err := c.Validate(); err != nil {
		d.fail([]byte("config"), "is wrong: %w", err)
	}
	return c
}

func (d *decoder) attempt(v rawjson.Value) queue.Attempt {
	var a queue.Attempt
	started := false
	for key, val := range v.Members() {
		switch string(key) {
		case "kind":
		case "rollout_id":
			a.RolloutID = d.id(key, val)
		case "attempt_id":
			a.AttemptID = d.id(key, val)
		case "sequence_id":
			a.SequenceID = d.count(key, val)
		case "start_time":
			a.StartTime, started = d.float(key, val), true
		case "end_time":
			a.EndTime = d.optFloat(key, val)
		case "status":
			a.Status = word[queue.AttemptStatus](d, key, val)
		case "worker_id":
			a.WorkerID = d.optText(key, val)
		case "last_heartbeat_time":
			a.LastHeartbeatTime = d.optFloat(key, val)
		case "metadata":
			a.Metadata = d.object(key, val)
		case "lost":
			a.Lost = d.bool(key, val)
		default:
			d.unknown(key)
		}
	}
	d.present(a.RolloutID != "", "rollout_id")
	d.present(a.AttemptID != "", "attempt_id")
	d.present(started, "start_time")
	d.present(a.Status != "", "status")
	return a
}

// span checks what queue.DecodeSpan takes on trust.
func (d *decoder) span(v rawjson.Value) *queue.Span {
	numbered := false
	for key, val := range v.Members() {
		switch string(key) {
		case "rollout_id", "attempt_id":
			d.id(key, val)
		case "sequence_id":
			numbered = d.int(key, val) != queue.NumberOnArrival
		case "trace_id", "span_id", "name":
			d.text(key, val)
		case "parent_id":
			d.optText(key, val)
		case "start_time", "end_time":
			d.optFloat(key, val)
		}
	}
	s := queue.DecodeSpan(v)
	d.present(s.RolloutID != "", "rollout_id")
	d.present(s.AttemptID != "", "attempt_id")
	d.present(numbered, "sequence_id")
	return &s
}
