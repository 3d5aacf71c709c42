package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/recent"
	"github.com/aglq/aglq/queue"
)

// Whoever waits for a rollout, or asks for the spans of its latest attempt, asks
// just after it has finished, and mostly the process that wrote the end. A process
// therefore remembers for some seconds the rollouts that it has finished itself,
// and answers without the server. That is exact, for nobody changes a finished
// rollout without having it forgotten first:
//
//   - Who changes one gives it another revision ([Backend.Recall]), waits for
//     recallWait, and makes the change only then.
//   - Who remembers one answers from memory only as long as it knows the change
//     stream up to a moment less than heardFor ago, so the other revision reaches
//     it, or its knowledge is too old, before the change is made.
//
// Only the process that wrote the end remembers, and not for longer than endedFor,
// so its own rollouts and old ones need no recall. Changes of what is never
// answered from memory (the attempts but for which is the latest) need none either.

const (
	// endedFor is how long a finished rollout is remembered.
	endedFor = 10 * time.Second
	// endedLimit is how many, in each of two generations.
	endedLimit = 2048
	// heardFor is how old the latest news of the change stream may be where
	// something is answered from memory.
	heardFor = 100 * time.Millisecond
	// recallWait is longer by more than clocks differ in their pace.
	recallWait = 120 * time.Millisecond
	// surelyForgotten is the age at which nobody remembers a finished rollout: more
	// than endedFor by as much as the clocks of two stores may be apart.
	surelyForgotten = 5 * time.Minute
)

// ended remembers finished rollouts.
type ended struct {
	recent.Memory[string, endedRollout]
}

type endedRollout struct {
	record   *queue.Record // nil while the write of the end is under way
	revision revision
	at       time.Time
}

// expect says that the write of a rollout's end is about to be sent.
func (e *ended) expect(id string, r revision) {
	e.Put(id, endedRollout{revision: r, at: time.Now()})
}

// settle keeps an expected end that was written, unless another change was heard
// of meanwhile.
func (e *ended) settle(id string, r revision, record *queue.Record) {
	e.UpdateKnown(id, func(v endedRollout) endedRollout {
		if v.revision == r {
			v.record = record
		}
		return v
	})
}

// outdate forgets a rollout that another process has written.
func (e *ended) outdate(id string, r revision) {
	e.ForgetIf(id, func(v endedRollout) bool { return v.revision != r })
}

// find returns nil where there is nothing to answer from.
func (e *ended) find(id string) *queue.Record {
	v, ok := e.Get(id)
	if !ok || time.Since(v.at) > endedFor {
		return nil
	}
	return v.record
}

// remembered are those of ids that can be answered from memory, and the others.
func (b *Backend) remembered(ids []string) (done []*queue.Record, others []string) {
	if b.sharded || !b.stream.upToDate() {
		return nil, ids
	}
	for i, id := range ids {
		r := b.ended.find(id)
		switch {
		case r == nil && others != nil:
			others = append(others, id)
		case r != nil && others == nil:
			others = append(make([]string, 0, len(ids)), ids[:i]...)
			done = append(done, r)
		case r != nil:
			done = append(done, r)
		}
	}
	if done == nil {
		return nil, ids
	}
	return done, others
}

// LatestAttemptID implements collections.Rollouts.
func (b *Backend) LatestAttemptID(ctx context.Context, id string) (string, error) {
	done, others := b.remembered([]string{id})
	if len(others) == 0 {
		return latestID(done[0]), nil
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	out := ""
	o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "at.i", Value: 1}})
	err := each(ctx, b.rollouts.main, b.idIn(others), o, func(raw bson.Raw) { out = latestID(decodeRecord(raw).Record) })
	return out, wrap(err, "reading a rollout from MongoDB")
}

func latestID(r *queue.Record) string {
	if latest := r.Latest(); latest != nil {
		return latest.AttemptID
	}
	return ""
}

// mayBeRemembered reports whether another process may answer from memory what a
// change would make wrong.
func (b *Backend) mayBeRemembered(it *item[queue.Record], after *queue.Record) bool {
	before := it.before
	if before == nil || !before.Rollout.Status.Finished() || sameToWaiters(before, after) {
		return false
	}
	t, writer := read(it.revision)
	if writer == b.writer && t.finishes() {
		return false
	}
	if end := before.Rollout.EndTime; end != nil && queue.Seconds(time.Now())-*end > surelyForgotten.Seconds() {
		return false
	}
	return !b.isRecalled(before)
}

// sameToWaiters reports whether a change alters nothing that is answered from
// memory.
func sameToWaiters(before, after *queue.Record) bool {
	x, y := &before.Rollout, &after.Rollout
	return latestID(before) == latestID(after) && x.Status == y.Status && x.StartTime == y.StartTime && x.Mode == y.Mode &&
		equal(x.EndTime, y.EndTime) && equal(x.ResourcesID, y.ResourcesID) && sameConfig(&x.Config, &y.Config) &&
		string(x.Input) == string(y.Input) && string(x.Metadata) == string(y.Metadata)
}

// endOf tells one end of a rollout from another.
type endOf struct {
	latest string
	at     float64
	status queue.RolloutStatus
}

func theEnd(r *queue.Record) endOf {
	e := endOf{latest: latestID(r), status: r.Rollout.Status}
	if r.Rollout.EndTime != nil {
		e.at = *r.Rollout.EndTime
	}
	return e
}

// isRecalled reports whether this process has recalled the end that a rollout has.
// Nobody remembers it again before it has another one.
func (b *Backend) isRecalled(r *queue.Record) bool {
	known, ok := b.recalled.Get(r.Rollout.RolloutID)
	return ok && known == theEnd(r)
}

// Recall implements collections.Rollouts.
func (b *Backend) Recall(ctx context.Context, ids []string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	recalled := make(map[string]*endOf)
	for _, id := range ids {
		end, err := b.recall(ctx, id)
		if err != nil {
			return wrap(err, "recalling a finished rollout in MongoDB")
		}
		if end != nil {
			recalled[id] = end
		}
	}
	if len(recalled) == 0 {
		return nil
	}
	if !sleep(ctx, recallWait) {
		return ctx.Err()
	}
	for id, end := range recalled {
		b.recalled.Put(id, *end)
	}
	return nil
}

// recall gives a finished rollout another revision, which every process hears of,
// unless this process has recalled the same end before. It returns that end, nil
// where there is nothing to wait for.
func (b *Backend) recall(ctx context.Context, id string) (*endOf, error) {
	b.ended.Forget(id)
	for tries := 0; ; tries++ {
		var at stored
		err := b.eachByID(ctx, b.rollouts, []string{id}, func(raw bson.Raw) { at = decodeRecord(raw) })
		if err != nil || at.Record == nil || !at.Rollout.Status.Finished() || b.isRecalled(at.Record) {
			return nil, err
		}
		next := mark(b.newRevision(), transitionOf(at.Record, at.Record))
		res, err := b.rollouts.main.UpdateOne(ctx, bson.D{{Key: "_id", Value: key(b.partition, id)}, {Key: "v", Value: at.Revision}},
			setRevision(at.Revision, next))
		if err != nil && !driver.IsNetworkError(err) {
			return nil, err
		}
		if err == nil && res.MatchedCount == 1 {
			end := theEnd(at.Record)
			return &end, nil
		}
		if !sleep(ctx, pause(tries)) {
			return nil, gaveUp(ctx, collections.ErrRemembered)
		}
	}
}
