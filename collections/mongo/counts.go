package mongo

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
)

// Counts of rollouts by status, and of attempts, are kept in documents that
// sections change in the same transaction as what they count. A partition has
// many of them, called lanes, so that concurrent sections do not wait for each
// other; a count is the sum over all lanes.

// numLanes is how many lanes a partition has: enough for processes that choose
// theirs at random to differ.
const numLanes = 64

// lanes hands out lanes to sections, always the same first.
type lanes struct {
	mu   sync.Mutex
	free []int
}

func (l *lanes) shuffle() { l.free = rand.Perm(numLanes) }

func (l *lanes) take() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		return rand.N(numLanes)
	}
	lane := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	return lane
}

// give returns a lane. One that a section failed with, perhaps because another
// process uses it too, is used last.
func (l *lanes) give(lane int, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) >= numLanes {
		return
	}
	if failed {
		l.free = append([]int{lane}, l.free...)
		return
	}
	l.free = append(l.free, lane)
}

func (b *Backend) laneID(lane int) bson.Raw {
	d := newDoc(64)
	d.text("_id", key(b.partition, strconv.Itoa(lane)))
	return d.done()
}

// tally is a change of the counts.
type tally struct {
	byStatus map[queue.RolloutStatus]int64
	attempts int64
}

func (t *tally) add(r *queue.Record, sign int64) {
	if t.byStatus == nil {
		t.byStatus = make(map[queue.RolloutStatus]int64, len(queue.RolloutStatuses))
	}
	t.byStatus[r.Rollout.Status] += sign
	t.attempts += sign * int64(len(r.Attempts))
}

func (t *tally) none() bool {
	for _, n := range t.byStatus {
		if n != 0 {
			return false
		}
	}
	return t.attempts == 0
}

func (t *tally) update(partition string) bson.Raw {
	d := newDoc(192)
	at := d.open("$inc")
	for _, status := range queue.RolloutStatuses {
		if n := t.byStatus[status]; n != 0 {
			d.int(string(status), n)
		}
	}
	if t.attempts != 0 {
		d.int("attempts", t.attempts)
	}
	d.close(at)
	at = d.open("$setOnInsert")
	d.text("p", partition)
	d.close(at)
	return d.done()
}

// total sums the lanes.
func (b *Backend) total(ctx context.Context) (tally, error) {
	t := tally{byStatus: make(map[queue.RolloutStatus]int64, len(queue.RolloutStatuses))}
	err := each(ctx, b.counts.snapshot, b.mine(), options.Find().SetHint(byOrder), func(raw bson.Raw) {
		for key, v := range fields(raw) {
			switch status := queue.RolloutStatus(key); {
			case status.Valid():
				t.byStatus[status] += v.int()
			case string(key) == "attempts":
				t.attempts += v.int()
			}
		}
	})
	return t, err
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
		t, err := b.total(gctx)
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
