package llmproxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/worker/limit"
)

// table is a model table in use. It does not change; a reload makes another one,
// which takes over the state of the upstreams that stayed.
type table struct {
	models map[string]*model
	order  []*model
}

// model is a name with the upstreams that serve it.
type model struct {
	name      string
	upstreams []*upstream
	turn      atomic.Uint32
	line      limit.Line // of calls that wait for an upstream to be free
}

// upstream is an entry with what is known of it.
type upstream struct {
	Entry
	gate *limit.Gate // of its calls

	mu       sync.Mutex
	failures int       // in a row
	until    time.Time // it rests until then
	lastErr  string
}

const (
	// An upstream rests after so many failures in a row, for so long at first,
	// and twice as long each time it fails again.
	failuresAllowed = 3
	firstRest       = time.Second
	longestRest     = time.Minute
)

// newTable makes a table; upstreams of old whose entries are the same go on.
func newTable(entries []Entry, old *table) *table {
	known := map[string]*upstream{}
	if old != nil {
		for _, m := range old.order {
			for _, u := range m.upstreams {
				known[string(u.text)] = u
			}
		}
	}
	t := &table{models: map[string]*model{}}
	for _, e := range entries {
		m := t.models[e.Name]
		if m == nil {
			m = &model{name: e.Name}
			t.models[e.Name] = m
			t.order = append(t.order, m)
		}
		u := known[string(e.text)]
		if u == nil || len(e.text) == 0 {
			u = &upstream{Entry: e, gate: limit.NewGate(limit.Rule{AtATime: e.Concurrency, Calls: e.RPM, Per: time.Minute})}
		}
		delete(known, string(e.text)) // an entry given twice is two upstreams
		m.upstreams = append(m.upstreams, u)
	}
	return t
}

// find is the model of a name, nil when there is none.
func (t *table) find(name string) *model {
	if m := t.models[name]; m != nil {
		return m
	}
	return t.models[AnyModel]
}

// candidates are the model's upstreams in the order to try them in: those that
// are well by turns, then those that rest, the one that has rested most first.
func (m *model) candidates(now time.Time) []*upstream {
	n := len(m.upstreams)
	start := int(m.turn.Add(1)-1) % n
	out := make([]*upstream, 0, n)
	var resting []*upstream
	for i := range n {
		u := m.upstreams[(start+i)%n]
		if u.rested(now) {
			out = append(out, u)
		} else {
			resting = append(resting, u)
		}
	}
	for len(resting) > 0 {
		soonest := 0
		for i, u := range resting {
			if u.wakes().Before(resting[soonest].wakes()) {
				soonest = i
			}
		}
		out = append(out, resting[soonest])
		resting = append(resting[:soonest], resting[soonest+1:]...)
	}
	return out
}

func (u *upstream) wakes() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.until
}

func (u *upstream) rested(now time.Time) bool { return !u.wakes().After(now) }

// succeeded notes a good answer.
func (u *upstream) succeeded() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failures, u.until, u.lastErr = 0, time.Time{}, ""
}

// failed notes a failure of the upstream itself, and reports whether it begins
// to rest.
func (u *upstream) failed(now time.Time, cause string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failures++
	u.lastErr = cause
	if u.failures < failuresAllowed {
		return false
	}
	rest := longestRest
	if doublings := u.failures - failuresAllowed; doublings < 6 {
		rest = min(firstRest<<doublings, longestRest)
	}
	u.until = now.Add(rest)
	return u.failures == failuresAllowed
}

// rest leaves the upstream alone for a while, as it asked to be.
func (u *upstream) rest(now time.Time, d time.Duration, cause string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lastErr = cause
	if until := now.Add(min(d, longestRest)); until.After(u.until) {
		u.until = until
	}
}

// state is what the admin API says of an upstream.
func (u *upstream) state(now time.Time) (healthy bool, failures int, lastErr string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.until.After(now), u.failures, u.lastErr
}
