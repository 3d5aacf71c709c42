package promreport

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// known is v, nil where it is no number that JSON has.
func known(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// Gauge is one figure of the machine, the database or the store's process.
type Gauge struct {
	Name    string  `json:"name"`
	Label   string  `json:"label,omitempty"`
	Unit    string  `json:"unit"`
	Average float64 `json:"average"`
	Max     float64 `json:"max"`
}

// gauges are the diagnostics: of a counter its rate, else its value.
var gauges = []struct {
	name, title, label, unit string
	counter                  bool
}{
	{"process_cpu_seconds_total", "store CPU", "instance", "cores", true},
	{"process_resident_memory_bytes", "store memory", "instance", "bytes", false},
	{"mongodb_ss_opcounters", "MongoDB operations", "legacy_op_type", "a second", true},
	{"mongodb_ss_connections", "MongoDB connections", "conn_type", "", false},
	{"node_cpu_seconds_total", "machine CPU", "mode", "cores", true},
	{"node_memory_MemAvailable_bytes", "machine memory available", "instance", "bytes", false},
	{"node_network_receive_bytes_total", "network received", "device", "bytes a second", true},
	{"node_network_transmit_bytes_total", "network sent", "device", "bytes a second", true},
	{"node_disk_read_bytes_total", "disk read", "device", "bytes a second", true},
	{"node_disk_written_bytes_total", "disk written", "device", "bytes a second", true},
}

func (d *data) gauges() []Gauge {
	var out []Gauge
	for _, g := range gauges {
		byLabel := map[string][]*series{}
		var order []string
		for _, s := range d.series[g.name] {
			value := s.labels[g.label]
			if byLabel[value] == nil {
				order = append(order, value)
			}
			byLabel[value] = append(byLabel[value], s)
		}
		for _, value := range order {
			list := byLabel[value]
			found := Gauge{Name: g.title, Label: value, Unit: g.unit}
			if g.counter {
				found.Average = increaseOf(list, d.start, d.start, d.end) / d.seconds()
				_, found.Max = d.rates(list)
			} else {
				found.Average, found.Max = levels(list)
			}
			out = append(out, found)
		}
	}
	return out
}

// levels are the average and the greatest value of each series, added up.
func levels(list []*series) (average, greatest float64) {
	for _, s := range list {
		sum, most := 0.0, 0.0
		for _, p := range s.samples {
			sum, most = sum+p.value, max(most, p.value)
		}
		average += sum / float64(max(1, len(s.samples)))
		greatest += most
	}
	return average, greatest
}

// WriteText prints the report.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s to %s, %.0f s\n", r.Start.Format(time.RFC3339), r.End.Format(time.RFC3339), r.Seconds)
	if len(r.Totals) > 0 {
		fmt.Fprintf(w, "\n%-12s %12s %12s %12s\n", "in the store", "total", "added", "a second")
		for _, t := range r.Totals {
			added, rate := "-", "-"
			if t.Added != nil {
				added, rate = fmt.Sprint(*t.Added), fmt.Sprintf("%.2f", *t.PerSecond)
			}
			fmt.Fprintf(w, "%-12s %12d %12s %12s\n", t.Kind, t.Held, added, rate)
		}
	}
	for _, t := range r.Tables {
		t.write(w)
	}
	fmt.Fprintf(w, "\ndiagnostics\n")
	if len(r.Gauges) == 0 {
		_, err := fmt.Fprintln(w, "  no data")
		return err
	}
	var err error
	for _, g := range r.Gauges {
		_, err = fmt.Fprintf(w, "  %-26s %-20s %12s on average %12s at most  %s\n", g.Name, g.Label, amount(g.Average), amount(g.Max), g.Unit)
	}
	return err
}

func (t *Table) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", t.Title)
	if len(t.Rows) == 0 {
		fmt.Fprintln(w, "  no data")
		return
	}
	wide := len(strings.Join(t.By, " "))
	for _, r := range t.Rows {
		wide = max(wide, len(r.name()))
	}
	fmt.Fprintf(w, "  %-*s %9s %9s %9s %9s %9s %9s %9s %9s %9s %8s %8s", wide, strings.Join(t.By, " "),
		"avg/s", "max/s", "min/s", "p50", "p95", "p99", "max", "s/s", "mean", "rate +-", "mean +-")
	if t.share {
		fmt.Fprintf(w, " %8s", "of store")
	}
	fmt.Fprintln(w)
	for _, r := range t.Rows {
		fmt.Fprintf(w, "  %-*s %9.2f %9.2f %9.2f %9s %9s %9s %9s %9.4f %9s %8s %8s", wide, r.name(), r.Avg, r.Max, r.Min,
			latency(r.P50), latency(r.P95), latency(r.P99), latency(r.Top), r.Busy, latency(r.Mean), percent(r.RateDelta, true), percent(r.MeanDelta, true))
		if t.share {
			fmt.Fprintf(w, " %8s", percent(r.Share, false))
		}
		fmt.Fprintln(w)
	}
}

func (r *Row) name() string {
	shown := make([]string, len(r.Labels))
	for i, label := range r.Labels {
		shown[i] = label
		if label == "" {
			shown[i] = "-"
		}
	}
	return strings.Join(shown, " ")
}

// latency is in milliseconds below ten seconds, else in seconds.
func latency(seconds *float64) string {
	switch {
	case seconds == nil:
		return "-"
	case *seconds < 0.001:
		return fmt.Sprintf("%.4fms", *seconds*1e3)
	case *seconds < 10:
		return fmt.Sprintf("%.2fms", *seconds*1e3)
	}
	return fmt.Sprintf("%.1fs", *seconds)
}

func percent(part *float64, signed bool) string {
	switch {
	case part == nil:
		return "-"
	case signed:
		return fmt.Sprintf("%+.0f%%", 100**part)
	}
	return fmt.Sprintf("%.1f%%", 100**part)
}

func amount(v float64) string {
	switch {
	case v >= 1<<30:
		return fmt.Sprintf("%.2fGi", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.1fMi", v/(1<<20))
	}
	return fmt.Sprintf("%.2f", v)
}
