package mongo

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
)

// What the stores of one machine write to the same collection they write
// together: each hands it to the leader among them ([relay]), where it goes with
// what others hand in into one command. So several stores cost the server no more
// than one. Without a leader, or in it, the same lanes hold what this process
// writes.
//
// The lanes carry encoded statements and documents, which know nothing of
// sections. Each is conditional on a revision or a key, so it does not matter who
// sends it, or whether somebody sends it late.

// lanes are the writes that are gathered.
type lanes struct {
	updates *groupcommit.Group[*updates]
	spans   *groupcommit.Group[*inserts]
	numbers *groupcommit.Group[*numbering]
}

func (b *Backend) newLanes() lanes {
	return lanes{
		updates: groupcommit.New(b.commitUpdates, func(u *updates) int { return len(u.statements) }, 1),
		spans:   groupcommit.New(b.commitInserts, func(i *inserts) int { return len(i.docs) }, 1),
		numbers: groupcommit.New(b.commitNumbering, nil, 1),
	}
}

func (l *lanes) wait() {
	l.updates.Wait()
	l.spans.Wait()
	l.numbers.Wait()
}

// laneContext bounds a commit. What several calls have handed in does not end with
// one of them.
func laneContext[T any](batch []*groupcommit.Call[T], limit time.Duration) (context.Context, context.CancelFunc) {
	if len(batch) == 1 {
		return context.WithTimeout(batch[0].Ctx, limit)
	}
	return context.WithTimeout(collections.Detached(batch[0].Ctx), limit)
}

// updates are statements of one section, each of which changes one rollout unless
// somebody else has.
type updates struct {
	statements []bson.Raw
	fates      []fate // of the statements; nil where all were made
}

// fate is what became of a write.
type fate byte

const (
	madeWrite    fate = iota
	unmadeWrite       // somebody else has changed the rollout
	unknownWrite      // others have changed it more than once since, so nobody can tell
)

// update makes changes, and tells what became of each; nil is that all were made.
// After an error nobody knows.
func (b *Backend) update(ctx context.Context, statements []bson.Raw) ([]fate, error) {
	u := &updates{statements: statements}
	relayed, err := b.relay.update(ctx, u)
	if !relayed {
		err = b.lanes.updates.Do(ctx, u)
	}
	return u.fates, err
}

// commitUpdates makes one command of as many calls as fit.
func (b *Backend) commitUpdates(batch []*groupcommit.Call[*updates]) {
	for len(batch) > 0 {
		n, size := 0, 0
		for n < len(batch) && (n == 0 || size+bytesOf(batch[n].Item.statements) < maxCommand) {
			size += bytesOf(batch[n].Item.statements)
			n++
		}
		b.runUpdates(batch[:n], size)
		batch = batch[n:]
	}
}

func bytesOf(docs []bson.Raw) (n int) {
	for _, d := range docs {
		n += len(d) + 16
	}
	return n
}

func (b *Backend) runUpdates(batch []*groupcommit.Call[*updates], size int) {
	d := newDoc(size + 128)
	d.text("update", b.rollouts.main.Name())
	d.raw("writeConcern", journaledDoc)
	d.no("ordered")
	list := d.openArray("updates")
	n := 0
	for _, c := range batch {
		for _, s := range c.Item.statements {
			d.raw(strconv.Itoa(n), s)
			n++
		}
	}
	d.close(list)
	ctx, cancel := laneContext(batch, oneTimeout)
	defer cancel()
	answer, err := b.database.RunCommand(ctx, d.done()).Raw()
	made, _ := answer.Lookup("n").AsInt64OK()
	switch {
	case err == nil && made == int64(n):
	case err == nil:
		err = b.tellFates(ctx, batch, int(made))
	case len(batch) > 1 && !passing(err): // one of them is refused
		for i := range batch {
			b.runUpdates(batch[i:i+1], bytesOf(batch[i].Item.statements))
		}
		return
	}
	for _, c := range batch {
		c.Err = err
	}
}

// tellFates finds out which statements of a command were made. Nobody else of this
// machine writes meanwhile.
func (b *Backend) tellFates(ctx context.Context, batch []*groupcommit.Call[*updates], made int) error {
	var all []bson.Raw
	for _, c := range batch {
		all = append(all, c.Item.statements...)
	}
	fates, err := b.lookFor(ctx, all)
	if err != nil {
		return wrap(err, "asking MongoDB which writes were made")
	}
	seen := 0
	for _, f := range fates {
		if f == madeWrite {
			seen++
		}
	}
	for i, f := range fates {
		if f == unknownWrite && seen == made {
			fates[i] = unmadeWrite
		}
	}
	for _, c := range batch {
		n := len(c.Item.statements)
		c.Item.fates, fates = fates[:n:n], fates[n:]
	}
	return nil
}

// lookFor reads what became of statements. A rollout that stands at its new
// revision, or did before the last change, was written; one that went another way
// from the revision before was not.
func (b *Backend) lookFor(ctx context.Context, statements []bson.Raw) ([]fate, error) {
	type versions struct{ now, before revision }
	found := make(map[string]versions, len(statements))
	keys := make([]string, len(statements))
	for i, s := range statements {
		keys[i] = s.Lookup("q", "_id").StringValue()
	}
	o := options.Find().SetBatchSize(int32(len(keys) + 1)).SetProjection(bson.D{{Key: "v", Value: 1}, {Key: "u", Value: 1}})
	err := each(ctx, b.rollouts.main, byIDs(keys), o, func(raw bson.Raw) {
		r := decodeRecord(raw)
		found[raw.Lookup("_id").StringValue()] = versions{r.Revision, r.previous}
	})
	fates := make([]fate, len(statements))
	for i, s := range statements {
		base, wanted := s.Lookup("q", "v").AsInt64(), s.Lookup("u", "$set", "v").AsInt64()
		switch v, exists := found[keys[i]]; {
		case v.now == wanted, v.before == wanted:
		case !exists, v.now == base, v.before == base:
			fates[i] = unmadeWrite
		default:
			fates[i] = unknownWrite
		}
	}
	return fates, err
}

// inserts are spans of one call.
type inserts struct {
	docs     []bson.Raw
	existing []int // which were there before
}

// insert stores documents of spans, save those whose key exists. After an error
// some may have been stored.
func (b *Backend) insert(ctx context.Context, docs []bson.Raw) (existing []int, err error) {
	i := &inserts{docs: docs}
	relayed, err := b.relay.insert(ctx, i)
	if !relayed {
		err = b.lanes.spans.Do(ctx, i)
	}
	return i.existing, err
}

func (b *Backend) commitInserts(batch []*groupcommit.Call[*inserts]) {
	for len(batch) > 0 {
		n, size := 0, 0
		for n < len(batch) && (n == 0 || size+bytesOf(batch[n].Item.docs) < maxCommand) {
			size += bytesOf(batch[n].Item.docs)
			n++
		}
		b.runInserts(batch[:n], size)
		batch = batch[n:]
	}
}

func (b *Backend) runInserts(batch []*groupcommit.Call[*inserts], size int) {
	d := newDoc(size + 128)
	d.text("insert", b.spans.main.Name())
	d.no("ordered")
	if b.spansTo == b.spans.main {
		d.raw("writeConcern", journaledDoc)
	}
	list := d.openArray("documents")
	n := 0
	for _, c := range batch {
		for _, doc := range c.Item.docs {
			d.raw(strconv.Itoa(n), doc)
			n++
		}
	}
	d.close(list)
	ctx, cancel := laneContext(batch, callTimeout)
	defer cancel()
	err := b.database.RunCommand(ctx, d.done()).Err()
	var refused driver.WriteException
	if err != nil && (!errors.As(err, &refused) || refused.WriteConcernError != nil) {
		for _, c := range batch {
			c.Err = err
		}
		return
	}
	from := 0
	for _, c := range batch {
		c.Item.settle(refused.WriteErrors, from, c)
		from += len(c.Item.docs)
	}
}

// settle takes from the errors of a command those of documents that begin at from.
// Only what was refused for another reason than that it exists is its caller's
// error.
func (i *inserts) settle(errs driver.WriteErrors, from int, c *groupcommit.Call[*inserts]) {
	i.existing = nil
	for _, e := range errs {
		switch {
		case e.Index < from || e.Index >= from+len(i.docs):
		case e.Code == duplicateKey:
			i.existing = append(i.existing, e.Index-from)
		default:
			c.Err = driver.WriteException{WriteErrors: driver.WriteErrors{e}}
		}
	}
}

// numbering asks for numbers of spans.
type numbering struct {
	entries []collections.Counter // of distinct rollouts
	durable bool
	first   []int64
}

func (b *Backend) number(ctx context.Context, entries []collections.Counter, durable bool) ([]int64, error) {
	n := &numbering{entries: entries, durable: durable}
	relayed, err := b.relay.number(ctx, n)
	if !relayed || errors.Is(err, errRelayLost) { // numbers that nobody got are left out
		err = b.lanes.numbers.Do(ctx, n)
	}
	return n.first, err
}

// commitNumbering moves each counter once, and deals the numbers out in order of
// arrival.
func (b *Backend) commitNumbering(batch []*groupcommit.Call[*numbering]) {
	ctx, cancel := laneContext(batch, callTimeout)
	defer cancel()
	if len(batch) == 1 {
		n := batch[0].Item
		n.first, batch[0].Err = b.issue(ctx, n.entries, n.durable)
		return
	}
	var all []collections.Counter
	at := make(map[string]int)
	durable := false
	for _, c := range batch {
		durable = durable || c.Item.durable
		for _, e := range c.Item.entries {
			i, ok := at[e.RolloutID]
			if !ok {
				i, at[e.RolloutID] = len(all), len(all)
				all = append(all, collections.Counter{RolloutID: e.RolloutID})
			}
			all[i].N += e.N
		}
	}
	next, err := b.issue(ctx, all, durable)
	if err != nil && !passing(err) { // one rollout's numbers are used up; the others go on
		for i := range batch {
			b.commitNumbering(batch[i : i+1])
		}
		return
	}
	for _, c := range batch {
		if c.Err = err; err != nil {
			continue
		}
		c.Item.first = make([]int64, len(c.Item.entries))
		for i, e := range c.Item.entries {
			c.Item.first[i] = next[at[e.RolloutID]]
			next[at[e.RolloutID]] += e.N
		}
	}
}
