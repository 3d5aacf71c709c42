// Package archive carries a whole partition from one backend to another, through
// a file or a stream. The data of any source is a sequence of [Items]; [Scan]
// reads them from a backend, [Reader] from an archive, [Write] makes an archive of
// them, and [Import] stores them in a backend. Neither side ever holds more than
// a page of them.
//
// An archive is JSON lines under zstd. Each line is an object in the wire form of
// the HTTP API, led by its kind; only spans, which may have members of any name,
// have no kind and begin with their rollout's id. In order:
//
//	{"kind":"archive","version":1}
//	{"kind":"resources",…,"latest":true}        sets, in order of insertion
//	{"kind":"worker",…}                         workers, in order of insertion
//	{"kind":"rollout",…,"attempts":2,           rollouts, in order of start
//	   "place":…,"due":…,"lease":…,"spans":…,"counter":…}
//	{"kind":"attempt",…,"lost":true}            its attempts, right behind it
//	{"rollout_id":…,"attempt_id":…,…}           spans of the rollouts before, by
//	                                            rollout, number and insertion
//	{"kind":"end","resources":…,…,"sha256":…}   counts, and the sum of all before
//
// Spans come behind groups of a hundred rollouts, so that equal partitions
// give equal archives whatever backend they are in. A source that fails writes a
// last line of kind "error" instead of the end.
//
// Members that are 0 or false are left out: place in the queue (microseconds of
// Unix time), due, lease and spans as in queue.Record, counter, which numbers the
// spans. Receipts of idempotent calls do not travel.
package archive

import (
	"fmt"
	"iter"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Version is the version of the format that this package writes, and the only
// one that it reads.
const Version = 1

// Item is one thing in a partition: the one field that is not nil, and what
// belongs to it.
type Item struct {
	Resources *queue.ResourcesUpdate
	Latest    bool // Resources are the latest
	Worker    *queue.Worker
	Rollout   *queue.Record
	Counter   int64 // how far the spans of Rollout are numbered
	Span      *queue.Span
}

// Items is the content of a partition in the order of an archive. An error ends
// it.
type Items = iter.Seq2[Item, error]

// groupSize is how many rollouts come before their spans, at most.
const groupSize = 100

// Counts says how much there is.
type Counts struct{ Resources, Workers, Rollouts, Attempts, Spans int64 }

func (c *Counts) add(i *Item) {
	switch {
	case i.Resources != nil:
		c.Resources++
	case i.Worker != nil:
		c.Workers++
	case i.Rollout != nil:
		c.Rollouts++
		c.Attempts += int64(len(i.Rollout.Attempts))
	case i.Span != nil:
		c.Spans++
	}
}

// fields are the counts with their names, in the order in which they are shown.
func (c *Counts) fields() []struct {
	name string
	n    *int64
} {
	return []struct {
		name string
		n    *int64
	}{
		{"resources", &c.Resources}, {"workers", &c.Workers}, {"rollouts", &c.Rollouts},
		{"attempts", &c.Attempts}, {"spans", &c.Spans},
	}
}

// String writes the counts out: "2 resources, 1 workers, …".
func (c Counts) String() string {
	var parts []string
	for _, f := range c.fields() {
		parts = append(parts, fmt.Sprintf("%d %s", *f.n, f.name))
	}
	return strings.Join(parts, ", ")
}

// AppendJSON appends the counts as an object.
func (c *Counts) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	return append(c.appendMembers(dst), '}')
}

func (c *Counts) appendMembers(dst []byte) []byte {
	for i, f := range c.fields() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, f.name...)
		dst = append(dst, '"', ':')
		dst = rawjson.AppendInt(dst, *f.n)
	}
	return dst
}

// DecodeCounts reads what AppendJSON wrote; what is missing is 0.
func DecodeCounts(v rawjson.Value) Counts {
	var c Counts
	for _, f := range c.fields() {
		*f.n, _ = v.Get(f.name).Int()
	}
	return c
}
