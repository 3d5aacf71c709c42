package benchmarks

import "syscall"

// own is a process group of its own that ends with this process, however that
// ends.
func own() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
