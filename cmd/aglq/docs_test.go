package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v3"
)

var update = flag.Bool("update", false, "write docs/flags.md anew")

// TestFlagsDocument keeps docs/flags.md what the options say of themselves.
func TestFlagsDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "flags.md")
	var want strings.Builder
	want.WriteString("# Commands, options and variables\n\n" +
		"An option goes before its variable, the variable before the default. Times are seconds, or numbers with a unit\n" +
		"(`500ms`, `2m`); sizes are bytes, or numbers with a unit (`512MiB`). Lists take commas, or the option again;\n" +
		"values of `--metadata` and `--tag` keep their commas.\n" +
		"Exit status: 0 done, 1 failed, 2 wrong usage, 130 and 143 ended by SIGINT and SIGTERM.\n\n" +
		"This file is made by `go test ./cmd/aglq -run TestFlagsDocument -update`.\n")
	root := (&app{}).root()
	for _, cmd := range root.Commands {
		document(&want, cmd, "aglq ")
	}
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/flags.md is not what the options say; run this test with -update (-options +file):\n%s", diff)
	}
}

var quoted = regexp.MustCompile("`([^`]*)`")

func document(w *strings.Builder, cmd *cli.Command, parent string) {
	line := strings.TrimSpace(parent + cmd.Name + " [options] " + cmd.ArgsUsage)
	fmt.Fprintf(w, "\n## %s%s\n\n`%s`: %s.\n", parent, cmd.Name, line, cmd.Usage)
	if cmd.Description != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Description)
	}
	if len(cmd.VisibleFlags()) > 0 {
		w.WriteString("\n| option | variable | default | meaning |\n|---|---|---|---|\n")
	}
	for _, f := range cmd.VisibleFlags() {
		d := f.(cli.DocGenerationFlag)
		value := d.GetDefaultText()
		if value == "" {
			value = d.GetValue()
		}
		placeholder := ""
		if m := quoted.FindStringSubmatch(d.GetUsage()); m != nil {
			placeholder = " " + m[1]
		}
		variable := ""
		for _, name := range d.GetEnvVars() {
			variable = "`" + name + "`"
		}
		usage := strings.ReplaceAll(quoted.ReplaceAllString(d.GetUsage(), "$1"), "|", "\\|")
		fmt.Fprintf(w, "| `--%s%s` | %s | %s | %s |\n", f.Names()[0], placeholder, variable, strings.Trim(value, `"`), usage)
	}
	for _, sub := range cmd.Commands {
		if !sub.Hidden {
			document(w, sub, parent+cmd.Name+" ")
		}
	}
}
