package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
)

// Algorithm records what an algorithm does.
type Algorithm struct {
	enqueue, harvest, batch prometheus.Observer
	inflight                prometheus.Gauge
	rollouts                *series[string, prometheus.Counter]
	reward                  traced
	unrewarded              prometheus.Counter
}

var _ algorithm.Observer = (*Algorithm)(nil)

func newAlgorithm(r *Recorder) *Algorithm {
	a := &Algorithm{
		enqueue:    r.histogram(algorithmEnqueue).WithLabelValues(),
		harvest:    r.histogram(algorithmHarvest).WithLabelValues(),
		batch:      r.histogram(algorithmBatch).WithLabelValues(),
		inflight:   r.gauge(algorithmInflight).WithLabelValues(),
		rollouts:   r.counters(algorithmRollouts),
		reward:     traced{Observer: r.histogram(algorithmReward).WithLabelValues()},
		unrewarded: r.counter(algorithmUnrewarded).WithLabelValues(),
	}
	for _, status := range []queue.RolloutStatus{queue.RolloutSucceeded, queue.RolloutFailed, queue.RolloutCancelled} {
		a.rollouts.of(string(status))
	}
	return a
}

// Enqueued implements algorithm.Observer.
func (a *Algorithm) Enqueued(n int, took time.Duration) {
	a.enqueue.Observe(took.Seconds())
	a.inflight.Add(float64(n))
}

// Expected implements algorithm.Observer.
func (a *Algorithm) Expected(n int) { a.inflight.Add(float64(n)) }

// Harvested implements algorithm.Observer.
func (a *Algorithm) Harvested(_ int, took time.Duration) { a.harvest.Observe(took.Seconds()) }

// Delivered implements algorithm.Observer.
func (a *Algorithm) Delivered(r *algorithm.Result) {
	a.inflight.Dec()
	a.rollouts.of(string(r.Rollout.Status)).Inc()
	switch reward, ok := r.FiniteReward(); {
	case ok:
		a.reward.observe(reward, r.Rollout.RolloutID)
	case r.Succeeded():
		a.unrewarded.Inc()
	}
}

// BatchEnded implements algorithm.Observer.
func (a *Algorithm) BatchEnded(took time.Duration) { a.batch.Observe(took.Seconds()) }
