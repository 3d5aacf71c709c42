package llmproxy

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// cache keeps answers, the ones used last the longest.
type cache struct {
	limit int64

	mu     sync.Mutex
	size   int64
	byKey  map[cacheKey]*list.Element
	recent list.List // of *cached
}

type cacheKey [sha256.Size]byte

// cached is an answer as the client got it, and as the upstream gave it.
type cached struct {
	key    cacheKey
	kind   string // of content
	body   []byte
	answer rawjson.Value
}

func (e *cached) size() int64 { return int64(len(e.body) + len(e.answer) + 200) }

func newCache(limit int64) *cache {
	return &cache{limit: limit, byKey: map[cacheKey]*list.Element{}}
}

// room is the size of the largest answer worth keeping; a nil cache has none.
func (c *cache) room() int {
	if c == nil {
		return 0
	}
	return int(c.limit / 8)
}

// lookUp finds the answer to what would be sent now, nil when there is none.
func (c *call) lookUp() *cached {
	if c.p.cache == nil {
		return nil
	}
	k := c.p.cache
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.byKey[c.cacheKey()]
	if e == nil {
		return nil
	}
	k.recent.MoveToFront(e)
	return e.Value.(*cached)
}

// cacheKey is the same for calls that would be the same to the upstream and to
// the client.
func (c *call) cacheKey() cacheKey {
	h := sha256.New()
	h.Write([]byte(c.model.name + "\x00" + string(c.endpoint) + "\x00"))
	h.Write(c.sent)
	h.Write(c.body.Get("stream_options")) // which a translation leaves out
	return cacheKey(h.Sum(nil))
}

// remember keeps an answer.
func (c *call) remember(kind string, body []byte) {
	k := c.p.cache
	if k == nil || len(body) > k.room() || c.outcome != OutcomeOK {
		return
	}
	e := &cached{key: c.cacheKey(), kind: kind, body: body, answer: c.answer}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.byKey[e.key]; old != nil {
		k.drop(old)
	}
	k.byKey[e.key] = k.recent.PushFront(e)
	k.size += e.size()
	for k.size > k.limit {
		k.drop(k.recent.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	old := c.recent.Remove(e).(*cached)
	delete(c.byKey, old.key)
	c.size -= old.size()
}

// replay answers from the cache.
func (c *call) replay(hit *cached) {
	c.cached, c.answer, c.status, c.firstByte = true, hit.answer, 200, time.Now()
	c.settle(OutcomeOK, "")
	c.record()
	c.w.Header().Set("X-Aglq-Cache", "hit")
	c.write(hit.kind, hit.body)
}
