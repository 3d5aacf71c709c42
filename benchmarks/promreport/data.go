package promreport

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// sample is a value at a time, in Unix seconds.
type sample struct{ at, value float64 }

// series is one time series, in the order of time.
type series struct {
	labels  map[string]string
	samples []sample
}

// data are the series of a stretch of time, by name.
type data struct {
	start, end float64
	series     map[string][]*series
	looks      []float64 // when it was looked, in order; a series may begin later
}

func (d *data) seconds() float64 { return d.end - d.start }

// increase is what a counter gained from one time to another. A counter that is
// first seen after began began at 0.
func (s *series) increase(began, from, to float64) float64 {
	sum, last, first := 0.0, 0.0, true
	for _, p := range s.samples {
		if first {
			first = false
			// One that is there at the beginning of all brings a past.
			if p.at <= began+slack {
				last = p.value
				continue
			}
		}
		gain := p.value - last
		if gain < 0 { // reset
			gain = p.value
		}
		last = p.value
		if p.at > from+slack && p.at <= to+slack {
			sum += gain
		}
	}
	return sum
}

// slack is by how much times that mean the same may differ, in seconds.
const slack = 0.01

// group are the series that agree in some labels.
type group struct {
	labels  []string // the values
	count   []*series
	sum     []*series
	buckets []*series
}

// groups collects the three parts of a histogram by labels, in the order of the
// labels' values. Series that lack a label have it empty. Outer leaves out the
// calls that calls of the store make.
func (d *data) groups(histogram string, by []string, outer bool) []*group {
	all := map[string]*group{}
	at := func(s *series) *group {
		values := make([]string, len(by))
		for i, label := range by {
			values[i] = s.labels[label]
		}
		key := strings.Join(values, "\x00")
		if all[key] == nil {
			all[key] = &group{labels: values}
		}
		return all[key]
	}
	each := func(part string, add func(*group, *series)) {
		for _, s := range d.series[histogram+part] {
			if !outer || outermost(s.labels) {
				add(at(s), s)
			}
		}
	}
	each("_count", func(g *group, s *series) { g.count = append(g.count, s) })
	each("_sum", func(g *group, s *series) { g.sum = append(g.sum, s) })
	each("_bucket", func(g *group, s *series) { g.buckets = append(g.buckets, s) })
	out := make([]*group, 0, len(all))
	for _, g := range all {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *group) int { return slices.Compare(a.labels, b.labels) })
	return out
}

// outermost tells a call of the store from those that it makes on the way.
func outermost(labels map[string]string) bool { return labels["method"] == labels["store_pubmeth"] }

func increaseOf(list []*series, began, from, to float64) (sum float64) {
	for _, s := range list {
		sum += s.increase(began, from, to)
	}
	return sum
}

// rates are the least and the greatest rate between two looks, of all series
// together.
func (d *data) rates(list []*series) (least, greatest float64) {
	for i := 1; i < len(d.looks); i++ {
		rate := increaseOf(list, d.start, d.looks[i-1], d.looks[i]) / (d.looks[i] - d.looks[i-1])
		if i == 1 {
			least = rate
		}
		least, greatest = min(least, rate), max(greatest, rate)
	}
	return least, greatest
}

// distribution is what a histogram gained, by its buckets' upper bounds.
type distribution struct {
	bounds []float64
	counts []float64 // up to the bound, cumulated
}

func (d *data) distribution(buckets []*series) distribution {
	byBound := map[float64]float64{}
	for _, s := range buckets {
		bound, err := strconv.ParseFloat(s.labels["le"], 64)
		if err != nil {
			continue // no bucket of a histogram
		}
		byBound[bound] += s.increase(d.start, d.start, d.end)
	}
	var out distribution
	for bound := range byBound {
		out.bounds = append(out.bounds, bound)
	}
	slices.SortFunc(out.bounds, cmp.Compare)
	for _, bound := range out.bounds {
		out.counts = append(out.counts, byBound[bound])
	}
	return out
}

// quantile estimates where a part q of the observations lies below, as
// Prometheus does; NaN without observations.
func (d distribution) quantile(q float64) float64 {
	if len(d.counts) == 0 || d.counts[len(d.counts)-1] <= 0 {
		return math.NaN()
	}
	rank := q * d.counts[len(d.counts)-1]
	i := slices.IndexFunc(d.counts, func(n float64) bool { return n >= rank })
	if math.IsInf(d.bounds[i], 1) { // beyond the last bound, which is all that is known
		return d.bounds[max(i-1, 0)]
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = d.bounds[i-1], d.counts[i-1]
	}
	if d.counts[i] == below {
		return d.bounds[i]
	}
	return low + (d.bounds[i]-low)*(rank-below)/(d.counts[i]-below)
}

// top is the bound below which all observations lie, NaN without any.
func (d distribution) top() float64 {
	if len(d.counts) == 0 || d.counts[len(d.counts)-1] <= 0 {
		return math.NaN()
	}
	all := d.counts[len(d.counts)-1]
	return d.bounds[slices.IndexFunc(d.counts, func(n float64) bool { return n >= all })]
}
