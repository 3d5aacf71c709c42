// Package pyenv gives tests the Python environments that scripts/get-python-env
// makes.
package pyenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Python is the path of the Python of an environment, which is made where it is not
// there yet. AGLQ_<NAME>_PYTHON in the environment names another one. The test
// fails when there is none.
func Python(t testing.TB, name string) string {
	t.Helper()
	if python := os.Getenv("AGLQ_" + strings.ToUpper(name) + "_PYTHON"); python != "" {
		return python
	}
	_, file, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(file), "..", "..", "scripts", "get-python-env")
	cmd := exec.CommandContext(t.Context(), script, name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("making the Python environment %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}
