package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks/micro"
	"github.com/aglq/aglq/benchmarks/scenario"
)

func (a *app) benchMicroCommand() *cli.Command {
	about := "The modes:\n"
	for _, m := range micro.Modes {
		about += fmt.Sprintf("\n- %s: %s; %s, %d operations", m.Name, m.About, counted(m.Callers, "caller", "callers"), m.Operations)
	}
	return &cli.Command{
		Name: "micro", ArgsUsage: "MODE", Usage: "measure one kind of call",
		Description: about + "\n\nThe exit status is 1 when an operation failed." + needsUnused,
		Flags: []cli.Flag{
			storeURLFlag(), summaryFileFlag("the line of summary"),
			&cli.StringFlag{
				Name: "client", Value: string(scenario.PythonLike), Validator: oneOf(names(scenario.Clients)...),
				Usage: "`PATTERN` of requests: python-like makes a connection for each operation and sends spans one by one, native keeps it and sends them together",
			},
			&cli.FloatFlag{Name: "scale", Value: 1, Validator: aScale, Usage: "`FACTOR` by which operations and callers are multiplied"},
			&cli.IntFlag{Name: "callers", DefaultText: "the mode's", Validator: within(1, 100_000), Usage: "`NUMBER` of callers at a time"},
			figuresFlag(),
		},
		Action: a.action(a.benchMicro),
	}
}

func summaryFileFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "summary-file", Usage: "`FILE` to append " + what + " to"}
}

func (a *app) benchMicro(ctx context.Context, cmd *cli.Command) error {
	name, err := oneArg(cmd, "the mode")
	if err != nil {
		return err
	}
	var modes []string
	var mode micro.Mode
	for _, m := range micro.Modes {
		modes = append(modes, m.Name)
		if m.Name == name {
			mode = m
		}
	}
	if mode.Name == "" {
		return usagef(cmd, "there is no mode %q; they are %s", name, strings.Join(modes, ", "))
	}
	url, err := storeURL(cmd)
	if err != nil {
		return err
	}
	if mode.NeedsStore() {
		if err := unused(ctx, url); err != nil {
			return err
		}
	}
	result, err := micro.Run(ctx, mode, micro.Options{
		StoreURL: url, Kept: cmd.String("client") == string(scenario.Native), Scale: cmd.Float("scale"), Callers: cmd.Int("callers"),
	})
	if err != nil {
		return err
	}
	if err := appendLine(cmd.String("summary-file"), result.Line()); err != nil {
		return err
	}
	if err := a.showOutcome(cmd, result); err != nil {
		return err
	}
	if result.SuccessRate() < 1 {
		return errFailed
	}
	return nil
}

// appendLine adds a line to a file; "" is none.
func appendLine(file, line string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("cannot append the summary: %w", err)
	}
	if _, err := fmt.Fprintln(f, line); err != nil {
		f.Close()
		return fmt.Errorf("cannot append the summary: %w", err)
	}
	return f.Close()
}
