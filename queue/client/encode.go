package client

import (
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// object writes a JSON object member by member.
type object struct{ buf []byte }

func newObject() *object { return &object{buf: append(make([]byte, 0, 256), '{')} }

func (o *object) key(name string) {
	if o.buf[len(o.buf)-1] != '{' {
		o.buf = append(o.buf, ',')
	}
	o.buf = append(o.buf, '"')
	o.buf = append(o.buf, name...)
	o.buf = append(o.buf, '"', ':')
}

func (o *object) close() []byte { return append(o.buf, '}') }

func (o *object) text(name, s string) {
	o.key(name)
	o.buf = rawjson.AppendString(o.buf, s)
}

func (o *object) int(name string, n int) {
	o.key(name)
	o.buf = rawjson.AppendInt(o.buf, int64(n))
}

func (o *object) float(name string, f float64) {
	o.key(name)
	o.buf = rawjson.AppendFloat(o.buf, f)
}

// raw writes a payload, null when absent.
func (o *object) raw(name string, v rawjson.Value) {
	o.key(name)
	if len(v) == 0 {
		v = rawjson.Null
	}
	o.buf = append(o.buf, v...)
}

// textOrNull writes null for nil.
func (o *object) textOrNull(name string, s *string) {
	if s == nil {
		o.raw(name, nil)
		return
	}
	o.text(name, *s)
}

func (o *object) mode(m queue.Mode) {
	if m == "" {
		o.raw("mode", nil)
		return
	}
	o.text("mode", string(m))
}

// condition writes a text condition of a query when there is one.
func (o *object) condition(name string, s *string) {
	if s != nil {
		o.text(name, *s)
	}
}

func (o *object) match(name string, m queue.TextMatch) {
	o.condition(name, m.Equals)
	o.condition(name+"_contains", m.Contains)
}

// texts writes a list when it is one; nil is no condition.
func texts[T ~string](o *object, name string, list []T) {
	if list == nil {
		return
	}
	o.key(name)
	o.buf = append(o.buf, '[')
	for i, s := range list {
		if i > 0 {
			o.buf = append(o.buf, ',')
		}
		o.buf = rawjson.AppendString(o.buf, string(s))
	}
	o.buf = append(o.buf, ']')
}

func (o *object) logic(l queue.Logic) {
	if l == queue.Or {
		o.text("filter_logic", "or")
	}
}

// paging writes the sort and the page. Attempts and spans are sorted by number
// unless told otherwise, so the absence of a sort is said out loud.
func (o *object) paging(p queue.Paging) {
	o.int("limit", p.Limit)
	o.int("offset", p.Offset)
	if p.SortBy == "" {
		o.raw("sort_by", rawjson.Null)
		return
	}
	o.text("sort_by", p.SortBy)
	if p.Descending {
		o.text("sort_order", "desc")
	}
}

// request writes what asks for a new rollout, all five members.
func (o *object) request(r *queue.Request) {
	o.raw("input", r.Input)
	o.mode(r.Mode)
	o.textOrNull("resources_id", r.ResourcesID)
	o.key("config")
	if r.Config == nil {
		o.buf = append(o.buf, "null"...)
	} else {
		o.buf = r.Config.AppendJSON(o.buf)
	}
	o.raw("metadata", r.Metadata)
}

func enqueueBody(reqs []queue.Request) []byte {
	size := 32
	for i := range reqs {
		size += 256 + len(reqs[i].Input) + len(reqs[i].Metadata)
	}
	buf := append(make([]byte, 0, size), `{"rollouts":[`...)
	for i := range reqs {
		if i > 0 {
			buf = append(buf, ',')
		}
		o := object{buf: append(buf, '{')}
		o.request(&reqs[i])
		buf = o.close()
	}
	return append(buf, ']', '}')
}

func rolloutUpdateBody(u queue.RolloutUpdate) []byte {
	o := newObject()
	if u.Input.Set {
		o.raw("input", u.Input.Value)
	}
	if u.Mode.Set {
		o.mode(u.Mode.Value)
	}
	if u.ResourcesID.Set {
		o.textOrNull("resources_id", u.ResourcesID.Value)
	}
	if u.Status.Set {
		o.text("status", string(u.Status.Value))
	}
	if u.Config.Set {
		o.key("config")
		o.buf = u.Config.Value.AppendJSON(o.buf)
	}
	if u.Metadata.Set {
		o.raw("metadata", u.Metadata.Value)
	}
	if u.Fence {
		o.raw("fence", rawjson.Value("true"))
	}
	return o.close()
}

func attemptUpdateBody(u queue.AttemptUpdate) []byte {
	o := newObject()
	if u.Status.Set {
		o.text("status", string(u.Status.Value))
	}
	if u.WorkerID.Set {
		o.text("worker_id", u.WorkerID.Value)
	}
	if u.LastHeartbeatTime.Set {
		o.float("last_heartbeat_time", u.LastHeartbeatTime.Value)
	}
	if u.Metadata.Set {
		o.raw("metadata", u.Metadata.Value)
	}
	return o.close()
}

func heartbeatBody(h queue.Heartbeat) []byte {
	o := newObject()
	if h.Stats != nil {
		o.raw("heartbeat_stats", h.Stats)
	}
	if len(h.Held) > 0 {
		o.key("attempts")
		o.buf = append(o.buf, '[')
		for i, ref := range h.Held {
			if i > 0 {
				o.buf = append(o.buf, ',')
			}
			item := object{buf: append(o.buf, '{')}
			item.text("rollout_id", ref.RolloutID)
			item.text("attempt_id", ref.AttemptID)
			o.buf = item.close()
		}
		o.buf = append(o.buf, ']')
	}
	return o.close()
}
