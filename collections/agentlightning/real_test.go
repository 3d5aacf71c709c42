package agentlightning_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/agentlightning"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/internal/pyenv"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Tests{M: m}) }

var quiet = slog.New(slog.DiscardHandler)

// reference is Agent-Lightning's own store over a database of this test.
type reference struct {
	uri   string
	saw   map[string]string // its answers, by path
	input io.Writer
	lines *bufio.Reader
}

// seed has the reference's own server fill a database. The name of that is fixed,
// so it needs a server of its own.
func seed(t *testing.T) *reference {
	t.Helper()
	r := &reference{uri: mongotest.Start(t).URI()}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	t.Cleanup(cancel)
	python := exec.CommandContext(ctx, pyenv.Python(t, "compat"), filepath.Join("testdata", "seed.py"), r.uri)
	python.Env = append(os.Environ(), "LITELLM_LOCAL_MODEL_COST_MAP=True", "PYTHONDONTWRITEBYTECODE=1")
	var log bytes.Buffer
	python.Stderr = &log
	input, err1 := python.StdinPipe()
	output, err2 := python.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := python.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		if err := python.Wait(); err != nil {
			t.Errorf("the reference ended with %v: %s", err, log.String())
		}
	})
	r.input, r.lines = input, bufio.NewReader(output)
	r.readLine(t, &r.saw)
	return r
}

func (r *reference) readLine(t *testing.T, into any) {
	t.Helper()
	line, err := r.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, into)
	}
	if err != nil {
		t.Fatalf("the reference said %.300q: %v", line, err)
	}
}

// told is what a source told.
type told struct{ notes, problems []string }

func (r *reference) open(t *testing.T, partition string) (*agentlightning.Source, *told, error) {
	t.Helper()
	var out told
	s, err := agentlightning.Open(t.Context(), agentlightning.Options{
		URI: r.uri, Partition: partition,
		Note:    func(text string) { out.notes = append(out.notes, text) },
		Problem: func(text string) { out.problems = append(out.problems, text) },
	})
	if s != nil {
		t.Cleanup(func() { s.Close(context.Background()) })
	}
	return s, &out, err
}

func TestRealDatabase(t *testing.T) {
	ref := seed(t)

	_, _, err := ref.open(t, "")
	if queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "2 partitions") || !strings.Contains(err.Error(), "2 rollouts, the latest of 20") {
		t.Fatalf("without a partition's name: %v", err)
	}
	if _, _, err := ref.open(t, "pt-none"); queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "no partition pt-none; it has\n  pt-") {
		t.Fatalf("with a wrong name: %v", err)
	}
	all, heard, err := ref.open(t, agentlightning.AllPartitions)
	if err != nil {
		t.Fatal(err)
	}
	partitions, err := all.Partitions(t.Context())
	if err != nil || len(partitions) != 2 || partitions[1].Rollouts != 2 || partitions[0].Last < partitions[1].Last {
		t.Fatalf("partitions %+v, %v", partitions, err)
	}

	onMongo, err := mongo.Open(t.Context(), mongo.Options{URI: ref.uri, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = onMongo.Close(context.Background()) })
	inMemory := memory.New(memory.Options{Logger: quiet})
	var files []string
	for _, b := range []collections.Backend{onMongo, inMemory} {
		source, heard, err := ref.open(t, partitions[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		report, err := archive.Import(t.Context(), b, source.Items(t.Context()), archive.Options{})
		if err != nil || len(report.Problems) > 0 || len(heard.problems) > 0 {
			t.Fatalf("%s, %v: %q %q", report.String(), err, report.Problems, heard.problems)
		}
		if diff := cmp.Diff([]string{"1 documents of span_sequence_ids belong to no rollout and were left behind"}, heard.notes); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
		ref.compare(t, b)
		files = append(files, archived(t, b))

		// The same once more changes nothing.
		source, _, err = ref.open(t, partitions[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		again, err := archive.Import(t.Context(), b, source.Items(t.Context()), archive.Options{Merge: true})
		if err != nil || again.Present != report.Stored || again.Stored != (archive.Counts{}) || len(again.Problems) > 0 {
			t.Errorf("imported again: %s, %v: %q", again.String(), err, again.Problems)
		}
	}
	if diff := cmp.Diff(files[0], files[1]); diff != "" {
		t.Errorf("the two backends differ:\n%s", diff)
	}

	both := memory.New(memory.Options{Logger: quiet})
	report, err := archive.Import(t.Context(), both, all.Items(t.Context()), archive.Options{})
	if err != nil || len(report.Problems) > 0 || report.Stored.Rollouts != partitions[0].Rollouts+2 {
		t.Errorf("all partitions: %s, %v: %q", report.String(), err, report.Problems)
	}
	if len(heard.notes) != 2 || !strings.HasPrefix(heard.notes[0], "worker w-everywhere is in several partitions; that of "+partitions[1].ID) {
		t.Errorf("notes on all partitions: %q", heard.notes)
	}
	ref.compareOrder(t, onMongo, inMemory)
}

func archived(t *testing.T, b collections.Backend) string {
	t.Helper()
	var out strings.Builder
	for item, err := range archive.Scan(t.Context(), b) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case item.Rollout != nil:
			fmt.Fprintf(&out, "%s place=%d due=%v spans=%d counter=%d attempts=%d\n", item.Rollout.Rollout.AppendJSON(nil),
				item.Rollout.Place, item.Rollout.Due, item.Rollout.Spans, item.Counter, len(item.Rollout.Attempts))
		case item.Span != nil:
			fmt.Fprintf(&out, "%s\n", item.Span.AppendJSON(nil))
		case item.Resources != nil:
			fmt.Fprintf(&out, "%s latest=%t\n", item.Resources.AppendJSON(nil), item.Latest)
		}
	}
	return out.String()
}

// serve puts a store over a backend, which is not closed, behind HTTP.
func serve(t *testing.T, b collections.Backend) (url string, stop func()) {
	t.Helper()
	s := store.New(open{b}, store.Options{ScanDebounce: time.Hour, Logger: quiet})
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: quiet}))
	return server.URL, func() {
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// open outlives the store over it.
type open struct{ collections.Backend }

func (open) Close(context.Context) error { return nil }

// leaked is the reference's own field, which it shows with spans by mistake.
var leaked = regexp.MustCompile(`,"partition_id":"pt-[0-9a-f]+"`)

// compare asks aglq what the reference was asked: the answers are the same to the
// letter, white space aside.
func (r *reference) compare(t *testing.T, b collections.Backend) {
	t.Helper()
	url, stop := serve(t, b)
	defer stop()
	for path, theirs := range r.saw {
		got := call(t, http.MethodGet, url+"/v1/agl/"+path, "")
		if strings.HasPrefix(path, "spans") {
			theirs = leaked.ReplaceAllString(theirs, "")
		}
		if diff := cmp.Diff(items(t, theirs), items(t, got)); diff != "" {
			t.Errorf("%s (-reference +aglq):\n%s", path, diff)
		}
	}
}

func call(t *testing.T, method, url, body string) string {
	t.Helper()
	rq, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	rq.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(rq)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode > 299 {
		t.Fatalf("%s: %s, %v: %.300s", url, answer.Status, err, text)
	}
	return string(text)
}

// items are the items of a page, or the one record, in canonical form.
func items(t *testing.T, text string) (out []string) {
	t.Helper()
	v, err := rawjson.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if v.Get("items") == nil {
		return []string{v.String()}
	}
	for item := range v.Get("items").Elements() {
		out = append(out, item.String())
	}
	return out
}

// compareOrder has the reference and aglq hand out their queues and number spans.
func (r *reference) compareOrder(t *testing.T, backends ...collections.Backend) {
	t.Helper()
	fmt.Fprintln(r.input)
	var want struct {
		Order   []string
		Numbers map[string]any
	}
	r.readLine(t, &want)
	if len(want.Order) < 5 {
		t.Fatalf("only %d rollouts were queued", len(want.Order))
	}
	for _, b := range backends {
		url, stop := serve(t, b)
		got := map[string]any{}
		for id := range want.Numbers {
			var number any
			answer := call(t, http.MethodPost, url+"/v1/agl/spans/next", fmt.Sprintf(`{"rollout_id":%q,"attempt_id":"at"}`, id))
			if err := json.Unmarshal([]byte(answer), &number); err != nil {
				t.Fatal(err)
			}
			got[id] = number
		}
		if diff := cmp.Diff(want.Numbers, got); diff != "" {
			t.Errorf("next numbers (-reference +aglq):\n%s", diff)
		}
		var order []string
		claimed := call(t, http.MethodPost, url+"/v1/agl/queues/rollouts/dequeue", `{"limit":1000}`)
		v, err := rawjson.Parse([]byte(claimed))
		if err != nil {
			t.Fatal(err)
		}
		for e := range v.Elements() {
			order = append(order, e.Get("rollout_id").Text())
		}
		if diff := cmp.Diff(want.Order, order); diff != "" {
			t.Errorf("queue (-reference +aglq):\n%s", diff)
		}
		stop()
	}
}

// TestDamagedDatabase has documents that no version of the reference writes.
func TestDamagedDatabase(t *testing.T) {
	uri, name := mongotest.URI(t), mongotest.Database(t)
	client, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	db := client.Database(name)
	config := bson.D{{Key: "max_attempts", Value: 1}, {Key: "retry_condition", Value: bson.A{}}}
	rollout := func(id, status string, more ...bson.E) bson.D {
		return append(bson.D{
			{Key: "partition_id", Value: "pt"}, {Key: "rollout_id", Value: id}, {Key: "status", Value: status},
			{Key: "start_time", Value: 5}, {Key: "config", Value: config}, {Key: "input", Value: bson.NewDateTimeFromTime(time.Unix(1, 0))},
		}, more...)
	}
	for collection, docs := range map[string][]any{
		"rollouts": {
			rollout("ro-lost", "requeuing"), rollout("ro-bad", "resting"), rollout("ro-good", "queuing"),
			rollout("ro-twice", "queuing"), bson.D{{Key: "partition_id", Value: "pt"}},
		},
		"rollout_queue": {
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "value", Value: "ro-twice"}, {Key: "consumed", Value: false}},
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "value", Value: "ro-good"}, {Key: "consumed", Value: false}},
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "value", Value: "ro-twice"}, {Key: "consumed", Value: false}},
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "value", Value: "ro-lost"}, {Key: "consumed", Value: true}},
		},
		"attempts": {
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "rollout_id", Value: "ro-gone"}, {Key: "attempt_id", Value: "at-1"}},
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "rollout_id", Value: "ro-good"}, {Key: "attempt_id", Value: "at-1"}, {Key: "status", Value: 7}},
		},
		"spans": {
			bson.D{
				{Key: "partition_id", Value: "pt"}, {Key: "rollout_id", Value: "ro-good"}, {Key: "attempt_id", Value: "at-1"},
				{Key: "span_id", Value: "nan"}, {Key: "sequence_id", Value: 1.0}, {Key: "attributes", Value: bson.D{{Key: "a", Value: nan()}}},
			},
			bson.D{{Key: "partition_id", Value: "pt"}, {Key: "rollout_id", Value: "ro-good"}, {Key: "attempt_id", Value: "at-1"}, {Key: "span_id", Value: "half"}, {Key: "sequence_id", Value: 1.5}},
		},
	} {
		if _, err := db.Collection(collection).InsertMany(t.Context(), docs); err != nil {
			t.Fatal(err)
		}
	}
	var heard told
	s, err := agentlightning.Open(t.Context(), agentlightning.Options{
		URI: uri, Database: name,
		Note:    func(text string) { heard.notes = append(heard.notes, text) },
		Problem: func(text string) { heard.problems = append(heard.problems, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	b := memory.New(memory.Options{Logger: quiet})
	report, err := archive.Import(t.Context(), b, s.Items(t.Context()), archive.Options{})
	if err != nil || report.Stored != (archive.Counts{Rollouts: 3, Spans: 1}) || len(report.Problems) > 0 {
		t.Errorf("%s, %v: %q", report.String(), err, report.Problems)
	}
	if len(heard.problems) != 4 {
		t.Errorf("problems: %q", heard.problems)
	}
	for _, want := range []string{"rollout ro-bad", "its status is \"resting\"", "attempt at-1", "its status is", "span half", "its sequence_id is", "it has no rollout_id"} {
		if !strings.Contains(strings.Join(heard.problems, "\n"), want) {
			t.Errorf("no %s in %q", want, heard.problems)
		}
	}
	wantNotes := []string{
		"rollout ro-lost was requeuing and in no queue, where nobody would have claimed it; it is at the queue's tail now",
		"1 documents of attempts belong to no rollout and were left behind",
	}
	if diff := cmp.Diff(wantNotes, heard.notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	var order []string
	err = b.Atomic(t.Context(), func(tx collections.Tx) error {
		head, err := tx.Head(9)
		for _, r := range head {
			order = append(order, r.Rollout.RolloutID+" "+r.Rollout.Input.String())
		}
		return err
	})
	if diff := cmp.Diff([]string{
		`ro-twice "1970-01-01T00:00:01Z"`, `ro-good "1970-01-01T00:00:01Z"`, `ro-lost "1970-01-01T00:00:01Z"`,
	}, order); err != nil || diff != "" {
		t.Errorf("queue: %v (-want +got):\n%s", err, diff)
	}
	page, err := b.QuerySpans(t.Context(), queue.SpanQuery{RolloutID: "ro-good", Paging: queue.All})
	if err != nil || len(page.Items) != 1 || page.Items[0].Attributes.String() != `{"a":"NaN"}` {
		t.Errorf("span %v, %v", page.Items, err)
	}
}

func TestNothingThere(t *testing.T) {
	_, err := agentlightning.Open(t.Context(), agentlightning.Options{URI: mongotest.URI(t), Database: mongotest.Database(t)})
	if queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "holds nothing of Agent-Lightning") {
		t.Errorf("an empty database: %v", err)
	}
	_, err = agentlightning.Open(t.Context(), agentlightning.Options{URI: "http://nowhere"})
	if queue.KindOf(err) != queue.Invalid {
		t.Errorf("a wrong URI: %v", err)
	}
}

func nan() float64 { return math.NaN() }
