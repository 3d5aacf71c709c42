package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/where"
)

// helper is the beginning of every program here.
const helper = `
import json, sys
def read():
    line = sys.stdin.readline()
    if not line: sys.exit(9)
    return json.loads(line)
def send(**c): print(json.dumps(c), flush=True)
def until(kind):
    while True:
        line = read()
        if kind in line: return line[kind]
hello = until("hello")
`

// python writes a program and returns its command.
func python(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "algorithm.py")
	if err := os.WriteFile(path, []byte(helper+text), 0o666); err != nil {
		t.Fatal(err)
	}
	return []string{"python3", path}
}

// output is what a program writes to its standard error.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// run runs a program and returns what it wrote to its standard error.
func run(t *testing.T, s queue.Store, config Config) (string, Summary, error) {
	t.Helper()
	var out output
	config.Stderr, config.Logger = &out, quiet()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	summary, err := Run(ctx, s, config)
	return out.String(), summary, err
}

// square rewards numbers near 3.
func square(r queue.AttemptedRollout) testagent.Outcome {
	x, ok := r.Input.Float()
	if !ok {
		return testagent.Outcome{Failed: true, Error: "no number"}
	}
	return testagent.Rewarded(-(x - 3) * (x - 3))
}

func count(t *testing.T, s queue.Store) int {
	t.Helper()
	page, err := s.Rollouts(t.Context(), queue.RolloutQuery{Paging: queue.Paging{Limit: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return page.Total
}

// TestExample runs the example, and once more under the same name: nothing is done
// twice, and the result is the same.
func TestExample(t *testing.T) {
	s := testagent.Store(t)
	testagent.Serve(t, s, 3, square)
	config := Config{Command: []string{"python3", filepath.Join("..", "..", "examples", "algorithm", "python", "climb.py")}, Run: "climb"}
	var outs []string
	for range 2 {
		out, summary, err := run(t, s, config)
		if err != nil || summary.Told != 72 || summary.Unfinished != 0 {
			t.Fatalf("%+v, %v\n%s", summary, err, out)
		}
		outs = append(outs, out)
	}
	if !strings.Contains(outs[0], "round 7: 3.0 earns 0") || outs[0] != outs[1] || count(t, s) != 72 {
		t.Errorf("%d rollouts, said\n%s\nand then\n%s", count(t, s), outs[0], outs[1])
	}
	stored, err := s.Resources(t.Context(), "climb")
	if err != nil || stored == nil || stored.Version != 1 || stored.Resources.Get("best").Get("template").Text() != "3.0" {
		t.Errorf("resources %+v, %v", stored, err)
	}
}

// TestCommands has a program try each command, right and wrong.
func TestCommands(t *testing.T) {
	s := testagent.Store(t)
	out, summary, err := run(t, s, Config{Run: "r", Mode: queue.ModeVal, Command: python(t, `
assert hello["version"] == 1 and hello["run"] == "r" and not hello["resumed"] and hello["batches"] == [], hello
def ask(**c):
    send(**c)
    while True:
        line = read()
        for kind in ("ok", "error"):
            if kind in line: return line[kind]
def refused(kind, text, **c):
    e = ask(**c)
    assert e.get("kind") == kind and text in e["message"] and e["id"] == c.get("id"), (e, c)
a = ask(id="a", enqueue={"batch": "b", "tasks": [{"input": 1}, {"input": "x", "metadata": {"m": 1}, "data_id": "d"}], "metadata": {"all": True}, "config": {"max_attempts": 2}})
assert a["id"] == "a" and a["enqueue"]["batch"] == "b" and a["enqueue"]["stored"] == 2 and len(a["enqueue"]["rollout_ids"]) == 2, a
again = ask(enqueue={"batch": "b", "tasks": [{"input": 1}, {"input": "x"}, {"input": 3}]})
assert again["id"] is None and again["enqueue"]["stored"] == 1 and again["enqueue"]["rollout_ids"][:2] == a["enqueue"]["rollout_ids"], again
refused("conflict", "another input", id=1, enqueue={"batch": "b", "tasks": [{"input": 2}, {"input": "x"}, {"input": 3}]})
refused("conflict", "more than", id=2, enqueue={"batch": "b", "tasks": [{"input": 1}]})
refused("invalid", "at least one", enqueue={"tasks": []})
refused("invalid", "mode", enqueue={"tasks": [{"input": 1}], "mode": "none"})
refused("invalid", "repeat", enqueue={"tasks": [{"input": 1}], "repeat": -1})
for repeat in (10**18, 10**9, 600_000):
    refused("invalid", "split", enqueue={"tasks": [{"input": 1}, {"input": 2}], "repeat": repeat})
refused("invalid", "max_attempts", enqueue={"tasks": [{"input": 1}], "config": {"max_attempts": 0}})
refused("invalid", "no JSON object", enqueue={"tasks": [{"input": 1}], "metadata": 3})
refused("invalid", "no JSON object", enqueue={"tasks": [{"input": 1, "metadata": 3}]})
refused("invalid", "has 0", id={"any": "thing"})
refused("not found", "no batch", cancel={"batch": "nosuch"})
refused("not found", "no rollout", cancel={"rollout_ids": ["ro-nosuch"]})
print("this is no JSON", flush=True)
e = until("error")
assert e["kind"] == "invalid" and e["id"] is None and e["line"] == 17, e
r = ask(resources={"resources": {"p": {"resource_type": "prompt_template", "template": "t", "engine": "f-string"}}})
assert r["resources"] == {"resources_id": "r", "version": 1}, r
r = ask(resources={"resources": {"p": {"resource_type": "prompt_template", "template": "t", "engine": "f-string"}}})
assert r["resources"]["version"] == 1, r
c = ask(cancel={"rollout_ids": a["enqueue"]["rollout_ids"][:1]})
assert c["cancel"] == {"cancelled": 1}, c
f = until("finished")
assert f["rollout"]["status"] == "cancelled" and f["attempt"] is None and f["batch"] == "b" and f["index"] == 0 and f["own"], f
assert f["rollout"]["mode"] == "val" and f["rollout"]["metadata"]["run"] == "r" and f["rollout"]["metadata"]["all"] is True, f
send(id="z", done={"cancel": True})
assert until("ok") == {"id": "z", "cancel": {"cancelled": 2}}
assert sys.stdin.readline() == ""
send(enqueue={"tasks": [{"input": "too late"}]})
`)})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := count(t, s); n != 3 || summary.Told < 1 || summary.Told+summary.Unfinished != 3 {
		t.Errorf("%d rollouts, %+v", n, summary)
	}
}

// TestGroups has repeats, spans and a filter told.
func TestGroups(t *testing.T) {
	s := testagent.Store(t)
	var mu sync.Mutex
	rewards := map[string]float64{}
	testagent.Serve(t, s, 1, func(r queue.AttemptedRollout) testagent.Outcome {
		mu.Lock()
		defer mu.Unlock()
		rewards[r.Input.Text()]++
		return testagent.Rewarded(rewards[r.Input.Text()])
	})
	filter, err := where.Compile(`reward > 0`)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := run(t, s, Config{Groups: true, Spans: true, Messages: true, Triplets: TracerTriplets, Where: filter, Command: python(t, `
send(enqueue={"batch": "b", "tasks": [{"input": "x"}, {"input": "y"}], "repeat": 3})
groups = [until("group") for _ in range(2)]
g = next(g for g in groups if g["data_id"].endswith("-0"))
assert g["batch"] == "b" and g["count"] == 3 and g["mean"] == 2 and g["min"] == 1 and g["max"] == 3 and not g["constant"], g
assert g["coverage"] == {"succeeded": 3} and sorted(m["reward"] for m in g["members"]) == [1, 2, 3], g
assert abs(sum(m["advantage"] for m in g["members"])) < 1e-9, g
send(enqueue={"batch": "c", "tasks": [{"input": "z"}]})
f = until("finished")
assert f["spans"][0]["name"] == "agentlightning.annotation" and f["messages"] == [] and f["triplets"] == [], f
send(done=True)
`)})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestFilteredGroups tells a group of which the filter lets one member through.
func TestFilteredGroups(t *testing.T) {
	s := testagent.Store(t)
	var n atomic.Int64
	testagent.Serve(t, s, 1, func(queue.AttemptedRollout) testagent.Outcome { return testagent.Rewarded(float64(n.Add(1))) })
	filter, err := where.Compile(`reward == 2`)
	if err != nil {
		t.Fatal(err)
	}
	out, summary, err := run(t, s, Config{Groups: true, Where: filter, Command: python(t, `
send(enqueue={"batch": "b", "tasks": [{"input": "x"}], "repeat": 3})
g = until("group")
assert g["count"] == 3 and g["mean"] == 2 and sorted(m["reward"] for m in g["members"]) == [1, 2, 3], g
send(done=True)
`)})
	if err != nil || summary.Told != 1 {
		t.Fatalf("%+v, %v\n%s", summary, err, out)
	}
}

// slow is a store whose first enqueue takes longer than a dead program's output is
// waited for.
type slow struct {
	queue.Store
	once sync.Once
}

func (s *slow) Enqueue(ctx context.Context, reqs []queue.Request) ([]queue.Rollout, error) {
	s.once.Do(func() { time.Sleep(1500 * time.Millisecond) })
	return s.Store.Enqueue(ctx, reqs)
}

// TestLastWords carries out all that a program wrote before it ended, however long
// that takes.
func TestLastWords(t *testing.T) {
	s := testagent.Store(t)
	config := Config{MaxUnfinished: 5, Grace: time.Millisecond, unreadMost: 4 << 10, Command: python(t, `
for i in range(90): print(json.dumps({"enqueue": {"tasks": [{"input": str(i) * 300}]}}))
`)}
	if out, _, err := run(t, &slow{Store: s}, config); err != nil || count(t, s) != 90 {
		t.Errorf("%d of 90 commands were carried out, %v\n%s", count(t, s), err, out)
	}
}

// TestBackPressure lets a program write far ahead of what it reads.
func TestBackPressure(t *testing.T) {
	s := testagent.Store(t)
	var mu sync.Mutex
	most := 0
	testagent.Serve(t, s, 2, func(queue.AttemptedRollout) testagent.Outcome {
		page, err := s.Rollouts(t.Context(), queue.RolloutQuery{
			Statuses: []queue.RolloutStatus{queue.RolloutQueuing, queue.RolloutPreparing, queue.RolloutRunning}, Paging: queue.Paging{Limit: 1},
		})
		mu.Lock()
		defer mu.Unlock()
		if most = max(most, page.Total); err != nil {
			t.Error(err)
		}
		return testagent.Rewarded(1)
	})
	out, summary, err := run(t, s, Config{MaxUnfinished: 5, Command: python(t, `
for i in range(40): send(id=i, enqueue={"tasks": [{"input": i}]})
send(id="big", enqueue={"tasks": [{"input": i} for i in range(10)]})
finished = 0
while finished < 50: finished += "finished" in read()
`)})
	if err != nil || summary.Told != 50 {
		t.Fatalf("%+v, %v\n%s", summary, err, out)
	}
	if most > 10 {
		t.Errorf("%d rollouts were unfinished at a time", most)
	}
}

// TestProgramsThatEnd checks that the exit status decides, and what becomes of those
// that do not behave.
func TestProgramsThatEnd(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		config     Config
	}{
		"well":              {"pass", "", Config{}},
		"badly":             {"sys.exit(3)", "exit status 3", Config{}},
		"by a signal":       {"import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal: killed", Config{}},
		"without a newline": {`sys.stdout.write(json.dumps({"enqueue": {"tasks": [{"input": 1}]}}))`, "", Config{}},
		"without reading": {`
for i in range(10000): send(enqueue={"batch": "b", "tasks": [{"input": 1}]})
`, "does not read", Config{unreadMost: 1 << 18, Grace: 100 * time.Millisecond}},
		"deaf": {`
sys.stdin.close()
for i in range(50): send(enqueue={"tasks": [{"input": i}]})
`, "", Config{MaxUnfinished: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testagent.Store(t)
			testagent.Serve(t, s, 1, square)
			config := c.config
			config.Command = python(t, c.text)
			out, _, err := run(t, s, config)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("ended with %v; want %q\n%s", err, c.want, out)
			}
			wanted := map[string]int{"without a newline": 1, "deaf": 50, "without reading": 1}[name]
			if n := count(t, s); n != wanted {
				t.Errorf("%d rollouts, want %d", n, wanted)
			}
		})
	}
}

func TestStopped(t *testing.T) {
	s := testagent.Store(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	var out output
	_, err := Run(ctx, s, Config{
		Command: python(t, `
import signal
signal.signal(signal.SIGTERM, lambda *_: (print("told to end", file=sys.stderr, flush=True), sys.exit(0)))
send(enqueue={"tasks": [{"input": 1}]})
until("ok")
print("begun", file=sys.stderr, flush=True)
read()
`), Stderr: writerFunc(func(p []byte) (int, error) {
			if bytes.Contains(p, []byte("begun")) {
				cancel(cause)
			}
			return out.Write(p)
		}), Logger: quiet(),
	})
	if !errors.Is(err, cause) || !strings.Contains(out.String(), "told to end") {
		t.Errorf("ended with %v\n%s", err, out.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestAll tells the rollouts of others, those that began early not among them.
func TestAll(t *testing.T) {
	s := testagent.Store(t)
	enqueue := func(input string) queue.Rollout {
		rollouts, err := s.Enqueue(t.Context(), []queue.Request{{Input: rawjson.Value(input)}})
		if err != nil {
			t.Fatal(err)
		}
		return rollouts[0]
	}
	enqueue(`"early"`)
	later := enqueue(`"theirs"`)
	testagent.Serve(t, s, 1, square)
	out, summary, err := run(t, s, Config{All: true, Since: later.StartTime, Command: python(t, `
send(enqueue={"tasks": [{"input": "mine"}]})
seen = {}
while len(seen) < 2:
    f = until("finished")
    seen[f["rollout"]["input"]] = f["own"]
assert seen == {"mine": True, "theirs": False}, seen
`)})
	if err != nil || summary.Told != 2 {
		t.Fatalf("%+v, %v\n%s", summary, err, out)
	}
}

// TestResumes starts a run again that was killed in the middle: the program is told
// what is there, and that a batch has lost rollouts.
func TestResumes(t *testing.T) {
	s := testagent.Store(t)
	if _, _, err := run(t, s, Config{Run: "r", Command: python(t, `
send(enqueue={"batch": "one", "tasks": [{"input": 1}, {"input": 2}]})
send(enqueue={"batch": "two", "tasks": [{"input": 3}]})
until("ok"); until("ok")
`)}); err != nil {
		t.Fatal(err)
	}
	testagent.Serve(t, s, 1, square)
	until(t, func() bool {
		page, err := s.Rollouts(t.Context(), queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutSucceeded}, Paging: queue.Paging{Limit: 1}})
		return err == nil && page.Total == 3
	})
	out, _, err := run(t, s, Config{Run: "r", Command: python(t, `
assert hello["resumed"] and hello["batches"] == ["one", "two"] and hello["rollouts"] == {"succeeded": 3} and hello["unfinished"] == 0, hello
send(enqueue={"batch": "three", "tasks": [{"input": 4}]})
seen = {}
while len(seen) < 4:
    f = until("finished")
    seen[(f["batch"], f["index"])] = f["replayed"]
assert seen == {("one", 0): True, ("one", 1): True, ("two", 0): True, ("three", 0): False}, seen
`)})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lost := &losing{Store: s}
	out, _, err = run(t, lost, Config{Run: "r", Command: python(t, `
send(enqueue={"batch": "one", "tasks": [{"input": 1}, {"input": 2}]})
e = until("error")
assert e["kind"] == "conflict" and "another name" in e["message"], e
`)})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// losing is a store that has lost the rollout with input 1.
type losing struct{ queue.Store }

func (s *losing) Rollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	page, err := s.Store.Rollouts(ctx, q)
	for i := range page.Items {
		if string(page.Items[i].Input) == "1" {
			page.Items = append(page.Items[:i:i], page.Items[i+1:]...)
			break
		}
	}
	return page, err
}

func until(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []Config{
		{}, {Command: []string{"no-such-program"}}, {Command: []string{"true"}, Mode: "x"},
		{Command: []string{"true"}, Triplets: "x"}, {Command: []string{"true"}, MaxUnfinished: -1},
	} {
		if _, err := Run(t.Context(), testagent.Store(t), c); queue.KindOf(err) != queue.Invalid || err == nil {
			t.Errorf("%+v gives %v", c, err)
		}
	}
}

// TestMessageIsOneLine checks the form of what is written.
func TestMessageIsOneLine(t *testing.T) {
	text, err := message{Error: &Fault{Message: "a\nb"}}.line()
	if err != nil || bytes.Count(text, []byte("\n")) != 1 || !json.Valid(text) {
		t.Error(fmt.Sprintf("%q", text), err)
	}
}
