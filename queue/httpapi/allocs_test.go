//go:build !race

package httpapi_test

import "testing"

// TestAllocations keeps the calls that a busy store answers most within a
// budget of memory allocations, measured from the request's body to the answer.
// The race detector empties pools at random, so it is left out there.
func TestAllocations(t *testing.T) {
	const runs = 200
	for _, c := range []struct {
		name   string
		budget float64
		post   func(*testing.T) func()
	}{
		{"a span", 22, func(t *testing.T) func() { return newBench(t, 0).postSpan(t) }},
		{"eight spans as OTLP", 56, func(t *testing.T) func() { return newBench(t, 0).postOTLP(t) }},
		{"a claim", 33, func(t *testing.T) func() { return newBench(t, runs+1).postClaim(t) }},
		{"the end of an attempt", 30, func(t *testing.T) func() {
			b := newBench(t, runs+1)
			return b.postFinish(t, b.claimAll(t, runs+1))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := testing.AllocsPerRun(runs, c.post(t)); got > c.budget {
				t.Errorf("%.0f allocations, budget %.0f", got, c.budget)
			}
		})
	}
}
