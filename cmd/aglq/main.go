// Command aglq is a job queue and trace store for agent rollouts: the store, the
// workers, the algorithms, and the tools to look into them.
//
// Exit status: 0 done, 1 failed, 2 wrong usage, 130 and 143 ended by SIGINT and
// SIGTERM; else that of the command which export --train-cmd runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/metrics"
)

// The exit statuses, besides 128 plus the number of a signal.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(mainCode()) }

// mainCode is main as testscript wants it.
func mainCode() int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	return a.main(os.Args)
}

// app is one invocation of the command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	signals *signals
	args    []string // without the agent's
	agent   []string // the words after "--"
	// agentGiven tells an empty agent command from none.
	agentGiven bool
	metrics    *metrics.Recorder // nil where nobody asks for it
	started    bool              // an action has begun: the command line was right
}

func (a *app) main(args []string) int {
	a.signals = watchSignals()
	defer a.signals.stop()
	screen := newScreen(a.stderr)
	a.stderr, a.stdout = screen, screen.share(a.stdout)
	args, a.agent, a.agentGiven = splitAgent(args)
	a.args = spreadTrackers(args)
	root := a.root()
	err := root.Run(a.signals.drain, a.args)
	return a.exit(root, err)
}

// exit reports err and gives the status to exit with.
func (a *app) exit(root *cli.Command, err error) int {
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		usage.write(a.stderr)
		return exitUsage
	case err != nil && !a.started: // an error of the parser's own
		(&usageError{a.command(root), reword(root, err.Error())}).write(a.stderr)
		return exitUsage
	}
	if code := a.signals.exitCode(); code != 0 {
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errFailed) {
			fmt.Fprintln(a.stderr, "aglq:", err)
		}
		return code
	}
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errFailed) {
		fmt.Fprintln(a.stderr, "aglq:", err)
	}
	var status *statusError
	if errors.As(err, &status) {
		return status.code
	}
	return exitFailed
}

// command is the one that the command line names, the root where it names none.
func (a *app) command(root *cli.Command) *cli.Command {
	if len(a.args) > 1 {
		if cmd := root.Command(a.args[1]); cmd != nil {
			return cmd
		}
	}
	return root
}

// errFailed is a failure that the command has already reported.
var errFailed = errors.New("failed")

// statusError is a failure with an exit status of its own: that of a command that was
// run for the user.
type statusError struct {
	code int
	err  error
}

// Error implements error.
func (e *statusError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *statusError) Unwrap() error { return e.err }

func (a *app) root() *cli.Command {
	cli.HelpFlag = &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help", HideDefault: true, Local: true}
	cli.VersionPrinter = func(*cli.Command) { a.printVersion() }
	root := &cli.Command{
		Name:            "aglq",
		ArgsUsage:       "COMMAND",
		Usage:           "job queue and trace store for agent rollouts",
		Version:         version(),
		HideHelpCommand: true,
		Reader:          a.stdin, Writer: a.stdout, ErrWriter: a.stderr,
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		OnUsageError:   onUsageError,
		Action: func(_ context.Context, cmd *cli.Command) error {
			if name := cmd.Args().First(); name != "" {
				return unknownCommand(cmd, name)
			}
			return usagef(cmd, "which command? %s", strings.Join(commandNames(cmd), ", "))
		},
		Commands: []*cli.Command{
			a.storeCommand(), a.workerCommand(), a.algorithmCommand(), a.runCommand(), a.llmProxyCommand(),
			a.enqueueCommand(), a.rolloutsCommand(), a.attemptsCommand(), a.spansCommand(),
			a.workersCommand(), a.resourcesCommand(), a.cancelCommand(), a.requeueCommand(),
			a.explainCommand(), a.topCommand(), a.doctorCommand(), a.prometheusCommand(), a.gcCommand(), a.benchCommand(), a.reportCommand(), a.verifyCommand(),
			a.exportCommand(), a.judgeCommand(), a.importCommand(), a.versionCommand(),
		},
	}
	finish(root)
	return root
}

// finish gives every command what all of them have.
func finish(cmd *cli.Command) {
	cmd.OnUsageError = onUsageError
	cmd.HideHelpCommand = true
	for _, sub := range cmd.Commands {
		finish(sub)
	}
}

// starters are the commands that start the program after "--".
var starters = []string{"worker", "run", "exec", "reflect"}

// action wraps what a command does. Its ctx ends with the first signal.
func (a *app) action(do func(ctx context.Context, cmd *cli.Command) error) cli.ActionFunc {
	return func(ctx context.Context, cmd *cli.Command) error {
		if a.agentGiven && !slices.Contains(starters, cmd.Name) {
			return usagef(cmd, "%s starts no agent: remove what follows --", cmd.Name)
		}
		if slices.Contains(cmd.Args().Slice(), "") {
			return usagef(cmd, "one of the words after the options is empty: is a variable of the shell not set?")
		}
		a.started = true
		return do(ctx, cmd)
	}
}
