package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aglq/aglq/collections/mongo/mongotest"
)

// TestDatasetOfADatabase exports what a store holds, and what a database holds that
// got it, and finds the same.
func TestDatasetOfADatabase(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(30)))
	aglq(t, url, "worker", "--max-rollouts", "20", "--concurrency", "4", "--heartbeat-interval", "0", "--", "echo", "0.5")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ran(t, 0, "export", "--store-url", url, file("all.aglq"))
	database := []string{"--mongo-uri", mongotest.URI(t), "--mongo-database", mongotest.Database(t)}
	ran(t, 0, append(append([]string{"import"}, database...), file("all.aglq"))...)

	export := func(name string, place ...string) (log string) {
		_, log = ran(t, 0, append([]string{"export", "--format", "raw", "--top-fraction", "0.4", "--seed", "1", "--out", file(name)}, place...)...)
		return log
	}
	log := export("store.jsonl", "--store-url", url)
	contains(t, log, "exported 16 rows of 8 attempts; read 20 rollouts and 40 spans; attempts left out: top_fraction 12")
	export("database.jsonl", database...)
	want, got := sorted(read(t, file("store.jsonl"))), sorted(read(t, file("database.jsonl"))) // a scan goes by ids
	if want != got {
		t.Errorf("the store has\n%s\nand the database\n%s", want, got)
	}
	contains(t, string(read(t, file("database.jsonl.manifest.json"))), `"store": "mongodb://`, `"top-fraction": 0.4`)
}

// TestExportKilled kills an export that has written a part: nothing bears the name of
// a dataset, and the next one finds nothing in its way.
func TestExportKilled(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	aglq(t, url, "enqueue", write(t, "tasks.jsonl", tasks(3)))
	aglq(t, url, "worker", "--max-rollouts", "3", "--heartbeat-interval", "0", "--", "echo", "0.5")
	dir := t.TempDir()
	all, slow, set := filepath.Join(dir, "all.aglq"), filepath.Join(dir, "slow"), filepath.Join(dir, "set.jsonl")
	ran(t, 0, "export", "--store-url", url, all)
	if err := syscall.Mkfifo(slow, 0o666); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "export", "--format", "raw", "--archive", slow, "--out", set)
	pipe, err := os.OpenFile(slow, os.O_WRONLY, 0) // once the export reads
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	archive := read(t, all)
	if _, err := pipe.Write(archive[:len(archive)/2]); err != nil {
		t.Fatal(err)
	}
	until(t, "a partial file", func() bool { return exists(set + ".partial") })
	_, log := ran(t, 1, "export", "--format", "raw", "--archive", all, "--out", set)
	contains(t, log, "another export writes to the same place")
	_ = p.cmd.Process.Kill()
	<-p.done
	if exists(set) || exists(set+".manifest.json") {
		t.Fatal("what was killed looks whole")
	}
	ran(t, 0, "export", "--format", "raw", "--archive", all, "--out", set)
	if n := strings.Count(string(read(t, set)), "\n"); n != 6 {
		t.Errorf("%d spans", n)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.partial")); err != nil || len(left) > 0 {
		t.Errorf("%q, %v", left, err)
	}

	// A signal ends it in good order.
	p = start(t, nil, "export", "--format", "raw", "--store-url", url, "--out", set, "--train-cmd", "echo trains >&2; sleep 600")
	until(t, "the training", func() bool { return strings.Contains(p.log.String(), "trains") })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.exit(143)
}

// sorted is a text with its lines in order.
func sorted(text []byte) string {
	list := lines(string(text))
	slices.Sort(list)
	return strings.Join(list, "\n")
}
