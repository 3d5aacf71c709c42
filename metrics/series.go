package metrics

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
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

// pair is what an event is recorded as: a counter and a histogram, both made of
// one timer for each set of labels when they are scraped.
type pair[K labels] struct {
	event   *eventDefinition
	console *console
	members series[K, *member]

	total, seconds *prometheus.Desc
}

// member is the series of one set of labels.
type member struct {
	timer
	values []string
	last   atomic.Pointer[dto.Exemplar]
	taken  atomic.Int64 // when last was, Unix nanoseconds
}

func newPair[K labels](r *Recorder, e *eventDefinition) *pair[K] {
	p := &pair[K]{event: e, console: r.console, total: describe(e.total), seconds: describe(e.seconds)}
	p.members.open = func(k K) *member { return &member{values: k.values()} }
	r.registry.MustRegister(p)
	return p
}

// record counts an event.
func (p *pair[K]) record(k K, took time.Duration) { p.add(p.members.of(k), took) }

// add counts an event of a member.
func (p *pair[K]) add(m *member, took time.Duration) {
	m.observe(took)
	if p.console != nil {
		p.console.record(p.event, took.Seconds(), m.values)
	}
}

// addFor is add for an event of one rollout, which may become its exemplar.
func (p *pair[K]) addFor(m *member, took time.Duration, rolloutID string) {
	p.add(m, took)
	now := time.Now()
	last := m.taken.Load()
	if now.UnixNano()-last < int64(exemplarEvery) || !fits(rolloutID) || !m.taken.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	m.last.Store(&dto.Exemplar{
		Label:     []*dto.LabelPair{{Name: proto.String(exemplarLabel), Value: proto.String(rolloutID)}},
		Value:     proto.Float64(took.Seconds()),
		Timestamp: timestamppb.New(now),
	})
}

// Describe implements prometheus.Collector.
func (p *pair[K]) Describe(to chan<- *prometheus.Desc) { to <- p.total; to <- p.seconds }

// Collect implements prometheus.Collector.
func (p *pair[K]) Collect(to chan<- prometheus.Metric) {
	known := p.members.known.Load()
	if known == nil {
		return
	}
	for _, m := range *known {
		to <- reading{m, p.total, p.seconds, true}
		to <- reading{m, p.total, p.seconds, false}
	}
}

// reading is one of the two series of a member.
type reading struct {
	*member
	total, seconds *prometheus.Desc
	counts         bool // it is the counter
}

// Desc implements prometheus.Metric.
func (r reading) Desc() *prometheus.Desc {
	if r.counts {
		return r.total
	}
	return r.seconds
}

// Write implements prometheus.Metric.
func (r reading) Write(to *dto.Metric) error {
	to.Label = prometheus.MakeLabelPairs(r.Desc(), r.values)
	h := r.read()
	if r.counts {
		to.Counter = &dto.Counter{Value: proto.Float64(float64(h.GetSampleCount()))}
		return nil
	}
	to.Histogram = h
	if e := r.last.Load(); e != nil {
		at := sort.Search(len(h.Bucket), func(i int) bool { return h.Bucket[i].GetUpperBound() >= e.GetValue() })
		if at < len(h.Bucket) {
			h.Bucket[at].Exemplar = e
		}
		h.Exemplars = []*dto.Exemplar{e}
	}
	return nil
}
