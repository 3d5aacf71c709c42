package mongo

import (
	"bytes"
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// One change stream a process tells what happens to the rollouts of the
// partition, whoever writes: the counts add it up, waiters are woken by it, the
// cache drops what others changed, and claims learn who else claims. It is opened
// before the process reads anything, and resumed where it broke.

const (
	// streamIdle is how long the server waits for something to tell before it
	// answers with nothing, and streamSilence how long it may take for that: then the
	// connection is given up.
	streamIdle    = 5 * time.Second
	streamSilence = streamIdle + 5*time.Second
	streamBatch   = 1000
	// streamPace is the least time between two questions to the server, which
	// each cost it about as much as a write.
	streamPace = 5 * time.Millisecond
	// leaveEvery is how often changed counts are left in the database.
	leaveEvery = 5 * time.Second
	// recountTimeout is for how long counting anew may take; no server keeps the
	// past for longer by itself.
	recountTimeout = 5 * time.Minute
	// streamPause is the longest time between two tries to open a broken stream.
	streamPause = time.Second
)

// stream is the change stream of a process.
type stream struct {
	mu      sync.Mutex
	news    func(collections.News)
	others  map[int64]time.Time // other processes, by when they last claimed
	asOf    time.Time           // everything written before has been heard
	stop    context.CancelFunc
	stopped chan struct{} // closed when the goroutine has ended
}

// event is what the pipeline leaves of a change.
type event struct {
	id       string // of the rollout
	revision revision
}

// lostHistory are the server's words for a stream that cannot be resumed.
var lostHistory = []int{136, 222, 234, 260, 280, 286}

// follow opens the stream and keeps it up to date until Close.
func (b *Backend) follow(ctx context.Context) error {
	cs, err := b.openStream(ctx)
	if err != nil {
		return err
	}
	if err := b.leaveCounts(ctx); err != nil {
		_ = cs.Close(ctx)
		return err
	}
	b.tallied.expect(replay, 1) // until the stream has come up to the present
	running, stop := context.WithCancel(context.Background())
	b.stream.stop, b.stream.stopped = stop, make(chan struct{})
	go func() {
		defer close(b.stream.stopped)
		b.listen(running, cs)
	}()
	return nil
}

// unfollow ends the stream and leaves the counts behind.
func (b *Backend) unfollow(ctx context.Context) {
	if b.stream.stop == nil {
		return
	}
	_, _ = b.tallied.read(ctx) // what this process wrote is to be among them
	b.stream.stop()
	<-b.stream.stopped
	if err := b.leaveCounts(ctx); err != nil {
		b.log.Debug("counts not left behind; the next process reads on from older ones", "error", err)
	}
}

// openStream opens it where the counts are right, in memory or in the database,
// and counts anew where that is too long ago.
func (b *Backend) openStream(ctx context.Context) (*driver.ChangeStream, error) {
	token := b.tallied.place()
	if token == nil {
		left, at, err := b.leftCounts(ctx)
		if err != nil {
			return nil, err
		}
		if token = at; token != nil {
			b.tallied.begin(left, token)
		}
	}
	if token != nil {
		cs, err := b.watch(ctx, options.ChangeStream().SetStartAfter(token))
		if err == nil || !hasCode(err, lostHistory) {
			return cs, err
		}
		b.log.Warn("the change stream of MongoDB does not reach back far enough; counting anew", "error", err)
	}
	return b.openAnew(ctx)
}

// openAnew counts, and opens the stream at the time of the count.
func (b *Backend) openAnew(ctx context.Context) (*driver.ChangeStream, error) {
	// A count takes the longer the more there is.
	counting, cancel := context.WithTimeout(ctx, recountTimeout)
	counted, at, err := b.countAll(counting)
	cancel()
	if err != nil {
		return nil, err
	}
	b.tallied.begin(counted, nil)
	cs, err := b.watch(ctx, options.ChangeStream().SetStartAtOperationTime(&bson.Timestamp{T: at.T, I: at.I + 1}))
	if err != nil {
		return nil, err
	}
	b.tallied.begin(counted, cs.ResumeToken())
	b.ended.Clear()
	b.tell(collections.News{Missed: true})
	return cs, nil
}

func (b *Backend) watch(ctx context.Context, o *options.ChangeStreamOptionsBuilder) (*driver.ChangeStream, error) {
	first := key(b.partition, "")
	pipeline := driver.Pipeline{
		{{Key: "$match", Value: bson.D{
			{Key: "operationType", Value: bson.D{{Key: "$in", Value: bson.A{"insert", "update"}}}},
			{Key: "documentKey._id", Value: bson.D{{Key: "$gte", Value: first}, {Key: "$lt", Value: first[:len(first)-1] + "0"}}}, // 0 is next to /
		}}},
		{{Key: "$project", Value: bson.D{
			{Key: "documentKey._id", Value: 1},
			{Key: "v", Value: bson.D{{Key: "$ifNull", Value: bson.A{"$updateDescription.updatedFields.v", "$fullDocument.v"}}}},
		}}},
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	cs, err := b.rollouts.main.Watch(ctx, pipeline, o.SetBatchSize(streamBatch).SetMaxAwaitTime(streamIdle))
	return cs, wrap(err, "opening the change stream of MongoDB")
}

// listen hears events until ctx ends.
func (b *Backend) listen(ctx context.Context, cs *driver.ChangeStream) {
	defer func() { end(ctx, cs) }()
	left, tries := time.Now(), 0
	fresh := true // what the stream begins with is from when it was opened
	for sleep(ctx, streamPace) {
		asked, batch := time.Now(), cs.RemainingBatchLength()
		if batch == 0 && !tryNext(ctx, cs) {
			if cs.Err() != nil || cs.ID() == 0 {
				cs = b.reopen(ctx, cs, tries)
				tries++
				fresh = true
				continue
			}
			b.tallied.rest(cs.ResumeToken())
		} else {
			if batch == 0 {
				b.hear(cs.Current, cs.ResumeToken())
				batch = 1 + cs.RemainingBatchLength()
			}
			for cs.RemainingBatchLength() > 0 && cs.TryNext(ctx) {
				b.hear(cs.Current, cs.ResumeToken())
			}
		}
		tries = 0
		if batch < streamBatch {
			b.tallied.drop(replay)
			if !fresh {
				b.stream.heard(asked)
			}
		}
		fresh = false
		if time.Since(left) >= leaveEvery {
			left = time.Now()
			if err := b.leaveCounts(ctx); err != nil && ctx.Err() == nil {
				b.log.Debug("counts not left in the database yet", "error", err)
			}
		}
	}
}

// tryNext asks the server, and does not wait for an answer longer than it can take: a
// connection may go silent without an end.
func tryNext(ctx context.Context, cs *driver.ChangeStream) bool {
	ctx, cancel := context.WithTimeout(ctx, streamSilence)
	defer cancel()
	return cs.TryNext(ctx)
}

// reopen returns another stream, or the broken one when there is none yet.
func (b *Backend) reopen(ctx context.Context, broken *driver.ChangeStream, tries int) *driver.ChangeStream {
	if tries > 0 && !sleep(ctx, min(streamPause, pause(tries))) {
		return broken
	}
	cs, err := b.openStream(ctx)
	if err != nil {
		if ctx.Err() == nil {
			b.log.Warn("the change stream of MongoDB is not back yet", "error", err)
		}
		return broken
	}
	bounded, cancel := bound(ctx)
	defer cancel()
	_ = broken.Close(bounded)
	return cs
}

// hear takes in one event.
func (b *Backend) hear(raw, token bson.Raw) {
	e := decodeEvent(raw)
	if e.revision == 0 { // what a section touched and did not change
		return
	}
	t, writer := read(e.revision)
	awaited := b.tallied.hear(e.revision, t, token)
	if writer == b.writer && (awaited || !t.counts()) {
		return // else its outcome was unknown when the call ended
	}
	id := e.id[len(key(b.partition, "")):]
	b.knownRollouts.ForgetIf(id, outdated[queue.Record](e.revision))
	b.ended.outdate(id, e.revision)
	var news collections.News
	if t.finishes() {
		news.Finished = id
	}
	news.Queued = t.enqueues()
	if t.before.Queued() && t.attempts > 0 && writer != b.writer {
		b.stream.claimed(writer)
	}
	if news != (collections.News{}) {
		b.tell(news)
	}
}

func decodeEvent(raw bson.Raw) (e event) {
	for key, v := range fields(raw) {
		switch string(key) {
		case "v":
			e.revision = v.int()
		case "documentKey":
			for _, id := range fields(bytes.Clone(v.Data)) {
				e.id = id.text()
			}
		}
	}
	return e
}

// heard notes that everything that was written before a moment has been heard.
func (s *stream) heard(asOf time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asOf = asOf
}

// upToDate reports whether what is remembered of finished rollouts is right.
func (s *stream) upToDate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.asOf) < heardFor
}

func (b *Backend) tell(n collections.News) {
	b.stream.mu.Lock()
	news := b.stream.news
	b.stream.mu.Unlock()
	if news != nil {
		news(n)
	}
}

// Watch implements collections.Backend.
func (b *Backend) Watch(news func(collections.News)) (stop func()) {
	set := func(news func(collections.News)) {
		b.stream.mu.Lock()
		defer b.stream.mu.Unlock()
		b.stream.news = news
	}
	set(news)
	return func() { set(nil) }
}
