//go:build !linux

package worker

import "syscall"

// groupAttr puts a program into a process group, its own for 0. Only Linux can
// have it killed when the worker dies; elsewhere that is left to the guard.
func groupAttr(group int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pgid: group}
}
