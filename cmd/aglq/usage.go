package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"
)

// usageError is a wrong command line. Its text says what is right.
type usageError struct {
	cmd *cli.Command
	msg string
}

// Error implements error.
func (e *usageError) Error() string { return e.msg }

func (e *usageError) write(w io.Writer) {
	cmd := e.cmd
	line := cmd.FullName()
	if len(cmd.VisibleFlags()) > 0 {
		line += " [options]"
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
	return &usageError{cmd, reword(cmd, err.Error())}
}

var (
	badValue    = regexp.MustCompile(`(?s)^invalid value (".*") for flag -(\S+?): (.*)$`)
	badVariable = regexp.MustCompile(`(?s)^could not parse (".*") as \S+ value from environment variable "(\w+)" for flag (\S+?): (.*)$`)
)

func reword(cmd *cli.Command, msg string) string {
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		var options []string
		for _, f := range cmd.VisibleFlags() {
			options = append(options, f.Names()[0])
		}
		msg = "there is no option --" + name
		if word := nearest(name, options); word != "" {
			msg += "; did you mean --" + word + "?"
		}
		return msg
	}
	if name, ok := strings.CutPrefix(msg, "flag needs an argument: "); ok {
		return "option " + name + " needs a value"
	}
	if m := badValue.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("invalid value %s for option --%s: %s", m[1], m[2], numberWanted(m[3]))
	}
	if m := badVariable.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("invalid value %s in the variable %s, for option --%s: %s", m[1], m[2], m[3], numberWanted(m[4]))
	}
	return msg
}

// numberWanted says what strconv's errors do not: what would be right.
func numberWanted(msg string) string {
	switch {
	case strings.HasPrefix(msg, "strconv.ParseInt"), strings.HasPrefix(msg, "strconv.ParseUint"):
		return "it must be a whole number"
	case strings.HasPrefix(msg, "strconv.ParseFloat"):
		return "it must be a number"
	case strings.HasPrefix(msg, "strconv.ParseBool"):
		return "it must be true or false"
	}
	return msg
}

func unknownCommand(cmd *cli.Command, name string) error {
	names := commandNames(cmd)
	if word := nearest(name, names); word != "" {
		return usagef(cmd, "there is no command %q; did you mean %s?", name, word)
	}
	return usagef(cmd, "there is no command %q; the commands are %s", name, strings.Join(names, ", "))
}

// nearest is the word that name is a slip of the fingers away from, "" for none.
func nearest(name string, words []string) string {
	best, least := "", 3
	for _, w := range words {
		if d := editDistance(name, w); d < least && d < len(name) {
			best, least = w, d
		}
	}
	return best
}

// editDistance counts the letters to insert, drop or change.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func commandNames(cmd *cli.Command) []string {
	names := make([]string, 0, len(cmd.Commands))
	for _, c := range cmd.Commands {
		names = append(names, c.Name)
	}
	return names
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
