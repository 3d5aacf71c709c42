package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aglq/aglq/algorithm/cem"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

// aglq builds the command once for all tests.
func aglq(t *testing.T) string {
	t.Helper()
	path, err := buildAglq()
	if err != nil {
		t.Fatalf("building aglq: %v", err)
	}
	return path
}

var buildFolder string

var buildAglq = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildFolder, "aglq")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/aglq").CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return path, err
})

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "digits")
	if err != nil {
		panic(err)
	}
	buildFolder = folder
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

var (
	killedLine = regexp.MustCompile(`killed with SIGKILL while it ran rollout (ro-\w+)`)
	againLine  = regexp.MustCompile(`rollout (ro-\w+) was run again: attempt 2, by digits-\d, (\w+)`)
)

// The demonstration in small: a worker is killed, its rollout runs again.
func TestDemo(t *testing.T) {
	interpreter, err := python()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = run(t.Context(), &out, options{
		aglq: aglq(t), python: interpreter, agent: "agent.py", workers: 2, kill: true, rounds: 2, population: 6, seed: 1,
	})
	if err != nil && !errors.Is(err, errTooLow) {
		t.Fatalf("%v\n%s", err, out.String())
	}
	killed, again := killedLine.FindStringSubmatch(out.String()), againLine.FindStringSubmatch(out.String())
	if killed == nil || again == nil || killed[1] != again[1] || again[2] != "succeeded" {
		t.Errorf("killed %v, run again %v; want the same rollout, and a success:\n%s", killed, again, out.String())
	}
	if !strings.Contains(out.String(), "best accuracy") {
		t.Errorf("no best accuracy was printed:\n%s", out.String())
	}
}

// role starts aglq in a role of its own. It is ended with the test.
func role(t *testing.T, stdout, stderr io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(aglq(t), args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	})
	return cmd
}

// storeRole starts a store on MongoDB and returns its URL.
func storeRole(t *testing.T) string {
	t.Helper()
	logs, writer := io.Pipe()
	t.Cleanup(func() { writer.Close() }) // after the process has ended
	role(t, writer, writer, "store", "--host", "127.0.0.1", "--port", "0", "--backend", "mongo",
		"--mongo-uri", mongotest.URI(t), "--mongo-database", "digits_"+strings.ToLower(queue.RandomID("")), "--worker-ttl", "10")
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			if _, rest, ok := strings.Cut(lines.Text(), "url=http"); ok && strings.Contains(lines.Text(), "listening") {
				address, _, _ := strings.Cut(rest, " ")
				found <- "http" + address
				break
			}
		}
		close(found)
		io.Copy(io.Discard, logs)
	}()
	select {
	case url, ok := <-found:
		if !ok {
			t.Fatal("the store ended before it listened")
		}
		return url
	case <-time.After(time.Minute):
		t.Fatal("the store does not listen")
	}
	return ""
}

// The three roles are three processes on MongoDB, as in the README; the
// algorithm is interrupted and goes on.
func TestThreeProcessesOnMongo(t *testing.T) {
	interpreter, err := python()
	if err != nil {
		t.Fatal(err)
	}
	url := storeRole(t)
	role(t, io.Discard, os.Stderr, "worker", "--n-runners", "2", "--store-url", url, "--log-level", "ERROR", "--", interpreter, "agent.py")
	search := []string{
		"algorithm", "cem", "--store-url", url, "--space", "space.json", "--run", "digits", "--seed", "1",
		"--rounds", "2", "--population", "4", "--json",
	}
	first := role(t, io.Discard, io.Discard, search...)
	store := client.New(url, client.Options{})
	defer store.Close()
	waitForRollout(t, store)
	first.Process.Kill()
	first.Wait()

	var out bytes.Buffer
	if err := role(t, &out, os.Stderr, search...).Wait(); err != nil {
		t.Fatalf("the resumed search: %v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var state cem.State
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &state); err != nil || state.Round != 2 || state.Best == nil {
		t.Errorf("the search printed %s, %v; want its state after two rounds", out.String(), err)
	}
	stats, err := store.Statistics(t.Context())
	if err != nil || stats.Rollouts != 8 {
		t.Errorf("%d rollouts are stored, %v; want 8: none twice", stats.Rollouts, err)
	}
	spans, err := store.Spans(t.Context(), queue.SpanQuery{RolloutID: state.Best.RolloutID, Paging: queue.All})
	if err != nil || len(spans.Items) < 16 {
		t.Errorf("the best rollout has %d spans, %v; want its epochs", len(spans.Items), err)
	}
}

// waitForRollout returns when the first rollout has been enqueued.
func waitForRollout(t *testing.T, store queue.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		page, err := store.Rollouts(ctx, queue.RolloutQuery{Paging: queue.Paging{Limit: 1}})
		if err != nil {
			t.Fatalf("waiting for a rollout: %v", err)
		}
		if page.Total > 0 {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no rollout was enqueued")
		}
	}
}
