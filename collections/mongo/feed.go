package mongo

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/internal/leader"
)

// Of the stores of one machine only the leader follows the change stream of the
// server. It hands what it hears on to the others, each event with its place in
// the stream. A store changes from its own stream to the leader's once it has come
// as far as the leader was when it asked for it, leaves out what it knows, and goes
// back to its own, from its own place on, when the leader is lost. So it hears every
// event once, in order, whoever tells it.

// feedBuffer is how many batches a store may be behind before it goes back to its
// own stream.
const feedBuffer = 1024

// feed is the leader's stream, as a follower hears it.
type feed struct {
	mu      sync.Mutex
	there   bool           // there is a leader
	batches chan feedBatch // nil where the leader has not been asked
	from    bson.Raw       // where the leader was when it was asked; nil while it is
}

// feedBatch is what the leader heard at once.
type feedBatch struct {
	received uint64    // the last of this process's calls that the leader had before it asked the server
	asOf     time.Time // when that call was sent, zero where nobody knows
	place    bson.Raw  // after the batch
	events   []told
}

// told is an event with its place.
type told struct {
	event
	place bson.Raw
}

// lead notes that there is a leader, or none any more.
func (f *feed) lead(there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there = there
	f.end()
}

// end is called with mu held.
func (f *feed) end() {
	if f.batches != nil {
		close(f.batches)
		f.batches, f.from = nil, nil
	}
}

// hear takes a batch in, without blocking.
func (f *feed) hear(batch feedBatch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.batches == nil {
		return
	}
	select {
	case f.batches <- batch:
	default:
		f.end()
	}
}

// joinFeed returns the leader's batches once this process may go on with them,
// and nil before.
func (b *Backend) joinFeed(ctx context.Context) <-chan feedBatch {
	f := &b.relay.feed
	f.mu.Lock()
	there, batches, from := f.there, f.batches, f.from
	if there && batches == nil {
		batches = make(chan feedBatch, feedBuffer)
		f.batches = batches
	}
	f.mu.Unlock()
	if !there {
		return nil
	}
	if from == nil {
		answer, relayed, err := b.relay.call(ctx, relaySubscribe, nil)
		if !relayed || err != nil || bson.Raw(answer).Validate() != nil {
			return nil // and the same is asked again
		}
		from = answer
		f.mu.Lock()
		if f.batches == batches {
			f.from = from
		}
		f.mu.Unlock()
	}
	if before(b.tallied.place(), from) {
		return nil
	}
	return batches
}

// before reports whether one place in the stream comes before another. The server
// makes the text in them so that it sorts like that.
func before(a, b bson.Raw) bool { return placeText(a) < placeText(b) }

func placeText(place bson.Raw) string {
	text, _ := place.Lookup("_data").StringValueOK()
	return text
}

// listenToLeader hears the leader's batches until there are no more.
func (b *Backend) listenToLeader(ctx context.Context, batches <-chan feedBatch) {
	place := b.tallied.place()
	leave := time.NewTicker(leaveEvery)
	defer leave.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-leave.C:
			b.leaveCountsAtLeisure(ctx)
		case batch, ok := <-batches:
			if !ok {
				return
			}
			for _, e := range batch.events {
				if before(place, e.place) {
					place = e.place
					b.hear(e.event, place)
				}
			}
			if before(place, batch.place) {
				place = batch.place
				b.tallied.rest(place)
			}
			b.relay.audience.tell(batch, nil) // who may already follow this process
			b.tallied.drop(replay)
			if !batch.asOf.IsZero() {
				b.stream.heard(batch.asOf)
			}
		}
	}
}

// audience are the followers who want to be told what the leader hears.
type audience struct {
	mu      sync.Mutex
	members map[*leader.Follower]struct{}
}

// add returns the place from which on the follower is told everything.
func (a *audience) add(f *leader.Follower, place func() bson.Raw) bson.Raw {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.members == nil {
		a.members = make(map[*leader.Follower]struct{})
	}
	a.members[f] = struct{}{}
	return place()
}

// asking notes, before the server is asked, which calls of whom have come.
func (a *audience) asking() map[*leader.Follower]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.members) == 0 {
		return nil
	}
	out := make(map[*leader.Follower]uint64, len(a.members))
	for f := range a.members {
		if f.Gone() {
			delete(a.members, f)
			continue
		}
		out[f] = f.Received()
	}
	return out
}

// tell hands a batch on to those who are there, with what is known of the calls
// that each had sent.
func (a *audience) tell(batch feedBatch, received map[*leader.Follower]uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.members) == 0 {
		return
	}
	body := packBatch(batch)
	for f := range a.members {
		binary.BigEndian.PutUint64(body, received[f])
		f.Send(relayEvents, body)
	}
}

// dismiss sends all of them back to their own streams.
func (a *audience) dismiss() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for f := range a.members {
		f.Leave()
	}
	clear(a.members)
}

// packBatch begins with the number received, in eight bytes, big-endian. Then come
// the place after the batch and the events: the length of the id, the id, the
// revision in eight bytes, and the place.
func packBatch(batch feedBatch) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 0, 256*(1+len(batch.events))), batch.received)
	out = append(out, batch.place...)
	for _, e := range batch.events {
		out = binary.AppendUvarint(out, uint64(len(e.id)))
		out = append(out, e.id...)
		out = binary.BigEndian.AppendUint64(out, uint64(e.revision))
		out = append(out, e.place...)
	}
	return out
}

func unpackBatch(body []byte) (batch feedBatch, err error) {
	if len(body) < 8 {
		return batch, errGarbled
	}
	batch.received, body = binary.BigEndian.Uint64(body), body[8:]
	if batch.place, body, err = unpackDoc(body); err != nil {
		return batch, err
	}
	for len(body) > 0 {
		var e told
		length, n := binary.Uvarint(body)
		if n <= 0 || length > uint64(len(body)) || int(length)+n+8 > len(body) {
			return batch, errGarbled
		}
		e.id, body = string(body[n:n+int(length)]), body[n+int(length):]
		e.revision, body = int64(binary.BigEndian.Uint64(body)), body[8:]
		if e.place, body, err = unpackDoc(body); err != nil {
			return batch, err
		}
		batch.events = append(batch.events, e)
	}
	return batch, nil
}
