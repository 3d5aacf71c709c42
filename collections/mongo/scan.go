package mongo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// place is what a cursor stands for: the key of the last document of a page in
// the index by which it was read, and the ids of all documents read with that
// key. Numbers of insertion come from several processes, so two documents may
// have the same.
type place struct {
	Rollout string   `json:"r,omitempty"`
	Start   float64  `json:"t,omitempty"`
	Number  int64    `json:"n,omitempty"`
	Attempt string   `json:"a,omitempty"`
	Order   int64    `json:"o"`
	IDs     []string `json:"i"`
}

func readPlace(c collections.Cursor) (p place, err error) {
	if c == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(c), &p); err != nil {
		return p, queue.Wrap(queue.Invalid, err, fmt.Sprintf("%q is no cursor of this scan", c))
	}
	return p, nil
}

func (p *place) cursor() collections.Cursor {
	text, _ := json.Marshal(p) // cannot fail
	return collections.Cursor(text)
}

func (p *place) sameKey(o place) bool {
	return p.Rollout == o.Rollout && p.Start == o.Start && p.Number == o.Number && p.Attempt == o.Attempt && p.Order == o.Order
}

// pass moves behind a document.
func (p *place) pass(next place, id string) {
	if p.sameKey(next) {
		p.IDs = append(p.IDs, id)
		return
	}
	*p = next
	p.IDs = []string{id}
}

// scan reads a page that begins at the key of p, which moves along. Decode
// gives a document's key and its size.
func (p *place) scan(ctx context.Context, c *driver.Collection, filter bson.Raw, o *options.FindOptionsBuilder,
	left *room, decode func(bson.Raw) (at place, size int),
) error {
	known := p.IDs
	o.SetLimit(int64(left.items + len(known))).SetBatchSize(int32(left.items + len(known) + 1))
	cursor, err := c.Find(ctx, filter, o)
	if err != nil {
		return err
	}
	defer end(ctx, cursor)
	for !left.none() && cursor.Next(ctx) {
		id := documentID(cursor.Current)
		if slices.Contains(known, id) {
			continue
		}
		at, size := decode(cursor.Current)
		p.pass(at, id)
		left.items--
		left.bytes -= size
	}
	return cursor.Err()
}

// room is what a page still takes.
type room struct{ items, bytes int }

func newRoom(limit int) *room { return &room{limit, collections.ScanBytes} }

func (r *room) none() bool { return r.items <= 0 || r.bytes <= 0 }

func documentID(raw bson.Raw) string {
	id, _ := raw.Lookup("_id").StringValueOK()
	return id
}

// ScanRollouts implements collections.Scans.
func (b *Backend) ScanRollouts(ctx context.Context, after collections.Cursor, limit int) ([]*queue.Record, collections.Cursor, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	p, err := readPlace(after)
	if err != nil {
		return nil, "", err
	}
	o := options.Find().SetHint(byStart).SetSort(bson.D{{Key: "p", Value: 1}, {Key: "t0", Value: 1}, {Key: "o", Value: 1}})
	if after != "" {
		o.SetMin(bson.D{{Key: "p", Value: b.partition}, {Key: "t0", Value: p.Start}, {Key: "o", Value: p.Order}})
		o.SetMax(bson.D{{Key: "p", Value: b.partition}, {Key: "t0", Value: bson.MaxKey{}}, {Key: "o", Value: bson.MaxKey{}}})
	}
	var out []*queue.Record
	err = p.scan(ctx, b.rollouts.main, b.mine(), o, newRoom(limit), func(raw bson.Raw) (place, int) {
		r := decodeRecord(raw)
		out = append(out, r.Record)
		return place{Start: r.Rollout.StartTime, Order: r.order}, payloadSize(r.Record) + stubbedSize(stubsOf(r.Record))
	})
	if err == nil {
		err = b.completeRecords(ctx, out)
	}
	if err != nil {
		return nil, "", wrap(err, "scanning rollouts in MongoDB")
	}
	return out, p.cursor(), nil
}

// ScanWorkers implements collections.Scans.
func (b *Backend) ScanWorkers(ctx context.Context, after collections.Cursor, limit int) ([]*queue.Worker, collections.Cursor, error) {
	var out []*queue.Worker
	next, err := b.scanInOrder(ctx, b.workers.main, after, limit, func(raw bson.Raw) (int64, int) {
		w, _, order := decodeWorker(raw)
		out = append(out, w)
		return order, len(w.HeartbeatStats)
	})
	return out, next, wrap(err, "scanning workers in MongoDB")
}

// ScanResources implements collections.Scans.
func (b *Backend) ScanResources(ctx context.Context, after collections.Cursor, limit int) ([]*queue.ResourcesUpdate, collections.Cursor, error) {
	var out []*queue.ResourcesUpdate
	next, err := b.scanInOrder(ctx, b.resources.main, after, limit, func(raw bson.Raw) (int64, int) {
		u, _, order := decodeResources(raw)
		out = append(out, u)
		return order, max(len(u.Resources), stubbedSize([]*rawjson.Value{&u.Resources}))
	})
	for _, u := range out {
		if err == nil {
			err = b.Complete(ctx, &u.Resources)
		}
	}
	return out, next, wrap(err, "scanning resources in MongoDB")
}

func (b *Backend) scanInOrder(ctx context.Context, c *driver.Collection, after collections.Cursor, limit int,
	decode func(bson.Raw) (order int64, size int),
) (collections.Cursor, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	p, err := readPlace(after)
	if err != nil {
		return "", err
	}
	filter := newDoc(64)
	filter.text("p", b.partition)
	if after != "" {
		at := filter.open("o")
		filter.int("$gte", p.Order)
		filter.close(at)
	}
	err = p.scan(ctx, c, filter.done(), inOrder(), newRoom(limit), func(raw bson.Raw) (place, int) {
		order, size := decode(raw)
		return place{Order: order}, size
	})
	return p.cursor(), err
}

// ScanSpans implements collections.Scans: first the rest of the rollout that the
// cursor stands in, then the rollouts behind it.
func (b *Backend) ScanSpans(ctx context.Context, rolloutIDs []string, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	p, err := readPlace(after)
	if err != nil {
		return nil, "", err
	}
	var out []queue.Span
	left := newRoom(limit)
	decode := func(raw bson.Raw) (place, int) {
		s := decodeSpan(raw)
		out = append(out, *s)
		order, _ := raw.Lookup("o").AsInt64OK()
		return place{Rollout: s.RolloutID, Number: s.SequenceID, Order: order, Attempt: s.AttemptID}, s.Size() + stubbedSize(spanPayloads(s))
	}
	if after != "" {
		rest, found := slices.BinarySearch(rolloutIDs, p.Rollout)
		if found {
			rest++
		}
		rolloutIDs = rolloutIDs[rest:]
		o := options.Find().SetHint(bySequence).SetSort(spanSort).SetMin(spanKey(b.partition, p.Rollout, p.Number, p.Order, p.Attempt)).
			SetMax(spanKey(b.partition, p.Rollout, bson.MaxKey{}, bson.MaxKey{}, bson.MaxKey{}))
		err = p.scan(ctx, b.spans.main, b.mine(), o, left, decode)
	}
	if err == nil && len(rolloutIDs) > 0 && !left.none() {
		filter := newDoc(64 + 32*len(rolloutIDs))
		filter.text("p", b.partition)
		at := filter.open("r")
		filter.texts("$in", rolloutIDs)
		filter.close(at)
		err = p.scan(ctx, b.spans.main, filter.done(), options.Find().SetHint(bySequence).SetSort(spanSort), left, decode)
	}
	if err == nil {
		err = b.completeSpans(ctx, out)
	}
	if err != nil {
		return nil, "", wrap(err, "scanning spans in MongoDB")
	}
	return out, p.cursor(), nil
}

var spanSort = spanKey(1, 1, 1, 1, 1)

func spanKey(partition, rollout, number, order, attempt any) bson.D {
	return bson.D{
		{Key: "p", Value: partition}, {Key: "r", Value: rollout}, {Key: "n", Value: number},
		{Key: "o", Value: order}, {Key: "a", Value: attempt},
	}
}

// Counters implements collections.Scans.
func (b *Backend) Counters(ctx context.Context, rolloutIDs []string) ([]int64, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	out := make([]int64, len(rolloutIDs))
	if len(rolloutIDs) == 0 {
		return out, nil
	}
	places := make(map[string]int, len(rolloutIDs))
	for i, id := range rolloutIDs {
		places[key(b.partition, id)] = i
	}
	err := each(ctx, b.counters.main, b.idIn(rolloutIDs), options.Find().SetBatchSize(int32(len(rolloutIDs)+1)), func(raw bson.Raw) {
		if i, ok := places[documentID(raw)]; ok {
			out[i], _ = raw.Lookup("n").AsInt64OK()
		}
	})
	return out, wrap(err, "reading span counters from MongoDB")
}
