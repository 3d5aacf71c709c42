package benchmarks

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// startStore serves a store on memory until the test ends.
func startStore(t *testing.T) (url string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: log}), store.Options{Logger: log})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- httpapi.New(s, httpapi.Options{Logger: log}).Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

func TestLifecycleOnAStore(t *testing.T) {
	for _, otlp := range []bool{false, true} {
		url, record := startStore(t), &Record{}
		report, err := Lifecycle(t.Context(), LifecycleOptions{URL: url, Rollouts: 120, Workers: 4, Batch: 25, OTLP: otlp, Record: record})
		if err != nil {
			t.Fatalf("otlp %v: %v", otlp, err)
		}
		if len(report.Calls) != 6 || len(record.Answers) != 6 {
			t.Errorf("otlp %v: %d kinds of calls, %d recorded; want 6", otlp, len(report.Calls), len(record.Answers))
		}
	}
}

func TestGrowthOnAStore(t *testing.T) {
	report, err := Growth(t.Context(), GrowthOptions{URL: startStore(t), Queued: 40, Spans: 3000, Samples: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Empty) != 5 || len(report.Full) != 5 || report.Full[0].Count != 10 {
		t.Errorf("report %+v lacks calls", report)
	}
}
