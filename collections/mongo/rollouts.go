package mongo

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// light leaves the payloads of rollouts on the server.
var light = bson.D{{Key: "in", Value: 0}, {Key: "md", Value: 0}, {Key: "cf", Value: 0}, {Key: "at.md", Value: 0}}

// Records implements collections.Rollouts.
func (b *Backend) Records(ctx context.Context, ids []string) ([]*queue.Record, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	out, err := b.records(ctx, ids)
	if err != nil {
		return nil, err
	}
	return out, b.completeRecords(ctx, out)
}

// records may hold stubs.
func (b *Backend) records(ctx context.Context, ids []string) ([]*queue.Record, error) {
	from := b.rollouts.main
	if len(ids) > 1 {
		from = b.rollouts.snapshot
	}
	out := make([]*queue.Record, 0, len(ids))
	for ids := range slices.Chunk(ids, idsPerQuery) {
		o := options.Find().SetBatchSize(int32(len(ids) + 1))
		err := each(ctx, from, b.idIn(ids), o, func(raw bson.Raw) { out = append(out, decodeRecord(raw).Record) })
		if err != nil {
			return nil, wrap(err, "reading rollouts from MongoDB")
		}
	}
	return out, nil
}

// fewIDs is how many records are sooner read whole than asked about first.
const fewIDs = 16

// Finished implements collections.Rollouts. Most of many ids asked about are not
// finished, so the payloads are read in a second step.
func (b *Backend) Finished(ctx context.Context, ids []string) (done []*queue.Record, pending int, err error) {
	known, ids := b.remembered(ids)
	if len(ids) == 0 {
		return known, 0, nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	if len(ids) <= fewIDs {
		done, pending, err = b.finishedFew(ctx, ids)
	} else {
		done, pending, err = b.finishedMany(ctx, ids)
	}
	return append(known, done...), pending, err
}

func (b *Backend) finishedFew(ctx context.Context, ids []string) (done []*queue.Record, pending int, err error) {
	all, err := b.records(ctx, ids)
	if err != nil {
		return nil, 0, err
	}
	n := len(all)
	done = slices.DeleteFunc(all, func(r *queue.Record) bool { return !r.Rollout.Status.Finished() })
	return done, n - len(done), b.completeRecords(ctx, done)
}

func (b *Backend) finishedMany(ctx context.Context, ids []string) (done []*queue.Record, pending int, err error) {
	o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "r", Value: 1}, {Key: "st", Value: 1}})
	var finished []string
	for ids := range slices.Chunk(ids, idsPerQuery) {
		o.SetBatchSize(int32(len(ids) + 1))
		err := each(ctx, b.rollouts.main, b.idIn(ids), o, func(raw bson.Raw) {
			if r := decodeRecord(raw); r.Rollout.Status.Finished() {
				finished = append(finished, r.Rollout.RolloutID)
			} else {
				pending++
			}
		})
		if err != nil {
			return nil, 0, wrap(err, "reading rollouts from MongoDB")
		}
	}
	if len(finished) == 0 {
		return nil, pending, nil
	}
	if done, err = b.records(ctx, finished); err != nil {
		return nil, 0, err
	}
	before := len(done)
	done = slices.DeleteFunc(done, func(r *queue.Record) bool { return !r.Rollout.Status.Finished() })
	return done, pending + before - len(done), b.completeRecords(ctx, done)
}

// Overdue implements collections.Rollouts.
func (b *Backend) Overdue(ctx context.Context, now float64, limit int) ([]string, error) {
	if limit <= 0 {
		return nil, nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	d := newDoc(64)
	d.text("p", b.partition)
	at := d.open("due")
	d.float("$gt", 0)
	d.float("$lt", now)
	d.close(at)
	o := options.Find().SetSort(bson.D{{Key: "p", Value: 1}, {Key: "due", Value: 1}, {Key: "o", Value: 1}}).SetLimit(int64(limit)).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "r", Value: 1}}).SetHint(byDue)
	var ids []string
	err := each(ctx, b.rollouts.main, d.done(), o, func(raw bson.Raw) {
		for _, v := range fields(raw) {
			ids = append(ids, v.text())
		}
	})
	return ids, wrap(err, "looking for overdue rollouts in MongoDB")
}

// HasQueued implements collections.Rollouts.
func (b *Backend) HasQueued(ctx context.Context) (bool, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	d := newDoc(64)
	d.text("p", b.partition)
	at := d.open("q")
	d.int("$gt", 0)
	d.close(at)
	o := options.Find().SetLimit(1).SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "q", Value: 1}}).SetHint(byPlace)
	found := false
	err := each(ctx, b.rollouts.main, d.done(), o, func(bson.Raw) { found = true })
	return found, wrap(err, "looking for queued rollouts in MongoDB")
}

// QueryRollouts implements collections.Rollouts. Pages of the usual lists, all
// rollouts or those of some statuses by start time, are read from an index; for
// the others the candidates are read without their payloads and sorted here.
func (b *Backend) QueryRollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var page queue.Page[*queue.Record]
	var err error
	if q.IDs == nil && q.IDContains == nil && q.Modes == nil && (q.SortBy == "" || q.SortBy == "start_time") {
		page, err = b.rolloutsByStart(ctx, q)
	} else {
		page, err = b.rolloutsBySearch(ctx, q)
	}
	if err == nil {
		err = b.completeRecords(ctx, page.Items)
	}
	return page, wrap(err, "listing rollouts from MongoDB")
}

func (b *Backend) rolloutsByStart(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	page := queue.Page[*queue.Record]{Items: []*queue.Record{}, Limit: q.Limit, Offset: q.Offset}
	statuses := distinct(q.Statuses)
	if q.Statuses != nil && len(statuses) == 0 {
		return page, nil
	}
	if q.Limit != 0 {
		filter, o := b.byStart(statuses, q.SortBy == "start_time" && q.Descending)
		o.SetSkip(int64(q.Offset)).SetLimit(int64(max(q.Limit, 0)))
		err := each(ctx, b.rollouts.snapshot, filter, o, func(raw bson.Raw) {
			page.Items = append(page.Items, decodeRecord(raw).Record)
		})
		if err != nil {
			return page, err
		}
	}
	page.Total = q.Offset + len(page.Items)
	if complete(q.Paging, len(page.Items)) {
		return page, nil
	}
	counts, err := b.tallied.read(ctx)
	n := int64(0)
	for status, count := range counts.byStatus {
		if statuses == nil || slices.Contains(statuses, status) {
			n += count
		}
	}
	page.Total = int(n)
	return page, err
}

// complete reports whether a page of n items shows that the list ends with it.
func complete(p queue.Paging, n int) bool {
	return (p.Limit < 0 || n < p.Limit) && (n > 0 || p.Offset == 0)
}

func distinct(statuses []queue.RolloutStatus) []queue.RolloutStatus {
	return slices.Compact(slices.Sorted(slices.Values(statuses)))
}

// byStart reads an index in order; with several statuses, one range of it for
// each, merged.
func (b *Backend) byStart(statuses []queue.RolloutStatus, descending bool) (bson.Raw, *options.FindOptionsBuilder) {
	d := newDoc(128)
	d.text("p", b.partition)
	if statuses != nil {
		d.statuses(statuses)
	}
	direction, hint := 1, byStart
	switch {
	case descending && statuses == nil:
		direction, hint = -1, byStartDesc
	case descending:
		direction, hint = -1, byStatusDesc
	case statuses != nil:
		hint = byStatus
	}
	return d.done(), options.Find().SetSort(bson.D{{Key: "t0", Value: direction}, {Key: "o", Value: 1}}).SetHint(hint)
}

func (d *doc) statuses(statuses []queue.RolloutStatus) {
	at := d.open("st")
	texts := make([]string, len(statuses))
	for i, s := range statuses {
		texts[i] = string(s)
	}
	d.texts("$in", texts)
	d.close(at)
}

// rolloutsBySearch looks at all candidates.
func (b *Backend) rolloutsBySearch(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error) {
	all := q.Limit < 0
	var found []stored
	err := b.candidates(ctx, q, !all, func(raw bson.Raw) {
		if r := decodeRecord(raw); collections.MatchRollout(r.Record, &q) {
			found = append(found, r)
		}
	})
	if err != nil {
		return queue.Page[*queue.Record]{}, err
	}
	slices.SortFunc(found, stored.compare)
	records := make([]*queue.Record, len(found))
	for i := range found {
		records[i] = found[i].Record
	}
	page := collections.PageRollouts(records, q.Paging)
	if all || len(page.Items) == 0 {
		return page, nil
	}
	return page, b.fill(ctx, page.Items)
}

// candidates reads the rollouts that may match: those named, those of the
// statuses, or all.
func (b *Backend) candidates(ctx context.Context, q queue.RolloutQuery, withoutPayload bool, do func(bson.Raw)) error {
	project := func(o *options.FindOptionsBuilder) *options.FindOptionsBuilder {
		if withoutPayload {
			o.SetProjection(light)
		}
		return o
	}
	only := q.Logic == queue.And
	if only && q.IDs != nil {
		ids := slices.Compact(slices.Sorted(slices.Values(q.IDs)))
		for ids := range slices.Chunk(ids, idsPerQuery) {
			if err := each(ctx, b.rollouts.snapshot, b.idIn(ids), project(options.Find()), do); err != nil {
				return err
			}
		}
		return nil
	}
	var statuses []queue.RolloutStatus
	if only && q.Statuses != nil {
		if statuses = distinct(q.Statuses); len(statuses) == 0 {
			return nil
		}
	}
	filter, o := b.byStart(statuses, false)
	return each(ctx, b.rollouts.snapshot, filter, project(o), do)
}

// fill replaces records without payloads by whole ones.
func (b *Backend) fill(ctx context.Context, items []*queue.Record) error {
	ids := make([]string, len(items))
	for i, r := range items {
		ids[i] = r.Rollout.RolloutID
	}
	whole, err := b.records(ctx, ids)
	if err != nil {
		return err
	}
	byID := make(map[string]*queue.Record, len(whole))
	for _, r := range whole {
		byID[r.Rollout.RolloutID] = r
	}
	for i, id := range ids {
		if r := byID[id]; r != nil {
			items[i] = r
		}
	}
	return nil
}
