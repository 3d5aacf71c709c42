package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aglq/aglq/queue"
)

const (
	// watchLife is how long an answer of the backend serves scrapes.
	watchLife = 2 * time.Second
	// watchTimeout bounds the questions of one scrape.
	watchTimeout = 2 * time.Second
)

// Watched is the part of a backend that a scrape asks.
type Watched interface {
	QueryRollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[*queue.Record], error)
	QueryWorkers(ctx context.Context, q queue.WorkerQuery) (queue.Page[*queue.Worker], error)
	Statistics(ctx context.Context) (queue.Statistics, error)
	Shared() bool
}

// WatchOptions says how a backend is watched.
type WatchOptions struct {
	// WorkerTTL is the lease that the store gives workers, 0 for none: it decides
	// when one is silent or gone, see [queue.Silence].
	WorkerTTL time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Watch has each scrape ask a backend for the depth of the queue, the age of the
// oldest, and the workers. The questions are few and indexed, and an answer
// serves all scrapes within two seconds. Call it once.
func (r *Recorder) Watch(b Watched, o WatchOptions) {
	if o.Now == nil {
		o.Now = time.Now
	}
	r.registry.MustRegister(&watch{backend: b, options: o})
}

// watch is a prometheus.Collector.
type watch struct {
	backend Watched
	options WatchOptions

	mu   sync.Mutex // held while the backend is asked
	seen sight
}

// sight is what the backend said at a time.
type sight struct {
	at      time.Time
	err     error
	depth   map[queue.RolloutStatus]int
	oldest  map[queue.RolloutStatus]float64 // Unix seconds, 0 for none
	workers map[string]int
	memory  queue.MemoryStatistics
}

// unfinished are the statuses that the depth tells of.
var unfinished = []queue.RolloutStatus{
	queue.RolloutQueuing, queue.RolloutRequeuing, queue.RolloutPreparing, queue.RolloutRunning,
}

// What workers are besides their own statuses.
const (
	workerSilent = "silent"
	workerGone   = "gone"
)

var workerStates = []string{
	string(queue.WorkerIdle), string(queue.WorkerBusy), string(queue.WorkerUnknown), workerSilent, workerGone,
}

func describe(d *Definition) *prometheus.Desc {
	return prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
}

var (
	depthDesc     = describe(queueDepth)
	oldestDesc    = describe(queueOldest)
	workersDesc   = describe(workers)
	evictedDesc   = describe(spansEvicted)
	bytesDesc     = describe(spanBytes)
	limitDesc     = describe(spanLimit)
	backendUpDesc = describe(backendUp)
)

// Describe implements prometheus.Collector.
func (w *watch) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{depthDesc, oldestDesc, workersDesc, evictedDesc, bytesDesc, limitDesc, backendUpDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (w *watch) Collect(to chan<- prometheus.Metric) {
	s := w.look()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if s.err != nil {
		gauge(backendUpDesc, 0)
		return
	}
	gauge(backendUpDesc, 1)
	now := queue.Seconds(w.options.Now())
	for _, status := range unfinished {
		gauge(depthDesc, float64(s.depth[status]), string(status))
		age := 0.0
		if at := s.oldest[status]; at != 0 {
			age = max(0, now-at)
		}
		gauge(oldestDesc, age, string(status))
	}
	for _, state := range workerStates {
		gauge(workersDesc, float64(s.workers[state]), state)
	}
	gauge(bytesDesc, float64(s.memory.SpanBytes))
	gauge(limitDesc, float64(s.memory.EvictionThreshold))
	to <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(s.memory.EvictedSpans))
}

// look asks the backend, unless it has been asked a moment ago.
func (w *watch) look() sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.options.Now()
	if age := now.Sub(w.seen.at); w.seen.at.IsZero() || age < 0 || age >= watchLife {
		ctx, cancel := context.WithTimeout(context.Background(), watchTimeout)
		defer cancel()
		w.seen = w.ask(ctx, now)
	}
	return w.seen
}

func (w *watch) ask(ctx context.Context, now time.Time) sight {
	s := sight{at: now, depth: map[queue.RolloutStatus]int{}, oldest: map[queue.RolloutStatus]float64{}}
	for _, status := range unfinished {
		page, err := w.backend.QueryRollouts(ctx, queue.RolloutQuery{
			Statuses: []queue.RolloutStatus{status}, Paging: queue.Paging{SortBy: "start_time", Limit: 1},
		})
		if s.err = err; err != nil {
			return s
		}
		s.depth[status] = page.Total
		if len(page.Items) > 0 {
			s.oldest[status] = page.Items[0].Rollout.StartTime
		}
	}
	page, err := w.backend.QueryWorkers(ctx, queue.WorkerQuery{Paging: queue.All})
	if s.err = err; err != nil {
		return s
	}
	s.workers = map[string]int{}
	for _, worker := range page.Items {
		s.workers[w.stateOf(worker, queue.Seconds(now))]++
	}
	if w.backend.Shared() {
		return s // nothing is kept in memory, and counting spans takes long
	}
	st, err := w.backend.Statistics(ctx)
	if s.err = err; err == nil && st.Memory != nil {
		s.memory = *st.Memory
	}
	return s
}

func (w *watch) stateOf(worker *queue.Worker, now float64) string {
	switch {
	case worker.Alive(now, w.options.WorkerTTL.Seconds()):
		return string(worker.Status)
	case worker.Status == queue.WorkerBusy:
		return workerSilent
	}
	return workerGone
}
