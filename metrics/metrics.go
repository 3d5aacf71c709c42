// Package metrics defines every metric of aglq, in one place, and the two ways
// to see them: a Prometheus registry and a line on the console.
//
// The names, labels and buckets are those that the dashboards of Agent-Lightning
// query. All times are in seconds.
package metrics

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/aglq/aglq/queue"
)

// Buckets are the upper bounds of all histograms.
var Buckets = []float64{
	1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4,
	.001, .002, .003, .005, .007, .01, .015, .02, .03, .05, .07, .1, .2, .3, .5, .7,
	1, 2, 3, 5, 7, 10, 12, 15, 20, 25, 30, 40, 50, 60, 90, 120, 180, 240, 300,
}

// family is a kind of event: a counter of it and a histogram of how long it took.
type family struct {
	counter, histogram string
	labels             []string
	// group is how many leading labels the console keeps apart.
	group int
}

var (
	httpRequests = &family{"agl.http.total", "agl.http.latency", []string{"path", "method", "status"}, 2}
	storeCalls   = &family{"agl.store.total", "agl.store.latency", []string{"method", "store_pubmeth", "status"}, 1}
	rollouts     = &family{"agl.rollouts.total", "agl.rollouts.duration", []string{"status", "mode"}, 1}
	families     = []*family{httpRequests, storeCalls, rollouts}
)

// Options says where a Recorder records to.
type Options struct {
	// Prometheus keeps a registry, which [Recorder.Handler] serves.
	Prometheus bool
	// Console, if not nil, gets a line of rates and quantiles now and then. A
	// line is one Write.
	Console io.Writer
	// Now is the clock of the console's window; nil is time.Now.
	Now func() time.Time
}

// Recorder records what happens. It is safe for concurrent use. Use New.
type Recorder struct {
	registry *prometheus.Registry
	series   map[*family]promSeries
	console  *console
}

type promSeries struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// New makes a Recorder.
func New(o Options) *Recorder {
	r := &Recorder{}
	if o.Prometheus {
		r.openRegistry()
	}
	if o.Console != nil {
		now := o.Now
		if now == nil {
			now = time.Now
		}
		r.console = newConsole(o.Console, now)
	}
	return r
}

func (r *Recorder) openRegistry() {
	r.registry = prometheus.NewRegistry()
	r.series = make(map[*family]promSeries, len(families))
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, f := range families {
		s := promSeries{
			total: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: promName(f.counter), Help: "Counter " + f.counter,
			}, f.labels),
			seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Name: promName(f.histogram), Help: "Histogram " + f.histogram, Buckets: Buckets,
			}, f.labels),
		}
		r.registry.MustRegister(s.total, s.seconds)
		r.series[f] = s
	}
}

func promName(dotted string) string {
	name := []byte(dotted)
	for i, c := range name {
		if c == '.' {
			name[i] = '_'
		}
	}
	return string(name)
}

// Handler serves the registry in the Prometheus text format; nil without one.
func (r *Recorder) Handler() http.Handler {
	if r.registry == nil {
		return nil
	}
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// HTTP records one request. Path must be a route's template: each distinct path
// is a time series for ever.
func (r *Recorder) HTTP(path, method string, status int, took time.Duration) {
	r.record(httpRequests, took.Seconds(), path, method, strconv.Itoa(status))
}

// RolloutFinished records the end of a rollout; its time in the queue counts.
func (r *Recorder) RolloutFinished(ro queue.Rollout) {
	mode := string(ro.Mode)
	if mode == "" {
		mode = "unknown"
	}
	seconds := 0.0
	if ro.EndTime != nil {
		seconds = max(0, *ro.EndTime-ro.StartTime)
	}
	r.record(rollouts, seconds, string(ro.Status), mode)
}

func (r *Recorder) record(f *family, seconds float64, labels ...string) {
	if r.registry != nil {
		s := r.series[f]
		s.total.WithLabelValues(labels...).Inc()
		s.seconds.WithLabelValues(labels...).Observe(seconds)
	}
	if r.console != nil {
		r.console.record(f, seconds, labels)
	}
}
