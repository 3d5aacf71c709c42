// Package child starts processes that end with this one, alone or with all that
// they start.
package child

import (
	"os"
	"os/exec"
	"runtime"
)

// Process is a process that was started here. Its methods are safe for
// concurrent use.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for
}

// Start starts cmd so that it dies with this process, even a killed one (on
// Linux), and is not reached by signals from the terminal. The kernel watches
// the thread that started it, so that thread stays until the end.
func Start(cmd *exec.Cmd) (*Process, error) {
	dieWithParent(cmd)
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

// Kill ends the process at once and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Ended reports whether the process is gone.
func (p *Process) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// State says how a process that has ended did so.
func (p *Process) State() string { return p.cmd.ProcessState.String() }
