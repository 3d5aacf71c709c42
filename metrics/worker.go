package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
)

// Worker records what the workers of a process do, all of them together.
type Worker struct {
	tasks    *series[string, prometheus.Counter]
	seconds  series[string, *traced]
	inflight prometheus.Gauge
	slots    prometheus.Gauge
	drops    *series[string, prometheus.Counter]
	failures *series[string, prometheus.Counter]

	mu    sync.Mutex
	slot  map[string]int       // tasks that a worker may run
	beats map[string]time.Time // when its heartbeat was last answered
}

var _ worker.Observer = (*Worker)(nil)

func newWorker(r *Recorder) *Worker {
	seconds := r.histogram(workerSeconds)
	w := &Worker{
		tasks:    r.counters(workerTasks),
		inflight: r.gauge(workerInflight).WithLabelValues(),
		slots:    r.gauge(workerSlots).WithLabelValues(),
		drops:    r.counters(workerDrops),
		failures: r.counters(workerErrors),
		slot:     map[string]int{},
		beats:    map[string]time.Time{},
	}
	w.seconds.open = func(status string) *traced { return &traced{Observer: seconds.WithLabelValues(status)} }
	r.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: workerBeatAge.Name, Help: workerBeatAge.Help}, w.oldestBeat))
	for _, status := range []string{
		string(queue.AttemptSucceeded), string(queue.AttemptFailed), string(queue.AttemptTimeout), worker.NotHeld, worker.Unreported,
	} {
		w.tasks.of(status)
	}
	for _, reason := range []string{worker.Refused, worker.NotHeld, worker.Stopped} {
		w.drops.of(reason)
	}
	for _, call := range []string{worker.CallClaim, worker.CallHeartbeat, worker.CallSpans, worker.CallReport} {
		w.failures.of(call)
	}
	return w
}

func (w *Worker) oldestBeat() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	age := 0.0
	for _, at := range w.beats {
		age = max(age, time.Since(at).Seconds())
	}
	return age
}

// WorkerStarted implements worker.Observer. Until its first heartbeat is answered
// its age counts from here.
func (w *Worker) WorkerStarted(workerID string, slots int, beats bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slot[workerID] = slots
	if beats {
		w.beats[workerID] = time.Now()
	}
	w.slots.Add(float64(slots))
}

// WorkerEnded implements worker.Observer.
func (w *Worker) WorkerEnded(workerID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots.Sub(float64(w.slot[workerID]))
	delete(w.slot, workerID)
	delete(w.beats, workerID)
}

// HeartbeatAnswered implements worker.Observer.
func (w *Worker) HeartbeatAnswered(workerID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beats[workerID] = time.Now()
}

// TaskStarted implements worker.Observer.
func (w *Worker) TaskStarted() { w.inflight.Inc() }

// TaskEnded implements worker.Observer.
func (w *Worker) TaskEnded(rolloutID, status string, took time.Duration) {
	w.inflight.Dec()
	w.tasks.of(status).Inc()
	w.seconds.of(status).observe(took.Seconds(), rolloutID)
}

// SpansDropped implements worker.Observer.
func (w *Worker) SpansDropped(n int, reason string) { w.drops.of(reason).Add(float64(n)) }

// StoreFailed implements worker.Observer.
func (w *Worker) StoreFailed(call string) { w.failures.of(call).Inc() }
