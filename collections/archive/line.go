package archive

import (
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// The kinds of lines.
const (
	kindArchive   = "archive"
	kindResources = "resources"
	kindWorker    = "worker"
	kindRollout   = "rollout"
	kindAttempt   = "attempt"
	kindEnd       = "end"
	kindError     = "error"
)

// appendItem appends the lines of an item.
func appendItem(dst []byte, i *Item) []byte {
	switch {
	case i.Resources != nil:
		dst = appendResources(dst, i.Resources)
		if i.Latest {
			dst = reopen(dst)
			dst = append(dst, `"latest":true}`...)
		}
	case i.Worker != nil:
		dst = appendWorker(dst, i.Worker)
	case i.Rollout != nil:
		return appendRecord(dst, i.Rollout, i.Counter)
	case i.Span != nil:
		dst = i.Span.AppendJSON(dst)
	}
	return append(dst, '\n')
}

func appendResources(dst []byte, u *queue.ResourcesUpdate) []byte {
	return tagged(dst, kindResources, u.AppendJSON)
}

func appendWorker(dst []byte, w *queue.Worker) []byte { return tagged(dst, kindWorker, w.AppendJSON) }

// appendRecord appends a rollout's line and one for each of its attempts.
func appendRecord(dst []byte, r *queue.Record, counter int64) []byte {
	dst = tagged(dst, kindRollout, r.Rollout.AppendJSON)
	dst = dst[:len(dst)-1]
	dst = append(dst, `,"attempts":`...)
	dst = rawjson.AppendInt(dst, int64(len(r.Attempts)))
	dst = appendIntMember(dst, "place", r.Place)
	dst = appendFloatMember(dst, "due", r.Due)
	dst = appendFloatMember(dst, "lease", r.Lease)
	dst = appendIntMember(dst, "spans", r.Spans)
	dst = appendIntMember(dst, "counter", counter)
	dst = append(dst, '}', '\n')
	for i := range r.Attempts {
		dst = tagged(dst, kindAttempt, r.Attempts[i].AppendJSON)
		if r.Attempts[i].Lost {
			dst = reopen(dst)
			dst = append(dst, `"lost":true}`...)
		}
		dst = append(dst, '\n')
	}
	return dst
}

// tagged appends an object with its kind as the first member.
func tagged(dst []byte, kind string, object func([]byte) []byte) []byte {
	dst = append(dst, `{"kind":"`...)
	dst = append(dst, kind...)
	dst = append(dst, '"')
	brace := len(dst)
	dst = object(dst)
	dst[brace] = ','
	return dst
}

// reopen makes room for one more member.
func reopen(dst []byte) []byte {
	dst[len(dst)-1] = ','
	return dst
}

func appendIntMember(dst []byte, name string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return rawjson.AppendInt(appendName(dst, name), n)
}

func appendFloatMember(dst []byte, name string, f float64) []byte {
	if f == 0 {
		return dst
	}
	return rawjson.AppendFloat(appendName(dst, name), f)
}

func appendName(dst []byte, name string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}
