package micro

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startStore(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: log}), store.Options{Logger: log})
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: log}))
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server.URL
}

var line = regexp.MustCompile(`^\[summary\] mode=[a-z-]+ success_rate=1\.000 throughput=\d+\.\d{3} ops/s duration=\d+\.\d{3}s success=(\d+)/(\d+)$`)

func TestModes(t *testing.T) {
	for _, m := range Modes {
		for _, kept := range []bool{false, true} {
			scale := 0.01
			if m.operate == nil {
				scale = 0.0001
			}
			result, err := Run(t.Context(), m, Options{StoreURL: startStore(t), Kept: kept, Scale: scale})
			if err != nil {
				t.Fatalf("%s: %v", m.Name, err)
			}
			if got := line.FindStringSubmatch(result.Line()); got == nil || got[1] != got[2] {
				t.Errorf("%s, kept %v: %s: %s", m.Name, kept, result.Line(), result.Failure)
			}
			if want := int(float64(m.Operations)*scale + 0.5); result.Operations != want {
				t.Errorf("%s: %d operations, want %d", m.Name, result.Operations, want)
			}
		}
	}
}

func TestFailuresAreCounted(t *testing.T) {
	url := startStore(t)
	for _, m := range Modes {
		if m.Name != "dequeue-only" {
			continue
		}
		m.prepare = nil // an empty queue
		result, err := Run(t.Context(), m, Options{StoreURL: url, Scale: 0.002})
		if err != nil {
			t.Fatal(err)
		}
		if result.Successes != 0 || !strings.Contains(result.Failure, "empty") {
			t.Errorf("%+v", result)
		}
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	result, err := Run(t.Context(), Modes[0], Options{StoreURL: server.URL, Scale: 0.002})
	if err != nil || result.SuccessRate() != 0 {
		t.Errorf("%+v, %v", result, err)
	}
}
