package child

import "syscall"

// groupAttr puts a program into a process group, its own for 0, and has it
// killed when this process dies.
func groupAttr(group int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pgid: group, Pdeathsig: syscall.SIGKILL}
}
