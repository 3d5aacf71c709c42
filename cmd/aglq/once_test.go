package main

import (
	"strings"
	"testing"
)

// Options of a loop over the queue are refused where there is none; the environment,
// which is that of all commands, is not.
func TestOnceHasNoLoop(t *testing.T) {
	t.Parallel()
	once := []string{"worker", "--once", "--input", "1"}
	for _, option := range []string{"--n-runners=2", "--concurrency=2", "--max-rollouts=2", "--exit-when-idle=2", "--metrics-addr=127.0.0.1:0"} {
		p := start(t, nil, append(once, option, "--", "cat")...)
		p.exit(2)
		if name, _, _ := strings.Cut(option, "="); !strings.Contains(p.log.String(), name+" has no effect with --once") {
			t.Errorf("%s said: %s", option, p.log)
		}
	}
	start(t, []string{"AGL_N_RUNNERS=4"}, append(once, "--", "cat")...).exit(0)
}
