//go:build !race

package metrics_test

import "testing"

// TestCostAllocations bounds what metrics allocate in a life: a context for each
// call of the store, and what tells of the changes of a record. The race detector
// empties pools at random, so it is left out there.
func TestCostAllocations(t *testing.T) {
	measure := func(on bool) float64 {
		l := newLife(t, on)
		for range 50 {
			l.run(t)
		}
		least := testing.AllocsPerRun(200, func() { l.run(t) })
		for range 3 { // what else runs in the process allocates too
			least = min(least, testing.AllocsPerRun(200, func() { l.run(t) }))
		}
		return least
	}
	off, on := measure(false), measure(true)
	if cost := on - off; cost > 26 {
		t.Errorf("a life of 13 calls allocates %.0f times with metrics and %.0f without", on, off)
	}
}
