package verify

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/mongo/mongod"
)

// aglq is the program under test, built by the first test that needs it.
var aglq string

// tests runs the tests and removes the program.
type tests struct{ m *testing.M }

func (r tests) Run() int {
	dir, err := os.MkdirTemp("", "aglq-verify-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	aglq = filepath.Join(dir, "aglq")
	if out, err := exec.Command("go", "build", "-o", aglq, "../../cmd/aglq").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building aglq: %v\n%s", err, out)
		return 1
	}
	return r.m.Run()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// verifyShortly runs everything once, with every fault that is possible.
func verifyShortly(t *testing.T, o Options) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	o.Command, o.Clients, o.Seed = []string{aglq}, 24, 7
	o.Settle, o.Logger = time.Minute, slog.New(slog.DiscardHandler)
	o.Faults = o.Possible()
	h, err := Run(ctx, o, &Progress{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "history")
	if err := h.Write(path); err != nil {
		t.Fatal(err)
	}
	if h, err = ReadHistory(path); err != nil {
		t.Fatal(err)
	}
	r, err := Check(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if len(r.Violations) > 0 {
		t.Error("there are violations")
	}
	for _, op := range Operations {
		if r.Calls[op][Ok] == 0 {
			t.Errorf("the traffic has no %s", op)
		}
	}
	if len(r.Faults) < 3 || r.Rollouts == 0 {
		t.Errorf("only %d kinds of fault were injected, on %d rollouts", len(r.Faults), r.Rollouts)
	}
	return r
}

func TestMemory(t *testing.T) {
	verifyShortly(t, Options{Backend: "memory", Stores: 1, Duration: 7 * time.Second})
}

func TestMongo(t *testing.T) {
	if mongod.Find() == "" {
		t.Fatal("there is no mongod to verify with; " + mongod.HowTo)
	}
	verifyShortly(t, Options{Backend: "mongo", Stores: 2, Members: 1, Duration: 10 * time.Second})
}

// TestRefusesWorkOfOthers leaves a store alone that has rollouts in its queue.
func TestRefusesWorkOfOthers(t *testing.T) {
	d, err := deploy(t.Context(), Options{Command: []string{aglq}, Backend: "memory", Stores: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	c := newCaller("other", dial(d.direct, ""), newNotebook(), 1)
	if _, err := c.enqueue(t.Context(), []Task{{Mark: "other", Plan: Plan{MaxAttempts: 1}}}); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.stores {
		s.Close()
	}
	o := Options{Command: []string{aglq}, URLs: d.direct, Duration: time.Second, Settle: time.Second, Clients: 8}
	if _, err := Run(t.Context(), o, &Progress{}); err == nil || !strings.Contains(err.Error(), "have not ended") {
		t.Errorf("it runs: %v", err)
	}
}

// TestRunningStores verifies stores that it has not started.
func TestRunningStores(t *testing.T) {
	d, err := deploy(t.Context(), Options{Command: []string{aglq}, Backend: "memory", Stores: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	verifyShortly(t, Options{URLs: d.direct, Duration: 5 * time.Second})
}
