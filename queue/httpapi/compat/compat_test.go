// Package compat runs the reference's own Python parts, its client, runner,
// tracer and trainer, and stock OpenTelemetry exporters, against aglq store on
// both backends. What they do is in python/; each of their tests becomes a
// subtest here.
package compat

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/internal/pyenv"
)

const repository = "../../.."

func TestMain(m *testing.M) { os.Exit(mongotest.Main(m)) }

func TestReferenceOnMemory(t *testing.T) {
	t.Parallel()
	tryReference(t, "--backend", "memory")
}

func TestReferenceOnMongo(t *testing.T) {
	t.Parallel()
	tryReference(t, "--backend", "mongo", "--mongo-uri", mongotest.URI(t), "--mongo-database", mongotest.Database(t))
}

// tryReference starts a store, runs every Python test against it, and reports
// each under its name.
func tryReference(t *testing.T, backend ...string) {
	python := pyenv.Python(t, "compat")
	command := []string{buildAglq(t), "store", "--host", "127.0.0.1", "--port", "{port}", "--scan-debounce", "0"}
	server, err := benchmarks.StartServer(t.Context(), append(command, backend...), "/v1/agl/health")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()

	report := filepath.Join(t.TempDir(), "report.xml")
	pytest := exec.CommandContext(t.Context(), python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", report, ".")
	pytest.Dir = "python"
	pytest.Env = append(os.Environ(), "AGLQ_COMPAT_URL="+server.URL, "AGLQ_COMPAT_LLM="+startLLMProxy(t, server.URL), "PYTHONDONTWRITEBYTECODE=1")
	pytest.WaitDelay = 10 * time.Second
	out, runErr := pytest.CombinedOutput()

	cases, err := readReport(report)
	if err != nil {
		t.Fatalf("pytest left no report (%v, %v):\n%s", err, runErr, out)
	}
	failed := false
	for _, c := range cases {
		t.Run(strings.TrimPrefix(c.Class, "test_")+"."+c.Name, func(t *testing.T) {
			if c.Skipped != nil {
				t.Fatal("skipped, though every test applies to aglq")
			}
			for _, problem := range append(c.Failures, c.Errors...) {
				failed = true
				t.Errorf("%s\n%s", problem.Message, problem.Text)
			}
		})
	}
	if runErr != nil && !failed {
		t.Errorf("pytest failed: %v\n%s", runErr, out)
	}
	if len(cases) == 0 {
		t.Error("pytest ran no test")
	}
}

// testCase is one test in pytest's report.
type testCase struct {
	Class    string    `xml:"classname,attr"`
	Name     string    `xml:"name,attr"`
	Failures []problem `xml:"failure"`
	Errors   []problem `xml:"error"`
	Skipped  *problem  `xml:"skipped"`
}

type problem struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func readReport(path string) ([]testCase, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var report struct {
		Suites []struct {
			Cases []testCase `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var cases []testCase
	for _, s := range report.Suites {
		cases = append(cases, s.Cases...)
	}
	return cases, nil
}

func buildAglq(t *testing.T) string {
	binary := filepath.Join(t.TempDir(), "aglq")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, repository+"/cmd/aglq").CombinedOutput(); err != nil {
		t.Fatalf("building aglq: %v\n%s", err, out)
	}
	return binary
}
