package mongo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/aglq/aglq/queue"
)

// writes are what a section does to one collection.
type writes struct {
	to      *driver.Collection
	inserts []bson.Raw
	updates []driver.WriteModel // each matches one document unless it has changed
	deletes []string            // of waste, by _id
	// absent holds for inserts whose absence the section relied on: one that
	// exists after all means that the section has to run again.
	absent bool
}

// plan is everything that a section does, and what it only relied on.
type plan struct {
	of     []writes
	count  int // of documents written
	relied int // on existing documents that are not written
}

// commit writes what the section has put, or nothing. It returns errChanged, or
// an error labelled transient, when the section has to run again.
func (s *section) commit() error {
	s.announceEnds()
	inserts, puts, counted := s.rolloutWrites()
	s.b.tallied.expect(s.revision, counted)
	err := s.write(inserts, puts)
	if err != nil {
		s.b.tallied.drop(s.revision)
		return err
	}
	s.b.tallied.settle(s.revision, 0)
	return nil
}

// write chooses the cheapest way to write a section.
func (s *section) write(inserts, puts writes) error {
	p := plan{}
	p.add(inserts)
	p.add(puts)
	p.add(documentWrites(s, s.b.workers, &s.workers, s.b.encodeWorker))
	p.add(documentWrites(s, s.b.resources, &s.resources, s.b.encodeResources))
	p.add(documentWrites(s, s.b.receipts, &s.receipts, s.b.encodeReceipt))
	p.add(s.wasteWrites())
	p.relied = relied(&s.rollouts) + relied(&s.workers) + relied(&s.resources) + relied(&s.receipts)
	switch {
	case p.count == 0 && p.relied < 2 && !s.guessed():
		return nil // one document is consistent with itself
	case p.count == 0:
		return s.verify()
	case p.count == 1 && p.relied == 0:
		return s.writeOne(p.of[0])
	}
	s.rely(&p)
	return s.transact(p.of)
}

func (p *plan) add(w writes) {
	n := len(w.inserts) + len(w.updates) + len(w.deletes)
	if n > 0 {
		p.of = append(p.of, w)
		p.count += n
	}
}

// rolloutWrites also tells how many of them change counts.
func (s *section) rolloutWrites() (inserts, puts writes, counted int) {
	inserts, puts = writes{to: s.b.rollouts.main}, writes{to: s.b.rollouts.main}
	for _, it := range s.rollouts.order {
		if it.after == it.before {
			continue
		}
		if transitionOf(it.before, it.after).counts() {
			counted++
		}
		revision := s.revisionOf(it)
		if it.before == nil {
			inserts.absent = inserts.absent || it.read
			inserts.inserts = append(inserts.inserts, s.b.encodeRecord(it.after, revision, it.order))
			continue
		}
		puts.updates = append(puts.updates, driver.NewUpdateOneModel().
			SetFilter(s.condition(it.id, it.revision)).
			SetUpdate(encodeChange(it.before, it.after, it.revision, revision)))
	}
	return inserts, puts, counted
}

// documentWrites inserts or replaces what was put of a collection.
func documentWrites[T any](s *section, to handles, from *shelf[T], encode func(v *T, revision, order int64) bson.Raw) writes {
	w := writes{to: to.main, absent: true}
	for _, it := range from.order {
		if !it.put {
			continue
		}
		d := encode(it.after, s.revision, it.order)
		if it.before == nil {
			w.inserts = append(w.inserts, d)
			continue
		}
		w.updates = append(w.updates, driver.NewReplaceOneModel().SetFilter(s.condition(it.id, it.revision)).SetReplacement(d))
	}
	return w
}

// condition matches a document as long as nobody has changed it.
func (s *section) condition(id string, revision int64) bson.Raw {
	d := newDoc(96)
	d.text("_id", key(s.b.partition, id))
	d.int("v", revision)
	return d.done()
}

// relied counts documents that exist and were read, but are not written.
func relied[T any](s *shelf[T]) int {
	n := 0
	for _, it := range s.order {
		if it.reliedOn() {
			n++
		}
	}
	return n
}

func (it *item[T]) reliedOn() bool { return it.before != nil && it.after == it.before }

// rely makes the transaction clash with every change of what the section read
// and did not write. Without it two sections could each change what the other
// one read.
func (s *section) rely(p *plan) {
	p.add(relyOn(s, s.b.rollouts, &s.rollouts))
	p.add(relyOn(s, s.b.workers, &s.workers))
	p.add(relyOn(s, s.b.resources, &s.resources))
	p.add(relyOn(s, s.b.receipts, &s.receipts))
}

var touch = func() bson.Raw {
	d := newDoc(32)
	at := d.open("$inc")
	d.int("l", 1)
	d.close(at)
	return d.done()
}()

func relyOn[T any](s *section, to handles, from *shelf[T]) writes {
	w := writes{to: to.main}
	for _, it := range from.order {
		if it.reliedOn() {
			w.updates = append(w.updates, driver.NewUpdateOneModel().SetFilter(s.condition(it.id, it.revision)).SetUpdate(touch))
		}
	}
	return w
}

// verify makes sure that everything a section read, which wrote nothing, was so
// at one moment: each document had its state from when it was read until now.
func (s *section) verify() error {
	for _, check := range []func() (bool, error){
		func() (bool, error) { return unchanged(s, s.b.rollouts, &s.rollouts) },
		func() (bool, error) { return unchanged(s, s.b.workers, &s.workers) },
		func() (bool, error) { return unchanged(s, s.b.resources, &s.resources) },
		func() (bool, error) { return unchanged(s, s.b.receipts, &s.receipts) },
	} {
		if same, err := check(); err != nil {
			return wrap(err, "reading from MongoDB again")
		} else if !same {
			return errChanged
		}
	}
	return nil
}

func unchanged[T any](s *section, in handles, from *shelf[T]) (bool, error) {
	changed, err := changedSince(s, in, from, func(it *item[T]) bool { return it.before != nil })
	return len(changed) == 0, err
}

// changedSince are the ids of those items for which of holds that do not stand at the
// revision any more that the section took them for.
func changedSince[T any](s *section, in handles, from *shelf[T], of func(*item[T]) bool) (changed []string, err error) {
	at := make(map[string]revision)
	ids := make([]string, 0, len(from.order))
	for _, it := range from.order {
		if of(it) {
			at[key(s.b.partition, it.id)] = it.revision
			ids = append(ids, it.id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}, {Key: "v", Value: 1}})
	err = each(s.ctx, in.local, s.b.idIn(ids), o, func(raw bson.Raw) {
		id, v := raw.Lookup("_id").StringValue(), raw.Lookup("v").AsInt64()
		if at[id] == v {
			delete(at, id)
		}
	})
	for _, id := range ids {
		if _, wrong := at[key(s.b.partition, id)]; wrong {
			changed = append(changed, id)
		}
	}
	return changed, err
}

// writeOne writes a single document without a transaction. After an error that
// leaves the outcome open it tries again; the revision tells whether the first
// try has worked. A write waits for transactions that have written to the same
// document, so one that takes long may be waiting for a dead process.
func (s *section) writeOne(w writes) error {
	for tries, open := 0, false; ; tries++ {
		ctx, cancel := context.WithTimeout(s.ctx, oneTimeout)
		matched, err := s.tryOne(ctx, w)
		slow := s.ctx.Err() == nil && (ctx.Err() != nil || driver.IsTimeout(err))
		cancel()
		switch {
		case err == nil && matched:
			return nil
		case err == nil || driver.IsDuplicateKeyError(err):
			if open {
				return s.outcome(w)
			}
			return errChanged
		case slow:
			s.b.freeAbandoned(s.ctx)
		case !driver.IsNetworkError(err) && !hasLabel(err, "RetryableWriteError"):
			return wrap(err, "writing to MongoDB")
		}
		open = true
		if !sleep(s.ctx, pause(tries)) {
			return wrap(errors.Join(s.ctx.Err(), err), "writing to MongoDB")
		}
	}
}

// oneTimeout is how long a single write may take before it is looked into.
const oneTimeout = abandonedAfter + time.Second

func (s *section) tryOne(ctx context.Context, w writes) (matched bool, err error) {
	if len(w.inserts) > 0 {
		_, err := w.to.InsertOne(ctx, w.inserts[0])
		return err == nil, err
	}
	var res *driver.UpdateResult
	switch m := w.updates[0].(type) {
	case *driver.UpdateOneModel:
		res, err = w.to.UpdateOne(ctx, m.Filter, m.Update)
	case *driver.ReplaceOneModel:
		res, err = w.to.ReplaceOne(ctx, m.Filter, m.Replacement)
	}
	return err == nil && res.MatchedCount == 1, err
}

// outcome looks whether a write whose answer was lost has been made.
func (s *section) outcome(w writes) error {
	id, version := w.written()
	n, err := w.to.CountDocuments(s.ctx, bson.D{{Key: "_id", Value: id}, {Key: "v", Value: version}})
	if err != nil {
		return wrap(err, "asking MongoDB whether a write was made")
	}
	if n == 1 {
		return nil
	}
	return queue.Errorf(queue.Unavailable, "the connection to MongoDB was lost during a write, and another write came since: "+
		"look at the present state before you retry")
}

// written is the id and the revision of the single document that w writes.
func (w *writes) written() (id, version bson.RawValue) {
	if len(w.inserts) > 0 {
		return w.inserts[0].Lookup("_id"), w.inserts[0].Lookup("v")
	}
	switch m := w.updates[0].(type) {
	case *driver.UpdateOneModel:
		return m.Filter.(bson.Raw).Lookup("_id"), m.Update.(bson.Raw).Lookup("$set", "v")
	case *driver.ReplaceOneModel:
		return m.Filter.(bson.Raw).Lookup("_id"), m.Replacement.(bson.Raw).Lookup("v")
	}
	return id, version
}

var transactionOptions = options.Transaction().
	SetReadConcern(readconcern.Snapshot()).SetWriteConcern(journaled())

// transact makes all writes in one transaction.
func (s *section) transact(of []writes) error {
	sess, err := s.b.client.StartSession()
	if err != nil {
		return wrap(err, "starting a MongoDB session")
	}
	defer sess.EndSession(context.WithoutCancel(s.ctx))
	if err := sess.StartTransaction(transactionOptions); err != nil {
		return wrap(err, "starting a MongoDB transaction")
	}
	if err := s.writeAll(driver.NewSessionContext(s.ctx, sess), of); err != nil {
		s.b.abort(s.ctx, sess)
		return err
	}
	return s.end(sess)
}

func (s *section) writeAll(ctx context.Context, of []writes) error {
	for _, w := range of {
		if len(w.deletes) > 0 {
			if err := takeBack(ctx, w.to, w.deletes); err != nil {
				return err
			}
		}
		if len(w.inserts) > 0 {
			if _, err := w.to.InsertMany(ctx, w.inserts); err != nil {
				return insertError(err, w)
			}
		}
		if len(w.updates) > 0 {
			res, err := w.to.BulkWrite(ctx, w.updates)
			if err != nil {
				return inTransaction(err)
			}
			if res.MatchedCount != int64(len(w.updates)) {
				return errChanged
			}
		}
	}
	return nil
}

// insertError tells an id that exists, which is the caller's affair, from a
// document that another section was faster to create.
func insertError(err error, w writes) error {
	if !driver.IsDuplicateKeyError(err) {
		return inTransaction(err)
	}
	if w.absent {
		return errChanged
	}
	id := ""
	var bulk driver.BulkWriteException
	if errors.As(err, &bulk) && len(bulk.WriteErrors) > 0 && bulk.WriteErrors[0].Index < len(w.inserts) {
		id, _ = w.inserts[bulk.WriteErrors[0].Index].Lookup("r").StringValueOK()
	}
	return queue.Errorf(queue.Conflict, "rollout %s exists already", id)
}

// inTransaction leaves the errors that mean "run again" as they are.
func inTransaction(err error) error {
	if hasLabel(err, transient) {
		return err
	}
	return wrap(err, "writing to MongoDB")
}

// end commits, as often as it takes to know the outcome.
func (s *section) end(sess *driver.Session) error {
	for tries := 0; ; tries++ {
		err := sess.CommitTransaction(s.ctx)
		const maxTimeExpired = 50
		if err == nil || !hasLabel(err, commitUnknown) || hasCode(err, []int{maxTimeExpired}) {
			return inTransaction(err)
		}
		if !sleep(s.ctx, pause(tries)) {
			return wrap(errors.Join(s.ctx.Err(), err), "committing a MongoDB transaction")
		}
	}
}

// abort frees what the transaction holds on the server, which would otherwise
// wait for its time limit.
func (b *Backend) abort(ctx context.Context, sess *driver.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := sess.AbortTransaction(ctx); err != nil {
		b.log.Debug("transaction not aborted", "error", fmt.Sprint(err))
	}
}
