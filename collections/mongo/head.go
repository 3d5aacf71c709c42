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
// What a process has read beyond a claim it remembers for the next, and the
// faster its claims come the further it reads: up to aheadLimit rollouts. Whoever
// takes from that loses what has changed after all, and looks again.
//
// The order of claims is therefore that of places within a process, and between n
// processes but for a window of n times the rollouts that each claims and reads
// ahead.

const (
	// claimingFor is how long a process counts as claiming after a claim.
	claimingFor = 2 * time.Second
	// rankFor is how long a process keeps a rank.
	rankFor = 500 * time.Millisecond
	// headTries is how often a section looks for more rollouts where others were
	// faster to take them.
	headTries = 3

	// aheadLimit is how many rollouts are read ahead of the claims, and aheadFor
	// how long they are worth taking.
	aheadLimit = 64
	aheadFor   = time.Second
)

// share is which places of the queue a process takes, of how many that claim.
type share struct{ rank, claimers int64 }

// ahead is what a process has read of its share beyond its last claim.
type ahead struct {
	turn chan struct{} // has room for one: the section that takes or looks

	mu    sync.Mutex
	list  []*item[queue.Record]
	share share
	read  time.Time
	size  int // how far to read beyond the next claim
}

// take removes n, or none where there are not as many; then it says how far to
// read ahead.
func (a *ahead) take(n int, now share) (taken []*item[queue.Record], size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.read) > aheadFor {
		a.list, a.size = nil, 0
		return nil, 0
	}
	if len(a.list) < n || a.share != now {
		a.list, a.size = nil, min(aheadLimit, max(n, 2*a.size))
		return nil, a.size
	}
	taken = a.list[:n:n]
	a.list = a.list[n:]
	return taken, 0
}

func (a *ahead) keep(list []*item[queue.Record], now share) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list, a.share, a.read = list, now, time.Now()
}

// without forgets it if the rollout is in it, which is about to change.
func (a *ahead) without(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.ContainsFunc(a.list, func(it *item[queue.Record]) bool { return it.id == id }) {
		a.list = nil
	}
}

// clear forgets it: some of it has changed, or the queue before its end.
func (a *ahead) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = nil
}

// floor is where the queue began at the last look. What was claimed before it
// lingers in the index until the server tidies up, and to pass over it takes the
// longer the more there is. A rollout that returns to a place before the floor is
// seen by the next look from the beginning.
type floor struct {
	mu    sync.Mutex
	place int64
	since time.Time // of the last look from the beginning
}

// floorFor is the longest time between two looks from the beginning.
const floorFor = 2 * time.Second

// from is the place to look from: 0 for the beginning.
func (f *floor) from() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.place == 0 || now.Sub(f.since) > floorFor {
		f.place, f.since = 0, now
	}
	return f.place
}

// begins notes the first place that a look has found, 0 for none.
func (f *floor) begins(place int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.place = place
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

// share is that of this process among those that claim at present.
func (s *stream) share(self int64, now time.Time) share {
	s.mu.Lock()
	defer s.mu.Unlock()
	rank, n := int64(0), int64(1)
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
	return share{rank: (rank + now.UnixMilli()/rankFor.Milliseconds()) % n, claimers: n}
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
	out := make([]*queue.Record, 0, n)
	if !s.separate { // whoever meets it there runs again
		out, _, _, err := s.look(out, n, n+known, 0, share{claimers: 1})
		return out, err
	}
	mine := s.b.stream.share(s.b.writer, time.Now())
	for try := 0; len(out) < n && (try < headTries || len(out) == 0); try++ {
		if try == headTries {
			mine = share{claimers: 1} // others were faster each time: take what comes first
		}
		var last bool
		var err error
		if out, last, err = s.takeNext(out, n, known, mine); err != nil || last {
			return out, err
		}
	}
	return out, nil
}

// takeNext adds to out, up to n, what has been read ahead, or else what the queue
// begins with. Last reports that a further look would bring no more. One section
// does so at a time: were several to look, all would find the same, and those that
// come after it take what it has read beyond.
func (s *section) takeNext(out []*queue.Record, n, known int, mine share) (_ []*queue.Record, last bool, err error) {
	select {
	case s.b.ahead.turn <- struct{}{}:
		defer func() { <-s.b.ahead.turn }()
	case <-s.ctx.Done():
		return nil, false, s.ctx.Err()
	}
	missing, further := n-len(out), 0
	if known == 0 {
		var taken []*item[queue.Record]
		if taken, further = s.b.ahead.take(missing, mine); taken != nil {
			return s.takeAhead(out, taken), false, nil
		}
	}
	out, beyond, some, err := s.look(out, n, missing+known, further, mine)
	if err != nil {
		return nil, false, err
	}
	if some {
		s.b.ahead.keep(beyond, mine)
	}
	return out, !some || mine.claimers == 1, nil
}

func (s *section) takeAhead(out []*queue.Record, taken []*item[queue.Record]) []*queue.Record {
	s.rollouts.guessed = true
	for _, it := range taken {
		if have := s.rollouts.at(it.id); have != nil {
			it = have
		} else {
			s.rollouts.add(it)
		}
		if it.after != nil && it.after.Place > 0 && !it.put {
			out = append(out, it.after)
		}
	}
	return out
}

// look reads n rollouts of the queue and, of a process's share, some further
// ones: from the floor, and if there is nothing, from the beginning. It adds to
// out until that holds want. Some reports whether the queue held any, which
// others may have taken before they were read.
func (s *section) look(out []*queue.Record, want, n, further int, mine share) (taken []*queue.Record, beyond []*item[queue.Record], some bool, err error) {
	taken = out
	for from := s.b.floor.from(); ; from = 0 {
		filter, limit := s.queuedFrom(from), n+further
		if mine.claimers > 1 {
			places, err := s.places(out, from, limit*int(mine.claimers))
			if err != nil {
				return nil, nil, false, err
			}
			some = len(places) > 0
			filter, limit = s.queuedAt(ownPlaces(places, n, further, mine))
		}
		if limit > 0 {
			if taken, beyond, err = s.takeHead(out, filter, want, limit); err != nil {
				return nil, nil, false, err
			}
		}
		found := len(taken) > len(out) || len(beyond) > 0
		if some = some || found; found || from == 0 {
			break
		}
	}
	if mine.claimers == 1 && s.separate { // others may undo what they see
		s.b.floor.begins(firstPlace(taken[len(out):]))
	}
	return taken, beyond, some, nil
}

func firstPlace(queued []*queue.Record) int64 {
	if len(queued) == 0 {
		return 0
	}
	return queued[0].Place
}

// queuedFrom is the query for the queue from a place on.
func (s *section) queuedFrom(place int64) bson.Raw {
	d := newDoc(64)
	d.text("p", s.b.partition)
	at := d.open("q")
	d.int("$gte", max(1, place))
	d.close(at)
	return d.done()
}

// queuedAt is the query for some places, and how many it finds at most.
func (s *section) queuedAt(places []int64) (filter bson.Raw, limit int) {
	d := newDoc(64 + 16*len(places))
	d.text("p", s.b.partition)
	at := d.open("q")
	d.ints("$in", places)
	d.close(at)
	return d.done(), len(places)
}

// places are the first of the queue from a place on, without those that are
// taken already and those of rollouts that the section has put.
func (s *section) places(taken []*queue.Record, from int64, limit int) ([]int64, error) {
	mine := make(map[int64]bool, len(s.rollouts.order))
	for _, r := range taken {
		mine[r.Place] = true
	}
	for _, it := range s.rollouts.order {
		if it.put && it.before != nil {
			mine[it.before.Place] = true
		}
	}
	places := make([]int64, 0, limit)
	o := options.Find().SetSort(placeSort).SetLimit(int64(limit)).SetBatchSize(int32(limit + 1)).SetHint(byPlace).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "q", Value: 1}})
	err := each(s.ctx, s.b.rollouts.local, s.queuedFrom(from), o, func(raw bson.Raw) {
		for _, v := range fields(raw) {
			if !mine[v.int()] {
				places = append(places, v.int())
			}
		}
	})
	if err == nil && len(places) > 0 {
		s.b.floor.begins(places[0])
	}
	return places, err
}

// ownPlaces chooses from a window: n places, and further ones of the share.
func ownPlaces(window []int64, n, further int, mine share) []int64 {
	own := make([]int64, 0, n+further)
	others := make([]int64, 0, len(window))
	for _, place := range window {
		if place%mine.claimers == mine.rank && len(own) < n+further {
			own = append(own, place)
		} else {
			others = append(others, place)
		}
	}
	if missing := n - len(own); missing > 0 {
		own = append(own, others[max(0, len(others)-missing):]...)
		slices.Sort(own)
	}
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
		if !it.put && it.after.Place > 0 && len(out) < n && !slices.Contains(out, it.after) {
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
