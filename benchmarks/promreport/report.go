package promreport

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Options say what to read, and of which time.
type Options struct {
	// Prometheus is the URL of a Prometheus; "" scrapes the store.
	Prometheus string
	// StoreURL is the store, http://host:port, with or without /v1/agl. "" leaves
	// its totals out when there is a Prometheus.
	StoreURL string
	// Start and End bound the time that a Prometheus is asked for; a zero End is
	// now, a zero Start is Duration before it.
	Start, End time.Time
	// Duration is how long the time is, or the scrapes take. 0 is 5 minutes.
	Duration time.Duration
	// Timeout bounds one request. 0 is 10 s.
	Timeout time.Duration
}

// Report is what the store did.
type Report struct {
	Start   time.Time `json:"start"`
	End     time.Time `json:"end"`
	Seconds float64   `json:"seconds"`
	Totals  []Total   `json:"totals,omitempty"`
	Tables  []*Table  `json:"tables"`
	Gauges  []Gauge   `json:"diagnostics,omitempty"`
}

// Total is how many of a kind the store holds.
type Total struct {
	Kind string `json:"kind"`
	Held int64  `json:"held"` // at the end
	// Added and PerSecond are of the time; nil where it lies in the past.
	Added     *int64   `json:"added,omitempty"`
	PerSecond *float64 `json:"per_second,omitempty"`
}

// Table holds the rates and latencies of one kind of thing, by some labels.
type Table struct {
	Title string   `json:"title"`
	By    []string `json:"by"`
	Rows  []*Row   `json:"rows"`
	share bool
}

// Row is one group. Times are in seconds; those that are not known are nil.
type Row struct {
	Labels []string `json:"labels"`
	Count  float64  `json:"count"`
	Avg    float64  `json:"rate"` // a second, over all the time
	Max    float64  `json:"rate_max"`
	Min    float64  `json:"rate_min"`
	P50    *float64 `json:"p50"`
	P95    *float64 `json:"p95"`
	P99    *float64 `json:"p99"`
	Top    *float64 `json:"max"` // the bound of the last bucket that holds any
	// Busy is the time spent a second, Mean the time spent on one.
	Busy float64  `json:"time_per_second"`
	Mean *float64 `json:"mean"`
	// RateDelta and MeanDelta are the changes from the first half of the time to
	// the second, 0.1 for a tenth more.
	RateDelta *float64 `json:"rate_delta"`
	MeanDelta *float64 `json:"mean_delta"`
	// Share is the part of the time spent in the calls of the store.
	Share *float64 `json:"share_of_store"`
}

// views are the tables, by the labels that they group by.
var views = []struct {
	title, histogram string
	by               []string
	share            bool // tell the rows' parts of the time in the store
	outermost        bool // leave out calls that other calls make
}{
	{"HTTP by route", "agl_http_latency", []string{"method", "path"}, false, false},
	{"HTTP by status", "agl_http_latency", []string{"status"}, false, false},
	{"HTTP by route and status", "agl_http_latency", []string{"method", "path", "status"}, false, false},
	{"store by public method", "agl_store_latency", []string{"store_pubmeth"}, true, true},
	{"store by method", "agl_store_latency", []string{"store_pubmeth", "method"}, true, false},
	{"store by method and status", "agl_store_latency", []string{"method", "status"}, true, false},
	{"rollouts by outcome", "agl_rollouts_duration", []string{"status"}, false, false},
	{"rollouts by outcome and mode", "agl_rollouts_duration", []string{"status", "mode"}, false, false},
	{"collections by operation", "agl_collections_latency", []string{"collection", "operation"}, true, false},
	{"collections by store method", "agl_collections_latency", []string{"store_pubmeth", "collection", "operation"}, true, false},
	{"collections by status", "agl_collections_latency", []string{"collection", "status"}, false, false},
}

// Run reads and reckons. It takes Options.Duration when it scrapes.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.Duration, o.Timeout = cmp.Or(o.Duration, 5*time.Minute), cmp.Or(o.Timeout, 10*time.Second)
	if o.Duration < 0 || o.Timeout < 0 {
		return nil, fmt.Errorf("the time must be above 0")
	}
	client := &http.Client{Timeout: o.Timeout}
	defer client.CloseIdleConnections()
	base := strings.TrimSuffix(strings.TrimSuffix(o.StoreURL, "/"), "/v1/agl")
	var before, after map[string]int64
	var d *data
	var err error
	if o.Prometheus == "" {
		if base == "" {
			return nil, fmt.Errorf("there is neither a Prometheus nor a store to read")
		}
		if before, err = totals(ctx, client, base); err != nil {
			return nil, err
		}
		if d, err = (&scraper{client, base + "/v1/prometheus/"}).read(ctx, o.Duration); err != nil {
			return nil, err
		}
	} else {
		if o.End.IsZero() {
			o.End = time.Now()
		}
		o.End = o.End.Truncate(time.Second)
		if o.Start.IsZero() {
			o.Start = o.End.Add(-o.Duration)
		}
		if !o.Start.Before(o.End) {
			return nil, fmt.Errorf("the start, %v, is not before the end, %v", o.Start.Format(time.RFC3339), o.End.Format(time.RFC3339))
		}
		// Whole steps, so that there is a sample at either end.
		every := step(o.End.Sub(o.Start)).Truncate(time.Second)
		o.Start = o.End.Add(-(o.End.Sub(o.Start) + every - 1) / every * every)
		if d, err = (&prometheus{client, o.Prometheus}).read(ctx, o.Start, o.End, every); err != nil {
			return nil, err
		}
	}
	if base != "" {
		if after, err = totals(ctx, client, base); err != nil {
			return nil, err
		}
	}
	return d.report(before, after), nil
}

// kinds are what the statistics of a store count.
var kinds = []string{"rollouts", "attempts", "spans", "resources", "workers"}

// totals asks a store how much it holds, by kind.
func totals(ctx context.Context, c *http.Client, base string) (map[string]int64, error) {
	body, status, err := get(ctx, c, base+"/v1/agl/statistics")
	if err != nil {
		return nil, fmt.Errorf("asking the store for its statistics: %w", err)
	}
	var found map[string]json.RawMessage
	if err := json.Unmarshal(body, &found); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("asking the store for its statistics: status %d: %.200s", status, body)
	}
	all := map[string]int64{}
	for _, kind := range kinds {
		var n int64
		if json.Unmarshal(found["total_"+kind], &n) == nil {
			all[kind] = n
		}
	}
	return all, nil
}

func (d *data) report(before, after map[string]int64) *Report {
	r := &Report{Start: asTime(d.start), End: asTime(d.end), Seconds: d.seconds()}
	for _, kind := range kinds {
		held, ok := after[kind]
		if !ok {
			continue
		}
		total := Total{Kind: kind, Held: held}
		if was, ok := before[kind]; ok {
			added := held - was
			rate := float64(added) / d.seconds()
			total.Added, total.PerSecond = &added, &rate
		}
		r.Totals = append(r.Totals, total)
	}
	var calls []*series
	for _, s := range d.series["agl_store_latency_sum"] {
		if outermost(s.labels) {
			calls = append(calls, s)
		}
	}
	inStore := increaseOf(calls, d.start, d.start, d.end)
	for _, v := range views {
		t := &Table{Title: v.title, By: v.by, share: v.share}
		for _, g := range d.groups(v.histogram, v.by, v.outermost) {
			if row := d.row(g); row.Count > 0 {
				if v.share && inStore > 0 {
					row.Share = known(row.Busy * d.seconds() / inStore)
				}
				t.Rows = append(t.Rows, row)
			}
		}
		slices.SortStableFunc(t.Rows, func(a, b *Row) int { return cmp.Compare(b.Busy, a.Busy) })
		r.Tables = append(r.Tables, t)
	}
	r.Gauges = d.gauges()
	return r
}

// row reckons one group.
func (d *data) row(g *group) *Row {
	whole, middle := d.seconds(), (d.start+d.end)/2
	gained := func(list []*series, from, to float64) float64 { return increaseOf(list, d.start, from, to) }
	row := &Row{Labels: g.labels, Count: gained(g.count, d.start, d.end)}
	row.Avg = row.Count / whole
	row.Min, row.Max = d.rates(g.count)
	spent := gained(g.sum, d.start, d.end)
	row.Busy = spent / whole
	dist := d.distribution(g.buckets)
	row.P50, row.P95, row.P99, row.Top = known(dist.quantile(0.5)), known(dist.quantile(0.95)), known(dist.quantile(0.99)), known(dist.top())
	row.Mean = known(spent / row.Count)
	firstCount, lastCount := gained(g.count, d.start, middle), gained(g.count, middle, d.end)
	firstSum, lastSum := gained(g.sum, d.start, middle), gained(g.sum, middle, d.end)
	// The halves of a scraped time need not be of equal length.
	cut := d.cut(middle)
	row.RateDelta = known(lastCount/(d.end-cut)/(firstCount/(cut-d.start)) - 1)
	row.MeanDelta = known(lastSum/lastCount/(firstSum/firstCount) - 1)
	return row
}

// cut is the last look up to the middle: where the first half ends.
func (d *data) cut(middle float64) float64 {
	cut := d.start
	for _, at := range d.looks {
		if at <= middle+slack {
			cut = at
		}
	}
	return cut
}

func asTime(unix float64) time.Time { return time.UnixMilli(int64(unix * 1000)).UTC() }
