package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"
)

// usageError is a wrong command line. Its text says what is right.
type usageError struct {
	cmd *cli.Command // nil is the root
	msg string
}

// Error implements error.
func (e *usageError) Error() string { return e.msg }

func (e *usageError) write(w io.Writer, root *cli.Command) {
	cmd := e.cmd
	if cmd == nil {
		cmd = root
	}
	line := cmd.FullName()
	if len(cmd.VisibleFlags()) > 0 {
		line += " [options]"
	}
	if len(cmd.Commands) > 0 && cmd.ArgsUsage == "" {
		line += " COMMAND"
	}
	if cmd.ArgsUsage != "" {
		line += " " + cmd.ArgsUsage
	}
	fmt.Fprintf(w, "%s: %s\nusage: %s\nRun '%s --help' for all options.\n", cmd.FullName(), e.msg, line, cmd.FullName())
}

func usagef(cmd *cli.Command, format string, args ...any) error {
	return &usageError{cmd, fmt.Sprintf(format, args...)}
}

// onUsageError words the parser's errors.
func onUsageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	msg := err.Error()
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		msg = fmt.Sprintf("there is no option --%s", name)
		if near := cli.SuggestFlag(cmd.Flags, name, false); near != "" {
			msg += "; did you mean " + near + "?"
		}
	} else if name, ok := strings.CutPrefix(msg, "flag needs an argument: "); ok {
		msg = fmt.Sprintf("option %s needs a value", name)
	} else if rest, ok := strings.CutPrefix(msg, "invalid value "); ok {
		msg = "invalid value " + strings.Replace(rest, "for flag -", "for option --", 1)
	}
	return &usageError{cmd, msg}
}

func unknownCommand(cmd *cli.Command, name string) error {
	if strings.HasPrefix(name, "-") {
		return usagef(cmd, "options come after the command, not before: %s", commandNames(cmd))
	}
	if near := cli.SuggestCommand(cmd.Commands, name); near != "" {
		return usagef(cmd, "there is no command %q; did you mean %s? The commands are %s", name, near, commandNames(cmd))
	}
	return usagef(cmd, "there is no command %q; the commands are %s", name, commandNames(cmd))
}

func commandNames(cmd *cli.Command) string {
	names := make([]string, 0, len(cmd.Commands))
	for _, c := range cmd.Commands {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// noArgs refuses words that are neither options nor their values.
func noArgs(cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef(cmd, "%q is not expected here: %s takes options only", cmd.Args().First(), cmd.FullName())
	}
	return nil
}

// oneArg is the only word of a command that takes one.
func oneArg(cmd *cli.Command, what string) (string, error) {
	switch cmd.Args().Len() {
	case 0:
		return "", usagef(cmd, "%s is missing", what)
	case 1:
		return cmd.Args().First(), nil
	}
	return "", usagef(cmd, "%q is one word too many: give one %s", cmd.Args().Get(1), what)
}

// splitAgent cuts the command line of an agent off args: all that follows "--".
// The other commands take no "--" but to say that no options follow.
func splitAgent(args []string) (own, agent []string, given bool) {
	for i, arg := range args {
		if arg == "--" {
			return args[:i], args[i+1:], true
		}
	}
	return args, nil, false
}

// spreadTrackers rewrites the values that follow one --tracker, as in
// "--tracker console prometheus", to an option each. The parser knows only one
// value an option.
func spreadTrackers(args []string) []string {
	out := make([]string, 0, len(args))
	following := false
	for _, arg := range args {
		word := strings.TrimSpace(arg)
		switch {
		case strings.HasPrefix(word, "-"):
			following = false
			if word == "--tracker" {
				following = true
				out = append(out, "--tracker")
				continue
			}
		case following && len(out) > 0 && out[len(out)-1] != "--tracker":
			out = append(out, "--tracker")
		}
		out = append(out, arg)
	}
	return out
}
