package mongobench

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// The test's own program stands in for aglq, whose command would have to be
// built: it knows the one subcommand that the benchmarks start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "store" {
		if err := serve(os.Args[2:]); err != nil {
			slog.Error("serving", "error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(mongotest.Main(m))
}

func serve(args []string) error {
	flags := flag.NewFlagSet("store", flag.ContinueOnError)
	host, port := flags.String("host", "", ""), flags.String("port", "", "")
	uri, database := flags.String("mongo-uri", "", ""), flags.String("mongo-database", "", "")
	flags.String("backend", "", "")
	flags.String("log-level", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.DiscardHandler)
	backend, err := mongo.Open(ctx, mongo.Options{URI: *uri, Database: *database, Logger: log})
	if err != nil {
		return err
	}
	s := store.New(backend, store.Options{ScanInterval: time.Second, ScanDebounce: time.Second, Logger: log})
	listener, err := net.Listen("tcp", net.JoinHostPort(*host, *port))
	if err != nil {
		return err
	}
	if err := httpapi.New(s, httpapi.Options{Logger: log}).Serve(ctx, listener); err != nil {
		return err
	}
	return s.Close(context.Background())
}

func TestBenchmarks(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		URI: mongotest.URI(t), PIDs: []int{os.Getpid()}, Aglq: self, Rounds: 1, Duration: 100 * time.Millisecond, Claimers: []int{3}, Stores: []int{2},
		Workers: 2, Rollouts: 10, Samples: 2, IdleWorkers: 4, IdleFor: 500 * time.Millisecond, Posts: 4,
	}
	for _, b := range Benchmarks {
		t.Run(b.Name, func(t *testing.T) {
			table, err := Run(t.Context(), b, o)
			if err != nil {
				t.Fatal(err)
			}
			check(t, table)
			var text bytes.Buffer
			if err := table.WriteText(&text); err != nil || strings.Count(text.String(), "\n") < 3 {
				t.Errorf("%q, %v", text.String(), err)
			}
			if _, err := json.Marshal(table); err != nil {
				t.Error(err)
			}
		})
	}
}

// check wants that something was measured in every row.
func check(t *testing.T, table Table) {
	t.Helper()
	measured := func(samples ...Sample) {
		t.Helper()
		for i, s := range samples {
			if len(s.Rates) != 1 || s.Median <= 0 {
				t.Errorf("sample %d is %+v", i, s)
			}
		}
	}
	switch table := table.(type) {
	case *ClaimsTable:
		for _, r := range table.Rows {
			measured(r.Aglq, r.Bare)
			if r.Ratio <= 0 || r.P50 <= 0 {
				t.Errorf("%d workers: %+v", r.Workers, r)
			}
		}
	case *SpansTable:
		for _, r := range table.Rows {
			measured(r.Aglq, r.Bare)
		}
	case *StoresTable:
		for _, r := range table.Rows {
			measured(r.Claims, r.HTTP, r.Life)
		}
	case *WakeupsTable:
		for _, r := range table.Rows {
			if r.Times.Count != 2 || r.Times.P50 <= 0 {
				t.Errorf("%+v", r)
			}
		}
	case *IdleTable:
		if len(table.Rows) != 3 || table.Rows[1].Workers != 4 {
			t.Errorf("%+v", table.Rows)
		}
	case *ContentionTable:
		for _, r := range table.Rows {
			measured(r.Posts)
		}
	case *LifeTable:
		for _, r := range table.Rows {
			measured(r.Lives)
		}
	default:
		t.Errorf("there is a %T that nothing checks", table)
	}
}

func TestSampleTakesMedians(t *testing.T) {
	var s Sample
	for _, rate := range []float64{5, 1, 3} {
		s.add(rate, benchmarks.Latency{P50: 2 * rate, P99: 4 * rate}, counters{committed: 10, aborted: 1})
	}
	if s.Median != 3 || s.P50 != 6 || s.P99 != 12 || s.Committed != 30 || s.Aborted != 3 || s.spread() != "1-5" {
		t.Errorf("%+v", s)
	}
}
