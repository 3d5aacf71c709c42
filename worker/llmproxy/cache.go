package llmproxy

import (
	"crypto/sha256"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// cached is an answer as the client got it, and as the upstream gave it.
type cached struct {
	kind   string // of content
	body   []byte
	answer rawjson.Value
}

// cacheKey is the same for calls that would be the same to the upstream and to
// the client.
func (c *call) cacheKey() lruKey {
	h := sha256.New()
	h.Write([]byte(c.model.name + "\x00" + string(c.endpoint) + "\x00"))
	h.Write(c.sent)
	if c.wire != c.endpoint { // a translation leaves out what the answer may depend on
		h.Write(c.body)
	}
	return lruKey(h.Sum(nil))
}

// remember keeps an answer.
func (c *call) remember(kind string, body []byte) {
	if c.p.cache != nil && c.outcome == OutcomeOK {
		c.p.cache.put(c.cacheKey(), &cached{kind: kind, body: body, answer: c.answer}, len(body)+len(c.answer))
	}
}

// replayed answers from the cache, where it has the answer.
func (c *call) replayed() bool {
	if c.p.cache == nil {
		return false
	}
	hit, ok := c.p.cache.get(c.cacheKey())
	if !ok {
		return false
	}
	c.cached, c.answer, c.status, c.firstByte = true, hit.answer, 200, time.Now()
	c.settle(OutcomeOK, "")
	c.record()
	c.keepTurn()
	c.w.Header().Set("X-Aglq-Cache", "hit")
	c.write(hit.kind, hit.body)
	return true
}
