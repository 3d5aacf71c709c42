package benchmarks

import (
	"io"
	"math"

	"github.com/aglq/aglq/benchmarks/plot"
)

// Drawn is a run to draw.
type Drawn struct {
	Name     string
	Timeline []Moment
}

// Draw writes a page with the throughput of the runs over time, side by side,
// and the latencies of each.
func Draw(w io.Writer, title, text string, runs []Drawn) error {
	done := plot.Chart{Title: "Rollouts finished", Unit: "a second"}
	calls := plot.Chart{Title: "Requests answered", Unit: "a second"}
	for _, run := range runs {
		done.Lines = append(done.Lines, line(run.Name, run.Timeline, func(m Moment) float64 { return m.Done }))
		calls.Lines = append(calls.Lines, line(run.Name, run.Timeline, func(m Moment) float64 { return m.Calls }))
	}
	charts := []plot.Chart{done, calls}
	for _, run := range runs {
		// A stretch without requests has no latency.
		latency := func(of func(Moment) float64) func(Moment) float64 {
			return func(m Moment) float64 {
				if m.Calls == 0 {
					return math.NaN()
				}
				return of(m)
			}
		}
		charts = append(charts, plot.Chart{Title: "Latency of requests, " + run.Name, Unit: "ms", Lines: []plot.Line{
			line("p50", run.Timeline, latency(func(m Moment) float64 { return m.P50 })),
			line("p95", run.Timeline, latency(func(m Moment) float64 { return m.P95 })),
			line("p99", run.Timeline, latency(func(m Moment) float64 { return m.P99 })),
		}})
	}
	return plot.Page(w, title, text, charts)
}

func line(name string, timeline []Moment, y func(Moment) float64) plot.Line {
	l := plot.Line{Name: name, Points: make([]plot.Point, len(timeline))}
	for i, m := range timeline {
		l.Points[i] = plot.Point{X: m.Second, Y: y(m)}
	}
	return l
}
