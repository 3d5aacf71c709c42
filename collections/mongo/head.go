package mongo

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/queue"
)

// Processes that claim at the same time would all reach for the same rollouts,
// and all but one in vain. So each looks at a window of the queue, as wide as
// what all of them may want, and takes from it the places that are its own: those
// whose number, divided by how many claim, leaves its rank. The ranks move on with
// time, so that a rollout does not wait for a process that has stopped to claim.
// Where its own places do not suffice a process takes others, from the end of the
// window. Whom it meets there loses that rollout and looks again.
//
// The order of claims is therefore that of places, but for such a window and such
// a time.

const (
	// claimingFor is how long a process counts as claiming after a claim.
	claimingFor = 2 * time.Second
	// rankFor is how long a process keeps a rank.
	rankFor = 100 * time.Millisecond
	// headTries is how often a section looks for more rollouts where others were
	// faster to take them.
	headTries = 3

	// aheadLimit is how many rollouts are read ahead of the claims, and aheadFor
	// how long they are worth taking.
	aheadLimit = 64
	aheadFor   = time.Second
)

// ahead is the head of the queue as it was read with the last claim, for the
// next: a process that claims alone finds it unchanged. Whoever takes from it
// loses what has changed after all, and looks again. The faster the claims come,
// the further it reaches; a claim now and then reads what it takes and no more.
type ahead struct {
	mu   sync.Mutex
	list []*item[queue.Record]
	read time.Time
	size int // how far to read beyond the next claim
}

// take removes n, or none where there are not as many; then it says how far to
// read ahead.
func (a *ahead) take(n int) (taken []*item[queue.Record], size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.read) > aheadFor {
		a.list, a.size = nil, 0
		return nil, 0
	}
	if len(a.list) < n {
		a.list, a.size = nil, min(aheadLimit, max(n, 2*a.size))
		return nil, a.size
	}
	taken = a.list[:n:n]
	a.list = a.list[n:]
	return taken, 0
}

func (a *ahead) keep(list []*item[queue.Record]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list, a.read = list, time.Now()
}

// clear forgets it: somebody else claims, or the queue has changed before its
// end.
func (a *ahead) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list, a.size = nil, 0
}

// claimed notes that another process has claimed.
func (s *stream) claimed(writer int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.others == nil {
		s.others = make(map[int64]time.Time)
	}
	s.others[writer] = time.Now()
}

// claimers is how many processes claim at present, this one included, and the
// rank of this one.
func (s *stream) claimers(self int64, now time.Time) (rank, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = 1
	for writer, at := range s.others {
		if now.Sub(at) > claimingFor {
			delete(s.others, writer)
			continue
		}
		n++
		if writer < self {
			rank++
		}
	}
	return (rank + now.UnixMilli()/rankFor.Milliseconds()) % n, n
}

// Head implements collections.Tx. It asks for as many more as the section may
// have to leave out.
func (s *section) Head(n int) ([]*queue.Record, error) {
	if n <= 0 {
		return nil, nil
	}
	known := 0
	for _, it := range s.rollouts.order {
		if it.put || it.after != it.before {
			known++
		}
	}
	out, err := s.readHead(n, known)
	if err != nil {
		return nil, wrap(err, "reading the head of the queue from MongoDB")
	}
	return s.addInserted(out, n), nil
}

func (s *section) readHead(n, known int) ([]*queue.Record, error) {
	rank, claimers := s.b.stream.claimers(s.b.writer, time.Now())
	if claimers == 1 || !s.separate {
		return s.firstOf(n, known)
	}
	out := make([]*queue.Record, 0, n)
	for try := 0; (try < headTries || len(out) == 0) && len(out) < n; try++ {
		places, err := s.places((n + known) * int(claimers))
		if err != nil {
			return nil, err
		}
		places = ownPlaces(places, n-len(out), rank, claimers)
		if len(places) == 0 {
			break
		}
		filter := newDoc(64 + 16*len(places))
		filter.text("p", s.b.partition)
		at := filter.open("q")
		filter.ints("$in", places)
		filter.close(at)
		if out, _, err = s.takeHead(out, filter.done(), n, len(places)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// firstOf takes the first n of the queue, from those read ahead if possible. As
// long as the queue is long it reads ahead.
func (s *section) firstOf(n, known int) ([]*queue.Record, error) {
	out := make([]*queue.Record, 0, n)
	further := 0
	if s.separate && known == 0 {
		var taken []*item[queue.Record]
		taken, further = s.b.ahead.take(n)
		for _, it := range taken {
			s.rollouts.guessed = true
			s.rollouts.add(it)
			out = append(out, it.after)
		}
		if len(out) == n {
			return out, nil
		}
	}
	filter := newDoc(64)
	filter.text("p", s.b.partition)
	s.b.queuedIn(filter)
	out, beyond, err := s.takeHead(out, filter.done(), n, n+known+further)
	if s.separate && err == nil {
		s.b.ahead.keep(beyond)
	}
	return out, err
}

func (b *Backend) queuedIn(filter *doc) {
	at := filter.open("q")
	filter.int("$gt", 0)
	filter.close(at)
}

// places are the first of the queue, without those that the section has dealt
// with.
func (s *section) places(limit int) ([]int64, error) {
	mine := make(map[int64]bool, len(s.rollouts.order))
	for _, it := range s.rollouts.order {
		if it.before != nil {
			mine[it.before.Place] = true
		}
	}
	filter := newDoc(64)
	filter.text("p", s.b.partition)
	s.b.queuedIn(filter)
	places := make([]int64, 0, limit)
	o := options.Find().SetSort(placeSort).SetLimit(int64(limit)).SetBatchSize(int32(limit + 1)).SetHint(byPlace).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "q", Value: 1}})
	err := each(s.ctx, s.b.rollouts.local, filter.done(), o, func(raw bson.Raw) {
		for _, v := range fields(raw) {
			if !mine[v.int()] {
				places = append(places, v.int())
			}
		}
	})
	return places, err
}

// ownPlaces chooses n of a window.
func ownPlaces(window []int64, n int, rank, claimers int64) []int64 {
	own := make([]int64, 0, n)
	others := make([]int64, 0, len(window))
	for _, place := range window {
		if place%claimers == rank && len(own) < n {
			own = append(own, place)
		} else {
			others = append(others, place)
		}
	}
	own = append(own, others[max(0, len(others)-(n-len(own))):]...)
	slices.Sort(own)
	return own
}

// takeHead adds to out, up to n, the queued rollouts that filter finds, and
// returns those found beyond.
func (s *section) takeHead(out []*queue.Record, filter bson.Raw, n, limit int) (taken []*queue.Record, beyond []*item[queue.Record], err error) {
	o := options.Find().SetSort(placeSort).SetLimit(int64(limit)).SetBatchSize(int32(limit + 1)).SetHint(byPlace)
	err = each(s.ctx, s.b.rollouts.local, filter, o, func(raw bson.Raw) {
		r := decodeRecord(raw)
		it := s.rollouts.at(r.Rollout.RolloutID)
		if it == nil || it.before == nil && !it.put {
			fresh := item[queue.Record]{id: r.Rollout.RolloutID, before: r.Record, after: r.Record, revision: r.Revision, order: r.order, read: true}
			switch {
			case len(out) == n:
				fresh.guessed = true
				beyond = append(beyond, &fresh)
				return
			case it == nil:
				it = s.rollouts.add(&fresh)
			default:
				*it = fresh
			}
		}
		if !it.put && it.after.Place > 0 && len(out) < n {
			out = append(out, it.after)
		}
	})
	return out, beyond, err
}

var placeSort = bson.D{{Key: "p", Value: 1}, {Key: "q", Value: 1}}

// addInserted appends what the section itself has enqueued: the end of the
// queue.
func (s *section) addInserted(head []*queue.Record, n int) []*queue.Record {
	from := len(head)
	for _, it := range s.rollouts.order {
		if it.before == nil && it.after != nil && !it.put && it.after.Place > 0 {
			head = append(head, it.after)
		}
	}
	slices.SortFunc(head[from:], func(a, b *queue.Record) int { return cmp.Compare(a.Place, b.Place) })
	return head[:min(n, len(head))]
}
