// Package exportbench measures how fast datasets are made of a store that holds many
// spans, and in how much memory, beside how fast the same spans are only read.
package exportbench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

// Options say what is measured.
type Options struct {
	// URL is that of an aglq store, an empty one: it is filled.
	URL string
	// Aglq is the command whose exports are measured.
	Aglq string
	// Spans is how many there are. 0 is 1,000,000.
	Spans int
	// SpansPerRollout is how many of them an attempt has. 0 is 20.
	SpansPerRollout int
	// Exports are the options of the exports, --out's suffix first. None is
	// [DefaultExports].
	Exports [][]string
	// Progress, when not nil, is told what is being done.
	Progress func(what string)
}

// DefaultExports are exports of all kinds; one reads twice.
var DefaultExports = [][]string{
	{".jsonl", "--format", "conversational"},
	{".jsonl.gz", "--format", "conversational", "--top-fraction", "0.5"},
	{".parquet", "--format", "conversational", "--origin"},
	{".jsonl.zst", "--format", "triplet", "--dedup", "response_id"},
	{".parquet", "--format", "raw"},
}

// Measured is one reading of all spans.
type Measured struct {
	What           string  `json:"what"`
	Seconds        float64 `json:"seconds"`
	SpansPerSecond float64 `json:"spans_per_second"`
	RowsPerSecond  float64 `json:"rows_per_second"` // 0 where none are made
	Rows           int64   `json:"rows"`
	Bytes          int64   `json:"bytes"`          // of the files
	PeakRSS        int64   `json:"peak_rss_bytes"` // of the process; 0 where it is not known
	CPUSeconds     float64 `json:"cpu_seconds"`    // of the process, likewise
}

// Report holds the outcome. The first of Measured only reads.
type Report struct {
	Rollouts int        `json:"rollouts"`
	Spans    int        `json:"spans"`
	Measured []Measured `json:"measured"`
}

// WriteText prints the report.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%d spans of %d rollouts\n", r.Spans, r.Rollouts)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "seconds\tspans/s\tof reading\trows/s\trows\tMiB written\tpeak MiB\tCPU s\t  what\n")
	for _, m := range r.Measured {
		fmt.Fprintf(t, "%.1f\t%.0f\t%.0f %%\t%.0f\t%d\t%.0f\t%.0f\t%.1f\t  %s\n", m.Seconds, m.SpansPerSecond,
			100*m.SpansPerSecond/r.Measured[0].SpansPerSecond, m.RowsPerSecond, m.Rows, mebi(m.Bytes), mebi(m.PeakRSS), m.CPUSeconds, m.What)
	}
	return t.Flush()
}

func mebi(n int64) float64 { return float64(n) / (1 << 20) }

// Run fills the store and measures. Exports that do not have the rows that they must
// have, and readings without all spans, are errors.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.Spans = cmp.Or(o.Spans, 1_000_000)
	o.SpansPerRollout = cmp.Or(o.SpansPerRollout, 20)
	if len(o.Exports) == 0 {
		o.Exports = DefaultExports
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	rollouts := (o.Spans + o.SpansPerRollout - 1) / o.SpansPerRollout
	r := &Report{Rollouts: rollouts, Spans: rollouts * o.SpansPerRollout}
	c := client.New(o.URL, client.Options{})
	defer c.Close()
	held, err := c.Statistics(ctx)
	switch {
	case err != nil:
		return nil, err
	case held.Rollouts > 0:
		return nil, queue.Errorf(queue.Conflict, "the store holds %d rollouts; the benchmark needs an empty one", held.Rollouts)
	}
	o.Progress(fmt.Sprintf("filling the store with %d spans", r.Spans))
	if err := fill(ctx, c, rollouts, o.SpansPerRollout); err != nil {
		return nil, fmt.Errorf("filling the store: %w", err)
	}
	o.Progress("reading them")
	read, err := readAll(ctx, c, r.Spans)
	if err != nil {
		return nil, fmt.Errorf("reading the spans: %w", err)
	}
	r.Measured = append(r.Measured, read)
	for _, export := range o.Exports {
		m, err := o.export(ctx, r, export)
		if err != nil {
			return r, err // what was found before is not lost
		}
		r.Measured = append(r.Measured, m)
	}
	return r, nil
}

// fill imports an archive that is made on the way.
func fill(ctx context.Context, c *client.Client, rollouts, spans int) error {
	from, to := io.Pipe()
	written := make(chan error, 1)
	go func() {
		_, err := archive.Write(to, partition(rollouts, spans))
		to.CloseWithError(err)
		written <- err
	}()
	_, err := c.Import(ctx, from, false)
	from.Close()
	return errors.Join(err, ignoreClosed(<-written))
}

// ignoreClosed passes over that a reader has gone: it says itself why.
func ignoreClosed(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// readAll lists the rollouts and reads their spans, as an export does, and drops them.
func readAll(ctx context.Context, c *client.Client, want int) (Measured, error) {
	runtime.GC()
	began := time.Now()
	src := adapter.Source{Store: c, Page: 2000}
	n := 0
	for t, err := range src.Traces(ctx, src.Rollouts(ctx, queue.RolloutQuery{})) {
		if err != nil {
			return Measured{}, err
		}
		n += len(t.Spans)
	}
	if n != want {
		return Measured{}, fmt.Errorf("%d spans were read of %d", n, want)
	}
	seconds := time.Since(began).Seconds()
	return Measured{What: "only reading, in Go", Seconds: seconds, SpansPerSecond: float64(n) / seconds}, nil
}

// export measures a process that exports everything.
func (o *Options) export(ctx context.Context, r *Report, options []string) (Measured, error) {
	dir, err := os.MkdirTemp("", "aglq-bench-export-")
	if err != nil {
		return Measured{}, err
	}
	defer os.RemoveAll(dir)
	out := dataset.Output{Path: filepath.Join(dir, "set"+options[0])}
	what := "set" + options[0]
	for _, option := range options[1:] {
		what += " " + option
	}
	o.Progress("exporting " + what)
	cmd := exec.CommandContext(ctx, o.Aglq, append([]string{"export", "--store-url", o.URL, "--out", out.Path}, options[1:]...)...)
	began := time.Now()
	log, err := cmd.CombinedOutput()
	seconds := time.Since(began).Seconds()
	if err != nil {
		return Measured{}, fmt.Errorf("aglq export of %s: %w: %s", what, err, log)
	}
	text, err := os.ReadFile(out.ManifestPath())
	if err != nil {
		return Measured{}, err
	}
	var m dataset.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Measured{}, fmt.Errorf("reading the manifest of %s: %w", what, err)
	}
	if int(m.Counts.RolloutsRead) != r.Rollouts || int(m.Counts.SpansRead) != r.Spans || m.Counts.Rows == 0 {
		return Measured{}, fmt.Errorf("the export of %s has %d rows of %d rollouts and %d spans", what, m.Counts.Rows, m.Counts.RolloutsRead, m.Counts.SpansRead)
	}
	measured := Measured{
		What: what, Seconds: seconds, SpansPerSecond: float64(r.Spans) / seconds, RowsPerSecond: float64(m.Counts.Rows) / seconds, Rows: m.Counts.Rows,
		CPUSeconds: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
	}
	for _, f := range m.Files {
		measured.Bytes += f.Bytes
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && runtime.GOOS == "linux" {
		measured.PeakRSS = usage.Maxrss << 10 // in KiB there
	}
	return measured, nil
}
