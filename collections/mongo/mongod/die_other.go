//go:build !linux

package mongod

import "os/exec"

// Elsewhere a killed test process leaves its mongod behind.
func dieWithParent(*exec.Cmd) {}
