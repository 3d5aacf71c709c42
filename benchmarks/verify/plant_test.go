package verify

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPlantsApply keeps the planted bugs in step with the code: scripts/plant builds
// aglq with each of them.
func TestPlantsApply(t *testing.T) {
	patches, err := filepath.Glob("testdata/plant/*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("no patches, %v", err)
	}
	for _, patch := range patches {
		cmd := exec.Command("git", "apply", "--check", filepath.Join("benchmarks", "verify", patch))
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", patch, err, out)
		}
	}
}
