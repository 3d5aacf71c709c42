package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

// ran runs a command to its end and returns what it printed.
func ran(t *testing.T, code int, args ...string) (out, log string) {
	t.Helper()
	p := start(t, nil, args...)
	p.exit(code)
	return p.out.String(), p.log.String()
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// TestPartitionMoves carries one from a store in memory into a database, and from
// there into another store: the archives on the way are the same to the byte.
func TestPartitionMoves(t *testing.T) {
	t.Parallel()
	one, two := start(t, nil, storeArgs()...).url(), start(t, nil, storeArgs()...).url()
	aglq(t, one, "enqueue", write(t, "tasks.jsonl", tasks(230)))
	aglq(t, one, "worker", "--max-rollouts", "4", "--heartbeat-interval", "0", "--", "echo", "1")
	addResources(t, one)

	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	_, log := ran(t, 0, "export", "--store-url", one, file("one"))
	contains(t, log, "exported 1 resources, 1 workers, 230 rollouts, 4 attempts,")
	if exists(file("one.partial")) {
		t.Error("a partial file was left behind")
	}
	database := []string{"--mongo-uri", mongotest.URI(t), "--mongo-database", mongotest.Database(t), "--partition-id", "moved"}
	out, _ := ran(t, 0, append([]string{"import"}, append(database, file("one"))...)...)
	contains(t, out, "stored:        1 resources, 1 workers, 230 rollouts, 4 attempts,")
	ran(t, 0, append([]string{"export", "--format", "archive"}, append(database, file("two"))...)...)

	whole := read(t, file("one"))
	cut := write(t, "cut", string(whole[:len(whole)/2]))
	_, log = ran(t, 1, "import", "--store-url", two, cut)
	contains(t, log, cut+": nothing was imported", "cut short")
	if got := aglq(t, two, "rollouts", "--limit", "1"); strings.Contains(got, "ro-") {
		t.Errorf("of a cut file something was stored:\n%s", got)
	}
	ran(t, 0, "import", "--store-url", two, file("two"))
	_, log = ran(t, 1, "import", "--store-url", two, file("two"))
	contains(t, log, "not empty", "--merge")
	out, _ = ran(t, 0, "import", "--merge", "--store-url", two, file("two"))
	contains(t, out, "stored:        0 resources", "there already: 1 resources, 1 workers, 230 rollouts")
	piped, _ := ran(t, 0, "export", "--store-url", two, "-")
	for name, got := range map[string][]byte{"database": read(t, file("two")), "second store": []byte(piped)} {
		if !bytes.Equal(whole, got) {
			t.Errorf("the archive of the %s differs from the first", name)
		}
	}

	// A claim there makes the next merge report what it leaves alone.
	aglq(t, two, "worker", "--max-rollouts", "1", "--heartbeat-interval", "0", "--", "echo", "1")
	out, log = ran(t, 1, "import", "--merge", "--store-url", two, file("one"))
	contains(t, out, "there already: 1 resources, 1 workers, 229 rollouts", "conflicts:     1, left as they were")
	contains(t, log, "has moved on: it is succeeded, with 1 attempts")

	_, log = ran(t, 1, "import", "--store-url", one, file("none"))
	contains(t, log, "no such file")
	_, log = ran(t, 1, "export", "--store-url", one, filepath.Join(dir, "no", "such", "folder"))
	contains(t, log, "no such file")
}

func addResources(t *testing.T, url string) {
	t.Helper()
	c := client.New(url, client.Options{})
	defer c.Close()
	if _, err := c.AddResources(t.Context(), rawjson.Value(`{"p":{"resource_type":"prompt_template","template":"x","engine":"jinja"}}`)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestImportFromAgentLightning reads a small database of the reference's layout,
// through a store and directly. Package agentlightning tests a real one.
func TestImportFromAgentLightning(t *testing.T) {
	t.Parallel()
	uri, source := mongotest.URI(t), mongotest.Database(t)
	server, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Disconnect(context.Background()) }()
	var rollouts, entries []any
	for partition := range 2 {
		for i := range 3 - partition {
			p, id := fmt.Sprint("pt-", partition), fmt.Sprintf("ro-%d%d", partition, i)
			rollouts = append(rollouts, bson.D{
				{Key: "partition_id", Value: p}, {Key: "rollout_id", Value: id}, {Key: "status", Value: "queuing"},
				{Key: "start_time", Value: 1.5 - float64(partition)}, {Key: "input", Value: i}, {Key: "metadata", Value: nil},
				{Key: "config", Value: bson.D{{Key: "max_attempts", Value: 1}}},
			})
			entries = append(entries, bson.D{{Key: "partition_id", Value: p}, {Key: "value", Value: id}, {Key: "consumed", Value: false}})
		}
	}
	rollouts = append(rollouts, bson.D{{Key: "partition_id", Value: "pt-0"}, {Key: "rollout_id", Value: "ro-odd"}, {Key: "status", Value: "odd"}})
	for name, docs := range map[string][]any{"rollouts": rollouts, "rollout_queue": entries} {
		if _, err := server.Database(source).Collection(name).InsertMany(t.Context(), docs); err != nil {
			t.Fatal(err)
		}
	}
	from := []string{"import", "--from-agentlightning", uri, "--source-database", source}
	with := func(more ...string) []string { return append(from[:len(from):len(from)], more...) }
	store := start(t, nil, storeArgs()...).url()

	_, log := ran(t, 1, with("--store-url", store)...)
	contains(t, log, "has 2 partitions", "pt-0  4 rollouts, the latest of 1970-01-01T00:00:01Z", "pt-1  2 rollouts")
	out, log := ran(t, 0, with("--store-url", store, "--source-partition", "pt-1")...)
	contains(t, out, "stored:        0 resources, 0 workers, 2 rollouts")
	if log != "" {
		t.Errorf("said %s", log)
	}
	out, log = ran(t, 1, with("--merge", "--store-url", store, "--source-partition", "all")...)
	contains(t, out, "stored:        0 resources, 0 workers, 3 rollouts", "there already: 0 resources, 0 workers, 2 rollouts", "refused:       1")
	contains(t, log, "problem: rollout ro-odd", "not everything was taken in")
	out, _ = ran(t, 1, with("--mongo-uri", uri, "--mongo-database", mongotest.Database(t), "--source-partition", "pt-0")...)
	contains(t, out, "3 rollouts", "refused:       1")
}

func TestArchiveUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, want string }{
		{"export", "FILE is missing"},
		{"export a b", `"b" is one word too many`},
		{"export --format csv a", "it must be archive"},
		{"export --store-url http://h:1 --mongo-uri mongodb://h a", "name two places"},
		{"import", "FILE, or --from-agentlightning, is missing"},
		{"import --source-partition x a", "--source-partition goes with --from-agentlightning"},
		{"import --from-agentlightning mongodb://h a", `"a" is not expected here`},
	} {
		_, log := ran(t, 2, strings.Fields(c.line)...)
		contains(t, log, c.want)
	}
	for _, command := range []string{"export", "import"} {
		_, log := ran(t, 1, command, "--store-url", "http://127.0.0.1:1", t.TempDir())
		contains(t, log, "is a directory")
	}
}
