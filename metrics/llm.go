package metrics

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aglq/aglq/worker/llmproxy"
)

// LLM records what an LLM proxy does, in a registry of its own too: a proxy answers
// scrapes at its own address.
type LLM struct {
	recorder                         *Recorder
	requests, outcomes, tokens, cost *prometheus.CounterVec
	latency, ttft                    *prometheus.HistogramVec
	dropped                          prometheus.Counter
}

// NewLLM makes an LLM, which the recorder of its process, nil for none, publishes too.
func NewLLM(process *Recorder) *LLM {
	r := New(Options{Prometheus: true})
	l := &LLM{
		recorder: r,
		requests: r.counter(llmRequests), outcomes: r.counter(llmOutcomes), tokens: r.counter(llmTokens),
		cost:    r.counter(llmCost),
		latency: r.histogram(llmLatency), ttft: r.histogram(llmFirstByte),
	}
	dropped := r.counter(llmDropped)
	l.dropped = dropped.WithLabelValues()
	if process != nil {
		process.registry.MustRegister(l.requests, l.outcomes, l.tokens, l.cost, l.latency, l.ttft, dropped)
	}
	return l
}

// Observe is for llmproxy.Options.
func (l *LLM) Observe(o llmproxy.Observation) {
	l.requests.WithLabelValues(o.Model, strconv.Itoa(o.Status)).Inc()
	l.outcomes.WithLabelValues(o.Model, o.Outcome).Inc()
	l.tokens.WithLabelValues(o.Model, "prompt").Add(float64(o.PromptTokens))
	l.tokens.WithLabelValues(o.Model, "completion").Add(float64(o.CompletionTokens))
	l.cost.WithLabelValues(o.Model).Add(o.Cost)
	l.latency.WithLabelValues(o.Model).Observe(o.Took.Seconds())
	if o.FirstByte > 0 {
		l.ttft.WithLabelValues(o.Model).Observe(o.FirstByte.Seconds())
	}
}

// Dropped is for llmproxy.Options.
func (l *LLM) Dropped(n int) { l.dropped.Add(float64(n)) }

// Handler serves the registry in the format that the scrape asks for.
func (l *LLM) Handler() http.Handler { return l.recorder.Handler() }
