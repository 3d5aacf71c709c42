package groupcommit

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
)

// BenchmarkGroupAlone is a caller for whom group commit is of no use.
func BenchmarkGroupAlone(b *testing.B) {
	g := lane(func([]*Call[int]) {})
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Do(context.Background(), 1); err != nil {
			b.Fatal(err)
		}
	}
	g.Wait()
}

// BenchmarkGroup64 is 64 callers at a time on each processor, whose calls gather.
func BenchmarkGroup64(b *testing.B) {
	var commits atomic.Int64
	g := lane(func([]*Call[int]) {
		commits.Add(1)
		runtime.Gosched() // as a commit that waits for a database lets others run
	})
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := g.Do(context.Background(), 1); err != nil {
				b.Error(err)
				return
			}
		}
	})
	g.Wait()
	b.ReportMetric(float64(b.N)/float64(commits.Load()), "calls/commit")
}
