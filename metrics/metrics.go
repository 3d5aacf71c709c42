// Package metrics defines every metric of aglq, in one place (definitions.go),
// and the two ways to see them: a Prometheus registry and a line on the console.
//
// What begins with agl_ are the series that the dashboards of Agent-Lightning
// query, with their names, labels and buckets. What begins with aglq_ is aglq's
// own. All times are in seconds. docs/metrics.md is made from the definitions.
//
// The other packages know nothing of it: each says in an interface of its own
// what it can tell, and the types here implement them.
package metrics

import (
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options says where a Recorder records to.
type Options struct {
	// Prometheus has [Recorder.Handler] serve the registry.
	Prometheus bool
	// Console, if not nil, gets a line of rates and quantiles now and then. A
	// line is one Write.
	Console io.Writer
	// ConsoleLog, if not nil, gets the same as a record instead.
	ConsoleLog *slog.Logger
	// Now is the clock of the console's window; nil is time.Now.
	Now func() time.Time
}

// Recorder is the registry of a process. Its parts register themselves when they
// are first asked for, so that a worker shows nothing of a store. It is safe for
// concurrent use. Use New.
type Recorder struct {
	options  Options
	database string
	registry *prometheus.Registry
	console  *console

	http      func() *timers[httpLabels]
	queue     func() *Queue
	mongo     func() *Mongo
	worker    func() *Worker
	algorithm func() *Algorithm
}

// New makes a Recorder.
func New(o Options) *Recorder {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Recorder{options: o, registry: prometheus.NewRegistry()}
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Console != nil || o.ConsoleLog != nil {
		r.console = newConsole(o)
	}
	r.http = sync.OnceValue(func() *timers[httpLabels] { return newEvents[httpLabels](r, httpRequests) })
	r.queue = sync.OnceValue(func() *Queue { return newQueue(r) })
	r.mongo = sync.OnceValue(func() *Mongo { return newMongo(r) })
	r.worker = sync.OnceValue(func() *Worker { return newWorker(r) })
	r.algorithm = sync.OnceValue(func() *Algorithm { return newAlgorithm(r) })
	return r
}

// SetDatabase names the database that the store works on, for the label database
// of its operations. Call it before Queue; there is none where it is not called.
func (r *Recorder) SetDatabase(name string) { r.database = name }

// Queue records what happens in a store.
func (r *Recorder) Queue() *Queue { return r.queue() }

// Mongo records how the driver of MongoDB fares.
func (r *Recorder) Mongo() *Mongo { return r.mongo() }

// Worker records what the workers of the process do.
func (r *Recorder) Worker() *Worker { return r.worker() }

// Algorithm records what an algorithm does.
func (r *Recorder) Algorithm() *Algorithm { return r.algorithm() }

// Handler serves the registry in the format that the scrape asks for: text,
// OpenMetrics with exemplars, or protobuf with native histograms. It is nil
// unless Options.Prometheus is set.
func (r *Recorder) Handler() http.Handler {
	if !r.options.Prometheus {
		return nil
	}
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

type httpLabels struct {
	path, method string
	status       int
}

func (l httpLabels) values() []string { return []string{l.path, l.method, strconv.Itoa(l.status)} }

// methods are those of HTTP that get a series; a client may send any word.
var methods = []string{
	http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace,
}

// HTTP records one request. Path must be a route's template: each distinct path
// is a time series for ever.
func (r *Recorder) HTTP(path, method string, status int, took time.Duration) {
	if !slices.Contains(methods, method) {
		method = "other"
	}
	r.http().record(httpLabels{path, method, status}, took)
}
