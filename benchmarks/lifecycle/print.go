package main

import (
	"encoding/json"
	"io"
	"os"

	"github.com/urfave/cli/v3"
)

// print writes a report as text, or as JSON when --json asks for it.
func print(c *cli.Command, report interface{ WriteText(io.Writer) error }) error {
	if !c.Bool("json") {
		return report.WriteText(os.Stdout)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(report)
}
