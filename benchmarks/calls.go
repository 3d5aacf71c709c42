package benchmarks

import (
	"maps"
	"slices"
	"time"
)

// Calls are calls with their times, by name. It is for one goroutine; [Calls.Add]
// brings those of several together. Use NewCalls.
type Calls struct {
	start  time.Time
	byName map[string][]timed
}

// timed is one call: when it ended, after the start, and how long it took.
type timed struct{ at, took time.Duration }

// NewCalls makes a list of calls that are timed from start on.
func NewCalls(start time.Time) *Calls { return &Calls{start: start, byName: map[string][]timed{}} }

// Note adds a call that has just ended, and returns how long it took.
func (c *Calls) Note(name string, began time.Time) time.Duration {
	now := time.Now()
	took := now.Sub(began)
	c.byName[name] = append(c.byName[name], timed{now.Sub(c.start), took})
	return took
}

// NoteWait adds something that has just ended and was timed elsewhere.
func (c *Calls) NoteWait(name string, took time.Duration) {
	c.byName[name] = append(c.byName[name], timed{time.Since(c.start), took})
}

// Add adds the calls of other, which has the same start.
func (c *Calls) Add(other *Calls) {
	for name, calls := range other.byName {
		c.byName[name] = append(c.byName[name], calls...)
	}
}

// Count is how many calls of that name there were.
func (c *Calls) Count(name string) int { return len(c.byName[name]) }

// Latencies describes the calls of each name, sorted by name.
func (c *Calls) Latencies() []Latency {
	var out []Latency
	for _, name := range slices.Sorted(maps.Keys(c.byName)) {
		times := make([]time.Duration, len(c.byName[name]))
		for i, call := range c.byName[name] {
			times[i] = call.took
		}
		out = append(out, LatencyOf(name, times))
	}
	return out
}

// Moment is what happened in one stretch of a run. Latencies are those of all
// calls that ended in it, in milliseconds.
type Moment struct {
	Second float64 `json:"second"` // its end, after the start
	Done   float64 `json:"done_per_second"`
	Calls  float64 `json:"calls_per_second"`
	P50    float64 `json:"p50_ms"`
	P95    float64 `json:"p95_ms"`
	P99    float64 `json:"p99_ms"`
}

// Timeline cuts the run into at most n stretches of equal length. Done counts
// the calls of that name; names that are not calls are left out of the rest.
func (c *Calls) Timeline(n int, done string, notCalls ...string) []Moment {
	last := time.Duration(0)
	for _, calls := range c.byName {
		for _, call := range calls {
			last = max(last, call.at)
		}
	}
	if last == 0 {
		return nil
	}
	width := max(last/time.Duration(n)+1, 100*time.Millisecond)
	stretches := make([][]time.Duration, last/width+1)
	out := make([]Moment, len(stretches))
	for name, calls := range c.byName {
		for _, call := range calls {
			at := call.at / width
			if name == done {
				out[at].Done += 1 / width.Seconds()
			}
			if !slices.Contains(notCalls, name) {
				stretches[at] = append(stretches[at], call.took)
			}
		}
	}
	for i, times := range stretches {
		l := LatencyOf("", times)
		out[i].Second = (time.Duration(i+1) * width).Seconds()
		out[i].Calls = float64(len(times)) / width.Seconds()
		out[i].P50, out[i].P95, out[i].P99 = l.P50, l.P95, l.P99
	}
	return out
}
