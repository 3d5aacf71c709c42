//go:build !linux

package child

import "syscall"

// groupAttr puts a program into a process group, its own for 0. Only Linux can
// have it killed when this process dies; elsewhere that is left to the guard.
func groupAttr(group int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pgid: group}
}
