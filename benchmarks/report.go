package benchmarks

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// callKind is one of the requests of a rollout's life.
type callKind int

const (
	callEnqueue callKind = iota
	callClaim
	callSpans
	callFinish
	callWait
	callQuery
	callPage
	callKinds
)

var callNames = [callKinds]string{"enqueue", "claim", "spans", "finish", "wait", "query", "page"}

// Latency describes how long the calls of one kind took, in milliseconds.
type Latency struct {
	Call  string  `json:"call"`
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// Report is the outcome of one run.
type Report struct {
	Name              string  `json:"name,omitempty"`
	Spans             string  `json:"spans"` // json or otlp
	Workers           int     `json:"workers"`
	Rollouts          int     `json:"rollouts"`
	SpansPerRollout   int     `json:"spans_per_rollout"`
	Seconds           float64 `json:"seconds"`
	RolloutsPerSecond float64 `json:"rollouts_per_second"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	Cost
	Calls    []Latency `json:"calls"`
	Timeline []Moment  `json:"timeline"`
}

// WriteText prints the report as a table.
func (r *Report) WriteText(w io.Writer) error {
	name := r.Name
	if name != "" {
		name += ": "
	}
	_, err := fmt.Fprintf(w, "%s%d rollouts of %d spans (%s), %d workers, %.2f s: %.1f rollouts/s, %.0f requests/s\n",
		name, r.Rollouts, r.SpansPerRollout, r.Spans, r.Workers, r.Seconds, r.RolloutsPerSecond, r.RequestsPerSecond)
	if err != nil {
		return err
	}
	if r.PeakRSS > 0 {
		fmt.Fprintf(w, "server: %.2f CPU seconds, peak resident memory %.1f MiB\n", r.CPUSeconds, float64(r.PeakRSS)/(1<<20))
	}
	return WriteLatencies(w, r.Calls)
}

// WriteLatencies prints a table of latencies.
func WriteLatencies(w io.Writer, calls []Latency) error {
	_, err := fmt.Fprintf(w, "  %-14s %8s %9s %9s %9s %9s\n", "call", "count", "p50 ms", "p95 ms", "p99 ms", "max ms")
	for _, l := range calls {
		_, err = fmt.Fprintf(w, "  %-14s %8d %9.2f %9.2f %9.2f %9.2f\n", l.Call, l.Count, l.P50, l.P95, l.P99, l.Max)
	}
	return err
}

// LatencyOf sorts times and describes them.
func LatencyOf(call string, times []time.Duration) Latency {
	l := Latency{Call: call, Count: len(times)}
	if len(times) == 0 {
		return l
	}
	slices.Sort(times)
	at := func(q float64) float64 {
		i := min(int(q*float64(len(times))), len(times)-1)
		return float64(times[i]) / float64(time.Millisecond)
	}
	l.P50, l.P95, l.P99, l.Max = at(0.50), at(0.95), at(0.99), at(1)
	return l
}

// Median is the middle of values, 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// Ratio is a over b, 0 where there is no b.
func Ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
