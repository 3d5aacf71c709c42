package metrics

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table of series in docs/metrics.md anew")

// TestDocument keeps the table in docs/metrics.md what is defined.
func TestDocument(t *testing.T) {
	const path, begin, end = "../docs/metrics.md", "<!-- series -->\n", "<!-- end of series -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place between %q and %q", path, begin, end)
	}
	want := tables()
	if *update {
		got = want
		if err := os.WriteFile(path, []byte(before+begin+got+end+after), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the tables are not metrics.Definitions; run go test ./metrics -run TestDocument -update (-definitions +file):\n%s", diff)
	}
}

// tables are one for each side.
func tables() string {
	var out strings.Builder
	for _, side := range []struct {
		side  Side
		title string
	}{{StoreSide, "The store"}, {WorkerSide, "Workers"}, {AlgorithmSide, "Algorithms"}, {LLMSide, "The LLM proxy"}} {
		fmt.Fprintf(&out, "### %s\n\n| series | kind | labels | meaning |\n|---|---|---|---|\n", side.title)
		for _, d := range Definitions() {
			if d.Side == side.side {
				fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", d.Name, d.Kind, strings.Join(d.Labels, ", "), d.Meaning)
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}
