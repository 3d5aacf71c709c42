package worker

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guardScript waits for the end of its input, which comes when the worker closes
// the pipe or dies, and then removes the task's files and kills its process
// group, itself included.
const guardScript = `trap '' HUP INT QUIT TERM; read -r _; rm -rf -- "$1"; kill -KILL 0`

// group is the process group of a program. Its leader is a guard, a shell that
// does nothing but wait for the worker's end: it kills the group then, and its
// mere presence keeps the group's number from being given to others. Where there
// is no shell the program leads its group itself, and only it, not what it
// started, is sure to end with a worker that is killed.
type group struct {
	id    int
	guard *exec.Cmd // nil without a shell
	alive *os.File  // the worker's end of the guard's pipe
}

// startGroup starts a program, with its files in dir, in a group of its own.
func startGroup(cmd *exec.Cmd, dir string) (*group, error) {
	g, err := startGuard(dir)
	if err != nil {
		g = &group{}
	}
	cmd.SysProcAttr = groupAttr(g.id)
	if err := cmd.Start(); err != nil {
		g.kill()
		g.reap()
		return nil, err
	}
	if g.guard == nil {
		g.id = cmd.Process.Pid
	}
	return g, nil
}

func startGuard(dir string) (*group, error) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		return nil, fmt.Errorf("no shell to guard programs: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	guard := exec.Command(shell, "-c", guardScript, "guard", dir)
	guard.Stdin = r
	guard.Dir = "/"
	guard.Env = []string{"PATH=" + os.Getenv("PATH")}
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := guard.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return &group{id: guard.Process.Pid, guard: guard, alive: w}, nil
}

// terminate asks the group to end; the guard ignores it.
func (g *group) terminate() { g.signal(syscall.SIGTERM) }

// kill ends the group, guard and all. The group is still ours: the guard is not
// reaped yet.
func (g *group) kill() { g.signal(syscall.SIGKILL) }

func (g *group) signal(s syscall.Signal) {
	if g.id > 1 {
		_ = syscall.Kill(-g.id, s) // fails when all have ended
	}
}

// reap lets go of the guard, which must have been killed.
func (g *group) reap() {
	if g.guard == nil {
		return
	}
	_ = g.alive.Close()
	_ = g.guard.Wait() // killed is how it ends
}
