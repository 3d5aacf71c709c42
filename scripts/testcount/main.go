// Command testcount reads the output of go test -json, shows the packages and
// what failed, and closes with the plain count: "N passed, N failed". It exits
// with status 1 when anything failed, or when no test ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build, instead of Package
	Test       string
	Output     string
	Elapsed    float64
}

// counter gathers events into counts.
type counter struct {
	out    io.Writer
	output map[string]*strings.Builder // of what has not ended yet, by package and test
	parent map[string]bool             // tests that have subtests: only those count
	// failedIn tells whose failure has been counted already.
	failedIn                map[string]bool
	passed, failed, skipped int
}

func main() {
	c := newCounter(os.Stdout)
	if err := c.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		os.Exit(1)
	}
	fmt.Fprintf(c.out, "%d passed, %d failed", c.passed, c.failed)
	if c.skipped > 0 {
		fmt.Fprintf(c.out, ", %d skipped", c.skipped)
	}
	fmt.Fprintln(c.out)
	if c.failed > 0 || c.passed == 0 {
		os.Exit(1)
	}
}

func newCounter(out io.Writer) *counter {
	return &counter{out: out, output: map[string]*strings.Builder{}, parent: map[string]bool{}, failedIn: map[string]bool{}}
}

func (c *counter) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(c.out, lines.Text()) // not of a test: show it as it is
			continue
		}
		c.take(e)
	}
	return lines.Err()
}

func (c *counter) take(e event) {
	key := e.Package + e.ImportPath + " " + e.Test
	switch e.Action {
	case "start":
	case "run":
		for _, name := range around(e.Test) {
			c.parent[e.Package+" "+name] = true
		}
	case "output", "build-output":
		if c.output[key] == nil {
			c.output[key] = &strings.Builder{}
		}
		c.output[key].WriteString(e.Output)
	case "build-fail":
		fmt.Fprint(c.out, c.text(key))
	case "pass", "fail", "skip":
		c.end(e, key)
	}
}

// end counts a test or a package that is over, and shows it if it failed.
func (c *counter) end(e event, key string) {
	text := c.text(key)
	if e.Test == "" {
		c.endPackage(e, text)
		return
	}
	if e.Action == "fail" {
		fmt.Fprint(c.out, text)
	}
	if c.parent[key] && (e.Action != "fail" || c.failedIn[key]) {
		return
	}
	switch e.Action {
	case "pass":
		c.passed++
	case "skip":
		c.skipped++
	default:
		c.failed++
		c.blame(e)
	}
}

// blame marks everything around a failed test as failed for that reason.
func (c *counter) blame(e event) {
	for _, name := range around(e.Test) {
		c.failedIn[e.Package+" "+name] = true
	}
	c.failedIn[e.Package+" "] = true
}

// around are the names of the tests that a test may be a part of; its own name
// may have slashes too.
func around(test string) (names []string) {
	for i, r := range test {
		if r == '/' {
			names = append(names, test[:i])
		}
	}
	return names
}

func (c *counter) endPackage(e event, text string) {
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
	switch e.Action {
	case "fail":
		// A build, a panic, a leak: no test tells of it. A panic's words are
		// with the tests that were running.
		for _, key := range slices.Sorted(maps.Keys(c.output)) {
			if strings.HasPrefix(key, e.Package+" ") {
				fmt.Fprint(c.out, c.text(key))
			}
		}
		if !c.failedIn[e.Package+" "] {
			fmt.Fprint(c.out, text)
			c.failed++
		}
		fmt.Fprintf(c.out, "FAIL  %s  %s\n", e.Package, took)
	case "pass":
		fmt.Fprintf(c.out, "ok    %s  %s\n", e.Package, took)
	}
}

// text is the output gathered under the key, which is forgotten.
func (c *counter) text(key string) string {
	b := c.output[key]
	if b == nil {
		return ""
	}
	delete(c.output, key)
	return b.String()
}
