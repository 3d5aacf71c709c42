package mongo

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// A rollout is one document with its attempts and its place in the queue:
//
//	_id  partition/rollout     p  partition     r  rollout id
//	v    revision              o  number of insertion
//	u    revision before v, absent in a new rollout
//	l    counts the sections that relied on the rollout without changing it
//	st   status   t0, t1  start and end   mo  mode   rs  resources id
//	cf   config   in, md  input and metadata, JSON text
//	at   attempts, each i id, n sequence, st, t0, t1, w worker, hb heartbeat, md, lo lost
//	q    place in the queue    due  next watchdog check    ls  lease    sp  spans
//	pl   stubs of payloads kept elsewhere, which stand in their places too

// encodeRecord makes the document of a new rollout.
func (b *Backend) encodeRecord(r *queue.Record, revision, order int64) bson.Raw {
	d := newDoc(384 + len(r.Rollout.Input) + len(r.Rollout.Metadata) + 192*len(r.Attempts))
	d.text("_id", key(b.partition, r.Rollout.RolloutID))
	d.text("p", b.partition)
	d.text("r", r.Rollout.RolloutID)
	d.int("v", revision)
	d.int("o", order)
	d.text("st", string(r.Rollout.Status))
	d.float("t0", r.Rollout.StartTime)
	d.optFloat("t1", r.Rollout.EndTime)
	if r.Rollout.Mode != "" {
		d.text("mo", string(r.Rollout.Mode))
	}
	d.optText("rs", r.Rollout.ResourcesID)
	d.config(&r.Rollout.Config)
	d.json("in", r.Rollout.Input)
	d.json("md", r.Rollout.Metadata)
	d.attempts(r.Attempts)
	if r.Place > 0 {
		d.int("q", r.Place)
	}
	if r.Due > 0 {
		d.float("due", r.Due)
	}
	if r.Lease > 0 {
		d.float("ls", r.Lease)
	}
	if r.Spans != 0 {
		d.int("sp", r.Spans)
	}
	if stubs := recordStubs(r); len(stubs) > 0 {
		d.texts("pl", stubs)
	}
	return d.done()
}

func (d *doc) config(c *queue.Config) {
	at := d.open("cf")
	d.optFloat("to", c.TimeoutSeconds)
	d.optFloat("un", c.UnresponsiveSeconds)
	d.int("max", c.MaxAttempts)
	list := d.openArray("re")
	for i, s := range c.RetryCondition {
		d.text(strconv.Itoa(i), string(s))
	}
	d.close(list)
	d.close(at)
}

func (d *doc) attempts(as []queue.Attempt) {
	at := d.openArray("at")
	for i := range as {
		d.attempt(strconv.Itoa(i), &as[i])
	}
	d.close(at)
}

func (d *doc) attempt(key string, a *queue.Attempt) {
	at := d.open(key)
	d.text("i", a.AttemptID)
	d.int("n", a.SequenceID)
	d.text("st", string(a.Status))
	d.float("t0", a.StartTime)
	d.optFloat("t1", a.EndTime)
	d.optText("w", a.WorkerID)
	d.optFloat("hb", a.LastHeartbeatTime)
	d.json("md", a.Metadata)
	if a.Lost {
		d.flag("lo")
	}
	d.close(at)
}

// encodeChange makes the update from before, which stands at revision base, to
// after. It holds only what
// differs: a heartbeat does not resend the input.
func encodeChange(before, after *queue.Record, base, revision revision) bson.Raw {
	set, unset := newDoc(256), newDoc(64)
	set.int("v", revision)
	set.int("u", base)
	x, y := &before.Rollout, &after.Rollout
	if x.Status != y.Status {
		set.text("st", string(y.Status))
	}
	if x.StartTime != y.StartTime {
		set.float("t0", y.StartTime)
	}
	changeText(set, unset, "mo", modeText(x.Mode), modeText(y.Mode))
	changeText(set, unset, "rs", x.ResourcesID, y.ResourcesID)
	changeFloat(set, unset, "t1", x.EndTime, y.EndTime)
	changeJSON(set, unset, "in", x.Input, y.Input)
	changeJSON(set, unset, "md", x.Metadata, y.Metadata)
	if !sameConfig(&x.Config, &y.Config) {
		set.config(&y.Config)
	}
	changeAttempts(set, before.Attempts, after.Attempts)
	if before.Place != after.Place {
		if after.Place > 0 {
			set.int("q", after.Place)
		} else {
			unset.flag("q")
		}
	}
	changeFloat(set, unset, "due", positive(before.Due), positive(after.Due))
	changeFloat(set, unset, "ls", positive(before.Lease), positive(after.Lease))
	if before.Spans != after.Spans {
		set.int("sp", after.Spans)
	}
	if stubs := recordStubs(after); !slices.Equal(stubs, recordStubs(before)) {
		if len(stubs) > 0 {
			set.texts("pl", stubs)
		} else {
			unset.flag("pl")
		}
	}
	return encodeUpdate(set, unset)
}

func encodeUpdate(set, unset *doc) bson.Raw {
	d := newDoc(len(set.b) + len(unset.b) + 32)
	d.raw("$set", set.done())
	if fields := unset.done(); len(fields) > 5 {
		d.raw("$unset", fields)
	}
	return d.done()
}

func modeText(m queue.Mode) *string {
	if m == "" {
		return nil
	}
	s := string(m)
	return &s
}

func positive(f float64) *float64 {
	if f > 0 {
		return &f
	}
	return nil
}

func changeText(set, unset *doc, key string, before, after *string) {
	switch {
	case after == nil && before != nil:
		unset.flag(key)
	case after != nil && (before == nil || *before != *after):
		set.text(key, *after)
	}
}

func changeFloat(set, unset *doc, key string, before, after *float64) {
	switch {
	case after == nil && before != nil:
		unset.flag(key)
	case after != nil && (before == nil || *before != *after):
		set.float(key, *after)
	}
}

func changeJSON(set, unset *doc, key string, before, after rawjson.Value) {
	switch {
	case after == nil && before != nil:
		unset.flag(key)
	case after != nil && !bytes.Equal(before, after):
		set.json(key, after)
	}
}

// changeAttempts rewrites the attempts that differ, or all when some went away.
func changeAttempts(set *doc, before, after []queue.Attempt) {
	if len(after) < len(before) {
		set.attempts(after)
		return
	}
	for i := range after {
		if i >= len(before) || !sameAttempt(&before[i], &after[i]) {
			set.attempt("at."+strconv.Itoa(i), &after[i])
		}
	}
}

func sameAttempt(a, b *queue.Attempt) bool {
	return a.AttemptID == b.AttemptID && a.SequenceID == b.SequenceID && a.Status == b.Status &&
		a.StartTime == b.StartTime && a.Lost == b.Lost && equal(a.EndTime, b.EndTime) &&
		equal(a.WorkerID, b.WorkerID) && equal(a.LastHeartbeatTime, b.LastHeartbeatTime) &&
		(a.Metadata == nil) == (b.Metadata == nil) && bytes.Equal(a.Metadata, b.Metadata)
}

func sameConfig(a, b *queue.Config) bool {
	return equal(a.TimeoutSeconds, b.TimeoutSeconds) && equal(a.UnresponsiveSeconds, b.UnresponsiveSeconds) &&
		a.MaxAttempts == b.MaxAttempts && slices.Equal(a.RetryCondition, b.RetryCondition)
}

func equal[T comparable](a, b *T) bool {
	return a == b || (a != nil && b != nil && *a == *b)
}

// stored is a record as it was read, with what the backend needs besides.
type stored struct {
	*queue.Record
	order    int64 // number of insertion
	previous revision
}

// decodeRecord reads a rollout's document; the record keeps a copy.
func decodeRecord(raw bson.Raw) stored {
	r := &queue.Record{Attempts: []queue.Attempt{}}
	r.Rollout.Config.RetryCondition = []queue.AttemptStatus{}
	out := stored{Record: r}
	for key, v := range fields(bytes.Clone(raw)) {
		switch string(key) {
		case "r":
			r.Rollout.RolloutID = v.text()
		case "v":
			r.Revision = v.int()
		case "u":
			out.previous = v.int()
		case "o":
			out.order = v.int()
		case "st":
			r.Rollout.Status = queue.RolloutStatus(v.text())
		case "t0":
			r.Rollout.StartTime = v.float()
		case "t1":
			r.Rollout.EndTime = v.floatPtr()
		case "mo":
			r.Rollout.Mode = queue.Mode(v.text())
		case "rs":
			r.Rollout.ResourcesID = v.textPtr()
		case "cf":
			decodeConfig(&r.Rollout.Config, v.Data)
		case "in":
			r.Rollout.Input = v.json()
		case "md":
			r.Rollout.Metadata = v.json()
		case "at":
			for _, a := range fields(v.Data) {
				r.Attempts = append(r.Attempts, decodeAttempt(a.Data))
			}
		case "q":
			r.Place = v.int()
		case "due":
			r.Due = v.float()
		case "ls":
			r.Lease = v.float()
		case "sp":
			r.Spans = v.int()
		}
	}
	for i := range r.Attempts {
		r.Attempts[i].RolloutID = r.Rollout.RolloutID
	}
	return out
}

func decodeConfig(c *queue.Config, raw []byte) {
	for key, v := range fields(raw) {
		switch string(key) {
		case "to":
			c.TimeoutSeconds = v.floatPtr()
		case "un":
			c.UnresponsiveSeconds = v.floatPtr()
		case "max":
			c.MaxAttempts = v.int()
		case "re":
			for _, s := range fields(v.Data) {
				c.RetryCondition = append(c.RetryCondition, queue.AttemptStatus(s.text()))
			}
		}
	}
}

func decodeAttempt(raw []byte) queue.Attempt {
	var a queue.Attempt
	for key, v := range fields(raw) {
		switch string(key) {
		case "i":
			a.AttemptID = v.text()
		case "n":
			a.SequenceID = v.int()
		case "st":
			a.Status = queue.AttemptStatus(v.text())
		case "t0":
			a.StartTime = v.float()
		case "t1":
			a.EndTime = v.floatPtr()
		case "w":
			a.WorkerID = v.textPtr()
		case "hb":
			a.LastHeartbeatTime = v.floatPtr()
		case "md":
			a.Metadata = v.json()
		case "lo":
			a.Lost = true
		}
	}
	return a
}

// payloadSize is what of the record belongs to callers, in bytes.
func payloadSize(r *queue.Record) int {
	n := len(r.Rollout.Input) + len(r.Rollout.Metadata)
	for i := range r.Attempts {
		n += len(r.Attempts[i].Metadata)
	}
	return n
}

// recordSize estimates the size of the record's document from above, in bytes.
func recordSize(r *queue.Record) int {
	n := 1024 + 4*len(r.Rollout.RolloutID) + payloadSize(r)
	n += 32 * len(r.Rollout.Config.RetryCondition)
	if r.Rollout.ResourcesID != nil {
		n += len(*r.Rollout.ResourcesID)
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		n += 256 + len(a.AttemptID)
		if a.WorkerID != nil {
			n += len(*a.WorkerID)
		}
	}
	return n
}

// compare is the order of lists that nothing else orders: by start, then by
// insertion.
func (s stored) compare(other stored) int {
	return cmp.Or(cmp.Compare(s.Rollout.StartTime, other.Rollout.StartTime), cmp.Compare(s.order, other.order))
}
