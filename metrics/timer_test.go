package metrics

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/testing/protocmp"
)

// TestTimerAgreesWithTheLibrary compares both kinds of buckets with those of the
// library's histogram, for durations of every size and around every bound.
func TestTimerAgreesWithTheLibrary(t *testing.T) {
	library := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "h", Buckets: Buckets, NativeHistogramBucketFactor: nativeFactor,
		NativeHistogramZeroThreshold: nativeBound(nativeFirst),
	})
	var own timer
	observe := func(d time.Duration) {
		own.observe(d)
		library.Observe(float64(d) / 1e9)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		observe(time.Duration(1) << random.IntN(43) * time.Duration(1000+random.IntN(1000)) / 1000)
	}
	for _, bound := range Buckets {
		for _, off := range []time.Duration{-1, 0, 1} {
			observe(time.Duration(nanosOf(bound)) + off)
		}
	}
	for _, d := range []time.Duration{0, 1, 2, 100, 118, 119, 120, 121, 4 * time.Hour} {
		observe(d)
	}
	var m dto.Metric
	if err := library.Write(&m); err != nil {
		t.Fatal(err)
	}
	want, got := m.Histogram, own.read(Buckets)
	// The library sums floats, and notes when it was made.
	if diff := want.GetSampleSum() - got.GetSampleSum(); diff < -1e-3 || diff > 1e-3 {
		t.Errorf("the sum is %g, want %g", got.GetSampleSum(), want.GetSampleSum())
	}
	want.SampleSum, want.CreatedTimestamp, got.SampleSum = nil, nil, nil
	if diff := cmp.Diff(expand(want), expand(got), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// expand writes the native buckets of a histogram by index: there are several
// ways to write runs of them.
func expand(h *dto.Histogram) map[string]any {
	native := map[int32]int64{}
	index, count, next := int32(0), int64(0), 0
	for _, s := range h.PositiveSpan {
		index += s.GetOffset()
		for range s.GetLength() {
			count += h.PositiveDelta[next]
			next++
			if count != 0 {
				native[index] = count
			}
			index++
		}
	}
	return map[string]any{
		"classic": h.Bucket, "native": native, "zero": h.GetZeroCount(), "count": h.GetSampleCount(), "schema": h.GetSchema(),
	}
}

func TestTimerTakesEveryDuration(t *testing.T) {
	var own timer
	for _, d := range []time.Duration{-time.Second, 0, 1<<63 - 1, 100 * time.Hour} {
		own.observe(d)
	}
	h := own.read(Buckets)
	if h.GetSampleCount() != 4 || h.Bucket[0].GetCumulativeCount() != 2 || h.Bucket[len(h.Bucket)-1].GetCumulativeCount() != 2 {
		t.Errorf("%v", h)
	}
	if len(cells.bounds) > maxCells {
		t.Errorf("%d cells, and room for %d", len(cells.bounds), maxCells)
	}
}

func BenchmarkTimer(b *testing.B) {
	var own timer
	d := time.Duration(0)
	for b.Loop() {
		own.observe(d)
		d = (d + 977) % 1_000_000
	}
}

func BenchmarkRecordedCall(b *testing.B) {
	r := New(Options{Prometheus: true})
	s := r.Store(fakeStore{})
	ctx := b.Context()
	for b.Loop() {
		s.AddSpan(ctx, span)
	}
}
