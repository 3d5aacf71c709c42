package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v3"
)

func (a *app) benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", ArgsUsage: "COMMAND", Usage: "measure a store",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if name := cmd.Args().First(); name != "" {
				return unknownCommand(cmd, name)
			}
			return usagef(cmd, "which benchmark? %s", strings.Join(commandNames(cmd), ", "))
		},
		Commands: []*cli.Command{
			a.benchScenarioCommand(), a.benchMicroCommand(), a.benchCollectionCommand(), a.benchCompareCommand(), a.benchMongoCommand(),
			a.benchLifeCommand(), a.benchGrowthCommand(), a.benchExportCommand(), a.benchCeilingCommand(), a.reportCommand(),
		},
	}
}

// outcome is what a benchmark found.
type outcome interface{ WriteText(io.Writer) error }

func figuresFlag() cli.Flag {
	return &cli.StringFlag{Name: "json", Usage: "`FILE` to write the figures to as JSON besides; - is standard output, instead of the text"}
}

// report prints what a benchmark found, as --json asks for it.
func (a *app) showOutcome(cmd *cli.Command, found outcome) error {
	file := cmd.String("json")
	if file != "-" {
		if err := found.WriteText(a.stdout); err != nil {
			return err
		}
	}
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the figures as JSON: %w", err)
	}
	text = append(text, '\n')
	if file == "-" {
		_, err = a.stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o666)
}

// progress tells on standard error what is being measured.
func (a *app) progress(what string) { fmt.Fprintln(a.stderr, what) }
