package metrics

import (
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// Native buckets grow by a tenth, and by more once there are nativeBuckets.
	nativeFactor  = 1.1
	nativeBuckets = 160
	nativeReset   = time.Hour
	// exemplarEvery is how often a series takes a new exemplar: the latest is as
	// good as any, and to make one takes as long as twenty observations.
	exemplarEvery = time.Second
)

func (r *Recorder) counter(d *Definition) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
	r.registry.MustRegister(v)
	return v
}

func (r *Recorder) gauge(d *Definition) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.Name, Help: d.Help}, d.Labels)
	r.registry.MustRegister(v)
	return v
}

// histogram has classic and native buckets; a scrape takes those it asks for.
func (r *Recorder) histogram(d *Definition) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: d.Name, Help: d.Help, Buckets: d.Buckets, NativeHistogramBucketFactor: nativeFactor,
		NativeHistogramMaxBucketNumber: nativeBuckets, NativeHistogramMinResetDuration: nativeReset,
	}, d.Labels)
	r.registry.MustRegister(v)
	return v
}

// series remembers the member of a vector for each set of labels. To find it
// there costs half of what the vector itself takes, and no lock.
type series[K comparable, V any] struct {
	mu    sync.Mutex
	known atomic.Pointer[map[K]V]
	open  func(K) V
}

func (s *series[K, V]) of(k K) V {
	if known := s.known.Load(); known != nil {
		if v, ok := (*known)[k]; ok {
			return v
		}
	}
	return s.add(k)
}

func (s *series[K, V]) add(k K) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := map[K]V{}
	if known := s.known.Load(); known != nil {
		if v, ok := (*known)[k]; ok {
			return v
		}
		for k, v := range *known {
			more[k] = v
		}
	}
	more[k] = s.open(k)
	s.known.Store(&more)
	return more[k]
}

// counters are the members of a counter of one label.
func (r *Recorder) counters(d *Definition) *series[string, prometheus.Counter] {
	v := r.counter(d)
	return &series[string, prometheus.Counter]{open: func(value string) prometheus.Counter { return v.WithLabelValues(value) }}
}

// histograms are the members of a histogram of one label.
func (r *Recorder) histograms(d *Definition) *series[string, prometheus.Observer] {
	v := r.histogram(d)
	return &series[string, prometheus.Observer]{open: func(value string) prometheus.Observer { return v.WithLabelValues(value) }}
}

// traced is a histogram that keeps an exemplar now and then.
type traced struct {
	prometheus.Observer
	taken atomic.Int64 // when the last exemplar was, Unix nanoseconds
}

func (t *traced) observe(v float64, rolloutID string) {
	now := time.Now().UnixNano()
	last := t.taken.Load()
	if now-last < int64(exemplarEvery) || !fits(rolloutID) || !t.taken.CompareAndSwap(last, now) {
		t.Observe(v)
		return
	}
	t.Observer.(prometheus.ExemplarObserver).ObserveWithExemplar(v, prometheus.Labels{exemplarLabel: rolloutID})
}

const exemplarLabel = "rollout_id"

// fits reports whether an id, which may be anybody's, can be an exemplar.
func fits(id string) bool {
	return id != "" && utf8.ValidString(id) && utf8.RuneCountInString(id)+len(exemplarLabel) <= prometheus.ExemplarMaxRunes
}

// labels are the values of an event's labels.
type labels interface {
	comparable
	values() []string
}

// pair is what an event is recorded as.
type pair[K labels] struct {
	event   *eventDefinition
	console *console
	members series[K, *member]
}

type member struct {
	total   prometheus.Counter
	seconds traced
}

func newPair[K labels](r *Recorder, e *eventDefinition) *pair[K] {
	total, seconds := r.counter(e.total), r.histogram(e.seconds)
	p := &pair[K]{event: e, console: r.console}
	p.members.open = func(k K) *member {
		values := k.values()
		return &member{total.WithLabelValues(values...), traced{Observer: seconds.WithLabelValues(values...)}}
	}
	return p
}

// record counts an event; rolloutID, if not empty, may become its exemplar.
func (p *pair[K]) record(k K, seconds float64, rolloutID string) {
	m := p.members.of(k)
	m.total.Inc()
	if rolloutID == "" {
		m.seconds.Observe(seconds)
	} else {
		m.seconds.observe(seconds, rolloutID)
	}
	if p.console != nil {
		p.console.record(p.event, seconds, k.values())
	}
}
