package mongo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/leader"
	"github.com/aglq/aglq/queue"
)

// A store hands its writes to the leader of its machine, where there is one and
// it is not the leader itself. An answer that is lost leaves the outcome unknown,
// as that of a command to the server does, and is dealt with in the same way. So
// the leader may die at any moment, and may be slower than a follower's patience.

// The calls and messages between the stores of a machine.
const (
	relayUpdates byte = leader.FirstKind + iota
	relayInserts
	relayNumbers
	relaySubscribe // the leader's place in the change stream, and what comes after
	relayEvents    // a message
)

// relayVersion is part of the group's name, so that stores which do not speak the
// same do not meet.
const relayVersion = "1"

// errRelayLost stands for the answer that the leader did not give. The same call
// may succeed later.
var errRelayLost = errors.New("the store that leads on this machine did not answer")

// relay is this process's part among the stores of its machine. The zero relay has
// no part.
type relay struct {
	b      *Backend
	member *leader.Member

	feed     feed     // in a follower
	audience audience // in the leader
}

// join meets the stores of this machine that serve the same partition under the
// same promises.
func (b *Backend) join(ctx context.Context) {
	path, err := b.meetingPoint(ctx)
	if err != nil {
		b.log.Info("this store does not write together with others of this machine", "reason", err)
		return
	}
	b.relay.b = b
	b.relay.member = leader.Join(path, &b.relay, b.log)
}

// meetingPoint is named by the collection of rollouts, which the server gives an
// id that no other has.
func (b *Backend) meetingPoint(ctx context.Context) (string, error) {
	specs, err := b.database.ListCollectionSpecifications(ctx, bson.D{{Key: "name", Value: b.rollouts.main.Name()}})
	if err != nil {
		return "", wrap(err, "looking for the id of a collection in MongoDB")
	}
	if len(specs) != 1 || specs[0].UUID == nil {
		return "", errors.New("MongoDB gives the collection of rollouts no id")
	}
	name := sha256.New()
	fmt.Fprintf(name, "%s\x00%x\x00%s\x00%t", relayVersion, specs[0].UUID.Data, b.partition, b.spansTo == b.spans.fast)
	return leader.Path(hex.EncodeToString(name.Sum(nil)[:12]))
}

func (r *relay) leave() {
	if r.member != nil {
		r.member.Close()
	}
}

// call sends a call to the leader. Relayed is false where this process has to do
// it itself.
func (r *relay) call(ctx context.Context, kind byte, body []byte) (answer []byte, relayed bool, err error) {
	if r.member == nil {
		return nil, false, nil
	}
	answer, err = r.member.Call(ctx, kind, body)
	switch {
	case errors.Is(err, leader.ErrNone):
		return nil, false, nil
	case err != nil:
		return nil, true, errRelayLost
	}
	answer, err = openAnswer(answer)
	return answer, true, err
}

func (r *relay) update(ctx context.Context, u *updates) (relayed bool, err error) {
	if r.member == nil {
		return false, nil
	}
	answer, relayed, err := r.call(ctx, relayUpdates, packDocs(u.statements))
	if !relayed || err != nil {
		return relayed, err
	}
	if len(answer) == 0 {
		return true, nil
	}
	if len(answer) != len(u.statements) {
		return true, errRelayLost
	}
	u.fates = make([]fate, len(answer))
	for i, f := range answer {
		u.fates[i] = fate(f)
	}
	return true, nil
}

func (r *relay) insert(ctx context.Context, i *inserts) (relayed bool, err error) {
	if r.member == nil {
		return false, nil
	}
	answer, relayed, err := r.call(ctx, relayInserts, packDocs(i.docs))
	if !relayed || err != nil {
		return relayed, err
	}
	for len(answer) > 0 {
		at, n := binary.Uvarint(answer)
		if n <= 0 || at >= uint64(len(i.docs)) {
			return true, errRelayLost
		}
		i.existing, answer = append(i.existing, int(at)), answer[n:]
	}
	return true, nil
}

func (r *relay) number(ctx context.Context, n *numbering) (relayed bool, err error) {
	if r.member == nil {
		return false, nil
	}
	answer, relayed, err := r.call(ctx, relayNumbers, packCounters(n.entries, n.durable))
	if !relayed || err != nil {
		return relayed, err
	}
	n.first = make([]int64, len(n.entries))
	for i := range n.first {
		first, size := binary.Varint(answer)
		if size <= 0 {
			return true, errRelayLost
		}
		n.first[i], answer = first, answer[size:]
	}
	return true, nil
}

// Serve implements leader.Handler.
func (r *relay) Serve(ctx context.Context, from *leader.Follower, kind byte, body []byte) []byte {
	out, err := r.serve(ctx, from, kind, body)
	return sealAnswer(out, err)
}

func (r *relay) serve(ctx context.Context, from *leader.Follower, kind byte, body []byte) (out []byte, err error) {
	switch kind {
	case relaySubscribe:
		return r.audience.add(from, r.b.tallied.place), nil
	case relayUpdates:
		u := &updates{}
		if u.statements, err = unpackDocs(body); err != nil {
			return nil, err
		}
		err = r.b.lanes.updates.Do(ctx, u)
		for _, f := range u.fates {
			out = append(out, byte(f))
		}
		return out, err
	case relayInserts:
		i := &inserts{}
		if i.docs, err = unpackDocs(body); err != nil {
			return nil, err
		}
		err = r.b.lanes.spans.Do(ctx, i)
		for _, at := range i.existing {
			out = binary.AppendUvarint(out, uint64(at))
		}
		return out, err
	case relayNumbers:
		n := &numbering{}
		if n.entries, n.durable, err = unpackCounters(body); err != nil {
			return nil, err
		}
		err = r.b.lanes.numbers.Do(ctx, n)
		for _, first := range n.first {
			out = binary.AppendVarint(out, first)
		}
		return out, err
	}
	return nil, queue.Errorf(queue.Internal, "call %d of another store is not known here", kind)
}

// Hear implements leader.Handler.
func (r *relay) Hear(kind byte, body []byte, sentAt func(number uint64) time.Time) {
	if kind != relayEvents {
		return
	}
	batch, err := unpackBatch(body)
	if err != nil {
		r.feed.lead(false) // until there is another leader
		return
	}
	batch.asOf = sentAt(batch.received)
	r.feed.hear(batch)
}

// Followed implements leader.Handler.
func (r *relay) Followed(there bool) { r.feed.lead(there) }

// An answer begins with its outcome; that of a refusal goes on with the kind of
// the error and its text.
const (
	outcomeDone byte = iota
	outcomePassing
	outcomeRefused
)

func sealAnswer(out []byte, err error) []byte {
	switch {
	case err == nil:
		return append([]byte{outcomeDone}, out...)
	case passing(err):
		return append([]byte{outcomePassing}, err.Error()...)
	}
	return append([]byte{outcomeRefused, byte(queue.KindOf(err))}, err.Error()...)
}

func openAnswer(answer []byte) ([]byte, error) {
	switch {
	case len(answer) == 0:
	case answer[0] == outcomeDone:
		return answer[1:], nil
	case answer[0] == outcomePassing:
		return nil, fmt.Errorf("%w: %s", errRelayLost, answer[1:])
	case answer[0] == outcomeRefused && len(answer) > 1:
		return nil, queue.Errorf(queue.Kind(answer[1]), "%s", answer[2:])
	}
	return nil, errRelayLost
}

// packDocs puts documents one after the other: each says how long it is.
func packDocs(docs []bson.Raw) []byte {
	out := make([]byte, 0, bytesOf(docs))
	for _, d := range docs {
		out = append(out, d...)
	}
	return out
}

var errGarbled = queue.Errorf(queue.Internal, "another store of this machine sent something garbled")

// unpackDocs shares memory with body.
func unpackDocs(body []byte) ([]bson.Raw, error) {
	var docs []bson.Raw
	for len(body) > 0 {
		d, rest, err := unpackDoc(body)
		if err != nil {
			return nil, err
		}
		docs, body = append(docs, d), rest
	}
	if len(docs) == 0 {
		return nil, errGarbled
	}
	return docs, nil
}

func unpackDoc(body []byte) (d bson.Raw, rest []byte, err error) {
	if len(body) < 5 {
		return nil, nil, errGarbled
	}
	n := binary.LittleEndian.Uint32(body)
	if n < 5 || uint64(n) > uint64(len(body)) || body[n-1] != 0 {
		return nil, nil, errGarbled
	}
	return body[:n:n], body[n:], nil
}

func packCounters(entries []collections.Counter, durable bool) []byte {
	out := []byte{0}
	if durable {
		out[0] = 1
	}
	for _, e := range entries {
		out = binary.AppendUvarint(out, uint64(len(e.RolloutID)))
		out = append(out, e.RolloutID...)
		out = binary.AppendVarint(out, e.N)
	}
	return out
}

func unpackCounters(body []byte) (entries []collections.Counter, durable bool, err error) {
	if len(body) < 2 || body[0] > 1 {
		return nil, false, errGarbled
	}
	durable, body = body[0] == 1, body[1:]
	for len(body) > 0 {
		length, n := binary.Uvarint(body)
		if n <= 0 || length > uint64(len(body)-n) {
			return nil, false, errGarbled
		}
		id := string(body[n : n+int(length)])
		body = body[n+int(length):]
		count, n := binary.Varint(body)
		if n <= 0 || count < 1 {
			return nil, false, errGarbled
		}
		entries, body = append(entries, collections.Counter{RolloutID: id, N: count}), body[n:]
	}
	return entries, durable, nil
}
