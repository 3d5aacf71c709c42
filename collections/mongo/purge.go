package mongo

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// What is deleted in the background goes in two steps. The first takes rollouts
// out of sight, in one transaction with their counts and with a document that
// names them, the waste:
//
//	_id  partition/name     p  partition   at  when it may go, Unix seconds
//	rs   rollouts that are gone            ps  payloads that nobody refers to
//
// The second deletes what waste names, and then the waste. Whoever dies leaves
// waste that the next one finds, and a rollout is never half there.

const (
	// purgeRollouts is how many rollouts one transaction deletes: few enough to be
	// over in some milliseconds.
	purgeRollouts = 200
	// purgeSpans is how many spans one command deletes.
	purgeSpans = 1000
	// purgeChunks is how many chunks of payloads one command deletes.
	purgeChunks = 50
	// purgeLease is how long the process that purges is the only one after its
	// last batch.
	purgeLease = 30 * time.Second
	purgeName  = "purge"
)

// purging is what a process knows of the purges of its partition.
type purging struct {
	mu      sync.Mutex // one purge at a time
	held    time.Time  // when the lease was last renewed
	indexed map[string]bool
}

// Purge implements collections.Retention. One process of a partition purges; in
// the others a call does nothing.
func (b *Backend) Purge(ctx context.Context, old collections.Cutoffs) (collections.Purged, error) {
	b.purging.mu.Lock()
	defer b.purging.mu.Unlock()
	var out collections.Purged
	if held, err := b.holdPurge(ctx); err != nil || !held {
		return out, err
	}
	err := b.indexForPurge(ctx, old) // may take as long as it takes
	if err != nil {
		return out, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	for _, step := range []func(context.Context, collections.Cutoffs, *collections.Purged) error{
		b.purgeFinished, b.purgeSpans, b.purgeWaste,
	} {
		if err := step(ctx, old, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (b *Backend) holdPurge(ctx context.Context) (bool, error) {
	if time.Since(b.purging.held) < purgeLease/3 {
		return true, nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	began := time.Now()
	held, err := b.hold(ctx, key(b.partition, purgeName), purgeLease)
	if held {
		b.purging.held = began
	}
	return held, err
}

// indexForPurge makes the indexes that retention alone needs, so that nobody
// pays for them who keeps everything.
func (b *Backend) indexForPurge(ctx context.Context, old collections.Cutoffs) error {
	if old.Finished > 0 {
		if err := b.indexOnce(ctx, b.rollouts.main, endedIndex); err != nil {
			return err
		}
	}
	if old.Spans > 0 {
		return b.indexOnce(ctx, b.spans.main, storedIndex)
	}
	return nil
}

func (b *Backend) indexOnce(ctx context.Context, on *driver.Collection, model driver.IndexModel) error {
	if b.purging.indexed[on.Name()] {
		return nil
	}
	if _, err := on.Indexes().CreateOne(ctx, model); err != nil {
		return wrap(err, "creating the index that retention needs on "+on.Name()+" in MongoDB")
	}
	if b.purging.indexed == nil {
		b.purging.indexed = make(map[string]bool)
	}
	b.purging.indexed[on.Name()] = true
	return nil
}

const (
	byEnd    = "ended"
	byStored = "stored"
)

var (
	// The end time stays with a rollout that is revived, so the status is part of
	// the key.
	endedIndex = driver.IndexModel{
		Keys: bson.D{{Key: "p", Value: 1}, {Key: "st", Value: 1}, {Key: "t1", Value: 1}},
		Options: options.Index().SetName(byEnd).
			SetPartialFilterExpression(bson.D{{Key: "t1", Value: bson.D{{Key: "$gt", Value: 0}}}}),
	}
	storedIndex = driver.IndexModel{
		Keys:    bson.D{{Key: "p", Value: 1}, {Key: "o", Value: 1}},
		Options: options.Index().SetName(byStored),
	}
)

// purgeFinished turns old rollouts into waste. A rollout that changes meanwhile
// makes the transaction fail, and is looked at again.
func (b *Backend) purgeFinished(ctx context.Context, old collections.Cutoffs, out *collections.Purged) error {
	if old.Finished <= 0 {
		return nil
	}
	var gone []*queue.Record
	section := b.newRevision()
	err := b.inTransaction(ctx, func(ctx context.Context) (err error) {
		gone, err = b.discardFinished(ctx, old, section)
		return err
	})
	if err != nil {
		b.tallied.drop(section)
		return wrap(err, "deleting old rollouts in MongoDB")
	}
	b.tallied.settle(section, 0)
	out.Rollouts += int64(len(gone))
	for _, r := range gone {
		b.ended.Forget(r.Rollout.RolloutID)
		out.Attempts = append(out.Attempts, r.AttemptRefs()...)
	}
	out.More = out.More || len(gone) == purgeRollouts
	return nil
}

// discardFinished is the transaction of purgeFinished.
func (b *Backend) discardFinished(ctx context.Context, old collections.Cutoffs, section revision) ([]*queue.Record, error) {
	b.tallied.drop(section) // what an earlier run of the transaction was about to write
	var found []*queue.Record
	var payloads []string
	err := each(ctx, b.rollouts.main, b.endedBefore(old.Finished), options.Find().
		SetSort(bson.D{{Key: "t1", Value: 1}}).SetLimit(purgeRollouts).SetHint(byEnd).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "r", Value: 1}, {Key: "st", Value: 1}, {Key: "at.i", Value: 1}, {Key: "pl", Value: 1}}),
		func(raw bson.Raw) {
			found = append(found, decodeRecord(raw).Record)
			payloads = append(payloads, decodeWaste(raw).payloads...)
		})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	// A deletion tells nothing of what is deleted, so its revision does.
	marks := make([]driver.WriteModel, len(found))
	ids := make([]string, len(found))
	for i, r := range found {
		ids[i] = r.Rollout.RolloutID
		marks[i] = driver.NewUpdateOneModel().SetFilter(b.idIn([]string{r.Rollout.RolloutID})).
			SetUpdate(setRevision(r.Revision, mark(section, transitionOf(r, nil))))
	}
	b.tallied.expect(section, len(marks))
	if _, err := b.rollouts.main.BulkWrite(ctx, marks); err != nil {
		return nil, err
	}
	if _, err := b.rollouts.main.DeleteMany(ctx, b.idIn(ids)); err != nil {
		return nil, err
	}
	if _, err := b.waste.main.InsertOne(ctx, b.newWaste(rand.Text(), old.Now+collections.PurgeGrace, ids, payloads)); err != nil {
		return nil, err
	}
	return found, nil
}

func (b *Backend) endedBefore(t float64) bson.Raw {
	d := newDoc(128)
	d.text("p", b.partition)
	d.statuses(finishedStatuses)
	at := d.open("t1")
	d.float("$gt", 0)
	d.float("$lt", t)
	d.close(at)
	return d.done()
}

var finishedStatuses = func() (out []queue.RolloutStatus) {
	for _, s := range queue.RolloutStatuses {
		if s.Finished() {
			out = append(out, s)
		}
	}
	return out
}()

// inTransaction runs fn in a transaction, again as often as the server asks for
// it within ctx.
func (b *Backend) inTransaction(ctx context.Context, fn func(ctx context.Context) error) error {
	sess, err := b.client.StartSession()
	if err != nil {
		return err
	}
	defer sess.EndSession(context.WithoutCancel(ctx))
	_, err = sess.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		err := fn(ctx)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil { // the driver would abort without a time limit
			b.abort(ctx, sess)
		}
		return nil, err
	}, transactionOptions)
	return err
}

func (b *Backend) newWaste(name string, at float64, rollouts, payloads []string) bson.Raw {
	d := newDoc(128 + 48*(len(rollouts)+len(payloads)))
	d.text("_id", key(b.partition, name))
	d.text("p", b.partition)
	d.float("at", at)
	if len(rollouts) > 0 {
		d.texts("rs", rollouts)
	}
	if len(payloads) > 0 {
		d.texts("ps", payloads)
	}
	return d.done()
}

// purgeSpans deletes spans by the number that they were inserted under, which is
// the time in microseconds.
func (b *Backend) purgeSpans(ctx context.Context, old collections.Cutoffs, out *collections.Purged) error {
	if old.Spans <= 0 {
		return nil
	}
	n, err := b.deleteStoredBefore(ctx, b.spans.main, old.Spans, purgeSpans)
	if err != nil {
		return wrap(err, "deleting old spans in MongoDB")
	}
	b.countPurged(n, out)
	chunks, err := b.deleteStoredBefore(ctx, b.payloads.main, old.Spans, purgeChunks)
	if err != nil {
		return wrap(err, "deleting what was kept beside old spans in MongoDB")
	}
	out.More = out.More || n >= purgeSpans || chunks >= purgeChunks
	return nil
}

func (b *Backend) countPurged(spans int64, out *collections.Purged) {
	out.Spans += spans
	b.spanned.stored(-int(spans))
}

// deleteStoredBefore looks in the index how far the first limit documents reach,
// and deletes so far.
func (b *Backend) deleteStoredBefore(ctx context.Context, from *driver.Collection, before float64, limit int) (int64, error) {
	first, last := int64(0), int64(-1)
	err := each(ctx, from, b.storedIn("$lt", 1, int64(before*1e6)), options.Find().
		SetSort(bson.D{{Key: "p", Value: 1}, {Key: "o", Value: 1}}).SetLimit(int64(limit)).SetBatchSize(int32(limit+1)).SetHint(byStored).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "o", Value: 1}}),
		func(raw bson.Raw) {
			for _, v := range fields(raw) {
				if last = v.int(); first == 0 {
					first = last
				}
			}
		})
	if err != nil || last < 0 {
		return 0, err
	}
	res, err := from.DeleteMany(ctx, b.storedIn("$lte", first, last), options.DeleteMany().SetHint(byStored))
	if err != nil {
		return 0, err
	}
	return res.DeletedCount, nil
}

func (b *Backend) storedIn(below string, first, last int64) bson.Raw {
	d := newDoc(96)
	d.text("p", b.partition)
	at := d.open("o")
	d.int("$gte", first)
	d.int(below, last)
	d.close(at)
	return d.done()
}

// purgeWaste deletes what the waste that is due longest names, and in the end
// the waste itself.
func (b *Backend) purgeWaste(ctx context.Context, old collections.Cutoffs, out *collections.Purged) error {
	var w waste
	due := newDoc(64)
	due.text("p", b.partition)
	at := due.open("at")
	due.float("$gt", 0)
	due.float("$lte", old.Now)
	due.close(at)
	err := each(ctx, b.waste.main, due.done(), options.Find().SetHint(byDue).SetLimit(1).
		SetSort(bson.D{{Key: "p", Value: 1}, {Key: "at", Value: 1}}), func(raw bson.Raw) { w = decodeWaste(raw) })
	if err != nil || w.id == "" {
		return wrap(err, "looking for what is to be deleted in MongoDB")
	}
	out.More = true
	left, err := b.dispose(ctx, w, out)
	if err == nil && !left {
		_, err = b.waste.main.DeleteOne(ctx, bson.D{{Key: "_id", Value: w.id}})
	}
	return wrap(err, "deleting what hung on old rollouts in MongoDB")
}

type waste struct {
	id                 string
	rollouts, payloads []string
}

func decodeWaste(raw bson.Raw) (w waste) {
	for key, v := range fields(raw) {
		switch string(key) {
		case "_id":
			w.id = v.text()
		case "rs":
			for _, r := range fields(v.Data) {
				w.rollouts = append(w.rollouts, r.text())
			}
		case "ps", "pl":
			for _, p := range fields(v.Data) {
				w.payloads = append(w.payloads, p.text())
			}
		}
	}
	return w
}

// dispose deletes a batch of what waste names, and reports whether some is left.
func (b *Backend) dispose(ctx context.Context, w waste, out *collections.Purged) (left bool, err error) {
	if len(w.payloads) > 0 {
		for ids := range slices.Chunk(b.chunkIDs(w.payloads), purgeChunks) {
			if _, err := b.payloads.main.DeleteMany(ctx, byIDs(ids)); err != nil {
				return true, err
			}
		}
	}
	if len(w.rollouts) == 0 {
		return false, nil
	}
	n, full, err := b.deleteOf(ctx, b.spans.main, w.rollouts, bySequence, purgeSpans)
	b.countPurged(n, out)
	if err != nil || full {
		return true, err
	}
	_, full, err = b.deleteOf(ctx, b.payloads.main, w.rollouts, byRollout, purgeChunks)
	if err != nil || full {
		return true, err
	}
	_, err = b.counters.main.DeleteMany(ctx, b.idIn(w.rollouts))
	return false, err
}

// deleteOf deletes up to limit documents that belong to rollouts, and reports
// whether there were as many.
func (b *Backend) deleteOf(ctx context.Context, from *driver.Collection, rollouts []string, index string, limit int) (n int64, full bool, err error) {
	d := newDoc(64 + 48*len(rollouts))
	d.text("p", b.partition)
	at := d.open("r")
	d.texts("$in", rollouts)
	d.close(at)
	ids := bson.A{}
	err = each(ctx, from, d.done(), options.Find().SetHint(index).SetLimit(int64(limit)).SetBatchSize(int32(limit+1)).
		SetProjection(bson.D{{Key: "_id", Value: 1}}), func(raw bson.Raw) { ids = append(ids, raw.Lookup("_id").StringValue()) })
	if err != nil || len(ids) == 0 {
		return 0, false, err
	}
	res, err := from.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}})
	if err != nil {
		return 0, false, err
	}
	return res.DeletedCount, len(ids) == limit, nil
}
