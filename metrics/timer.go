package metrics

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// timer is a histogram of durations for the hottest paths: a store in memory
// answers a request in thirty microseconds, of which metrics may take a
// fiftieth, and an observation of the library's histogram takes a tenth of that.
// It counts in cells between the bounds of both kinds of buckets, so that an
// observation is two additions, and makes the buckets of them when it is read.
type timer struct {
	cells [maxCells]atomic.Uint64
	nanos atomic.Int64 // the sum of all
}

// Native buckets of this schema grow by 2^(1/8), about a tenth. Everything up to
// the first bound is the zero bucket; what is above the last is in it too.
const (
	nativeSchema = 3
	nativeFirst  = -23 << nativeSchema // 2^-23 s, about 0.12 µs
	nativeLast   = 14 << nativeSchema  // 2^14 s, over four hours
	maxCells     = 360
)

// cellTable says which cell a duration belongs to and which buckets a cell.
type cellTable struct {
	bounds []int64 // nanoseconds, inclusive upper bounds of the cells
	native []int   // the index of the native bucket, nativeFirst for the zero one
	// start is the first cell to look at by the leading bits of a duration.
	start [64 * 16]uint16
}

var cells = newCellTable()

func newCellTable() *cellTable {
	t := &cellTable{}
	for _, bound := range slices.Concat(Buckets, longBuckets) {
		t.bounds = append(t.bounds, nanosOf(bound))
	}
	for i := nativeFirst; i <= nativeLast; i++ {
		t.bounds = append(t.bounds, nanosOf(nativeBound(i)))
	}
	t.bounds = append(t.bounds, math.MaxInt64)
	slices.Sort(t.bounds)
	t.bounds = slices.Compact(t.bounds)
	for _, bound := range t.bounds {
		t.native = append(t.native, min(nativeLast, nativeFirst+
			firstAtLeast(nativeLast-nativeFirst, func(i int) int64 { return nanosOf(nativeBound(nativeFirst + i)) }, bound)))
	}
	for i := range t.start {
		at, _ := slices.BinarySearch(t.bounds, leastOf(i))
		t.start[i] = uint16(min(at, len(t.bounds)-1))
	}
	return t
}

// nanosOf rounds a bound so that a duration in nanoseconds is below it exactly
// when its seconds are.
func nanosOf(seconds float64) int64 { return int64(math.Floor(seconds*1e9 + 1e-6)) }

func nativeBound(index int) float64 { return math.Exp2(float64(index) / (1 << nativeSchema)) }

// firstAtLeast is the first of n ascending bounds that is at least v, n for none.
func firstAtLeast(n int, bound func(int) int64, v int64) int {
	for i := range n {
		if bound(i) >= v {
			return i
		}
	}
	return n
}

// slot is the place of a positive duration in start: its length in bits, and the
// four bits after the leading one.
func slot(nanos int64) int {
	n := bits.Len64(uint64(nanos))
	return (n-1)<<4 | int(uint64(nanos)<<(64-n)>>59&15)
}

// leastOf is the least duration of a slot.
func leastOf(slot int) int64 {
	least := (uint64(16+slot&15) << 59 >> (63 - slot>>4))
	return int64(min(least, math.MaxInt64))
}

func (t *cellTable) cell(nanos int64) int {
	if nanos <= 0 {
		return 0
	}
	at := int(t.start[slot(nanos)])
	for t.bounds[at] < nanos {
		at++
	}
	return at
}

func (t *timer) observe(took time.Duration) {
	t.cells[cells.cell(int64(took))].Add(1)
	t.nanos.Add(max(0, int64(took)))
}

// read makes a histogram of the cells, with the classic bounds given: Buckets or
// longBuckets.
func (t *timer) read(bounds []float64) *dto.Histogram {
	h := &dto.Histogram{Schema: proto.Int32(nativeSchema), ZeroThreshold: proto.Float64(nativeBound(nativeFirst))}
	var native [nativeLast - nativeFirst + 1]int64
	total, next := uint64(0), 0
	for i, bound := range cells.bounds {
		if n := t.cells[i].Load(); n > 0 {
			total += n
			native[cells.native[i]-nativeFirst] += int64(n)
		}
		if next < len(bounds) && bound == nanosOf(bounds[next]) {
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(bounds[next]), CumulativeCount: proto.Uint64(total)})
			next++
		}
	}
	h.SampleCount = proto.Uint64(total)
	h.SampleSum = proto.Float64(time.Duration(t.nanos.Load()).Seconds())
	h.ZeroCount = proto.Uint64(uint64(native[0]))
	h.PositiveSpan, h.PositiveDelta = spansOf(native[1:], nativeFirst+1)
	return h
}

// spansOf writes native buckets as runs of those that are not empty, each count
// as the difference from the one before.
func spansOf(counts []int64, first int) (spans []*dto.BucketSpan, deltas []int64) {
	before, next := int64(0), 0
	for i, n := range counts {
		if n == 0 {
			continue
		}
		index := first + i
		if len(spans) > 0 && index == next {
			*spans[len(spans)-1].Length++
		} else {
			spans = append(spans, &dto.BucketSpan{Offset: proto.Int32(int32(index - next)), Length: proto.Uint32(1)})
		}
		deltas = append(deltas, n-before)
		before, next = n, index+1
	}
	if len(spans) == 0 {
		// An empty span tells a native histogram without events from a classic one.
		spans = []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}}
	}
	return spans, deltas
}
