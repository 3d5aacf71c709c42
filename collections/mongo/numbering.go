package mongo

import (
	"context"
	"errors"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/collections"
)

// The spans of a rollout are numbered by a counter in the database. Nearly always
// one process numbers all of them, so it takes a counter that it has not met for
// new, and one that it has moved for unmoved since: one insert makes the former of
// a call, and one update moves the latter. Only those that others have made or
// moved after all are moved one by one, and so they are from then on: who moves a
// counter by update leaves a mark, and nobody else leaves another on the same one,
// so that it tells for sure which of several moves were made. Numbers are lost only
// where a call fails, or is broken off with the connection.

// parallelCounters is how many counters a call moves one by one at a time.
const parallelCounters = 4

// counter is what a process knows of one.
type counter struct {
	last   int64 // issued here
	shared bool  // others have moved it, too
}

// NextSequence implements collections.Spans. A number that is not durable is
// issued by the primary alone; the durable write that follows, on the same
// primary, makes it durable too. On another primary, keepNumbers does.
func (b *Backend) NextSequence(ctx context.Context, entries []collections.Counter, durable bool) ([]int64, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	n := numbering{b: b, entries: entries, first: make([]int64, len(entries)), to: b.counters.main, concern: journaledDoc}
	if !durable {
		n.to, n.concern, ctx = b.counters.fast, fastDoc, b.moved.noting(ctx)
	}
	return n.first, wrap(n.issue(ctx), "numbering spans in MongoDB")
}

// numbering is one call.
type numbering struct {
	b       *Backend
	entries []collections.Counter
	first   []int64 // the answer
	to      *driver.Collection
	concern bson.Raw // of to
}

// move is the place of an entry, and where this process has left its counter.
type move struct {
	at   int
	from int64
}

func (n *numbering) issue(ctx context.Context) error {
	var fresh, others []int
	var own []move
	for i, e := range n.entries {
		switch c, met := n.b.knownCounters.Get(e.RolloutID); {
		case !met:
			fresh = append(fresh, i)
		case c.shared || e.N > math.MaxInt64-c.last:
			others = append(others, i)
		default:
			own = append(own, move{i, c.last})
		}
	}
	existing, err := n.make(ctx, fresh)
	if err != nil {
		return err
	}
	others = append(others, existing...)
	gone, err := n.moveOwn(ctx, own)
	if err != nil {
		return err
	}
	others = append(others, gone...)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelCounters)
	for _, i := range others {
		group.Go(func() error { return n.increase(ctx, i) })
	}
	return group.Wait()
}

// issued answers an entry whose counter was moved to last, by this process alone so
// far or not.
func (n *numbering) issued(i int, last int64, shared bool) {
	e := n.entries[i]
	n.first[i] = last - e.N + 1
	n.b.knownCounters.Update(e.RolloutID, func(c counter) counter {
		return counter{last: last, shared: c.shared || shared}
	})
}

// make inserts counters, and returns the places of those that exist already.
func (n *numbering) make(ctx context.Context, fresh []int) (existing []int, err error) {
	if len(fresh) == 0 {
		return nil, nil
	}
	docs := make([]bson.Raw, len(fresh))
	for k, i := range fresh {
		d := newDoc(64 + len(n.entries[i].RolloutID))
		d.text("_id", key(n.b.partition, n.entries[i].RolloutID))
		d.int("n", n.entries[i].N)
		docs[k] = d.done()
		n.issued(i, n.entries[i].N, false)
	}
	_, err = n.to.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	there, err := duplicates(err)
	for _, k := range there {
		existing = append(existing, fresh[k])
	}
	return existing, err
}

// moveOwn moves counters from where this process has left them, and returns the
// places of those that are not there any more.
func (n *numbering) moveOwn(ctx context.Context, own []move) (gone []int, err error) {
	for len(own) > 0 {
		mark := n.b.newRevision()
		command, sent := n.moveCommand(own, mark)
		lost, err := n.moveSome(ctx, command, own[:sent], mark)
		if err != nil {
			return nil, err
		}
		gone, own = append(gone, lost...), own[sent:]
	}
	return gone, nil
}

// moveSome sends one command. Where not all of its counters were moved, its mark
// tells which.
func (n *numbering) moveSome(ctx context.Context, command bson.Raw, own []move, mark int64) (gone []int, err error) {
	places := make([]int, len(own))
	for k, m := range own {
		places[k] = m.at
	}
	answer, err := n.b.database.RunCommand(ctx, command).Raw()
	var marked map[string]bool
	if err == nil {
		if made, _ := answer.Lookup("n").AsInt64OK(); made < int64(len(own)) {
			marked, err = n.marked(ctx, places, mark)
		}
	}
	switch {
	case err != nil && passing(err):
		return places, nil // perhaps they have moved, and these numbers are lost
	case err != nil:
		return nil, err
	}
	for _, m := range own {
		e := n.entries[m.at]
		if marked != nil && !marked[key(n.b.partition, e.RolloutID)] {
			gone = append(gone, m.at)
			continue
		}
		n.issued(m.at, m.from+e.N, false)
	}
	return gone, nil
}

// moveCommand is the command for the first n of own.
func (n *numbering) moveCommand(own []move, mark int64) (command bson.Raw, sent int) {
	own = own[:min(len(own), maxStatements)]
	return updateCommand(n.to.Name(), n.concern, own, 256+160*len(own), func(d *doc, m move) {
		e := n.entries[m.at]
		q := d.open("q")
		d.text("_id", key(n.b.partition, e.RolloutID))
		d.int("n", m.from)
		d.close(q)
		u := d.open("u")
		set := d.open("$set")
		d.int("n", m.from+e.N)
		d.int("w", mark)
		d.close(set)
		d.close(u)
	})
}

// marked are the counters, by _id, that were last moved by the command of a mark.
func (n *numbering) marked(ctx context.Context, places []int, mark int64) (map[string]bool, error) {
	ids := make([]string, len(places))
	for k, i := range places {
		ids[k] = n.entries[i].RolloutID
	}
	moved := make(map[string]bool, len(places))
	err := each(ctx, n.b.counters.local, n.b.idIn(ids), options.Find().SetBatchSize(int32(len(ids)+1)), func(raw bson.Raw) {
		if by, _ := raw.Lookup("w").AsInt64OK(); by == mark {
			moved[raw.Lookup("_id").StringValue()] = true
		}
	})
	return moved, err
}

// badValue is MongoDB's code for, among others, an $inc beyond int64.
const badValue = 2

// increase moves one counter from wherever others have left it. It is durable in any
// case: the answer to findAndModify does not say which primary gave it.
func (n *numbering) increase(ctx context.Context, i int) error {
	e := n.entries[i]
	o := options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)
	for {
		raw, err := n.b.counters.main.FindOneAndUpdate(ctx, n.b.idIn([]string{e.RolloutID}), moveCounter("$inc", e.N), o).Raw()
		if driver.IsDuplicateKeyError(err) {
			continue // made by another call at the same time
		}
		if refused := driver.ServerError(nil); errors.As(err, &refused) && refused.HasErrorCode(badValue) {
			return collections.ErrNumbersUsedUp(e.RolloutID)
		}
		if err != nil {
			return err
		}
		last, _ := raw.Lookup("n").AsInt64OK()
		n.issued(i, last, true)
		return nil
	}
}

func moveCounter(operator string, n int64) bson.Raw {
	d := newDoc(48)
	at := d.open(operator)
	d.int("n", n)
	d.close(at)
	return d.done()
}

// RaiseSequence implements collections.Spans. It waits for no journal: whoever
// raises a counter goes on to store the span that says so, and that durable
// write makes the one before it durable too.
func (b *Backend) RaiseSequence(ctx context.Context, entries []collections.Counter) error {
	if len(entries) == 0 {
		return nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	return b.raise(b.moved.noting(ctx), b.counters.fast, entries)
}

func (b *Backend) raise(ctx context.Context, to *driver.Collection, entries []collections.Counter) error {
	models := make([]driver.WriteModel, len(entries))
	for i, e := range entries {
		b.knownCounters.Put(e.RolloutID, counter{shared: true}) // wherever it is then
		// A counter that does not exist stands at 0.
		models[i] = driver.NewUpdateOneModel().SetFilter(b.idIn([]string{e.RolloutID})).
			SetUpdate(moveCounter("$max", max(0, e.N))).SetUpsert(true)
	}
	for {
		_, err := to.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
		if driver.IsDuplicateKeyError(err) {
			continue // raising twice does no harm
		}
		return wrap(err, "raising span numbers in MongoDB")
	}
}
