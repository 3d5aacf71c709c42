package mongobench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/aglq/aglq/benchmarks"
)

// LifeTable sets whole lives through aglq beside those through the reference.
type LifeTable struct {
	Workers int        `json:"workers"`
	Rows    []*LifeRow `json:"rows"`
	// Ratio is the best median of aglq over the best of the reference.
	Ratio float64 `json:"ratio,omitempty"`
}

// LifeRow is one server with one number of processes.
type LifeRow struct {
	Server    string               `json:"server"`
	Processes int                  `json:"processes"`
	Rollouts  int                  `json:"rollouts"`
	Lives     Sample               `json:"lives"`
	CPU       float64              `json:"cpu_ms_per_rollout"` // of the server and of the database, last round
	Calls     []benchmarks.Latency `json:"calls"`              // of the last round
	theirs    bool
}

// WriteText implements Table.
func (t *LifeTable) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "whole lives (8 OTLP spans) over HTTP by %d workers\n", t.Workers)
	_, err := fmt.Fprintf(w, "%-10s %9s %9s %10s %16s %9s %9s %9s\n", "server", "processes", "rollouts", "lives/s", "spread", "CPU ms/r", "aborted", "conflicts")
	for _, r := range t.Rows {
		_, err = fmt.Fprintf(w, "%-10s %9d %9d %10.1f %16s %9.2f %9d %9d\n", r.Server, r.Processes, r.Rollouts,
			r.Lives.Median, r.Lives.spread(), r.CPU, r.Lives.Aborted, r.Lives.Conflicts)
	}
	if t.Ratio > 0 {
		_, err = fmt.Fprintf(w, "aglq's best is %.1f times the reference's best\n", t.Ratio)
	}
	return err
}

func (b *bench) life(ctx context.Context) (Table, error) {
	t := &LifeTable{Workers: b.Workers}
	for _, n := range b.Stores {
		t.Rows = append(t.Rows, &LifeRow{Server: "aglq", Processes: n, Rollouts: b.Rollouts})
		if b.Reference != "" {
			t.Rows = append(t.Rows, &LifeRow{Server: "reference", Processes: n, Rollouts: b.ReferenceRollouts, theirs: true})
		}
	}
	for round := range b.Rounds {
		for _, row := range t.Rows {
			b.Progress(fmt.Sprintf("life, round %d: %s with %d processes", round+1, row.Server, row.Processes))
			if err := b.live(ctx, row); err != nil {
				return nil, fmt.Errorf("%s with %d processes: %w", row.Server, row.Processes, err)
			}
		}
	}
	var ours, theirs float64
	for _, row := range t.Rows {
		if row.theirs {
			theirs = max(theirs, row.Lives.Median)
		} else {
			ours = max(ours, row.Lives.Median)
		}
	}
	t.Ratio = benchmarks.Ratio(ours, theirs)
	return t, nil
}

// live is one round of a row.
func (b *bench) live(ctx context.Context, row *LifeRow) error {
	start := b.servers
	if row.theirs {
		start = b.reference
	}
	name, drop := b.database()
	defer drop()
	servers, stop, err := start(ctx, row.Processes, name)
	if err != nil {
		return err
	}
	defer stop()
	report, err := b.drive(ctx, servers, row.Rollouts, &row.Lives)
	if err != nil {
		return err
	}
	row.CPU = report.CPUSeconds * 1000 / float64(report.Rollouts)
	row.Calls = report.Calls
	return nil
}

// reference starts the reference's server with n processes behind one port. It
// chooses its database itself, so what it made is dropped afterwards.
func (b *bench) reference(ctx context.Context, n int, _ string) ([]*benchmarks.Process, func(), error) {
	before, err := b.client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		return nil, nil, err
	}
	p, err := benchmarks.StartServer(ctx, []string{
		b.Reference, "store", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "WARNING",
		"--backend", "mongo", "--mongo-uri", b.URI, "--n-workers", strconv.Itoa(n),
	}, "/v1/agl/health")
	if err != nil {
		return nil, nil, err
	}
	stop := func() {
		p.Stop()
		ctx := context.WithoutCancel(ctx)
		after, err := b.client.ListDatabaseNames(ctx, bson.D{})
		if err != nil {
			return
		}
		for _, name := range after {
			if !slices.Contains(before, name) {
				_ = b.client.Database(name).Drop(ctx)
			}
		}
	}
	return []*benchmarks.Process{p}, stop, nil
}
