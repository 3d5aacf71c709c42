package mongo

import (
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxCommand is how many bytes of statements one command holds, below the
// server's 16 MiB, and maxStatements how many.
const (
	maxCommand    = 12 << 20
	maxStatements = 1000
)

// updateCommand is a command of independent updates of documents by their _id, for
// the first n of what is to be updated: as many as it holds. Size is about that of
// the command, and statement appends q and u of one.
func updateCommand[T any](to string, concern bson.Raw, list []T, size int, statement func(*doc, T)) (command bson.Raw, n int) {
	d := newDoc(size)
	d.text("update", to)
	d.raw("writeConcern", concern)
	d.no("ordered")
	updates := d.openArray("updates")
	for n < len(list) && (n == 0 || len(d.b) < maxCommand) {
		at := d.open(strconv.Itoa(n))
		statement(d, list[n])
		d.text("hint", "_id_")
		d.close(at)
		n++
	}
	d.close(updates)
	return d.done(), n
}
