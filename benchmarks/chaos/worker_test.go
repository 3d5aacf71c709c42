package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	doomedHolds = 2  // rollouts that the worker holds when it is killed
	others      = 40 // rollouts that nothing happens to
)

func TestKillWorkerOnMemory(t *testing.T) { killWorker(t, "--backend", "memory") }

func TestKillWorkerOnMongo(t *testing.T) {
	killWorker(t, "--backend", "mongo", "--mongo-uri", mongotest.URI(t), "--mongo-database", mongotest.Database(t))
}

// killWorker kills a worker whose agents never end, while others work. What it
// held goes to them, without being charged for it: one attempt is all that a
// rollout has here.
func killWorker(t *testing.T, backend ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server := newServer(t, append(backend, "--worker-ttl", "4", "--scan-interval", "0.1")...)
	server.start(ctx, t)
	store := client.New(server.url, client.Options{})
	t.Cleanup(store.Close)

	ids := enqueue(ctx, t, store, doomedHolds)
	pids := t.TempDir()
	doomed := startWorker(t, server.url, "doomed", `echo $$ >`+pids+`/$AGL_ROLLOUT_ID.new && mv `+pids+`/$AGL_ROLLOUT_ID.new `+
		pids+`/$AGL_ROLLOUT_ID && exec sleep 3600`)
	if err := until(ctx, func() bool { return len(agents(t, pids)) == doomedHolds }); err != nil {
		t.Fatalf("the worker did not start its agents: %v", err)
	}
	ids = append(ids, enqueue(ctx, t, store, others)...)
	for n := range 2 {
		startWorker(t, server.url, fmt.Sprintf("steady-%d", n), `sleep 0.02; echo 0.5`)
	}
	if err := until(ctx, func() bool { return succeeded(ctx, t, store) >= others/4 }); err != nil {
		t.Fatalf("the other workers do not work: %v", err)
	}

	if err := doomed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, func() bool { return succeeded(ctx, t, store) == len(ids) }); err != nil {
		t.Fatalf("not all rollouts succeed: %v", err)
	}
	for n, id := range ids {
		verifyRun(ctx, t, store, id, n < doomedHolds)
	}
	for _, pid := range agents(t, pids) {
		if err := until(ctx, func() bool { return gone(pid) }); err != nil {
			t.Errorf("agent %d outlives its worker", pid)
		}
	}
}

func enqueue(ctx context.Context, t *testing.T, store queue.Store, n int) (ids []string) {
	t.Helper()
	reqs := make([]queue.Request, n)
	for i := range reqs {
		reqs[i].Input = rawjson.Value(strconv.Itoa(i))
	}
	made, err := store.Enqueue(ctx, reqs)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range made {
		ids = append(ids, r.RolloutID)
	}
	return ids
}

// startWorker starts aglq worker with a shell script as its agent. What is
// left of it at the end of the test is killed.
func startWorker(t *testing.T, url, id, script string) *exec.Cmd {
	t.Helper()
	cmd := command(t, "worker", "--store-url", url, "--worker-id", id, "--concurrency", strconv.Itoa(doomedHolds),
		"--heartbeat-interval", "0.2", "--poll-interval", "0.05", "--interval-jitter", "0", "--log-level", "WARNING",
		"--", "sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // says "killed"
	})
	return cmd
}

// agents are the processes of the agents that wrote their ids.
func agents(t *testing.T, dir string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "ro-????????????"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// gone tells whether a process has ended; a zombie has.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func succeeded(ctx context.Context, t *testing.T, store queue.Store) int {
	t.Helper()
	page, err := store.Rollouts(ctx, queue.RolloutQuery{
		Statuses: []queue.RolloutStatus{queue.RolloutSucceeded}, Paging: queue.Paging{Limit: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	return page.Total
}

// verifyRun checks that a rollout ended once, with one reward: in its second
// attempt if it was the killed worker's first.
func verifyRun(ctx context.Context, t *testing.T, store queue.Store, id string, wasDoomed bool) {
	t.Helper()
	attempts, err := store.Attempts(ctx, queue.AttemptQuery{RolloutID: id, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		t.Fatal(err)
	}
	want := []queue.AttemptStatus{queue.AttemptSucceeded}
	if wasDoomed {
		want = []queue.AttemptStatus{queue.AttemptUnresponsive, queue.AttemptSucceeded}
	}
	if len(attempts.Items) != len(want) {
		t.Fatalf("rollout %s has %d attempts, want %v: %+v", id, len(attempts.Items), want, attempts.Items)
	}
	for i, a := range attempts.Items {
		if a.Status != want[i] {
			t.Errorf("attempt %d of rollout %s is %s, want %s", i+1, id, a.Status, want[i])
		}
	}
	rewards := "agentlightning.annotation"
	spans, err := store.Spans(ctx, queue.SpanQuery{RolloutID: id, Name: queue.TextMatch{Equals: &rewards}, Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	if len(spans.Items) != 1 || spans.Items[0].AttemptID != attempts.Items[len(want)-1].AttemptID {
		t.Errorf("rollout %s has %d rewards, want one of its last attempt", id, len(spans.Items))
	}
}
