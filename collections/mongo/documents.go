package mongo

import (
	"bytes"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// The documents of workers, sets of resources and receipts. As with rollouts,
// _id is partition/id, v the revision and o the number of insertion.

func (b *Backend) encodeWorker(w *queue.Worker, revision, order int64) bson.Raw {
	d := newDoc(384 + len(w.HeartbeatStats))
	d.text("_id", key(b.partition, w.WorkerID))
	d.text("p", b.partition)
	d.text("w", w.WorkerID)
	d.int("v", revision)
	d.int("o", order)
	d.text("st", string(w.Status))
	d.json("hs", w.HeartbeatStats)
	d.optFloat("hb", w.LastHeartbeatTime)
	d.optFloat("dq", w.LastDequeueTime)
	d.optFloat("bu", w.LastBusyTime)
	d.optFloat("id", w.LastIdleTime)
	d.optText("cr", w.CurrentRolloutID)
	d.optText("ca", w.CurrentAttemptID)
	return d.done()
}

func decodeWorker(raw bson.Raw) (w *queue.Worker, revision, order int64) {
	w = &queue.Worker{}
	for key, v := range fields(bytes.Clone(raw)) {
		switch string(key) {
		case "w":
			w.WorkerID = v.text()
		case "v":
			revision = v.int()
		case "o":
			order = v.int()
		case "st":
			w.Status = queue.WorkerStatus(v.text())
		case "hs":
			w.HeartbeatStats = v.json()
		case "hb":
			w.LastHeartbeatTime = v.floatPtr()
		case "dq":
			w.LastDequeueTime = v.floatPtr()
		case "bu":
			w.LastBusyTime = v.floatPtr()
		case "id":
			w.LastIdleTime = v.floatPtr()
		case "cr":
			w.CurrentRolloutID = v.textPtr()
		case "ca":
			w.CurrentAttemptID = v.textPtr()
		}
	}
	return w, revision, order
}

// Field w of a set numbers its last write: of sets with one update time the
// greatest is the latest. A hidden set has its update time in uh, so that the index
// by ut keeps it apart from those that can be the latest.
func (b *Backend) encodeResources(u *queue.ResourcesUpdate, revision, order int64) bson.Raw {
	d := newDoc(256 + len(u.Resources))
	d.text("_id", key(b.partition, u.ResourcesID))
	d.text("p", b.partition)
	d.text("i", u.ResourcesID)
	d.int("v", revision)
	d.int("o", order)
	d.int("w", numbers.next())
	d.float("ct", u.CreateTime)
	updated := "ut"
	if queue.Hidden(u.ResourcesID) {
		updated = "uh"
	}
	d.float(updated, u.UpdateTime)
	d.int("n", u.Version)
	d.json("rs", u.Resources)
	return d.done()
}

func decodeResources(raw bson.Raw) (u *queue.ResourcesUpdate, revision, order int64) {
	u = &queue.ResourcesUpdate{}
	for key, v := range fields(bytes.Clone(raw)) {
		switch string(key) {
		case "i":
			u.ResourcesID = v.text()
		case "v":
			revision = v.int()
		case "o":
			order = v.int()
		case "ct":
			u.CreateTime = v.float()
		case "ut", "uh":
			u.UpdateTime = v.float()
		case "n":
			u.Version = v.int()
		case "rs":
			u.Resources = v.json()
		}
	}
	return u, revision, order
}

// Field at is when the server forgets the receipt.
func (b *Backend) encodeReceipt(r *collections.Receipt, revision, _ int64) bson.Raw {
	d := newDoc(192 + 96*len(r.Refs))
	d.text("_id", key(b.partition, r.Key))
	d.int("v", revision)
	d.text("k", r.Key)
	d.text("op", r.Operation)
	d.float("t", r.Time)
	d.date("at", time.Now().Add(collections.ReceiptLife*time.Second).UnixMilli()) // when it expires
	list := d.openArray("rf")
	for i, ref := range r.Refs {
		at := d.open(strconv.Itoa(i))
		d.text("r", ref.RolloutID)
		if ref.AttemptID != "" {
			d.text("a", ref.AttemptID)
		}
		d.close(at)
	}
	d.close(list)
	return d.done()
}

func decodeReceipt(raw bson.Raw) (r *collections.Receipt, revision, order int64) {
	r = &collections.Receipt{}
	for key, v := range fields(raw) {
		switch string(key) {
		case "k":
			r.Key = v.text()
		case "v":
			revision = v.int()
		case "op":
			r.Operation = v.text()
		case "t":
			r.Time = v.float()
		case "rf":
			for _, ref := range fields(v.Data) {
				r.Refs = append(r.Refs, decodeRef(ref.Data))
			}
		}
	}
	return r, revision, 0
}

func decodeRef(raw []byte) queue.AttemptRef {
	var ref queue.AttemptRef
	for key, v := range fields(raw) {
		switch string(key) {
		case "r":
			ref.RolloutID = v.text()
		case "a":
			ref.AttemptID = v.text()
		}
	}
	return ref
}

// A span is one document. Spans are unique by _id, partition/rollout/attempt/span.
func (b *Backend) encodeSpan(s *queue.Span) bson.Raw {
	d := newDoc(512 + s.Size())
	d.text("_id", key(b.partition, s.RolloutID, s.AttemptID, s.SpanID))
	d.text("p", b.partition)
	d.text("r", s.RolloutID)
	d.text("a", s.AttemptID)
	d.int("o", numbers.next())
	d.int("n", s.SequenceID)
	d.text("ti", s.TraceID)
	d.text("si", s.SpanID)
	d.optText("pi", s.ParentID)
	d.text("nm", s.Name)
	d.optFloat("t0", s.StartTime)
	d.optFloat("t1", s.EndTime)
	d.json("st", s.Status)
	d.json("at", s.Attributes)
	d.json("ev", s.Events)
	d.json("li", s.Links)
	d.json("cx", s.Context)
	d.json("pa", s.Parent)
	d.json("re", s.Resource)
	d.json("ex", s.Extra)
	return d.done()
}

func decodeSpan(raw bson.Raw) *queue.Span {
	s := &queue.Span{}
	for key, v := range fields(bytes.Clone(raw)) {
		switch string(key) {
		case "r":
			s.RolloutID = v.text()
		case "a":
			s.AttemptID = v.text()
		case "n":
			s.SequenceID = v.int()
		case "ti":
			s.TraceID = v.text()
		case "si":
			s.SpanID = v.text()
		case "pi":
			s.ParentID = v.textPtr()
		case "nm":
			s.Name = v.text()
		case "t0":
			s.StartTime = v.floatPtr()
		case "t1":
			s.EndTime = v.floatPtr()
		case "st":
			s.Status = v.json()
		case "at":
			s.Attributes = v.json()
		case "ev":
			s.Events = v.json()
		case "li":
			s.Links = v.json()
		case "cx":
			s.Context = v.json()
		case "pa":
			s.Parent = v.json()
		case "re":
			s.Resource = v.json()
		case "ex":
			s.Extra = v.json()
		}
	}
	return s
}
