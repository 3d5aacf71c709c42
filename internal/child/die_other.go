//go:build !linux

package child

import "os/exec"

// Elsewhere the processes of a killed one stay behind.
func dieWithParent(*exec.Cmd) {}
