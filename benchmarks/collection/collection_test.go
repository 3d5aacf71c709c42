package collection

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo/mongotest"
)

func TestMain(m *testing.M) { os.Exit(mongotest.Main(m)) }

func backends(t *testing.T) map[string]collections.Backend {
	return map[string]collections.Backend{
		"memory": memory.New(memory.Options{Logger: slog.New(slog.DiscardHandler)}),
		"mongo":  mongotest.Open(t),
	}
}

func TestRun(t *testing.T) {
	for _, operation := range Operations {
		for name, backend := range backends(t) {
			s, err := Run(t.Context(), backend, Options{Operation: operation, BackendName: name, TotalTasks: 60, Concurrency: 8})
			if err != nil {
				t.Fatalf("%s on %s: %v", operation, name, err)
			}
			if s.Successes != 60 || s.Failures != 0 || s.SuccessRate != 1 || s.OpsPerWorker != 7.5 || s.Throughput <= 0 || s.P99Latency < s.P50Latency {
				t.Errorf("%s on %s: %+v", operation, name, s)
			}
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var members map[string]any
			if err := json.Unmarshal(text, &members); err != nil {
				t.Fatal(err)
			}
			for _, member := range []string{"backend", "name", "total_tasks", "success_rate", "ops_per_worker", "avg_latency", "p99_latency", "min_latency"} {
				if _, ok := members[member]; !ok {
					t.Errorf("the summary has no %s", member)
				}
			}
		}
	}
}

// deaf loses what it is told.
type deaf struct{ collections.Backend }

func (deaf) Atomic(context.Context, func(collections.Tx) error) error { return nil }

// broken fails.
type broken struct{ collections.Backend }

func (broken) Atomic(context.Context, func(collections.Tx) error) error {
	return errors.New("out of order")
}

func TestRunFindsFaults(t *testing.T) {
	backend := memory.New(memory.Options{Logger: slog.New(slog.DiscardHandler)})
	if _, err := Run(t.Context(), deaf{backend}, Options{Operation: "insert", TotalTasks: 5, Concurrency: 2}); err == nil {
		t.Error("lost rollouts were not noticed")
	}
	s, err := Run(t.Context(), broken{backend}, Options{Operation: "insert", TotalTasks: 5, Concurrency: 2})
	if err != nil || s.Failures != 5 || s.SuccessRate != 0 || s.Failure != "out of order" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Run(t.Context(), backend, Options{Operation: "delete"}); err == nil {
		t.Error("an unknown operation was taken")
	}
}
