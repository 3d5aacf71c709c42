// Package docs_test holds the documents to what they describe.
package docs_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/worker"
)

var update = flag.Bool("update", false, "write the table of variables in docs/agents.md anew")

// documents are all that are read by people.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../README.md", "*.md", "../examples/*/README.md", "../benchmarks/README.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("no document matches %s: %v", pattern, err)
		}
		for _, path := range paths {
			texts[path] = read(t, path)
		}
	}
	return texts
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestVariables keeps the table in agents.md what package worker says.
func TestVariables(t *testing.T) {
	const path, begin, end = "agents.md", "<!-- variables -->\n", "<!-- end of variables -->\n"
	var want strings.Builder
	want.WriteString("| variable | what it holds |\n|---|---|\n")
	for _, v := range worker.Variables {
		fmt.Fprintf(&want, "| `%s` | %s |\n", v.Name, v.Meaning)
	}
	text := read(t, path)
	before, rest, ok := strings.Cut(text, begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place between %q and %q", path, begin, end)
	}
	if *update {
		got = want.String()
		if err := os.WriteFile(path, []byte(before+begin+got+end+after), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("the table is not worker.Variables; run go test ./docs -update (-worker +table):\n%s", diff)
	}
}

var snippet = regexp.MustCompile("(?s)<!-- from ([^ ]+) -->\n```[a-z]*\n(.*?)```\n")

// TestSnippets finds every snippet that names a file in that file, as it stands.
func TestSnippets(t *testing.T) {
	found := 0
	for path, text := range documents(t) {
		for _, m := range snippet.FindAllStringSubmatch(text, -1) {
			found++
			if !strings.Contains(read(t, filepath.Join("..", m[1])), m[2]) {
				t.Errorf("%s: a snippet from %s is not there:\n%s", path, m[1], m[2])
			}
		}
	}
	if found == 0 {
		t.Error("no document has a snippet from a file")
	}
}

var link = regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`)

func TestLinks(t *testing.T) {
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

var moduleLine = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// TestDependencies compares the table with the packages that ours import.
func TestDependencies(t *testing.T) {
	const format = `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", format, "github.com/aglq/aglq/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	required := read(t, "../go.mod")
	used := map[string]bool{}
	for _, m := range moduleLine.FindAllStringSubmatch(read(t, "dependencies.md"), -1) {
		used[m[1]] = strings.Contains(required, "tool "+m[1]+"/") // a tool is imported by nothing
		if !strings.Contains(required, m[1]+" v") {
			t.Errorf("dependencies.md lists %s, which go.mod does not require", m[1])
		}
	}
	for path := range strings.FieldsSeq(string(out)) {
		host, _, _ := strings.Cut(path, "/")
		if !strings.Contains(host, ".") || strings.HasPrefix(path, "github.com/aglq/aglq/") {
			continue
		}
		if module := moduleOf(path, used); module != "" {
			used[module] = true
		} else {
			t.Errorf("dependencies.md has no line for the module of %s", path)
		}
	}
	for module, is := range used {
		if !is {
			t.Errorf("dependencies.md lists %s, which nothing imports", module)
		}
	}
}

func moduleOf(path string, modules map[string]bool) string {
	for module := range modules {
		if path == module || strings.HasPrefix(path, module+"/") {
			return module
		}
	}
	return ""
}
