package mongo

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// A section whose records need not change together is written without a
// transaction: one update command holds a statement for each rollout, which
// matches as long as nobody has changed it. What did not match is lost, and only
// that. Receipts go first, and what they refer to is written only if they are new,
// so a call is never done twice; a receipt whose rollouts were not written after
// all says so by itself, for the attempts it names do not exist.
//
// The commands are not retried by the driver. After an answer that was lost the
// section finds out what became of it: it bars the statements that have not been
// executed from ever matching, and looks which have.

// Separately implements collections.Backend.
func (b *Backend) Separately(ctx context.Context, fn func(tx collections.Tx) error) (collections.Lost, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	s := newSection(ctx, b)
	s.separate = true
	if err := fn(s); err != nil {
		return collections.Lost{}, err
	}
	lost, err := s.commitSeparately()
	s.rememberBut(lost, err)
	return lost, err
}

func (s *section) commitSeparately() (lost collections.Lost, err error) {
	s.announceEnds()
	receipts, by := s.receiptDocs(), new(term)
	if lost.Receipts, err = s.insertReceipts(noting(s.ctx, by), receipts); err != nil {
		return lost, err
	}
	if lost.Rollouts, err = s.putRollouts(s.referredTo(lost.Receipts)); err != nil {
		return lost, err
	}
	if err = s.keepReceipts(receipts, by); err != nil {
		return lost, err
	}
	if lost.Workers, err = s.putWorkers(); err != nil {
		return lost, err
	}
	return lost, s.checkGuesses(&lost)
}

// receiptDocs are the receipts that the section has put, in order.
func (s *section) receiptDocs() (docs []bson.Raw) {
	for _, it := range s.receipts.order {
		if it.put {
			docs = append(docs, s.b.encodeReceipt(it.after, s.revision, 0))
		}
	}
	return docs
}

// insertReceipts returns the keys of those that exist already.
func (s *section) insertReceipts(ctx context.Context, docs []bson.Raw) (map[string]bool, error) {
	if len(docs) == 0 {
		return nil, nil
	}
	_, err := s.b.receipts.fast.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	existing, err := duplicates(err)
	if err != nil {
		return nil, wrap(err, "writing receipts to MongoDB")
	}
	if len(existing) == 0 {
		return nil, nil
	}
	var keys []string
	for _, it := range s.receipts.order {
		if it.put {
			keys = append(keys, it.id)
		}
	}
	var lost map[string]bool
	for _, i := range existing {
		lost = lose(lost, keys[i])
	}
	return lost, nil
}

func lose(lost map[string]bool, id string) map[string]bool {
	if lost == nil {
		lost = make(map[string]bool)
	}
	lost[id] = true
	return lost
}

// referredTo are the rollouts of receipts.
func (s *section) referredTo(receipts map[string]bool) (rollouts map[string]bool) {
	for key := range receipts {
		for _, ref := range s.receipts.at(key).after.Refs {
			rollouts = lose(rollouts, ref.RolloutID)
		}
	}
	return rollouts
}

// putRollouts writes the rollouts that the section has put, save some, and adds
// those that somebody else has changed.
func (s *section) putRollouts(lost map[string]bool) (map[string]bool, error) {
	put := make([]*item[queue.Record], 0, len(s.rollouts.order))
	counted := 0
	for _, it := range s.rollouts.order {
		switch {
		case it.after == it.before || lost[it.id]:
		case it.before == nil:
			return nil, queue.Errorf(queue.Internal, "rollout %s is new, and written by a section that can write none", it.id)
		default:
			put = append(put, it)
			if transitionOf(it.before, it.after).counts() {
				counted++
			}
		}
	}
	s.b.tallied.expect(s.revision, counted)
	unmade, err := s.updateRollouts(put)
	if err != nil {
		s.b.tallied.drop(s.revision)
		return nil, err
	}
	missing := 0
	for _, it := range unmade {
		lost = lose(lost, it.id)
		if transitionOf(it.before, it.after).counts() {
			missing++
		}
	}
	s.b.tallied.settle(s.revision, missing)
	return lost, nil
}

// updateRollouts returns those that have not been written. The server works off
// the statements of a command one after the other, so many of them are sent as
// several commands at a time.
func (s *section) updateRollouts(put []*item[queue.Record]) (unmade []*item[queue.Record], err error) {
	most := min(maxStatements, max(partSize, (len(put)+maxParts-1)/maxParts))
	var sending errgroup.Group
	sending.SetLimit(maxParts)
	var mu sync.Mutex
	for len(put) > 0 {
		command, n := s.updateCommand(put, most)
		part := put[:n]
		put = put[n:]
		send := func() error {
			lost, err := s.runUpdate(command, part)
			mu.Lock()
			defer mu.Unlock()
			unmade = append(unmade, lost...)
			return err
		}
		if len(put) > 0 {
			sending.Go(send)
			continue
		}
		err = send() // the last one in this goroutine
	}
	if failed := sending.Wait(); failed != nil { // only then is unmade whole
		err = failed
	}
	return unmade, err
}

const (
	partSize = 16 // statements that are worth a command of their own
	maxParts = 4  // commands at a time
)

// updateCommand is the command for the first n of put, at most so many.
func (s *section) updateCommand(put []*item[queue.Record], most int) (command bson.Raw, n int) {
	if len(put) >= most+partSize/2 { // else too few would be left for another one
		put = put[:most]
	}
	return updateCommand(s.b.rollouts.main.Name(), journaledDoc, put, 512*(1+min(len(put), 64)), func(d *doc, it *item[queue.Record]) {
		d.raw("q", s.condition(it.id, it.revision))
		d.raw("u", encodeChange(it.before, it.after, it.revision, s.revisionOf(it)))
	})
}

// fastDoc has to be said: the server's own default is a majority.
var fastDoc = func() bson.Raw {
	d := newDoc(16)
	d.int("w", 1)
	return d.done()
}()

var journaledDoc = func() bson.Raw {
	d := newDoc(48)
	d.text("w", "majority")
	d.flag("j")
	return d.done()
}()

// runUpdate returns those items whose statement matched nothing.
func (s *section) runUpdate(command bson.Raw, of []*item[queue.Record]) (unmade []*item[queue.Record], err error) {
	ctx, cancel := context.WithTimeout(noting(s.ctx, &s.wroteBy), oneTimeout)
	answer, err := s.b.database.RunCommand(ctx, command).Raw()
	cancel()
	if err != nil {
		return s.unmadeAfter(err, of)
	}
	made, _ := answer.Lookup("n").AsInt64OK()
	if made == int64(len(of)) {
		return nil, nil
	}
	seen, err := s.lookFor(of)
	if err != nil {
		return nil, wrap(err, "asking MongoDB which writes were made")
	}
	if int(made) == len(seen.made) {
		return append(seen.unmade, seen.unknown...), nil
	}
	return seen.unmade, seen.lost()
}

// outcome is which of a command's writes were made, as far as can be told.
type outcome struct{ made, unmade, unknown []*item[queue.Record] }

// lost is the error where others have changed a rollout more than once since, so
// that nobody can tell.
func (o *outcome) lost() error {
	if len(o.unknown) == 0 {
		return nil
	}
	return queue.Errorf(queue.Unavailable, "rollout %s was changed by others while it was written: look at its present state before you retry",
		o.unknown[0].id)
}

// lookFor reads what became of items. One that stands at its new revision, or did
// before the last change, was written; one that went another way from the
// revision before was not.
func (s *section) lookFor(of []*item[queue.Record]) (o outcome, err error) {
	ids := make([]string, len(of))
	for i, it := range of {
		ids[i] = it.id
	}
	type versions struct{ now, before revision }
	found := make(map[string]versions, len(of))
	opts := options.Find().SetBatchSize(int32(len(ids) + 1)).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "r", Value: 1}, {Key: "v", Value: 1}, {Key: "u", Value: 1}})
	err = each(s.ctx, s.b.rollouts.main, s.b.idIn(ids), opts, func(raw bson.Raw) {
		r := decodeRecord(raw)
		found[r.Rollout.RolloutID] = versions{r.Revision, r.previous}
	})
	for _, it := range of {
		wanted := s.revisionOf(it)
		switch v, exists := found[it.id]; {
		case v.now == wanted, v.before == wanted:
			o.made = append(o.made, it)
		case !exists, v.now == it.revision, v.before == it.revision:
			o.unmade = append(o.unmade, it)
		default:
			o.unknown = append(o.unknown, it)
		}
	}
	return o, err
}

// unmadeAfter finds out what was written by a command whose answer was an error
// or never came. It gives up with the section's context.
func (s *section) unmadeAfter(failed error, of []*item[queue.Record]) ([]*item[queue.Record], error) {
	if !passing(failed) {
		return nil, wrap(failed, "writing to MongoDB")
	}
	if driver.IsTimeout(failed) || errors.Is(failed, context.DeadlineExceeded) {
		s.b.freeAbandoned(s.ctx) // a write waits for a transaction of a dead process
	}
	for tries := 0; ; tries++ {
		err := s.bar(of, oneTimeout<<min(tries, 3)) // members may lag behind by more than a try
		if err == nil {
			var seen outcome
			if seen, err = s.lookFor(of); err == nil {
				return seen.unmade, seen.lost()
			}
		}
		if !sleep(s.ctx, pause(tries)) {
			return nil, wrap(errors.Join(s.ctx.Err(), failed, err), "writing to MongoDB")
		}
	}
}

// bar gives items that have not been written another revision, so that a command
// still on its way finds nothing to write.
func (s *section) bar(of []*item[queue.Record], within time.Duration) error {
	other := s.b.newRevision()
	models := make([]driver.WriteModel, len(of))
	for i, it := range of {
		models[i] = driver.NewUpdateOneModel().SetFilter(s.condition(it.id, it.revision)).
			SetUpdate(setRevision(it.revision, mark(other, transitionOf(it.before, it.before))))
	}
	ctx, cancel := context.WithTimeout(noting(s.ctx, &s.wroteBy), within)
	defer cancel()
	_, err := s.b.rollouts.main.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	return err
}

func setRevision(base, r revision) bson.Raw {
	d := newDoc(64)
	at := d.open("$set")
	d.int("v", r)
	d.int("u", base)
	d.close(at)
	return d.done()
}

// putWorkers writes workers' records and returns those that somebody else has
// changed.
func (s *section) putWorkers() (lost map[string]bool, err error) {
	var inserts []bson.Raw
	var inserted []string
	var puts []driver.WriteModel
	var updated []*item[queue.Worker]
	for _, it := range s.workers.order {
		if !it.put {
			continue
		}
		d := s.b.encodeWorker(it.after, s.revision, it.order)
		if it.before == nil {
			inserts, inserted = append(inserts, d), append(inserted, it.id)
			continue
		}
		puts = append(puts, driver.NewReplaceOneModel().SetFilter(s.condition(it.id, it.revision)).SetReplacement(d))
		updated = append(updated, it)
	}
	if len(inserts) > 0 {
		_, err := s.b.workers.main.InsertMany(s.ctx, inserts, options.InsertMany().SetOrdered(false))
		existing, err := duplicates(err)
		if err != nil {
			return nil, wrap(err, "writing workers to MongoDB")
		}
		for _, i := range existing {
			lost = lose(lost, inserted[i])
		}
	}
	if len(puts) == 0 {
		return lost, nil
	}
	res, err := s.b.workers.main.BulkWrite(s.ctx, puts, options.BulkWrite().SetOrdered(false))
	if err != nil {
		return nil, wrap(err, "writing workers to MongoDB")
	}
	if res.MatchedCount == int64(len(puts)) {
		return lost, nil
	}
	return s.unmadeWorkers(updated, lost)
}

func (s *section) unmadeWorkers(updated []*item[queue.Worker], lost map[string]bool) (map[string]bool, error) {
	made := make(map[string]bool, len(updated))
	ids := make([]string, len(updated))
	for i, it := range updated {
		ids[i] = it.id
	}
	err := s.b.eachByID(s.ctx, s.b.workers, ids, func(raw bson.Raw) {
		w, revision, _ := decodeWorker(raw)
		made[w.WorkerID] = revision == s.revision
	})
	for _, id := range ids {
		if !made[id] {
			lost = lose(lost, id)
		}
	}
	return lost, err
}

// checkGuesses adds to lost the records that the section has guessed wrong and
// not written: what it concluded from them may be wrong too.
func (s *section) checkGuesses(lost *collections.Lost) (err error) {
	lost.Rollouts, err = wrongGuesses(s, s.b.rollouts, &s.rollouts, lost.Rollouts)
	if err == nil {
		lost.Workers, err = wrongGuesses(s, s.b.workers, &s.workers, lost.Workers)
	}
	return wrap(err, "reading from MongoDB again")
}

func wrongGuesses[T any](s *section, in handles, from *shelf[T], lost map[string]bool) (map[string]bool, error) {
	if !from.guessed {
		return lost, nil
	}
	wrong, err := changedSince(s, in, from, func(it *item[T]) bool { return it.guessed && it.after == it.before })
	for _, id := range wrong {
		lost = lose(lost, id)
	}
	return lost, err
}

// rememberBut keeps what was written and drops what was not.
func (s *section) rememberBut(lost collections.Lost, err error) {
	if err != nil {
		s.forget()
		s.b.ahead.clear()
		return
	}
	s.remember(lost)
	if len(lost.Rollouts) > 0 {
		s.b.ahead.clear()
	}
}
