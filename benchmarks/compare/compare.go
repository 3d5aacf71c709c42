// Package compare measures two stores in turn, A B A B, each started anew, and
// sets them in relation to each other and to what the workload would let a store
// reach that does nothing.
package compare

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/benchmarks/scenario"
)

// Options say what is compared. A command is a line for the shell that starts a
// store; in it {port}, {mongo} and {database} stand for a free port, the URI of a
// MongoDB and a new name in it.
type Options struct {
	Candidate string
	// Reference is what Candidate is set in relation to; "" is nothing.
	Reference string
	// Ceiling are the words of a command that serves [benchmarks.Ceiling] of the
	// record {record}; none leaves it out. Scenarios have a ceiling of their own.
	Ceiling []string
	// Rounds is how often each store is started and measured. 0 is 3.
	Rounds int
	// Mongod is the program of which each turn that needs one starts its own.
	Mongod string
	// Scenario, when not nil, is the workload, else whole lives are.
	Scenario *scenario.Options
	// Spans are the ways to send spans in whole lives: json, otlp. None is both.
	Spans []string
	// Load are the whole lives.
	Load benchmarks.LifecycleOptions
	// ReferenceRollouts is how many lives the reference gets, and each store
	// before memory is compared. 0 is 500.
	ReferenceRollouts int
	// Progress, when not nil, is told of each turn.
	Progress func(what string)
}

// The names of those that take turns.
const (
	candidate = "candidate"
	reference = "reference"
	ceiling   = "ceiling"
)

// Row is what one of them reached with one workload. Figures of cost and memory
// are medians of the rounds; 0 is not known, or has nothing to relate to.
type Row struct {
	Store    string    `json:"store"`
	Workload string    `json:"workload"`
	Rates    []float64 `json:"rollouts_per_second"` // one a round
	Median   float64   `json:"median"`
	// CPU is in milliseconds a rollout, of the server with all its processes, and
	// of the mongod that was started for it.
	CPU         float64 `json:"cpu_ms_per_rollout"`
	DatabaseCPU float64 `json:"database_cpu_ms_per_rollout"`
	// PeakRSS is after the same number of rollouts for all.
	PeakRSS       int64   `json:"peak_rss_bytes"`
	RSSPerRollout float64 `json:"peak_rss_kb_per_rollout"`
	// The ratios of the medians.
	OfReference float64 `json:"of_reference"`
	OfCeiling   float64 `json:"of_ceiling"`
	CPUOf       float64 `json:"cpu_of_reference"` // database included
	RSSOf       float64 `json:"rss_of_reference"`
	// Calls and Timeline are of the last round.
	Calls    []benchmarks.Latency `json:"calls"`
	Timeline []benchmarks.Moment  `json:"timeline"`

	cpu, database, rss, ceilings []float64
	rollouts                     int
}

// Comparison is the outcome.
type Comparison struct {
	Rounds int    `json:"rounds"`
	Rows   []*Row `json:"rows"`
}

// WriteText prints a table.
func (c *Comparison) WriteText(w io.Writer) error {
	rounds := fmt.Sprintf("medians of %d rounds", c.Rounds)
	if c.Rounds == 1 {
		rounds = "one round"
	}
	fmt.Fprintln(w, rounds+"; RSS after the same number of rollouts")
	_, err := fmt.Fprintf(w, "%-10s %-24s %10s %15s %8s %9s %9s %8s %8s %9s %8s\n",
		"store", "workload", "median/s", "spread", "of ref.", "of ceil.", "CPU ms/r", "db ms/r", "of ref.", "RSS MiB", "of ref.")
	for _, r := range c.Rows {
		spread := fmt.Sprintf("%.1f-%.1f", slices.Min(r.Rates), slices.Max(r.Rates))
		_, err = fmt.Fprintf(w, "%-10s %-24s %10.1f %15s %8s %9s %9.3f %8.3f %8s %9.1f %8s\n", r.Store, r.Workload, r.Median, spread,
			related("%.2fx", r.OfReference), related("%.1f%%", 100*r.OfCeiling), r.CPU, r.DatabaseCPU, related("%.2fx", r.CPUOf),
			float64(r.PeakRSS)/(1<<20), related("%.2fx", r.RSSOf))
	}
	return err
}

// related is a ratio; 0 has nothing to relate to.
func related(format string, ratio float64) string {
	if ratio == 0 {
		return "-"
	}
	return fmt.Sprintf(format, ratio)
}

// Drawn are the runs to draw, the last round of each. The ceiling is left out: it
// is over in no time, and beside it every store is a flat line.
func (c *Comparison) Drawn() []benchmarks.Drawn {
	var all []benchmarks.Drawn
	for _, r := range c.Rows {
		if r.Store == ceiling {
			continue
		}
		all = append(all, benchmarks.Drawn{Name: r.Store + ", " + r.Workload, Timeline: r.Timeline})
	}
	return all
}

// comparison is one under way.
type comparison struct {
	Options
	dir       string
	databases int
	rows      []*Row
}

// Run compares. It fails when a call fails, and when a store loses or doubles a
// rollout or a span.
func Run(ctx context.Context, o Options) (*Comparison, error) {
	o.Rounds, o.ReferenceRollouts = cmp.Or(o.Rounds, 3), cmp.Or(o.ReferenceRollouts, 500)
	if len(o.Spans) == 0 {
		o.Spans = []string{"json", "otlp"}
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	dir, err := os.MkdirTemp("", "aglq-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	run := &comparison{Options: o, dir: dir}
	stores := []string{candidate}
	if o.Reference != "" {
		stores = []string{reference, candidate}
	}
	workloads := o.Spans
	if o.Scenario != nil {
		workloads = []string{"scenario"}
	} else if len(o.Ceiling) > 0 {
		stores = append(stores, ceiling) // behind those whose answers it repeats
	}
	for round := range o.Rounds {
		for _, workload := range workloads {
			for _, store := range stores {
				o.Progress(fmt.Sprintf("round %d of %d: %s, %s", round+1, o.Rounds, store, workload))
				if err := run.turn(ctx, store, workload); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", store, workload, err)
				}
			}
		}
	}
	return &Comparison{Rounds: o.Rounds, Rows: run.relate()}, nil
}

// turn starts a store, measures it and stops it.
func (run *comparison) turn(ctx context.Context, store, workload string) (err error) {
	run.databases++
	record := filepath.Join(run.dir, workload+".json")
	values := map[string]string{"{database}": fmt.Sprintf("bench%d", run.databases), "{record}": record}
	command, path := []string{"sh", "-c", run.Candidate}, "/v1/agl/health"
	switch store {
	case reference:
		command[2] = run.Reference
	case ceiling:
		command, path = run.Ceiling, "/"
	}
	var database []int
	if strings.Contains(strings.Join(command, " "), "{mongo}") {
		m, err := benchmarks.StartMongod(ctx, run.Mongod)
		if err != nil {
			return err
		}
		defer m.Stop()
		values["{mongo}"], database = m.URI, []int{m.PID}
	}
	server, err := benchmarks.StartServer(ctx, benchmarks.ReplaceAll(command, values), path)
	if err != nil {
		return err
	}
	defer server.Stop()
	if run.Scenario != nil {
		return run.scenario(ctx, store, server, database)
	}
	return run.lives(ctx, store, workload, server, database, record)
}

// scenario measures the scenario.
func (run *comparison) scenario(ctx context.Context, store string, server *benchmarks.Process, database []int) error {
	o := *run.Scenario
	o.StoreURL, o.PIDs, o.DatabasePIDs = server.URL, []int{server.PID}, database
	s, err := scenario.Run(ctx, o)
	if err != nil {
		return err
	}
	row := run.row(store, "scenario, "+string(s.Options.Client))
	row.add(s.RolloutsPerSecond, s.Options.TotalTasks, s.Cost, s.PeakRSS, s.Options.TotalTasks)
	row.ceilings = append(row.ceilings, s.Ceiling)
	row.Calls, row.Timeline = s.Calls, s.Timeline
	return nil
}

// lives measures whole lives: a few to warm up, as many as the reference gets for
// the memory, and the load.
func (run *comparison) lives(ctx context.Context, store, workload string, server *benchmarks.Process, database []int, record string) error {
	load := run.Load
	load.URL, load.PIDs, load.DatabasePIDs = server.URL, []int{server.PID}, database
	load.OTLP, load.Canned = workload == "otlp", store == ceiling
	load.Rollouts, load.Record = 50, &benchmarks.Record{}
	if _, err := benchmarks.Lifecycle(ctx, load); err != nil {
		return err
	}
	if store != ceiling {
		if err := keepRecord(record, load.Record); err != nil {
			return err
		}
	}
	load.Record, load.Rollouts = nil, run.ReferenceRollouts
	report, err := benchmarks.Lifecycle(ctx, load)
	if err != nil {
		return err
	}
	memory := report.PeakRSS
	if store != reference {
		load.Rollouts = run.Load.Rollouts
		if report, err = benchmarks.Lifecycle(ctx, load); err != nil {
			return err
		}
	}
	row := run.row(store, "lives, spans as "+workload)
	row.add(report.RolloutsPerSecond, report.Rollouts, report.Cost, memory, 50+run.ReferenceRollouts)
	row.Calls, row.Timeline = report.Calls, report.Timeline
	return nil
}

// add adds a round. Memory was reached after so many rollouts.
func (r *Row) add(rate float64, rollouts int, cost benchmarks.Cost, memory int64, after int) {
	r.Rates = append(r.Rates, rate)
	r.cpu = append(r.cpu, cost.CPUSeconds*1000/float64(rollouts))
	r.database = append(r.database, cost.DatabaseCPUSeconds*1000/float64(rollouts))
	r.rss = append(r.rss, float64(memory))
	r.rollouts = after
}

func (run *comparison) row(store, workload string) *Row {
	for _, r := range run.rows {
		if r.Store == store && r.Workload == workload {
			return r
		}
	}
	r := &Row{Store: store, Workload: workload}
	run.rows = append(run.rows, r)
	return r
}

// relate works out medians and ratios.
func (run *comparison) relate() []*Row {
	for _, r := range run.rows {
		r.Median, r.CPU, r.DatabaseCPU = benchmarks.Median(r.Rates), benchmarks.Median(r.cpu), benchmarks.Median(r.database)
		r.PeakRSS = int64(benchmarks.Median(r.rss))
		r.RSSPerRollout = float64(r.PeakRSS) / 1e3 / float64(r.rollouts)
		r.OfCeiling = benchmarks.Ratio(r.Median, benchmarks.Median(r.ceilings))
	}
	for _, r := range run.rows {
		for _, other := range run.rows {
			if other.Workload != r.Workload {
				continue
			}
			switch other.Store {
			case reference:
				r.OfReference = benchmarks.Ratio(r.Median, other.Median)
				r.CPUOf = benchmarks.Ratio(r.CPU+r.DatabaseCPU, other.CPU+other.DatabaseCPU)
				r.RSSOf = benchmarks.Ratio(float64(r.PeakRSS), float64(other.PeakRSS))
			case ceiling:
				r.OfCeiling = benchmarks.Ratio(r.Median, other.Median)
			}
		}
	}
	return run.rows
}

// keepRecord writes a record for the ceiling, unless an earlier turn did.
func keepRecord(path string, r *benchmarks.Record) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
