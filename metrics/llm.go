package metrics

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/aglq/aglq/worker/llmproxy"
)

// LLM records what an LLM proxy does, in a registry of its own: a proxy answers
// scrapes at its own address.
type LLM struct {
	registry                   *prometheus.Registry
	requests, outcomes, tokens *prometheus.CounterVec
	latency, ttft              *prometheus.HistogramVec
	dropped                    prometheus.Counter
}

// NewLLM makes an LLM.
func NewLLM() *LLM {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: Buckets, NativeHistogramBucketFactor: nativeFactor,
			NativeHistogramMaxBucketNumber: nativeBuckets, NativeHistogramMinResetDuration: nativeReset,
		}, []string{"model"})
	}
	l := &LLM{
		registry: prometheus.NewRegistry(),
		requests: counter("aglq_llm_requests_total", "Calls ended, by the status of the answer; 499 when the client went away.", "model", "status"),
		outcomes: counter("aglq_llm_outcomes_total", "Calls ended, by how.", "model", "outcome"),
		tokens:   counter("aglq_llm_tokens_total", "Tokens of calls, as upstreams count them: prompt, completion.", "model", "kind"),
		latency:  histogram("aglq_llm_latency_seconds", "Seconds from a request to the end of its answer."),
		ttft:     histogram("aglq_llm_ttft_seconds", "Seconds from a request to the first byte of its answer."),
		dropped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "aglq_llm_spans_dropped_total", Help: "Spans that were not stored."}),
	}
	l.registry.MustRegister(l.requests, l.outcomes, l.tokens, l.latency, l.ttft, l.dropped,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return l
}

// Observe is for llmproxy.Options.
func (l *LLM) Observe(o llmproxy.Observation) {
	l.requests.WithLabelValues(o.Model, strconv.Itoa(o.Status)).Inc()
	l.outcomes.WithLabelValues(o.Model, o.Outcome).Inc()
	l.tokens.WithLabelValues(o.Model, "prompt").Add(float64(o.PromptTokens))
	l.tokens.WithLabelValues(o.Model, "completion").Add(float64(o.CompletionTokens))
	l.latency.WithLabelValues(o.Model).Observe(o.Took.Seconds())
	if o.FirstByte > 0 {
		l.ttft.WithLabelValues(o.Model).Observe(o.FirstByte.Seconds())
	}
}

// Dropped is for llmproxy.Options.
func (l *LLM) Dropped(n int) { l.dropped.Add(float64(n)) }

// Handler serves the registry in the format that the scrape asks for.
func (l *LLM) Handler() http.Handler {
	return promhttp.HandlerFor(l.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
