//go:build !linux

package benchmarks

import "syscall"

// own is a process group of its own.
func own() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
