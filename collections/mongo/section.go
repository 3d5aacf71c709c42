package mongo

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// section is one run of an atomic section: what it has read and what it wants
// written. It implements collections.Tx.
type section struct {
	b        *Backend
	ctx      context.Context
	revision revision // of what this run writes, save rollouts

	// separate holds for a section that is written record by record.
	separate bool
	wroteBy  term // of its rollouts

	rollouts  shelf[queue.Record]
	workers   shelf[queue.Worker]
	resources shelf[queue.ResourcesUpdate]
	receipts  shelf[collections.Receipt]
}

// shelf holds the documents of one collection that a section has dealt with.
type shelf[T any] struct {
	items map[string]*item[T]
	order []*item[T] // in which they were first dealt with

	guessed bool // some are what this process wrote last, not what is stored
}

// item is one document in a section.
type item[T any] struct {
	id       string
	before   *T    // as stored, nil for none
	revision int64 // of before
	order    int64 // number of insertion, 0 for none yet
	after    *T    // as the section sees it
	put      bool  // the section has written it
	read     bool  // before is known
	guessed  bool  // before is what this process wrote last
}

func (s *shelf[T]) at(id string) *item[T] { return s.items[id] }

func (s *shelf[T]) add(it *item[T]) *item[T] {
	if s.items == nil {
		s.items = make(map[string]*item[T])
	}
	s.items[it.id] = it
	s.order = append(s.order, it)
	return it
}

func newSection(ctx context.Context, b *Backend) *section {
	return &section{b: b, ctx: ctx, revision: b.newRevision()}
}

// revisionOf is the one that a rollout gets by the section.
func (s *section) revisionOf(it *item[queue.Record]) revision {
	return mark(s.revision, transitionOf(it.before, it.after))
}

// Prefetch implements collections.Tx.
func (s *section) Prefetch(rolloutIDs, workerIDs []string) error {
	rolloutIDs, workerIDs = missing(&s.rollouts, rolloutIDs), missing(&s.workers, workerIDs)
	if len(rolloutIDs) == 0 {
		return s.fetchWorkers(s.ctx, workerIDs)
	}
	if len(workerIDs) == 0 {
		return s.fetchRollouts(s.ctx, rolloutIDs)
	}
	group, ctx := errgroup.WithContext(s.ctx)
	group.Go(func() error { return s.fetchRollouts(ctx, rolloutIDs) })
	group.Go(func() error { return s.fetchWorkers(ctx, workerIDs) })
	return group.Wait()
}

// missing are the ids that the section has not read yet, each once.
func missing[T any](s *shelf[T], ids []string) []string {
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		if s.at(id) == nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *section) fetchRollouts(ctx context.Context, ids []string) error {
	ids = guess(&s.b.knownRollouts, &s.rollouts, ids)
	for _, id := range ids {
		s.rollouts.add(&item[queue.Record]{id: id, read: true})
	}
	return s.b.eachByID(ctx, s.b.rollouts, ids, func(raw bson.Raw) {
		r := decodeRecord(raw)
		it := s.rollouts.at(r.Rollout.RolloutID)
		it.before, it.after, it.revision, it.order = r.Record, r.Record, r.Revision, r.order
	})
}

func (s *section) fetchWorkers(ctx context.Context, ids []string) error {
	ids = guess(&s.b.knownWorkers, &s.workers, ids)
	return fetch(ctx, s.b, s.b.workers, &s.workers, ids, decodeWorker, func(w *queue.Worker) string { return w.WorkerID })
}

// fetch reads documents of one collection that the section has not read yet.
func fetch[T any](ctx context.Context, b *Backend, from handles, to *shelf[T], ids []string,
	decode func(bson.Raw) (*T, int64, int64), idOf func(*T) string,
) error {
	for _, id := range ids {
		to.add(&item[T]{id: id, read: true})
	}
	return b.eachByID(ctx, from, ids, func(raw bson.Raw) {
		v, revision, order := decode(raw)
		it := to.at(idOf(v))
		it.before, it.after, it.revision, it.order = v, v, revision, order
	})
}

// eachByID reads the latest state of documents in as few commands as are needed.
func (b *Backend) eachByID(ctx context.Context, from handles, ids []string, do func(bson.Raw)) error {
	for ids := range slices.Chunk(ids, idsPerQuery) {
		if err := each(ctx, from.local, b.idIn(ids), options.Find().SetBatchSize(int32(len(ids)+1)), do); err != nil {
			return wrap(err, "reading "+from.main.Name()+" from MongoDB")
		}
	}
	return nil
}

// idsPerQuery keeps a query by ids below the size of a message.
const idsPerQuery = 10_000

// Rollout implements collections.Tx.
func (s *section) Rollout(id string) (*queue.Record, error) {
	if s.rollouts.at(id) == nil {
		if err := s.fetchRollouts(s.ctx, []string{id}); err != nil {
			return nil, err
		}
	}
	return s.rollouts.at(id).after, nil
}

// InsertRollouts implements collections.Tx.
func (s *section) InsertRollouts(rs []*queue.Record) error {
	fresh := make(map[string]bool, len(rs))
	for _, r := range rs {
		id := r.Rollout.RolloutID
		if it := s.rollouts.at(id); fresh[id] || (it != nil && it.after != nil) {
			return queue.Errorf(queue.Conflict, "rollout %s exists already", id)
		}
		fresh[id] = true
		if err := rolloutTooLarge(r); err != nil {
			return err
		}
	}
	for _, r := range rs {
		it := s.rollouts.at(r.Rollout.RolloutID)
		if it == nil {
			it = s.rollouts.add(&item[queue.Record]{id: r.Rollout.RolloutID})
		}
		it.order = numbers.next()
		if r.Place == queue.Tail {
			r.Place = it.order
		}
		it.after = r
	}
	return nil
}

// PutRollout implements collections.Tx.
func (s *section) PutRollout(r *queue.Record) error {
	id := r.Rollout.RolloutID
	it := s.rollouts.at(id)
	if it == nil || it.after == nil {
		return queue.Errorf(queue.Internal, "rollout %s is written by a section that has not read it", id)
	}
	if err := rolloutTooLarge(r); err != nil {
		return err
	}
	if s.separate && !slices.Equal(recordStubs(it.after), recordStubs(r)) {
		return collections.ErrTogether
	}
	if s.b.mayBeRemembered(it, r) {
		return collections.ErrRemembered
	}
	if it.after.Place > 0 {
		s.b.ahead.without(id)
	}
	if r.Place == queue.Tail {
		r.Place = numbers.next()
	} else if r.Place > 0 && it.after.Place == 0 {
		s.b.ahead.clear() // it may return before what was read ahead
		s.b.floor.begins(0)
	}
	it.after, it.put = r, true
	return nil
}

// Worker implements collections.Tx.
func (s *section) Worker(id string) (*queue.Worker, error) {
	if s.workers.at(id) == nil {
		if err := s.fetchWorkers(s.ctx, []string{id}); err != nil {
			return nil, err
		}
	}
	return s.workers.at(id).after, nil
}

// PutWorker implements collections.Tx.
func (s *section) PutWorker(w *queue.Worker) error {
	if err := tooLarge("the record of worker", w.WorkerID, 1024+4*len(w.WorkerID)+len(w.HeartbeatStats)); err != nil {
		return err
	}
	if _, err := s.Worker(w.WorkerID); err != nil {
		return err
	}
	s.workers.at(w.WorkerID).write(w)
	return nil
}

func (it *item[T]) write(v *T) {
	it.after, it.put = v, true
	if it.order == 0 {
		it.order = numbers.next()
	}
}

// Resources implements collections.Tx.
func (s *section) Resources(id string) (*queue.ResourcesUpdate, error) {
	if s.resources.at(id) == nil {
		err := fetch(s.ctx, s.b, s.b.resources, &s.resources, []string{id}, decodeResources,
			func(u *queue.ResourcesUpdate) string { return u.ResourcesID })
		if err != nil {
			return nil, err
		}
	}
	return s.resources.at(id).after, nil
}

// PutResources implements collections.Tx.
func (s *section) PutResources(u *queue.ResourcesUpdate) error {
	if err := tooLarge("the set of resources", u.ResourcesID, 1024+2*len(u.ResourcesID)+len(u.Resources)); err != nil {
		return err
	}
	if _, err := s.Resources(u.ResourcesID); err != nil {
		return err
	}
	s.resources.at(u.ResourcesID).write(u)
	return nil
}

// Receipt implements collections.Tx.
func (s *section) Receipt(key string) (*collections.Receipt, error) {
	if s.receipts.at(key) == nil {
		if s.separate && !s.b.receiptsMet.knows(key) {
			// Nearly every key is new, and an insert finds out.
			s.receipts.add(&item[collections.Receipt]{id: key, read: true})
			return nil, nil
		}
		err := fetch(s.ctx, s.b, s.b.receipts, &s.receipts, []string{key}, decodeReceipt,
			func(r *collections.Receipt) string { return r.Key })
		if err != nil {
			return nil, err
		}
	}
	return s.receipts.at(key).after, nil
}

// PutReceipt implements collections.Tx.
func (s *section) PutReceipt(r *collections.Receipt) error {
	size := 1024 + 2*len(r.Key)
	for _, ref := range r.Refs {
		size += 48 + len(ref.RolloutID) + len(ref.AttemptID)
	}
	if err := tooLarge("the receipt of call", r.Key, size); err != nil {
		return err
	}
	if _, err := s.Receipt(r.Key); err != nil {
		return err
	}
	s.b.receiptsMet.add(r.Key)
	s.receipts.at(r.Key).write(r)
	return nil
}

// Answered implements collections.Receipts.
func (b *Backend) Answered(ctx context.Context, keys []string) (answered []string, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "k", Value: 1}}).SetBatchSize(int32(len(keys) + 1)).SetHint("_id_")
	err = each(ctx, b.receipts.main, b.idIn(keys), o, func(raw bson.Raw) {
		r, _, _ := decodeReceipt(raw)
		b.receiptsMet.add(r.Key)
		answered = append(answered, r.Key)
	})
	return answered, wrap(err, "looking for receipts in MongoDB")
}
