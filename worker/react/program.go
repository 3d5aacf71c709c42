package react

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/aglq/aglq/internal/child"
)

// Program is a tool that is a program. Its Run is a Tool's: the arguments are its
// standard input, as JSON, and what it writes to standard output is the result. An
// exit status other than 0 is a failure, and the end of standard error says why.
//
// It runs in the folder of the sandbox's session, if there is one, in a process group
// of its own, which ends with the call. AGL_TOOL_NAME, AGL_CALL_ID and AGL_SESSION_ID
// are in its environment.
type Program struct {
	Command []string // the program, looked for in PATH, and its arguments
	Env     []string // "name=value", over the worker's own
}

// programGrace is how long a program may take to end when it is told to.
const programGrace = 2 * time.Second

// Run makes a call.
func (p Program) Run(ctx context.Context, c Call) (string, error) {
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], "AGL_TOOL_NAME="+c.Tool, "AGL_CALL_ID="+c.ID)
	return p.run(ctx, c.Session, c.Arguments, c.MaxResult)
}

func (p Program) run(ctx context.Context, s *Session, input []byte, most int) (string, error) {
	if len(p.Command) == 0 {
		return "", fmt.Errorf("there is no command to run")
	}
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Env = append(os.Environ(), p.Env...)
	if s != nil {
		cmd.Dir = s.Dir
		cmd.Env = append(cmd.Env, "AGL_SESSION_ID="+s.ID)
	}
	stdout, stderr := child.Head{Most: most + 1}, child.Tail{Most: stderrTail}
	state, err := child.Run(ctx, cmd, child.Options{
		Feed: child.Input(input), Stdout: &stdout, Stderr: &stderr, Grace: programGrace,
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("starting %s: %w", p.Command[0], err)
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case !state.Success():
		if why := bytes.TrimSpace(stderr.Bytes()); len(why) > 0 {
			return "", fmt.Errorf("%s: %s", state, why)
		}
		return "", fmt.Errorf("%s", state)
	}
	return string(stdout.Bytes()), nil
}

// stderrTail is how much of what a program says of its failure the model is told, in
// bytes.
const stderrTail = 2 << 10
