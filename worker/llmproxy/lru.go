package llmproxy

import (
	"container/list"
	"crypto/sha256"
	"sync"
)

// lru keeps values up to a number of bytes, the ones used last the longest. It is
// safe for concurrent use; a nil one keeps nothing.
type lru[V any] struct {
	limit int64

	mu     sync.Mutex
	size   int64
	byKey  map[lruKey]*list.Element
	recent list.List // of *lruEntry[V]
}

type lruKey [sha256.Size]byte

type lruEntry[V any] struct {
	key   lruKey
	value V
	size  int64
}

// lruOverhead is about what an entry takes beside its value, in bytes.
const lruOverhead = 200

func newLRU[V any](limit int64) *lru[V] {
	return &lru[V]{limit: limit, byKey: map[lruKey]*list.Element{}}
}

// room is the size of the largest value worth keeping.
func (c *lru[V]) room() int {
	if c == nil {
		return 0
	}
	return int(c.limit / 8)
}

func (c *lru[V]) get(key lruKey) (value V, ok bool) {
	if c == nil {
		return value, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return value, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(*lruEntry[V]).value, true
}

// put keeps a value of a size in bytes, unless it is too large.
func (c *lru[V]) put(key lruKey, value V, size int) {
	if size > c.room() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byKey[key]; old != nil {
		c.drop(old)
	}
	e := &lruEntry[V]{key, value, int64(size) + lruOverhead}
	c.byKey[key] = c.recent.PushFront(e)
	c.size += e.size
	for c.size > c.limit {
		c.drop(c.recent.Back())
	}
}

func (c *lru[V]) drop(e *list.Element) {
	old := c.recent.Remove(e).(*lruEntry[V])
	delete(c.byKey, old.key)
	c.size -= old.size
}
