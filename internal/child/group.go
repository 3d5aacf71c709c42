package child

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guardScript waits for the end of its input, which comes when this process closes
// the pipe or dies, and then removes the program's files and kills its process
// group, itself included.
const guardScript = `trap '' HUP INT QUIT TERM; read -r _; [ -z "$1" ] || rm -rf -- "$1"; kill -KILL 0`

// Group is the process group of a program. Its leader is a guard, a shell that
// does nothing but wait for the end of this process: it kills the group then, and
// its mere presence keeps the group's number from being given to others. Where
// there is no shell the program leads its group itself, and only it, not what it
// started, is sure to end with a process that is killed.
type Group struct {
	id    int
	guard *exec.Cmd // nil without a shell
	alive *os.File  // this process's end of the guard's pipe
}

// StartGroup starts a program in a group of its own, whose files in dir are removed
// should this process die; "" is none. On Linux the program is sent SIGKILL when
// the thread that called StartGroup ends: lock it for as long as the program runs.
// The caller waits for cmd, and then calls Kill and Reap.
func StartGroup(cmd *exec.Cmd, dir string) (*Group, error) {
	g, err := startGuard(dir)
	if err != nil {
		g = &Group{}
	}
	cmd.SysProcAttr = groupAttr(g.id)
	if err := cmd.Start(); err != nil {
		g.Kill()
		g.Reap()
		return nil, err
	}
	if g.guard == nil {
		g.id = cmd.Process.Pid
	}
	return g, nil
}

// Guard has a folder removed should this process die. Release, to be called once,
// leaves it to the caller. Where there is no shell nothing is guarded.
func Guard(dir string) (release func(), err error) {
	if _, err := exec.LookPath("sh"); err != nil {
		return func() {}, nil
	}
	g, err := startGuard(dir)
	if err != nil {
		return nil, err
	}
	return func() {
		g.Kill()
		g.Reap()
	}, nil
}

func startGuard(dir string) (*Group, error) {
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
	return &Group{id: guard.Process.Pid, guard: guard, alive: w}, nil
}

// Terminate asks the group to end, by SIGTERM.
func (g *Group) Terminate() { g.signal(syscall.SIGTERM) }

// Kill ends the group at once, guard and all.
func (g *Group) Kill() { g.signal(syscall.SIGKILL) }

func (g *Group) signal(s syscall.Signal) {
	if g.id > 1 {
		_ = syscall.Kill(-g.id, s) // fails when all have ended
	}
}

// Reap lets go of the guard, which must have been killed.
func (g *Group) Reap() {
	if g.guard == nil {
		return
	}
	_ = g.alive.Close()
	_ = g.guard.Wait() // killed is how it ends
}
