package compare

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/benchmarks/scenario"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// The test's own program is the stores that are compared: AGLQ_COMPARE says
// which.
func TestMain(m *testing.M) {
	if kind := os.Getenv("AGLQ_COMPARE"); kind != "" {
		if err := serve(kind, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve serves a store on memory, one that hands each rollout out twice, or a
// ceiling, until it is told to end.
func serve(kind string, args []string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:"+args[0])
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: log}), store.Options{Logger: log})
	var handler http.Handler = httpapi.New(s, httpapi.Options{Logger: log})
	switch good := handler; kind {
	case "doubling":
		handler = doubling(good)
	case "ceiling":
		record, err := benchmarks.ReadRecord(args[1])
		if err != nil {
			return err
		}
		handler = benchmarks.Ceiling(record)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: handler}
	context.AfterFunc(ctx, func() { server.Close() })
	_ = server.Serve(listener)
	return s.Close(context.Background())
}

// doubling answers every claim with the first one's rollout.
func doubling(h http.Handler) http.Handler {
	var first []byte
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/dequeue") {
			h.ServeHTTP(w, r)
			return
		}
		if first == nil {
			kept := &keeper{ResponseWriter: w}
			h.ServeHTTP(kept, r)
			if bytes.Contains(kept.body, []byte("attempt_id")) {
				first = kept.body
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(first)
	})
}

type keeper struct {
	http.ResponseWriter
	body []byte
}

func (k *keeper) Write(p []byte) (int, error) {
	k.body = append(k.body, p...)
	return k.ResponseWriter.Write(p)
}

func (k *keeper) Unwrap() http.ResponseWriter { return k.ResponseWriter }

// command is the line that starts such a store.
func command(t *testing.T, kind string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("AGLQ_COMPARE=%s exec '%s' {port}", kind, self)
}

func TestRunComparesLives(t *testing.T) {
	result, err := Run(t.Context(), Options{
		Reference: command(t, "store"), Candidate: command(t, "store"), Rounds: 2, Spans: []string{"otlp"}, ReferenceRollouts: 40,
		Ceiling: []string{"sh", "-c", command(t, "ceiling") + " {record}"}, Load: benchmarks.LifecycleOptions{Rollouts: 60, Workers: 2, Batch: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	var stores []string
	for _, r := range result.Rows {
		stores = append(stores, r.Store)
		if len(r.Rates) != 2 || r.Median <= 0 || r.OfReference <= 0 || r.OfCeiling <= 0 || r.PeakRSS <= 0 || len(r.Timeline) == 0 {
			t.Errorf("%s: %+v", r.Store, r)
		}
	}
	if diff := cmp.Diff([]string{"reference", "candidate", "ceiling"}, stores); diff != "" {
		t.Errorf("stores (-want +got):\n%s", diff)
	}
	var text bytes.Buffer
	if err := result.WriteText(&text); err != nil || !strings.Contains(text.String(), "lives, spans as otlp") {
		t.Errorf("text %q, error %v", text.String(), err)
	}
}

func TestRunComparesScenarios(t *testing.T) {
	result, err := Run(t.Context(), Options{Candidate: command(t, "store"), Rounds: 1, Scenario: &scenario.Options{
		Mode: scenario.Batch, Client: scenario.Native, TotalTasks: 10, BatchSize: 5, Runners: 2, MaxRounds: 1, Sleep: time.Millisecond,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r := result.Rows[0]; len(result.Rows) != 1 || r.OfCeiling <= 0 || r.OfReference != 0 || r.RSSPerRollout <= 0 {
		t.Errorf("%+v", r)
	}
	var text bytes.Buffer
	if err := result.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), "one round; ") || strings.Contains(text.String(), "0.00x") {
		t.Errorf("text %q, error %v", text.String(), err)
	}
}

func TestRunFailsOnADoubledRollout(t *testing.T) {
	o := Options{Candidate: command(t, "doubling"), Rounds: 1, Spans: []string{"otlp"}, Load: benchmarks.LifecycleOptions{Workers: 1}}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "candidate, otlp: rollout ro-") {
		t.Errorf("error is %v, want one about a rollout that came twice", err)
	}
	o.Candidate = "echo no store here >&2; exit 3"
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no store here") {
		t.Errorf("error is %v, want the store's own words", err)
	}
}

func TestRelate(t *testing.T) {
	run := &comparison{}
	for i, store := range []string{reference, candidate, ceiling} {
		for round := range 3 {
			memory := []int64{100, 50, 1}[i]
			rate := [][]float64{{10, 30, 20}, {300, 100, 200}, {400, 400, 400}}[i][round]
			run.row(store, "w").add(rate, 10, benchmarks.Cost{CPUSeconds: []float64{2, 1, 0}[i], DatabaseCPUSeconds: []float64{2, 1, 0}[i]}, memory, 5)
		}
	}
	row := run.relate()[1]
	got := []float64{row.Median, row.OfReference, row.OfCeiling, row.CPU, row.CPUOf, row.RSSOf, row.RSSPerRollout}
	if diff := cmp.Diff([]float64{200, 10, 0.5, 100, 0.5, 0.5, 0.01}, got); diff != "" {
		t.Errorf("median, of reference, of ceiling, CPU, of reference, RSS of reference, a rollout (-want +got):\n%s", diff)
	}
}
