package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections/mongo/mongotest"
)

// TestGC drops a partition that nobody has seen for a month, and no other.
func TestGC(t *testing.T) {
	t.Parallel()
	uri, database := mongotest.URI(t), mongotest.Database(t)
	env := []string{"AGL_MONGO_URI=" + uri, "AGL_MONGO_DATABASE=" + database}
	gc := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command("aglq", append([]string{"gc"}, args...)...)
		cmd.Env = cleanEnv(env...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("aglq gc %q ended with %d, want %d:\n%s", args, got, code, out)
		}
		return string(out)
	}
	if text := gc(1); !strings.Contains(text, "holds no data of aglq") {
		t.Errorf("an empty database: %s", text)
	}
	for _, name := range []string{"old", "new"} {
		p := start(t, env, storeArgs("--backend", "mongo", "--partition-id", name)...)
		aglq(t, p.url(), "enqueue", write(t, name+".jsonl", tasks(3)))
	}
	client, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(t.Context()) }()
	if text := gc(0); !strings.Contains(text, "old") || !strings.Contains(text, "new") || !strings.Contains(text, "in use") {
		t.Errorf("the list:\n%s", text)
	}
	if text := gc(1, "--partition", "new", "--yes"); !strings.Contains(text, "stop its stores") {
		t.Errorf("dropping what is in use: %s", text)
	}
	_, err = client.Database(database).Collection("partitions").UpdateByID(t.Context(), "old",
		bson.D{{Key: "$set", Value: bson.D{{Key: "seen", Value: time.Now().Add(-30 * 24 * time.Hour)}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--older-than", "168h"}, {"--older-than", "168h", "--yes", "--dry-run"}} {
		if text := gc(0, args...); !strings.Contains(text, "old") || strings.Contains(text, "new") || !strings.Contains(text, "nothing was") {
			t.Errorf("a dry run with %q:\n%s", args, text)
		}
	}
	if text := gc(0, "--older-than", "720h", "--partition", "new", "--json"); text != "" {
		t.Errorf("both conditions hold for none:\n%s", text)
	}
	if text := gc(1, "--partition", "odl"); !strings.Contains(text, `no partition "odl"`) {
		t.Errorf("a name that is not there: %s", text)
	}
	if text := gc(2, "--yes"); !strings.Contains(text, "say which") {
		t.Errorf("--yes alone: %s", text)
	}
	if text := gc(0, "--older-than", "168h", "--yes"); !strings.Contains(text, "dropped partition old: ") {
		t.Errorf("the drop:\n%s", text)
	}
	if text := gc(0, "--json"); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"partition":"new"`) || !strings.Contains(text, `"rollouts":3`) {
		t.Errorf("left:\n%s", text)
	}
}
