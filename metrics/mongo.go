package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/event"
)

// Mongo records how the driver of MongoDB fares.
type Mongo struct {
	commands series[commandLabels, prometheus.Observer]
	open     prometheus.Gauge
	inUse    prometheus.Gauge
	limit    prometheus.Gauge
	wait     prometheus.Observer
	failures *series[string, prometheus.Counter]
}

type commandLabels struct{ command, status string }

func newMongo(r *Recorder) *Mongo {
	commands := r.histogram(mongoCommands)
	connections := r.gauge(mongoConnections)
	m := &Mongo{
		open:     connections.WithLabelValues("open"),
		inUse:    connections.WithLabelValues("in_use"),
		limit:    r.gauge(mongoPoolLimit).WithLabelValues(),
		wait:     r.histogram(mongoPoolWait).WithLabelValues(),
		failures: r.counters(mongoPoolFailures),
	}
	m.commands.open = func(l commandLabels) prometheus.Observer { return commands.WithLabelValues(l.command, l.status) }
	for _, reason := range []string{event.ReasonTimedOut, event.ReasonConnectionErrored, event.ReasonPoolClosed} {
		m.failures.of(reason)
	}
	return m
}

// Commands is for the options of the driver.
func (m *Mongo) Commands() *event.CommandMonitor {
	return &event.CommandMonitor{
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) { m.command(&e.CommandFinishedEvent, "ok") },
		Failed:    func(_ context.Context, e *event.CommandFailedEvent) { m.command(&e.CommandFinishedEvent, "failed") },
	}
}

func (m *Mongo) command(e *event.CommandFinishedEvent, status string) {
	m.commands.of(commandLabels{e.CommandName, status}).Observe(e.Duration.Seconds())
}

// Pool is for the options of the driver.
func (m *Mongo) Pool() *event.PoolMonitor { return &event.PoolMonitor{Event: m.pool} }

func (m *Mongo) pool(e *event.PoolEvent) {
	switch e.Type {
	case event.ConnectionPoolCreated:
		if e.PoolOptions != nil {
			m.limit.Set(float64(e.PoolOptions.MaxPoolSize))
		}
	case event.ConnectionCreated:
		m.open.Inc()
	case event.ConnectionClosed:
		m.open.Dec()
	case event.ConnectionCheckedOut:
		m.inUse.Inc()
		m.wait.Observe(e.Duration.Seconds())
	case event.ConnectionCheckedIn:
		m.inUse.Dec()
	case event.ConnectionCheckOutFailed:
		m.failures.of(e.Reason).Inc()
	}
}
