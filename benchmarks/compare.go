package benchmarks

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// CompareOptions say which stores [Compare] runs. Commands are argument lists
// in which {port}, {mongo} and {database} stand for a free port, the address of
// the database and a new name in it.
type CompareOptions struct {
	// Subjects are the stores, in the order in which they take turns.
	Subjects []Subject
	// Spans are the ways to send spans, of json and otlp. None is both.
	Spans []string
	// Rounds is how often each store is started and measured. 0 is 3.
	Rounds int
	// Load is the driver's load. Its Rollouts go to the stores that are not Slow.
	Load LifecycleOptions
	// SlowRollouts is how many rollouts a Slow store gets, and all of them before
	// memory is compared. 0 is 500.
	SlowRollouts int
	// Mongod is the binary for stores on MongoDB, started once.
	Mongod string
	// Progress, when not nil, is told of each run.
	Progress func(what string)
}

// Subject is a store to measure.
type Subject struct {
	Name    string
	Backend string // memory or mongo; rows of one backend are compared
	Command []string
	Slow    bool
	// Base marks the store that others are set in relation to.
	Base bool
	// Ceiling marks the handler that repeats what the first subject of its
	// backend answered; {record} in its command is that record's file.
	Ceiling bool
}

// Row is what one store reached in one way to send spans.
type Row struct {
	Subject   string    `json:"subject"`
	Backend   string    `json:"backend"`
	Spans     string    `json:"spans"`
	Rates     []float64 `json:"rollouts_per_second"` // one a round
	Median    float64   `json:"median"`
	CPU       float64   `json:"cpu_ms_per_rollout"`
	Memory    int64     `json:"peak_rss_bytes"`        // after SlowRollouts
	OfBase    float64   `json:"of_base,omitempty"`     // Median over the base's
	OfCeiling float64   `json:"of_ceiling,omitempty"`  // Median over the ceiling's
	OfMemory  float64   `json:"of_base_rss,omitempty"` // Memory over the base's
	Calls     []Latency `json:"calls"`                 // of the last round
	base      bool
	ceiling   bool
}

// Comparison is the outcome of [Compare].
type Comparison struct {
	Rows []*Row `json:"rows"`
}

// WriteText prints a table.
func (c *Comparison) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%-12s %-7s %-5s %10s %19s %8s %9s %8s %9s %9s\n",
		"store", "backend", "spans", "median/s", "spread", "of base", "of ceil.", "RSS MiB", "of base", "CPU ms/r")
	for _, r := range c.Rows {
		spread := fmt.Sprintf("%.0f-%.0f", slices.Min(r.Rates), slices.Max(r.Rates))
		_, err = fmt.Fprintf(w, "%-12s %-7s %-5s %10.1f %19s %7.1fx %8.0f%% %8.1f %8.2fx %9.2f\n", r.Subject, r.Backend, r.Spans,
			r.Median, spread, r.OfBase, 100*r.OfCeiling, float64(r.Memory)/(1<<20), r.OfMemory, r.CPU)
	}
	return err
}

// Compare starts the stores in turn, A B A B, each time anew, drives each, and
// sets the medians in relation.
func Compare(ctx context.Context, opts CompareOptions) (*Comparison, error) {
	opts.Rounds = cmp.Or(opts.Rounds, 3)
	opts.SlowRollouts = cmp.Or(opts.SlowRollouts, 500)
	opts.Load = opts.Load.withDefaults()
	if len(opts.Spans) == 0 {
		opts.Spans = []string{"json", "otlp"}
	}
	dir, err := os.MkdirTemp("", "aglq-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	run := &comparison{opts: opts, dir: dir, rows: map[string]*Row{}}
	if slices.ContainsFunc(opts.Subjects, func(s Subject) bool { return s.Backend == "mongo" && !s.Ceiling }) {
		m, err := StartMongod(ctx, opts.Mongod)
		if err != nil {
			return nil, err
		}
		defer m.Stop()
		run.mongo = m.URI
	}
	for round := range opts.Rounds {
		for _, spans := range opts.Spans {
			for _, s := range opts.Subjects {
				if opts.Progress != nil {
					opts.Progress(fmt.Sprintf("round %d: %s on %s, spans as %s", round+1, s.Name, s.Backend, spans))
				}
				if err := run.turn(ctx, s, spans); err != nil {
					return nil, fmt.Errorf("%s on %s, spans as %s: %w", s.Name, s.Backend, spans, err)
				}
			}
		}
	}
	return run.result(), nil
}

// comparison is a Compare under way.
type comparison struct {
	opts      CompareOptions
	dir       string
	mongo     string
	databases int
	rows      map[string]*Row
	order     []string
}

// turn starts a store, drives it and stops it.
func (run *comparison) turn(ctx context.Context, s Subject, spans string) error {
	record := filepath.Join(run.dir, s.Backend+"-"+spans+".json")
	run.databases++
	command := replaceAll(s.Command, map[string]string{
		"{mongo}": run.mongo, "{database}": fmt.Sprintf("bench%d", run.databases), "{record}": record,
	})
	path := apiPrefix + "/health"
	if s.Ceiling {
		path = "/"
	}
	server, err := StartServer(ctx, command, path)
	if err != nil {
		return err
	}
	defer server.Stop()

	load := run.opts.Load
	load.URL, load.PIDs, load.OTLP, load.Canned = server.URL, []int{server.PID}, spans == "otlp", s.Ceiling
	load.Rollouts, load.Record = 50, &Record{}
	if _, err := Lifecycle(ctx, load); err != nil { // to warm up, and for the record
		return err
	}
	if !s.Ceiling {
		if err := keepRecord(record, load.Record); err != nil {
			return err
		}
	}
	load.Record, load.Rollouts = nil, run.opts.SlowRollouts
	report, err := Lifecycle(ctx, load)
	if err != nil {
		return err
	}
	memory := report.PeakRSS
	if !s.Slow {
		load.Rollouts = run.opts.Load.Rollouts
		if report, err = Lifecycle(ctx, load); err != nil {
			return err
		}
	}
	row := run.row(s, spans)
	row.Rates = append(row.Rates, report.RolloutsPerSecond)
	row.CPU = report.CPUSeconds * 1000 / float64(report.Rollouts)
	row.Memory = max(row.Memory, memory)
	row.Calls = report.Calls
	return nil
}

func (run *comparison) row(s Subject, spans string) *Row {
	key := s.Name + " " + s.Backend + " " + spans
	if run.rows[key] == nil {
		run.rows[key] = &Row{Subject: s.Name, Backend: s.Backend, Spans: spans, base: s.Base, ceiling: s.Ceiling}
		run.order = append(run.order, key)
	}
	return run.rows[key]
}

func (run *comparison) result() *Comparison {
	c := &Comparison{}
	for _, key := range run.order {
		r := run.rows[key]
		r.Median = median(r.Rates)
		c.Rows = append(c.Rows, r)
	}
	for _, r := range c.Rows {
		for _, other := range c.Rows {
			if other.Backend != r.Backend || other.Spans != r.Spans {
				continue
			}
			if other.base {
				r.OfBase = r.Median / other.Median
				r.OfMemory = float64(r.Memory) / float64(other.Memory)
			}
			if other.ceiling {
				r.OfCeiling = r.Median / other.Median
			}
		}
	}
	return c
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// keepRecord writes a record for the ceiling, unless an earlier turn did.
func keepRecord(path string, r *Record) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
