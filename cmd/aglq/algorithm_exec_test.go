package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// parabola is an agent that prefers the number three.
var parabola = []string{"sh", "-c", `read x; awk "BEGIN { d = $x - 3; print -d * d }"`}

// TestExecSurvivesKill kills an algorithm and goes on with it: its program dies too,
// no rollout is run twice, and the result is the same.
func TestExecSurvivesKill(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	start(t, nil, append([]string{"worker", "--store-url", url, "--concurrency", "2", "--"}, parabola...)...)
	climb, err := filepath.Abs(filepath.Join("..", "..", "examples", "algorithm", "python", "climb.py"))
	if err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	args := []string{
		"algorithm", "exec", "--store-url", url, "--run", "climb", "--groups", "--",
		"sh", "-c", "echo $$ > " + pidFile + "; exec python3 " + climb,
	}
	first := start(t, nil, args...)
	first.logged("round 2:")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	first.signal(syscall.SIGKILL)
	until(t, "the program to die with it", func() bool { return gone(pid) })
	if strings.Contains(first.log.String(), "round 7:") {
		t.Fatal("it was killed too late")
	}
	second := start(t, nil, args...)
	second.exit(0)
	if text := second.log.String(); !strings.Contains(text, "round 7: 3.0 earns 0") || !strings.Contains(text, "72 rollouts told, 0 unfinished") {
		t.Errorf("said\n%s", text)
	}
	if n := len(lines(aglq(t, url, "rollouts", "--json", "--limit", "-1"))); n != 72 {
		t.Errorf("%d rollouts, want 72", n)
	}
}

func TestExecEndsAsItsProgram(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	failed := start(t, nil, "algorithm", "exec", "--store-url", url, "--", "sh", "-c", `echo "$AGL_RUN at $AGL_STORE_URL" >&2; exit 3`)
	failed.exit(1)
	if text := failed.log.String(); !strings.Contains(text, "exit status 3") || !strings.Contains(text, "at "+url) || !strings.Contains(text, "exec-") {
		t.Errorf("said\n%s", text)
	}
	stopped := start(t, nil, "algorithm", "exec", "--store-url", url, "--", "sh", "-c", "echo begun >&2; exec sleep 600")
	stopped.logged("begun")
	stopped.signal(syscall.SIGTERM)
	stopped.exit(143)
}
