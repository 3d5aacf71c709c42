package mongo

import (
	"strings"
	"sync"
	"time"
)

// key is an _id: its parts joined by slashes, partition first. All parts but
// the last are escaped, so that no two lists of parts give the same key and a
// partition is a range of keys.
func key(parts ...string) string {
	n := len(parts)
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for i, p := range parts {
		if i < len(parts)-1 {
			b = append(b, escape(p)...)
			b = append(b, '/')
			continue
		}
		b = append(b, p...)
	}
	return string(b)
}

func escape(part string) string {
	if strings.IndexByte(part, '/') < 0 && strings.IndexByte(part, '%') < 0 {
		return part
	}
	return escaper.Replace(part)
}

var escaper = strings.NewReplacer("%", "%25", "/", "%2F")

// clock numbers places in the queue and insertions: strictly increasing in a
// process, microseconds of Unix time unless they would repeat. Across processes
// the order is as good as their clocks.
type clock struct {
	mu   sync.Mutex
	last int64
}

// numbers is one for the process, so that two backends on one database keep
// their order.
var numbers clock

func (c *clock) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, time.Now().UnixMicro())
	return c.last
}

// after makes all numbers to come greater than n, as far as a sane clock can
// have issued n: a day ahead is not.
func (c *clock) after(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < time.Now().Add(24*time.Hour).UnixMicro() {
		c.last = max(c.last, n)
	}
}
