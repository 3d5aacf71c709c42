package memory

import (
	"slices"
	"time"

	"github.com/aglq/aglq/queue"
)

// table holds the rollouts in order of start time, then of insertion, which is
// how lists are ordered.
type table struct {
	rows map[string]*row
	// One element a rollout in each of these. The class is a column of its own so
	// that a filtered page reads one byte of each rollout that it passes.
	records []*queue.Record
	byPos   []*row
	class   []class
	// present has a bit for each class among the blockRows rollouts of a block, so
	// that a filtered page passes over whole blocks.
	present []uint64

	counts   [classes]int
	attempts int
	queue    ordered[int64]   // by place
	due      ordered[float64] // by due time
	place    int64            // the last one given
	serial   int64            // of the last row
}

// row is the fixed identity of a rollout in the indexes.
type row struct {
	id     string
	serial int64 // counts insertions
	pos    int   // in the columns; moves when a rollout is inserted before it
}

func (t *table) find(id string) *queue.Record {
	if row, ok := t.rows[id]; ok {
		return t.records[row.pos]
	}
	return nil
}

// nextPlace is the place at the tail of the queue: microseconds of Unix time,
// as in other backends, unless they would repeat, so that a queue that moves
// between backends keeps its order.
func (t *table) nextPlace() int64 {
	return max(t.place+1, time.Now().UnixMicro())
}

// placed notes a place that a record has brought or been given.
func (t *table) placed(place int64) { t.place = max(t.place, place) }

// put inserts or replaces a record and returns the one before it.
func (t *table) put(r *queue.Record) (before *queue.Record, at *row) {
	at, ok := t.rows[r.Rollout.RolloutID]
	if !ok {
		at = t.insert(r)
	} else {
		before = t.records[at.pos]
		t.records[at.pos] = r
		t.counts[t.class[at.pos]]--
		t.attempts -= len(before.Attempts)
	}
	c := classOf(r)
	t.counts[c]++
	if before == nil || t.class[at.pos] != c {
		t.class[at.pos] = c
		t.summarise(at.pos / blockRows)
	}
	t.attempts += len(r.Attempts)
	var place int64
	var due float64
	if before != nil {
		place, due = before.Place, before.Due
	}
	if place != r.Place {
		reindex(&t.queue, at, place, r.Place)
	}
	if due != r.Due {
		reindex(&t.due, at, due, r.Due)
	}
	return before, at
}

// reindex moves a row from one key to another; 0 is not in the index.
func reindex[K int64 | float64](o *ordered[K], at *row, from, to K) {
	if from > 0 {
		o.remove(from, at)
	}
	if to > 0 {
		o.add(to, at)
	}
}

// insert gives a new record its row. Start times rise but for the odd clock
// adjustment and for callers that overtake each other, so hardly ever is there
// anything to move.
func (t *table) insert(r *queue.Record) *row {
	pos := len(t.records)
	if pos > 0 && t.records[pos-1].Rollout.StartTime > r.Rollout.StartTime {
		pos, _ = slices.BinarySearchFunc(t.records, r.Rollout.StartTime, func(o *queue.Record, start float64) int {
			if o.Rollout.StartTime <= start {
				return -1
			}
			return 1
		})
	}
	t.serial++
	at := &row{id: r.Rollout.RolloutID, serial: t.serial, pos: pos}
	t.rows[r.Rollout.RolloutID] = at
	t.records = slices.Insert(t.records, pos, r)
	t.byPos = slices.Insert(t.byPos, pos, at)
	t.class = slices.Insert(t.class, pos, class(0))
	for i := pos + 1; i < len(t.byPos); i++ {
		t.byPos[i].pos = i
	}
	if (len(t.records)-1)%blockRows == 0 {
		t.present = append(t.present, 0)
	}
	for block := pos/blockRows + 1; block < len(t.present); block++ {
		t.summarise(block)
	}
	return at
}

// blockRows is the number of rollouts that one word of present sums up.
const blockRows = 128

func (t *table) summarise(block int) {
	from := block * blockRows
	var present uint64
	for _, c := range t.class[from:min(from+blockRows, len(t.class))] {
		present |= 1 << c
	}
	t.present[block] = present
}

// class is a rollout's status and mode in one byte.
type class uint8

// A status or mode that is not in the lists of package queue gets the number
// after the last.
const (
	modeClasses   = 5 // null, the three modes, and others
	statusClasses = 8
	classes       = modeClasses * statusClasses
)

func classOf(r *queue.Record) class {
	return newClass(statusNumber(r.Rollout.Status), modeNumber(r.Rollout.Mode))
}

func newClass(status, mode int) class { return class(status*modeClasses + mode) }

func statusNumber(s queue.RolloutStatus) int {
	if i := slices.Index(queue.RolloutStatuses, s); i >= 0 {
		return i
	}
	return statusClasses - 1
}

func modeNumber(m queue.Mode) int {
	if m == "" {
		return 0
	}
	if i := slices.Index(queue.Modes, m); i >= 0 {
		return i + 1
	}
	return modeClasses - 1
}

func (t *table) byStatus() map[queue.RolloutStatus]int64 {
	out := map[queue.RolloutStatus]int64{}
	for i, s := range queue.RolloutStatuses {
		for mode := range modeClasses {
			if n := t.counts[newClass(i, mode)]; n > 0 {
				out[s] += int64(n)
			}
		}
	}
	return out
}
