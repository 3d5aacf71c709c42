package archive

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Options says how an import works; the zero Options import into an empty
// partition.
type Options struct {
	// Merge takes in what is not there yet. What is there has to be the same, else
	// it stays as it is and is reported. So an import that was interrupted is
	// finished by one that merges.
	Merge bool
	// Inserted, if not nil, is told of rollouts that were stored. It must not block.
	Inserted func([]*queue.Record)
}

// The bounds of one batch of writes.
const (
	batchRollouts = 100
	batchSpans    = 500
	batchBytes    = 4 << 20
)

// Import stores items in a backend. The report tells what was done, also with
// an error, which ends the import: what was stored before stays, and importing
// the same again with Merge goes on from there.
//
// Rollouts are stored a batch at a time, all or nothing of it, and their spans
// after them. Counters of spans only ever rise.
func Import(ctx context.Context, into collections.Backend, items Items, o Options) (Report, error) {
	im := importer{ctx: ctx, into: into, options: o}
	if !o.Merge {
		if err := im.mustBeEmpty(); err != nil {
			return im.report, err
		}
	}
	for item, err := range items {
		if ctx.Err() != nil {
			return im.report, ctx.Err()
		}
		if err != nil {
			// What came before is right as far as it goes.
			return im.report, errors.Join(err, im.finish())
		}
		if err := im.take(item); err != nil {
			return im.report, err
		}
	}
	err := im.finish()
	if err == nil {
		err = im.restoreLatest()
	}
	return im.report, err
}

type importer struct {
	ctx     context.Context
	into    collections.Backend
	options Options
	report  Report

	resources batch[*queue.ResourcesUpdate]
	workers   batch[*queue.Worker]
	rollouts  batch[Item]
	spans     batch[queue.Span]

	latest *queue.ResourcesUpdate // without its payload
	// group and older are the rollouts whose spans may come: the last ones, a
	// group's worth at least.
	group, older map[string]*member
	spansCame    bool // since the last rollout
}

// member is what the spans of a rollout need to know of it.
type member struct {
	counter int64
	alien   bool  // another rollout has its id
	left    int64 // spans left out for that
}

// batch gathers what is stored together.
type batch[T any] struct {
	list  []T
	bytes int
}

// add reports whether the batch is full.
func (b *batch[T]) add(v T, size, limit int) bool {
	b.list = append(b.list, v)
	b.bytes += size
	return len(b.list) >= limit || b.bytes >= batchBytes
}

func (b *batch[T]) take() []T {
	list := b.list
	b.list, b.bytes = nil, 0
	return list
}

func (im *importer) mustBeEmpty() error {
	rs, _, err1 := im.into.ScanRollouts(im.ctx, "", 1)
	ws, _, err2 := im.into.ScanWorkers(im.ctx, "", 1)
	us, _, err3 := im.into.ScanResources(im.ctx, "", 1)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if len(rs)+len(ws)+len(us) > 0 {
		return queue.Errorf(queue.Conflict, "the partition to import into is not empty: choose an empty one, or merge into it (--merge), "+
			"which also finishes an import that was interrupted")
	}
	return nil
}

// take puts an item into its batch, and stores the batch when it is full.
func (im *importer) take(i Item) error {
	switch {
	case i.Resources != nil:
		if i.Latest {
			im.latest = &queue.ResourcesUpdate{ResourcesID: i.Resources.ResourcesID, UpdateTime: i.Resources.UpdateTime}
		}
		if im.resources.add(i.Resources, len(i.Resources.Resources), batchRollouts) {
			return im.storeResources()
		}
	case i.Worker != nil:
		if im.workers.add(i.Worker, len(i.Worker.HeartbeatStats), batchRollouts) {
			return im.storeWorkers()
		}
	case i.Rollout != nil:
		if im.spansCame {
			if err := im.flush(); err != nil {
				return err
			}
			im.forgetGroups()
		}
		im.remember(i.Rollout.Rollout.RolloutID, &member{counter: i.Counter})
		if im.rollouts.add(i, payloadSize(i.Rollout), batchRollouts) {
			return im.storeRollouts()
		}
	case i.Span != nil:
		if !im.spansCame {
			if err := im.flush(); err != nil {
				return err
			}
			im.spansCame = true
		}
		if im.spans.add(*i.Span, i.Span.Size(), batchSpans) {
			return im.storeSpans()
		}
	}
	return nil
}

func payloadSize(r *queue.Record) int {
	n := len(r.Rollout.Input) + len(r.Rollout.Metadata)
	for i := range r.Attempts {
		n += len(r.Attempts[i].Metadata)
	}
	return n
}

// flush stores all that has gathered.
func (im *importer) flush() error {
	for _, store := range []func() error{im.storeResources, im.storeWorkers, im.storeRollouts, im.storeSpans} {
		if err := store(); err != nil {
			return err
		}
	}
	return nil
}

// finish is flush at the end of the items.
func (im *importer) finish() error {
	err := im.flush()
	im.forgetGroups()
	return err
}

// remember keeps a rollout for its spans, and forgets those whose spans cannot
// come any more.
func (im *importer) remember(id string, m *member) {
	if im.group == nil || len(im.group) >= groupSize {
		im.forget(im.older)
		im.older, im.group = im.group, make(map[string]*member, groupSize)
	}
	im.group[id] = m
}

// member finds a rollout that is remembered, nil for none.
func (im *importer) member(id string) *member {
	if m := im.group[id]; m != nil {
		return m
	}
	return im.older[id]
}

func (im *importer) forget(group map[string]*member) {
	for id, m := range group {
		if m.left > 0 {
			im.report.problem("%d spans of rollout %s were left out with it", m.left, id)
		}
	}
}

func (im *importer) forgetGroups() {
	im.forget(im.older)
	im.forget(im.group)
	im.older, im.group, im.spansCame = nil, nil, false
}

// refusal reports whether err concerns what was to be stored, not the backend.
func refusal(err error) bool {
	k := queue.KindOf(err)
	return k == queue.TooLarge || k == queue.Invalid || k == queue.Conflict
}

// alone stores what could not be stored together one by one, and names what is
// at fault.
func alone[T any](im *importer, items []T, name func(T) string, store func([]T) error) error {
	for _, item := range items {
		err := store([]T{item})
		if err == nil {
			continue
		}
		if !refusal(err) {
			return err
		}
		im.report.Refused++
		im.report.problem("%s was refused: %v", name(item), err)
	}
	return nil
}

func (im *importer) storeResources() error {
	return putMissing(im, im.resources.take(), kept[queue.ResourcesUpdate]{
		name: func(u *queue.ResourcesUpdate) string { return "set of resources " + u.ResourcesID },
		get:  im.wholeResources,
		put: func(tx collections.Tx, u *queue.ResourcesUpdate) error {
			own := *u
			if err := im.into.Stage(im.ctx, collections.StageResourcesOver, &own.Resources); err != nil {
				return err
			}
			return tx.PutResources(&own)
		},
		text: appendResources,
		item: func(u *queue.ResourcesUpdate) Item { return Item{Resources: u} },
	})
}

func (im *importer) storeWorkers() error {
	return putMissing(im, im.workers.take(), kept[queue.Worker]{
		name: func(w *queue.Worker) string { return "worker " + w.WorkerID },
		get:  func(tx collections.Tx, w *queue.Worker) (*queue.Worker, error) { return tx.Worker(w.WorkerID) },
		put:  collections.Tx.PutWorker,
		text: appendWorker,
		item: func(w *queue.Worker) Item { return Item{Worker: w} },
	})
}

// wholeResources reads a set as it is, stubs replaced.
func (im *importer) wholeResources(tx collections.Tx, u *queue.ResourcesUpdate) (*queue.ResourcesUpdate, error) {
	there, err := tx.Resources(u.ResourcesID)
	if err != nil || there == nil {
		return nil, err
	}
	own := *there
	return &own, im.into.Complete(im.ctx, &own.Resources)
}

// kept is how workers and sets of resources are stored and compared.
type kept[T any] struct {
	name func(*T) string
	get  func(collections.Tx, *T) (*T, error)
	put  func(collections.Tx, *T) error
	text func([]byte, *T) []byte
	item func(*T) Item
}

// putMissing stores what is not there, together if that goes.
func putMissing[T any](im *importer, list []*T, as kept[T]) error {
	if len(list) == 0 {
		return nil
	}
	put := func(list []*T) error {
		var done Report
		err := im.into.Atomic(im.ctx, func(tx collections.Tx) error {
			done = Report{}
			for _, v := range list {
				if err := as.putOne(tx, v, &done); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			im.report.merge(&done)
		}
		return err
	}
	err := put(list)
	if refusal(err) {
		return alone(im, list, as.name, put)
	}
	return err
}

func (as *kept[T]) putOne(tx collections.Tx, v *T, done *Report) error {
	there, err := as.get(tx, v)
	if err != nil {
		return err
	}
	item := as.item(v)
	switch {
	case there == nil:
		done.Stored.add(&item)
		return as.put(tx, v)
	case bytes.Equal(as.text(nil, there), as.text(nil, v)):
		done.Present.add(&item)
	default:
		done.Conflicts++
		done.problem("%s is there already and differs; it was left as it is", as.name(v))
	}
	return nil
}

// restoreLatest makes the latest resources the latest here too, where another
// set that came in with them has the same time.
func (im *importer) restoreLatest() error {
	if im.latest == nil {
		return nil
	}
	now, err := im.into.LatestResources(im.ctx)
	if err != nil || now == nil || now.ResourcesID == im.latest.ResourcesID || now.UpdateTime != im.latest.UpdateTime {
		return err
	}
	return im.into.Atomic(im.ctx, func(tx collections.Tx) error {
		u, err := tx.Resources(im.latest.ResourcesID)
		if err != nil || u == nil || u.UpdateTime != im.latest.UpdateTime {
			return err
		}
		again := *u
		return tx.PutResources(&again)
	})
}

// insertTries is how often a batch is looked up and stored anew when somebody
// else has stored a part of it meanwhile.
const insertTries = 3

// storeRollouts stores what a rollout may refer to first.
func (im *importer) storeRollouts() error {
	items := im.rollouts.take()
	if len(items) == 0 {
		return nil
	}
	if err := im.storeResources(); err != nil {
		return err
	}
	if err := im.storeWorkers(); err != nil {
		return err
	}
	err := im.raise(items)
	for range insertTries {
		if err == nil {
			err = im.insert(items)
		}
		if queue.KindOf(err) != queue.Conflict {
			break
		}
		err = nil
	}
	if err == nil || !refusal(err) {
		return err
	}
	return alone(im, items, func(i Item) string { return "rollout " + i.Rollout.Rollout.RolloutID }, im.insert)
}

// raise lifts the counters first, so that no number is issued twice to whoever
// claims a rollout as soon as it is there.
func (im *importer) raise(items []Item) error {
	var raises []collections.Counter
	for _, i := range items {
		if i.Counter > 0 {
			raises = append(raises, collections.Counter{RolloutID: i.Rollout.Rollout.RolloutID, N: i.Counter})
		}
	}
	if len(raises) == 0 {
		return nil
	}
	return im.into.RaiseSequence(im.ctx, raises)
}

// insert stores those rollouts that are not there and compares the others.
func (im *importer) insert(items []Item) error {
	ids := make([]string, len(items))
	for i := range items {
		ids[i] = items[i].Rollout.Rollout.RolloutID
	}
	there, err := im.into.Records(im.ctx, slices.Compact(slices.Sorted(slices.Values(ids))))
	if err != nil {
		return err
	}
	byID := make(map[string]*queue.Record, len(there))
	for _, r := range there {
		byID[r.Rollout.RolloutID] = r
	}
	var fresh []*queue.Record
	var done Report
	for i := range items {
		r := items[i].Rollout
		if before := byID[r.Rollout.RolloutID]; before != nil {
			im.compare(&done, before, &items[i])
			continue
		}
		fresh = append(fresh, r)
		done.Stored.add(&items[i])
	}
	if len(fresh) > 0 {
		staged, err := im.stage(fresh)
		if err != nil {
			return err
		}
		err = im.into.Atomic(im.ctx, func(tx collections.Tx) error { return tx.InsertRollouts(staged) })
		if err != nil {
			return err
		}
		if im.options.Inserted != nil {
			im.options.Inserted(fresh)
		}
	}
	im.report.merge(&done)
	return nil
}

// stage writes large payloads ahead of the section that inserts their rollouts.
// Those given stay as they are, for another try.
func (im *importer) stage(rs []*queue.Record) ([]*queue.Record, error) {
	var large []*rawjson.Value
	out := make([]*queue.Record, len(rs))
	for i, r := range rs {
		if out[i] = r; payloadSize(r) <= collections.StageOver {
			continue
		}
		r = r.Clone()
		out[i] = r
		large = append(large, &r.Rollout.Input, &r.Rollout.Metadata)
		for k := range r.Attempts {
			large = append(large, &r.Attempts[k].Metadata)
		}
	}
	if large == nil {
		return out, nil
	}
	return out, im.into.Stage(im.ctx, collections.StageOver, large...)
}

// compare files a rollout that is there already.
func (im *importer) compare(done *Report, there *queue.Record, item *Item) {
	r := item.Rollout
	id := r.Rollout.RolloutID
	switch {
	case bytes.Equal(appendRecord(nil, there, 0), appendRecord(nil, r, 0)):
		done.Present.add(item)
	case descends(there, r):
		done.Conflicts++
		done.problem("rollout %s is there already and has moved on: it is %s, with %d attempts; it was left as it is",
			id, there.Rollout.Status, len(there.Attempts))
	default:
		done.Conflicts++
		done.problem("rollout %s is there already and differs; it was left as it is", id)
		im.member(id).alien = true
	}
}

// descends reports whether now is what became of a rollout: it began the same
// and has all the attempts. Its earlier spans then belong to it.
func descends(now, before *queue.Record) bool {
	if now.Rollout.StartTime != before.Rollout.StartTime || len(now.Attempts) < len(before.Attempts) {
		return false
	}
	for i := range before.Attempts {
		a, b := &now.Attempts[i], &before.Attempts[i]
		if a.AttemptID != b.AttemptID || a.StartTime != b.StartTime {
			return false
		}
	}
	return true
}
