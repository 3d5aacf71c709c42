package scenario

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aglq/aglq/benchmarks"
)

// Summary is the outcome of a scenario.
type Summary struct {
	Name    string  `json:"name,omitempty"` // of the preset
	Options Options `json:"options"`
	Sleep   float64 `json:"sleep_seconds"`
	Seconds float64 `json:"seconds"` // from the first request to the last check
	// RolloutsPerSecond counts whole seconds, polls included.
	RolloutsPerSecond float64 `json:"rollouts_per_second"`
	SpansPerSecond    float64 `json:"spans_per_second"`
	// Ceiling is what the runners could do with a store that takes no time.
	Ceiling   float64 `json:"ceiling_rollouts_per_second"`
	OfCeiling float64 `json:"of_ceiling"`
	Requests  float64 `json:"requests_per_rollout"`
	Spans     float64 `json:"spans_per_rollout"`
	benchmarks.Cost
	// CPU and memory of the server's processes; 0 where they are not known.
	CPUPerThousand float64 `json:"server_cpu_seconds_per_1000_rollouts,omitempty"`
	RSSPerThousand float64 `json:"server_peak_rss_mb_per_1000_rollouts,omitempty"`
	// Lost and Doubled are 0: a run in which they are not fails.
	Lost     int                  `json:"lost"`
	Doubled  int                  `json:"doubled"`
	Wait     benchmarks.Latency   `json:"queue_wait"`
	Calls    []benchmarks.Latency `json:"calls"`
	Timeline []benchmarks.Moment  `json:"timeline"`
}

// moments is how many stretches a run is cut into to be drawn.
const moments = 60

func (r *run) summary(took time.Duration, sent int, cost benchmarks.Cost) (*Summary, error) {
	calls := benchmarks.NewCalls(r.start)
	for _, s := range r.sessions {
		calls.Add(s.calls)
	}
	tasks := float64(r.opts.TotalTasks)
	sum := &Summary{
		Options: r.opts, Sleep: r.opts.Sleep.Seconds(), Seconds: took.Seconds(), RolloutsPerSecond: tasks / took.Seconds(),
		SpansPerSecond: float64(sent) / took.Seconds(), Spans: float64(sent) / tasks, Ceiling: r.opts.Ceiling(),
		Cost: cost, CPUPerThousand: cost.CPUSeconds * 1000 / tasks, RSSPerThousand: float64(cost.PeakRSS) / 1e6 * 1000 / tasks,
		Timeline: calls.Timeline(moments, "finish", waitingCall, waitingClaim, queueWait, "query spans"),
	}
	sum.OfCeiling = sum.RolloutsPerSecond / sum.Ceiling
	for _, l := range calls.Latencies() {
		if l.Call == queueWait {
			sum.Wait = l
			continue
		}
		sum.Requests += float64(l.Count) / tasks
		sum.Calls = append(sum.Calls, l)
	}
	if r.checked != r.opts.TotalTasks {
		return nil, fmt.Errorf("%d of %d rollouts are lost", r.opts.TotalTasks-r.checked, r.opts.TotalTasks)
	}
	return sum, nil
}

// WriteText prints the summary.
func (s *Summary) WriteText(w io.Writer) error {
	o := s.Options
	name := s.Name
	if name == "" {
		name = "scenario"
	}
	fmt.Fprintf(w, "%s: %s, %s client, scale %v: %d tasks, %d runners\n", name, o.Mode, o.Client, o.Scale, o.TotalTasks, o.Runners)
	fmt.Fprintf(w, "%.2f s: %.2f rollouts/s (%.1f %% of the agents' ceiling of %.1f), %.0f spans/s, %.1f spans and %.1f requests a rollout\n",
		s.Seconds, s.RolloutsPerSecond, 100*s.OfCeiling, s.Ceiling, s.SpansPerSecond, s.Spans, s.Requests)
	if s.PeakRSS > 0 {
		fmt.Fprintf(w, "server: %.2f CPU seconds and %.1f MB for each 1000 rollouts, at most %.1f MB resident\n",
			s.CPUPerThousand, s.RSSPerThousand, float64(s.PeakRSS)/1e6)
	}
	fmt.Fprintf(w, "lost %d, doubled %d\n", s.Lost, s.Doubled)
	return benchmarks.WriteLatencies(w, slices.Concat([]benchmarks.Latency{s.Wait}, s.Calls))
}
