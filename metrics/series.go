package metrics

import (
	"math"
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

// epoch makes readings of the monotonic clock alone, which cost half of those of
// both clocks.
var epoch = time.Now()

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
	taken atomic.Int64 // when the last exemplar was, by the clock of epoch
}

func (t *traced) observe(v float64, rolloutID string) {
	now := int64(time.Since(epoch)) + 1
	last := t.taken.Load()
	if last != 0 && now-last < int64(exemplarEvery) || !fits(rolloutID) || !t.taken.CompareAndSwap(last, now) {
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

// noLabels are the labels of a series that has none.
type noLabels struct{}

func (noLabels) values() []string { return nil }

// timers are histograms of time by their labels and, for the reference's events,
// the counters besides, both made of one timer when they are scraped.
type timers[K labels] struct {
	members        series[K, *member]
	bounds         []float64
	total, seconds *prometheus.Desc // total is nil for none

	event   *eventDefinition // nil for what the console does not show
	console *console
}

// member is the timer of one set of labels.
type member struct {
	timer
	values []string
	last   atomic.Pointer[dto.Exemplar]
	taken  atomic.Int64 // when last was, by the clock of epoch
}

// newTimers is for a histogram of aglq's own.
func newTimers[K labels](r *Recorder, d *Definition) *timers[K] {
	t := &timers[K]{seconds: describe(d), bounds: d.Buckets}
	t.members.open = func(k K) *member { return &member{values: k.values()} }
	r.registry.MustRegister(t)
	return t
}

// newEvents is for one of the reference's events.
func newEvents[K labels](r *Recorder, e *eventDefinition) *timers[K] {
	t := &timers[K]{total: describe(e.total), seconds: describe(e.seconds), bounds: e.seconds.Buckets, event: e, console: r.console}
	t.members.open = func(k K) *member { return &member{values: k.values()} }
	r.registry.MustRegister(t)
	return t
}

// record counts an event.
func (t *timers[K]) record(k K, took time.Duration) { t.add(t.members.of(k), took) }

// recordFor is record for an event of one rollout, which may become its exemplar.
func (t *timers[K]) recordFor(k K, took time.Duration, rolloutID string) {
	m := t.members.of(k)
	t.add(m, took)
	now := int64(time.Since(epoch)) + 1
	last := m.taken.Load()
	if last != 0 && now-last < int64(exemplarEvery) || !fits(rolloutID) || !m.taken.CompareAndSwap(last, now) {
		return
	}
	m.last.Store(&dto.Exemplar{
		Label:     []*dto.LabelPair{{Name: proto.String(exemplarLabel), Value: proto.String(rolloutID)}},
		Value:     proto.Float64(took.Seconds()),
		Timestamp: timestamppb.Now(),
	})
}

// add counts an event of a member.
func (t *timers[K]) add(m *member, took time.Duration) {
	m.observe(took)
	if t.console != nil {
		t.console.record(t.event, took.Seconds(), m.values)
	}
}

// Describe implements prometheus.Collector.
func (t *timers[K]) Describe(to chan<- *prometheus.Desc) {
	if t.total != nil {
		to <- t.total
	}
	to <- t.seconds
}

// Collect implements prometheus.Collector.
func (t *timers[K]) Collect(to chan<- prometheus.Metric) {
	known := t.members.known.Load()
	if known == nil {
		return
	}
	for _, m := range *known {
		h := m.read(t.bounds)
		if t.total != nil {
			to <- reading{t.total, m, h, true}
		}
		to <- reading{t.seconds, m, h, false}
	}
}

// reading is one series of a member at the time of a scrape.
type reading struct {
	desc      *prometheus.Desc
	member    *member
	histogram *dto.Histogram
	counter   bool // of the events of the histogram
}

// Desc implements prometheus.Metric.
func (r reading) Desc() *prometheus.Desc { return r.desc }

// Write implements prometheus.Metric.
func (r reading) Write(to *dto.Metric) error {
	to.Label = prometheus.MakeLabelPairs(r.desc, r.member.values)
	if r.counter {
		to.Counter = &dto.Counter{Value: proto.Float64(float64(r.histogram.GetSampleCount()))}
		return nil
	}
	to.Histogram = r.histogram
	if e := r.member.last.Load(); e != nil {
		buckets := to.Histogram.Bucket
		at := sort.Search(len(buckets), func(i int) bool { return buckets[i].GetUpperBound() >= e.GetValue() })
		if at == len(buckets) {
			// Of what is above all bounds there is a bucket only to hold it.
			to.Histogram.Bucket = append(buckets, &dto.Bucket{
				UpperBound: proto.Float64(math.Inf(1)), CumulativeCount: to.Histogram.SampleCount, Exemplar: e,
			})
		} else {
			buckets[at].Exemplar = e
		}
		to.Histogram.Exemplars = []*dto.Exemplar{e}
	}
	return nil
}
