package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReflectSurvivesKill turns failures into heuristics and runs them again, while
// the reflection is killed in the middle: each rollout is judged once, and the hard
// ones are run once more.
func TestReflectSurvivesKill(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	start(t, nil, "worker", "--store-url", url, "--concurrency", "2", "--", "sh", "-c",
		`if grep -q "take care" "$AGL_RESOURCES_FILE"; then echo 1; else exit 1; fi`)
	aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(12)))
	until(t, "all of them to fail", func() bool {
		return len(lines(aglq(t, url, "rollouts", "--status", "failed", "--json"))) == 12
	})
	calls := filepath.Join(t.TempDir(), "calls")
	critic := `cat > /dev/null; echo >> ` + calls + `; echo '{"success": false, "score": 0.25, "suggestions": ["take care", "take your time"]}'`
	args := []string{
		"algorithm", "reflect", "--store-url", url, "--run", "r", "--where", `status == "failed"`, "--auto-apply", "--requeue-hard",
		"--max-generations", "1", "--json", "--once", "--", "sh", "-c", critic,
	}
	judged := func() int {
		text, _ := os.ReadFile(calls) // not there before the first
		return strings.Count(string(text), "\n")
	}
	for _, n := range []int{2, 6} {
		p := start(t, nil, args...)
		until(t, "the critic to judge", func() bool { return judged() >= n || p.ended() })
		p.signal(syscall.SIGKILL)
		<-p.done
	}
	last := start(t, nil, args...)
	last.exit(0)

	type rollout struct {
		RolloutID string `json:"rollout_id"`
		Status    string
		Metadata  struct {
			Source    string
			RolloutID string `json:"source_rollout_id"`
		}
	}
	again := map[string]int{}
	failed := 0
	for _, line := range lines(aglq(t, url, "rollouts", "--json", "--limit", "-1")) {
		var r rollout
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Metadata.Source == "hard" {
			again[r.Metadata.RolloutID]++
			if r.Status != "succeeded" {
				t.Errorf("%s is %s although the agent was told", r.RolloutID, r.Status)
			}
			continue
		}
		failed++
		verdicts := strings.Count(aglq(t, url, "spans", r.RolloutID, "--json"), `"dataset:hard-cases"`)
		if verdicts != 1 {
			t.Errorf("rollout %s has %d verdicts", r.RolloutID, verdicts)
		}
	}
	if failed != 12 || len(again) != 12 {
		t.Errorf("%d rollouts failed, %d were run again: %v", failed, len(again), again)
	}
	for id, n := range again {
		if n != 1 {
			t.Errorf("rollout %s was run again %d times", id, n)
		}
	}
	if n := judged(); n > 14 { // what was at hand when it was killed is judged again
		t.Errorf("the critic was asked %d times about 12 rollouts", n)
	}

	// Two texts, however often they were suggested; and the way back.
	show := aglq(t, url, "resources", "show", "r", "--json")
	if !strings.Contains(show, `- take care\n- take your time"`) {
		t.Errorf("heuristics: %s", show)
	}

	// Another run begins with what this one learned, once, though it is killed.
	args = []string{
		"algorithm", "reflect", "--store-url", url, "--run", "s", "--lessons", "3", "--auto-apply", "--once", "--",
		"sh", "-c", `cat > /dev/null; echo >> ` + calls + `; echo '{"success": true}'`,
	}
	before := judged()
	p := start(t, nil, args...)
	until(t, "the critic to judge", func() bool { return judged() > before || p.ended() })
	p.signal(syscall.SIGKILL)
	<-p.done
	start(t, nil, args...).exit(0)
	if text := aglq(t, url, "resources", "show", ".s-lessons", "--json"); strings.Count(text, "lesson_heuristic_ro-") != 6 {
		t.Errorf("lessons of three verdicts: %s", text)
	}
	if text := aglq(t, url, "resources", "promote", ".s-lessons"); !strings.Contains(text, "s version 1, 2 heuristics") {
		t.Errorf("the lessons were not applied once: %s", text)
	}

	var verdict struct{ Proposal string }
	for _, line := range lines(last.out.String()) {
		if err := json.Unmarshal([]byte(line), &verdict); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	if text := aglq(t, url, "resources", "promote", verdict.Proposal); !strings.Contains(text, "r version 1, 2 heuristics, kept as .r-v1") {
		t.Errorf("promoting what is there: %s", text)
	}
	if text := aglq(t, url, "resources", "promote", ".r-v1", "--to", "other"); text != fmt.Sprintln("other version 1, 2 heuristics, kept as .other-v1") {
		t.Errorf("promoting to another: %s", text)
	}
}

// TestReflectFails ends with a status that says so when the critic cannot judge, and
// leaves the rollouts to the right command under the same name.
func TestReflectFails(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(2)))
	start(t, nil, "worker", "--store-url", url, "--exit-when-idle", "1", "--", "sh", "-c", "echo 1").exit(0)
	reflect := func(status int, want string, critic ...string) {
		t.Helper()
		p := start(t, nil, append([]string{"algorithm", "reflect", "--store-url", url, "--once", "--critic-timeout", "60", "--"}, critic...)...)
		p.exit(status)
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("%s: %s", critic, p.log.String())
		}
	}
	reflect(2, "the critic cannot be started", "pyhton", "critic.py")
	reflect(1, "0 rollouts judged, 0 known, 2 passed over", "sh", "-c", "exit 3")
	reflect(0, "2 rollouts judged, 0 known, 0 passed over", "sh", "-c", "cat > /dev/null; echo '{}'")
}
