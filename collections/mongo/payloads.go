package mongo

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// A large payload is kept beside the document that it belongs to, in chunks:
//
//	_id  partition/payload/number of the chunk   p  partition   d  the bytes
//	r    rollout and o  number of insertion, of a span's payload only
//
// In its document stands a stub: NUL, its size, a slash and the payload's name.
// No JSON text begins with NUL. Sections carry stubs about like any payload, so
// a claim or a heartbeat neither reads nor writes what they stand for.
//
// Chunks are written before the section that refers to them, after waste that
// names them. The section's transaction takes that waste back; when it never
// comes, the chunks are deleted as any waste. A section that drops a stub leaves
// waste in the same way.

const (
	// chunkSize is how many bytes one document holds.
	chunkSize = 4 << 20
	// stagedLife is how long, in seconds, a payload waits for its section: longer
	// than any call.
	stagedLife = 3600
	// carryTimeout bounds the writing and reading of payloads, which may be large.
	carryTimeout = 30 * time.Second
)

// stub is what stands for a payload in its document.
func stub(name string, size int) rawjson.Value {
	return rawjson.Value("\x00" + strconv.Itoa(size) + "/" + name)
}

func isStub(v rawjson.Value) bool { return len(v) > 0 && v[0] == 0 }

// readStub gives the name and size that a stub tells.
func readStub(v string) (name string, size int) {
	number, name, _ := strings.Cut(strings.TrimPrefix(v, "\x00"), "/")
	size, _ = strconv.Atoi(number)
	return name, size
}

// chunkIDs are the documents that hold what stubs stand for.
func (b *Backend) chunkIDs(stubs []string) []string {
	var out []string
	for _, s := range stubs {
		name, size := readStub(s)
		for i := range (size + chunkSize - 1) / chunkSize {
			out = append(out, b.chunkID(name, i))
		}
	}
	return out
}

func (b *Backend) chunkID(name string, i int) string {
	return key(b.partition, name, strconv.Itoa(i))
}

// Stage implements collections.Payloads.
func (b *Backend) Stage(ctx context.Context, over int, payloads ...*rawjson.Value) error {
	large := slices.DeleteFunc(slices.Clone(payloads), func(p *rawjson.Value) bool { return len(*p) <= over || isStub(*p) })
	if len(large) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, carryTimeout)
	defer cancel()
	stubs, err := b.stage(ctx, large, nil)
	if err != nil {
		return err
	}
	for i, p := range large {
		*p = stubs[i]
	}
	return nil
}

// stage writes payloads, with what says where chunks of a span belong.
func (b *Backend) stage(ctx context.Context, payloads []*rawjson.Value, of func(d *doc)) ([]rawjson.Value, error) {
	stubs := make([]rawjson.Value, len(payloads))
	var notes, chunks []bson.Raw
	expiry := queue.Seconds(time.Now()) + stagedLife
	for i, p := range payloads {
		if err := payloadTooLarge(*p); err != nil {
			return nil, err
		}
		name := rand.Text()
		stubs[i] = stub(name, len(*p))
		notes = append(notes, b.newWaste(name, expiry, nil, []string{string(stubs[i])}))
		n := 0
		for part := range slices.Chunk(*p, chunkSize) {
			chunks = append(chunks, b.encodeChunk(name, n, part, of))
			n++
		}
	}
	if _, err := b.waste.main.InsertMany(ctx, notes); err != nil {
		return nil, wrap(err, "announcing large payloads in MongoDB")
	}
	if _, err := b.payloads.main.InsertMany(ctx, chunks); err != nil {
		return nil, wrap(err, "storing large payloads in MongoDB")
	}
	return stubs, nil
}

func payloadTooLarge(v rawjson.Value) error {
	if len(v) <= collections.MaxPayload {
		return nil
	}
	return queue.Errorf(queue.TooLarge, "a payload of %d bytes is more than the %d that are kept; store large data elsewhere and refer to it",
		len(v), collections.MaxPayload)
}

func (b *Backend) encodeChunk(name string, i int, part []byte, of func(d *doc)) bson.Raw {
	d := newDoc(256 + len(part))
	d.text("_id", b.chunkID(name, i))
	d.text("p", b.partition)
	if of != nil {
		of(d)
	}
	d.b = bsoncore.AppendBinaryElement(d.b, "d", bson.TypeBinaryGeneric, part)
	return d.done()
}

// Complete implements collections.Payloads.
func (b *Backend) Complete(ctx context.Context, payloads ...*rawjson.Value) error {
	var stubs []string
	for _, p := range payloads {
		if isStub(*p) {
			stubs = append(stubs, string(*p))
		}
	}
	if len(stubs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, carryTimeout)
	defer cancel()
	chunks := make(map[string][]byte)
	for ids := range slices.Chunk(b.chunkIDs(stubs), idsPerQuery) {
		err := each(ctx, b.payloads.main, byIDs(ids), options.Find(), func(raw bson.Raw) {
			id, part := decodeChunk(raw)
			chunks[id] = part
		})
		if err != nil {
			return wrap(err, "reading large payloads from MongoDB")
		}
	}
	for _, p := range payloads {
		if !isStub(*p) {
			continue
		}
		whole, err := b.assemble(string(*p), chunks)
		if err != nil {
			return err
		}
		*p = whole
	}
	return nil
}

func (b *Backend) assemble(stub string, chunks map[string][]byte) (rawjson.Value, error) {
	_, size := readStub(stub)
	out := make(rawjson.Value, 0, size)
	for _, id := range b.chunkIDs([]string{stub}) {
		out = append(out, chunks[id]...)
	}
	if len(out) != size {
		return nil, queue.Errorf(queue.Unavailable,
			"a payload of %d bytes is not there as a whole: what it belongs to has just been deleted or changed; read it again", size)
	}
	return out, nil
}

func decodeChunk(raw bson.Raw) (id string, part []byte) {
	for key, v := range fields(raw) {
		switch string(key) {
		case "_id":
			id = v.text()
		case "d":
			_, data, _ := v.BinaryOK()
			part = bytes.Clone(data)
		}
	}
	return id, part
}

func byIDs(ids []string) bson.D { return bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}} }

// completeRecords fills in the payloads of records that were read for callers.
func (b *Backend) completeRecords(ctx context.Context, rs []*queue.Record) error {
	var all []*rawjson.Value
	for _, r := range rs {
		all = append(all, stubsOf(r)...)
	}
	if len(all) == 0 {
		return nil
	}
	return b.Complete(ctx, all...)
}

// stubsOf are the payloads of a record that are kept beside it.
func stubsOf(r *queue.Record) (out []*rawjson.Value) {
	if isStub(r.Rollout.Input) {
		out = append(out, &r.Rollout.Input)
	}
	if isStub(r.Rollout.Metadata) {
		out = append(out, &r.Rollout.Metadata)
	}
	for i := range r.Attempts {
		if isStub(r.Attempts[i].Metadata) {
			out = append(out, &r.Attempts[i].Metadata)
		}
	}
	return out
}

// stubbedSize is what stubs stand for, in bytes.
func stubbedSize(payloads []*rawjson.Value) int {
	n := 0
	for _, p := range payloads {
		if isStub(*p) {
			_, size := readStub(string(*p))
			n += size
		}
	}
	return n
}

func recordStubs(r *queue.Record) (out []string) {
	if r == nil {
		return nil
	}
	for _, p := range stubsOf(r) {
		out = append(out, string(*p))
	}
	return out
}

func resourcesStubs(u *queue.ResourcesUpdate) []string {
	if u == nil || !isStub(u.Resources) {
		return nil
	}
	return []string{string(u.Resources)}
}

// wasteWrites takes back the waste of payloads that the section refers to first,
// and leaves waste of those that it refers to no longer.
func (s *section) wasteWrites() writes {
	w := writes{to: s.b.waste.main}
	var dropped []string
	account := func(before, after []string) {
		for _, stub := range after {
			if !slices.Contains(before, stub) {
				name, _ := readStub(stub)
				w.deletes = append(w.deletes, key(s.b.partition, name))
			}
		}
		for _, stub := range before {
			if !slices.Contains(after, stub) {
				dropped = append(dropped, stub)
			}
		}
	}
	for _, it := range s.rollouts.order {
		if it.after != it.before {
			account(recordStubs(it.before), recordStubs(it.after))
		}
	}
	for _, it := range s.resources.order {
		if it.put {
			account(resourcesStubs(it.before), resourcesStubs(it.after))
		}
	}
	if len(dropped) > 0 {
		at := queue.Seconds(time.Now()) + collections.PurgeGrace // for those who have just read the stub
		w.inserts = append(w.inserts, s.b.newWaste(rand.Text(), at, nil, dropped))
	}
	return w
}

// takeBack deletes waste in a transaction. It fails when it is gone, for then
// the payloads are about to be.
func takeBack(ctx context.Context, from *driver.Collection, ids []string) error {
	res, err := from.DeleteMany(ctx, byIDs(ids))
	if err != nil {
		return inTransaction(err)
	}
	if int(res.DeletedCount) != len(ids) {
		return queue.Errorf(queue.Unavailable, "a large payload waited too long for the write that refers to it; retry")
	}
	return nil
}
