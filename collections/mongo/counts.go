package mongo

import (
	"bytes"
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
)

// Counts of rollouts by status, and of attempts, are what the change stream adds
// up to: each write of a rollout carries in its revision how it changes them. So
// no write pays for them, and no crash makes them wrong: a process begins with
// counts that one before it has left, together with the place in the stream where
// they were right, and reads on from there. Only when the stream no longer
// reaches back so far are the rollouts counted.
//
// What this process has written itself is waited for, so that its callers see
// their own writes. What others wrote is seen some milliseconds later.

// ownWritesTimeout is how long counts wait for this process's writes to come
// back by the stream. It passes only while the stream is broken.
const ownWritesTimeout = 2 * time.Second

// replay is, among own writes, the way from where the stream was opened to the
// present.
const replay revision = 0

// leaveAtLeast is how often counts that do not change are left anew, so that the
// server still knows their place in the stream.
const leaveAtLeast = time.Minute

// tally is a number of rollouts by status, and of attempts.
type tally struct {
	byStatus map[queue.RolloutStatus]int64
	attempts int64
}

func newTally() tally {
	return tally{byStatus: make(map[queue.RolloutStatus]int64, len(queue.RolloutStatuses))}
}

func (t *tally) apply(c transition) {
	if c.before != "" {
		t.byStatus[c.before]--
	}
	if c.after != "" {
		t.byStatus[c.after]++
	}
	t.attempts += c.attempts
}

func (t *tally) clone() tally {
	out := newTally()
	out.attempts = t.attempts
	for status, n := range t.byStatus {
		out.byStatus[status] = n
	}
	return out
}

// counts follows the stream. Its zero value counts from nothing.
type counts struct {
	mu    sync.Mutex
	now   tally
	token bson.Raw  // where in the stream now is right
	dirty bool      // to be left in the database
	left  time.Time // when it was
	own   map[revision]*ownWrites
}

// ownWrites are writes of one section that have not come back yet.
type ownWrites struct {
	missing int  // may be below 0: the stream may be faster than the answer
	settled bool // missing is final
	back    chan struct{}
}

// expect says that a section of this process is about to make n writes that
// change counts.
func (c *counts) expect(section revision, n int) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == nil {
		c.own = make(map[revision]*ownWrites)
	}
	c.own[section] = &ownWrites{missing: n, back: make(chan struct{})}
}

// settle says how many of them were not made after all.
func (c *counts) settle(section revision, unmade int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.own[section]; w != nil {
		w.missing -= unmade
		w.settled = true
		c.check(section, w)
	}
}

// drop forgets writes of which nobody knows whether they were made.
func (c *counts) drop(section revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.own[section]; w != nil {
		w.missing, w.settled = 0, true
		c.check(section, w)
	}
}

func (c *counts) check(section revision, w *ownWrites) {
	if w.settled && w.missing <= 0 {
		delete(c.own, section)
		close(w.back)
	}
}

// hear takes one event in, and reports whether it was one of the own writes that
// are to come back.
func (c *counts) hear(r revision, t transition, token bson.Raw) (awaited bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = append(c.token[:0], token...)
	if !t.counts() {
		return false
	}
	c.now.apply(t)
	c.dirty = true
	w := c.own[sectionOf(r)]
	if w != nil {
		w.missing--
		c.check(sectionOf(r), w)
	}
	return w != nil
}

// begin starts from counts that are right at a place in the stream. What has
// been written until now may be among them, and is waited for no more.
func (c *counts) begin(now tally, token bson.Raw) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.token, c.dirty = now, bytes.Clone(token), true
	for section, w := range c.own {
		w.missing, w.settled = 0, true
		c.check(section, w)
	}
}

// rest notes how far the stream has come without telling anything.
func (c *counts) rest(token bson.Raw) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = append(c.token[:0], token...)
	c.dirty = c.dirty || time.Since(c.left) > leaveAtLeast
}

func (c *counts) place() bson.Raw {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.token)
}

// read returns the counts once all writes of this process are among them, but
// not later than ownWritesTimeout.
func (c *counts) read(ctx context.Context) (tally, error) {
	timeout := time.NewTimer(ownWritesTimeout)
	defer timeout.Stop()
	for _, back := range c.missing() {
		select {
		case <-back:
			continue
		case <-ctx.Done():
			return tally{}, ctx.Err()
		case <-timeout.C:
		}
		break
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.clone(), nil
}

func (c *counts) missing() []chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]chan struct{}, 0, len(c.own))
	for _, w := range c.own {
		out = append(out, w.back)
	}
	return out
}

// leftID is the key of the counts that processes leave.
const leftID = "left"

// leaveCounts writes the counts into the database, for whoever begins next.
func (b *Backend) leaveCounts(ctx context.Context) error {
	doc := b.tallied.document(b.partition)
	if doc == nil {
		return nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	_, err := b.counts.main.ReplaceOne(ctx, b.idIn([]string{leftID}), doc, options.Replace().SetUpsert(true))
	return wrap(err, "leaving counts in MongoDB")
}

func (c *counts) document(partition string) bson.Raw {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dirty || len(c.token) == 0 {
		return nil
	}
	c.dirty, c.left = false, time.Now()
	d := newDoc(384)
	d.text("_id", key(partition, leftID))
	for status, n := range c.now.byStatus {
		d.int(string(status), n)
	}
	d.int("attempts", c.now.attempts)
	d.raw("token", c.token)
	return d.done()
}

// leftCounts are those that a process has left, and where in the stream it did;
// nil for nowhere.
func (b *Backend) leftCounts(ctx context.Context) (t tally, token bson.Raw, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	t = newTally()
	err = each(ctx, b.counts.main, b.idIn([]string{leftID}), options.Find(), func(raw bson.Raw) {
		for key, v := range fields(raw) {
			switch status := queue.RolloutStatus(key); {
			case status.Valid():
				t.byStatus[status] = v.int()
			case string(key) == "attempts":
				t.attempts = v.int()
			case string(key) == "token":
				token = bytes.Clone(v.Data)
			}
		}
	})
	return t, token, wrap(err, "reading counts from MongoDB")
}

// countAll counts the rollouts as they were at one time, which it returns.
func (b *Backend) countAll(ctx context.Context) (t tally, at bson.Timestamp, err error) {
	t = newTally()
	raw, err := b.database.RunCommand(ctx, bson.D{
		{Key: "aggregate", Value: b.rollouts.main.Name()},
		{Key: "pipeline", Value: bson.A{
			bson.D{{Key: "$match", Value: b.mine()}},
			bson.D{{Key: "$group", Value: bson.D{
				{Key: "_id", Value: "$st"},
				{Key: "n", Value: bson.D{{Key: "$sum", Value: int64(1)}}},
				{Key: "at", Value: bson.D{{Key: "$sum", Value: bson.D{{Key: "$size", Value: "$at"}}}}},
			}}},
		}},
		{Key: "cursor", Value: bson.D{}},
		{Key: "hint", Value: byStatus},
		{Key: "readConcern", Value: bson.D{{Key: "level", Value: "snapshot"}}},
	}).Raw()
	if err != nil {
		return t, at, wrap(err, "counting rollouts in MongoDB")
	}
	at.T, at.I, _ = raw.Lookup("cursor", "atClusterTime").TimestampOK()
	groups, _ := raw.Lookup("cursor", "firstBatch").ArrayOK()
	for _, group := range fields(groups) {
		status, n := queue.RolloutStatus(""), int64(0)
		for key, v := range fields(group.Data) {
			switch string(key) {
			case "_id":
				status = queue.RolloutStatus(v.text())
			case "n":
				n = v.int()
			case "at":
				t.attempts += v.int()
			}
		}
		t.byStatus[status] = n
	}
	return t, at, nil
}

// mine matches the documents of the partition.
func (b *Backend) mine() bson.Raw {
	d := newDoc(32)
	d.text("p", b.partition)
	return d.done()
}

// Statistics implements collections.Backend.
func (b *Backend) Statistics(ctx context.Context) (queue.Statistics, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	st := queue.Statistics{Name: "MongoLightningStore"}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		t, err := b.tallied.read(gctx)
		st.ByStatus, st.Attempts = t.byStatus, t.attempts
		for _, n := range t.byStatus {
			st.Rollouts += n
		}
		return err
	})
	group.Go(func() (err error) {
		st.Workers, err = b.workers.main.CountDocuments(gctx, b.mine(), options.Count().SetHint(byOrder))
		return err
	})
	group.Go(func() (err error) {
		st.Resources, err = b.resources.main.CountDocuments(gctx, b.mine(), options.Count().SetHint(byOrder))
		return err
	})
	group.Go(func() (err error) {
		st.Spans, err = b.spanned.count(func() (int64, error) {
			return b.spans.main.CountDocuments(gctx, b.mine(), options.Count().SetHint(bySequence))
		})
		return err
	})
	return st, wrap(group.Wait(), "counting in MongoDB")
}

// spanCount remembers the number of spans where counting them, in the index,
// takes long: what this process adds is added, what others add is seen with the
// next count, after recountAfter or when counting has cost a hundredth of the
// time.
type spanCount struct {
	mu       sync.Mutex
	counted  time.Time
	took     time.Duration // to count
	spans    int64         // as of counted, and stored by this process since
	counting sync.Mutex
}

const (
	// cheapCount is how many spans are counted anew each time.
	cheapCount   = 20_000
	recountAfter = 10 * time.Second
)

func (c *spanCount) stored(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans += int64(n)
}

func (c *spanCount) count(now func() (int64, error)) (int64, error) {
	c.counting.Lock()
	defer c.counting.Unlock()
	c.mu.Lock()
	before, age, wait := c.spans, time.Since(c.counted), max(recountAfter, 100*c.took)
	c.mu.Unlock()
	if before > cheapCount && age < wait {
		return before, nil
	}
	began := time.Now()
	n, err := now()
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans, c.counted, c.took = n, time.Now(), time.Since(began)
	return n, nil
}
