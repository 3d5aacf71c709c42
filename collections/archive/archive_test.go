package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// export makes an archive of a backend.
func export(t testing.TB, b collections.Backend) ([]byte, archive.Counts) {
	t.Helper()
	var out bytes.Buffer
	counts, err := archive.Write(&out, archive.Scan(t.Context(), b))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), counts
}

// imports reads an archive into a backend.
func imports(t testing.TB, b collections.Backend, file []byte, o archive.Options) (archive.Report, error) {
	t.Helper()
	r, err := archive.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return archive.Import(t.Context(), b, r.Items(), o)
}

func mustImport(t testing.TB, b collections.Backend, file []byte, o archive.Options) archive.Report {
	t.Helper()
	report, err := imports(t, b, file, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func text(t testing.TB, file []byte) string {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// compress makes a file of lines as they are.
func compress(t testing.TB, lines string) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return e.EncodeAll([]byte(lines), nil)
}

// partitions opens backends on one database, a partition each.
func partitions(t *testing.T) func() collections.Backend {
	t.Helper()
	uri, database := mongotest.URI(t), mongotest.Database(t)
	n := 0
	return func() collections.Backend {
		n++
		b, err := mongo.Open(t.Context(), mongo.Options{
			URI: uri, Database: database, Partition: fmt.Sprintf("p/%d", n), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close(context.Background()) })
		return b
	}
}

// TestSameEverywhere moves random partitions from memory to MongoDB, within it,
// and back: every archive on the way has the same bytes, and so has one that is
// merged into what it came from.
func TestSameEverywhere(t *testing.T) {
	onMongo := partitions(t)
	for seed := range 8 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			first := inMemory()
			anyStock.Example(seed).put(t, first)
			file, counts := export(t, first)
			for _, b := range []collections.Backend{onMongo(), inMemory()} {
				if report := mustImport(t, b, file, archive.Options{}); report.Stored != counts || report.Present != (archive.Counts{}) || len(report.Problems) > 0 {
					t.Errorf("of %s: %s %q", counts, report.String(), report.Problems)
				}
				again, _ := export(t, b)
				if diff := cmp.Diff(text(t, file), text(t, again)); diff != "" {
					t.Fatalf("the archive of the copy differs:\n%s", diff)
				}
				if !bytes.Equal(file, again) {
					t.Error("the same lines have different bytes")
				}
				if report := mustImport(t, b, file, archive.Options{Merge: true}); report.Present != counts || report.Stored != (archive.Counts{}) || len(report.Problems) > 0 {
					t.Errorf("merged again, of %s: %s %q", counts, report.String(), report.Problems)
				}
				sameLists(t, first, b)
				file = again
			}
		})
	}
}

// TestSameInMemory is the same property, searched for counterexamples.
func TestSameInMemory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		first, second := inMemory(), inMemory()
		anyStock.Draw(rt, "stock").put(t, first)
		file, _ := export(t, first)
		mustImport(t, second, file, archive.Options{})
		again, _ := export(t, second)
		if diff := cmp.Diff(text(t, file), text(t, again)); diff != "" {
			rt.Fatalf("the archive of the copy differs:\n%s", diff)
		}
		sameLists(t, first, second)
	})
}

// sameLists compares what a client sees: lists, the latest resources, the queue.
func sameLists(t testing.TB, a, b collections.Backend) {
	t.Helper()
	list := func(b collections.Backend) string {
		ctx := t.Context()
		rollouts, err1 := b.QueryRollouts(ctx, queue.RolloutQuery{Paging: queue.All})
		workers, err2 := b.QueryWorkers(ctx, queue.WorkerQuery{Paging: queue.All})
		resources, err3 := b.QueryResources(ctx, queue.ResourcesQuery{Paging: queue.All})
		latest, err4 := b.LatestResources(ctx)
		var head []*queue.Record
		err5 := b.Atomic(ctx, func(tx collections.Tx) (err error) { head, err = tx.Head(200); return err })
		due, err6 := b.Overdue(ctx, 1e12, 1000)
		st, err7 := b.Statistics(ctx)
		if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
			t.Fatal(err)
		}
		var out []byte
		for _, r := range rollouts.Items {
			out = append(r.Rollout.AppendJSON(out), '\n')
			page, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: r.Rollout.RolloutID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
			if err != nil {
				t.Fatal(err)
			}
			for i := range page.Items {
				out = append(page.Items[i].AppendJSON(out), '\n')
			}
		}
		for _, w := range workers.Items {
			out = append(w.AppendJSON(out), '\n')
		}
		for _, u := range resources.Items {
			out = append(u.AppendJSON(out), '\n')
		}
		if latest != nil {
			out = append(out, latest.ResourcesID...)
		}
		for _, r := range head {
			out = fmt.Appendf(out, "\n%s at %d", r.Rollout.RolloutID, r.Place)
		}
		out = fmt.Appendf(out, "\n%d due %d %d %d %d", len(due), st.Rollouts, st.Attempts, st.Spans, st.Workers)
		return string(out)
	}
	if diff := cmp.Diff(list(a), list(b)); diff != "" {
		t.Fatalf("the lists differ:\n%s", diff)
	}
}

// sample is a partition with something of everything.
func sample(t testing.TB) collections.Backend {
	t.Helper()
	b := inMemory()
	s := &stock{
		resources: []*queue.ResourcesUpdate{{ResourcesID: "rs-1", CreateTime: 1, UpdateTime: 2, Version: 1, Resources: rawjson.EmptyObject}},
		workers:   []*queue.Worker{{WorkerID: "w-1", Status: queue.WorkerBusy}, {WorkerID: "w-2", Status: queue.WorkerIdle}},
	}
	for i := range 250 {
		r := queue.NewRecord(fmt.Sprintf("ro-%03d", i), queue.Request{Input: rawjson.Value(`{"n":1}`)}, true, float64(100+i))
		r.Place = int64(i + 1)
		if i%2 == 0 {
			w := "w-1"
			r.Begin("at-1", &w, true, 0, 500)
			s.spans = append(s.spans, queue.Span{
				RolloutID: r.Rollout.RolloutID, AttemptID: "at-1", SpanID: "a", SequenceID: 1, Name: "n", Attributes: rawjson.EmptyObject,
			})
			s.counters = append(s.counters, collections.Counter{RolloutID: r.Rollout.RolloutID, N: 1})
		}
		s.records = append(s.records, r)
	}
	s.put(t, b)
	return b
}

// TestDamageIsFound cuts an archive anywhere, and changes it anywhere.
// TestChangedLines edits an archive and compresses it again, as somebody would
// who means well.
// TestCutImport takes in what came before the cut, says so, and the whole file
// merged later completes it.
func TestCutImport(t *testing.T) {
	file, counts := export(t, sample(t))
	lines := strings.SplitAfter(text(t, file), "\n")
	b := inMemory()
	report, err := imports(t, b, compress(t, strings.Join(lines[:300], "")), archive.Options{})
	if queue.KindOf(err) != queue.Invalid || report.Stored.Rollouts == 0 || report.Stored.Rollouts == counts.Rollouts {
		t.Fatalf("%s, %v", report.String(), err)
	}
	st, err := b.Statistics(t.Context())
	if err != nil || st.Rollouts != report.Stored.Rollouts || st.Attempts != report.Stored.Attempts || st.Spans != report.Stored.Spans {
		t.Errorf("stored are %+v, reported %s: %v", st, report.String(), err)
	}
	if _, err := imports(t, b, file, archive.Options{}); queue.KindOf(err) != queue.Conflict {
		t.Errorf("a second import into what is not empty: %v", err)
	}
	rest := mustImport(t, b, file, archive.Options{Merge: true})
	if rest.Present != report.Stored || rest.Present.Rollouts+rest.Stored.Rollouts != counts.Rollouts || len(rest.Problems) > 0 {
		t.Errorf("the rest: %s %q", rest.String(), rest.Problems)
	}
	again, _ := export(t, b)
	if !bytes.Equal(file, again) {
		t.Error("the completed copy has another archive")
	}
}

// TestInterrupted cancels an import in the middle; the next one merges the rest.
func TestInterrupted(t *testing.T) {
	file, counts := export(t, sample(t))
	for name, b := range map[string]collections.Backend{"memory": inMemory(), "mongo": partitions(t)()} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, err := archive.NewReader(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			report, err := archive.Import(ctx, b, r.Items(), archive.Options{Inserted: func([]*queue.Record) { cancel() }})
			if !errors.Is(err, context.Canceled) || report.Stored.Rollouts == counts.Rollouts {
				t.Fatalf("%s, %v", report.String(), err)
			}
			rest := mustImport(t, b, file, archive.Options{Merge: true})
			if rest.Present != report.Stored || len(rest.Problems) > 0 {
				t.Errorf("first %s, then %s %q", report.String(), rest.String(), rest.Problems)
			}
			if again, _ := export(t, b); !bytes.Equal(file, again) {
				t.Error("the completed copy has another archive")
			}
		})
	}
}

// TestDatabaseDies kills the database in the middle of an import and starts it
// again. Whether the import rides that out or not, a merge completes it.
func TestDatabaseDies(t *testing.T) {
	file, counts := export(t, sample(t))
	server := mongotest.Start(t)
	b, err := mongo.Open(t.Context(), mongo.Options{URI: server.URI(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	var crash sync.Once
	var crashing sync.WaitGroup
	first, err := imports(t, b, file, archive.Options{Inserted: func([]*queue.Record) {
		crash.Do(func() {
			server.Kill()
			crashing.Go(func() { server.Restart(t) })
		})
	}})
	crashing.Wait()
	if err != nil && queue.KindOf(err) != queue.Unavailable {
		t.Fatalf("the import ended with %v", err)
	}
	rest := mustImport(t, b, file, archive.Options{Merge: true})
	if len(rest.Problems) > 0 || rest.Present.Rollouts+rest.Stored.Rollouts != counts.Rollouts || rest.Present.Rollouts < first.Stored.Rollouts {
		t.Errorf("first %s, %v; then %s %q", first.String(), err, rest.String(), rest.Problems)
	}
	if again, _ := export(t, b); !bytes.Equal(file, again) {
		t.Error("the completed copy has another archive")
	}
}

func TestConflicts(t *testing.T) {
	onMongo := partitions(t)
	file, counts := export(t, sample(t))
	for name, b := range map[string]collections.Backend{"memory": inMemory(), "mongo": onMongo()} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			other := &stock{
				resources: []*queue.ResourcesUpdate{{ResourcesID: "rs-1", CreateTime: 1, UpdateTime: 3, Version: 2, Resources: rawjson.EmptyObject}},
				workers:   []*queue.Worker{{WorkerID: "w-2", Status: queue.WorkerUnknown}},
				records:   []*queue.Record{queue.NewRecord("ro-000", queue.Request{}, true, 7)},
				spans:     []queue.Span{{RolloutID: "ro-002", AttemptID: "at-1", SpanID: "a", SequenceID: 5, Name: "other"}},
			}
			other.put(t, b)
			// ro-001 has been imported before, and claimed.
			moved := queue.NewRecord("ro-001", queue.Request{Input: rawjson.Value(`{"n":1}`)}, true, 101)
			moved.Begin("at-9", nil, true, 0, 600)
			if err := b.Atomic(ctx, func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{moved}) }); err != nil {
				t.Fatal(err)
			}
			var inserted int
			report := mustImport(t, b, file, archive.Options{Merge: true, Inserted: func(rs []*queue.Record) { inserted += len(rs) }})
			want := []string{
				"set of resources rs-1 is there already and differs; it was left as it is",
				"worker w-2 is there already and differs; it was left as it is",
				"rollout ro-000 is there already and differs; it was left as it is",
				"rollout ro-001 is there already and has moved on: it is preparing, with 1 attempts; it was left as it is",
				"span a of rollout ro-002, attempt at-1, is there already and differs; it was left as it is",
				"1 spans of rollout ro-000 were left out with it",
			}
			if diff := cmp.Diff(want, report.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if report.Conflicts != 5 || report.Stored.Rollouts != counts.Rollouts-2 || report.Stored.Spans != counts.Spans-2 || inserted != int(counts.Rollouts-2) {
				t.Errorf("%s; %d inserted", report.String(), inserted)
			}
			if decoded := archive.DecodeReport(report.AppendJSON(nil)); !cmp.Equal(decoded, report) {
				t.Errorf("the report comes back as %s", decoded.String())
			}
			rs, err := b.Records(ctx, []string{"ro-000"})
			if err != nil || len(rs) != 1 || rs[0].Rollout.StartTime != 7 {
				t.Errorf("ro-000 was overwritten: %v, %v", rs, err)
			}
		})
	}
}

// TestRefused names what the other backend cannot hold, and takes the rest.
func TestRefused(t *testing.T) {
	from := sample(t)
	big := strings.Repeat("x", 17<<20) // more than a document of MongoDB's
	odd := queue.NewRecord("ro-big", queue.Request{ResourcesID: &big}, true, 150.5)
	(&stock{
		records: []*queue.Record{odd},
		workers: []*queue.Worker{{WorkerID: "w-big", Status: queue.WorkerIdle, HeartbeatStats: rawjson.Value(`{"x":"` + big + `"}`)}},
	}).put(t, from)
	file, counts := export(t, from)
	report := mustImport(t, partitions(t)(), file, archive.Options{})
	if report.Refused != 2 || len(report.Problems) != 2 || !strings.Contains(report.Problems[0], "worker w-big was refused") ||
		!strings.Contains(report.Problems[1], "rollout ro-big was refused") {
		t.Errorf("%s %.300q", report.String(), report.Problems)
	}
	if report.Stored.Rollouts != counts.Rollouts-1 || report.Stored.Workers != counts.Workers-1 || report.Stored.Spans != counts.Spans {
		t.Errorf("%s of %s", report.String(), counts)
	}
}

// TestOddOrder takes groups that end early, as those of several partitions do, and
// refuses spans whose rollout came long before them, or never.
func TestOddOrder(t *testing.T) {
	rollout := func(i int) archive.Item {
		r := queue.NewRecord(fmt.Sprintf("ro-%03d", i), queue.Request{}, true, float64(i))
		r.Place = int64(i + 1)
		return archive.Item{Rollout: r}
	}
	span := func(i int) archive.Item {
		return archive.Item{Span: &queue.Span{RolloutID: fmt.Sprintf("ro-%03d", i), AttemptID: "at-1", SpanID: "a", SequenceID: 7}}
	}
	items := func(yield func(archive.Item, error) bool) {
		for i := range 137 { // 37 without spans, then a group of 100
			yield(rollout(i), nil)
		}
		for i := range 100 {
			yield(span(37+i), nil)
		}
		yield(span(999), nil)
		for i := 137; i < 600; i++ { // as many without spans as a large queue has
			yield(rollout(i), nil)
		}
		yield(span(137), nil)
		yield(span(599), nil)
	}
	b := inMemory()
	report, err := archive.Import(t.Context(), b, items, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := archive.Report{Stored: archive.Counts{Rollouts: 600, Spans: 101}, Refused: 2, Problems: []string{
		"span a was refused: its rollout ro-999 is not before it in the archive",
		"span a was refused: its rollout ro-137 is not before it in the archive",
	}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	next, err := b.Counters(t.Context(), []string{"ro-037", "ro-000"})
	if err != nil || next[0] != 7 || next[1] != 0 { // a number that is there is not issued again
		t.Errorf("counters %d, %v", next, err)
	}
}

// TestStreaming reads an archive while it is written, through a pipe that holds
// nothing: neither side needs more than a part of it.
func TestStreaming(t *testing.T) {
	from, into := sample(t), inMemory()
	r, w := io.Pipe()
	var writing sync.WaitGroup
	writing.Go(func() {
		_, err := archive.Write(w, archive.Scan(t.Context(), from))
		w.CloseWithError(err)
	})
	defer writing.Wait()
	reader, err := archive.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := archive.Import(t.Context(), into, reader.Items(), archive.Options{}); err != nil {
		t.Fatal(err)
	}
	sameLists(t, from, into)
}

// flaky cannot read spans for some times, or never.
type flaky struct {
	collections.Backend
	left *int
}

func (b flaky) ScanSpans(ctx context.Context, ids []string, after collections.Cursor, limit int) ([]queue.Span, collections.Cursor, error) {
	if *b.left == 0 {
		return b.Backend.ScanSpans(ctx, ids, after, limit)
	}
	*b.left--
	return nil, "", queue.Errorf(queue.Unavailable, "the database is away")
}

func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := sample(t)
		whole, _ := export(t, from)
		passing, lasting := 3, 1000
		if file, _ := export(t, flaky{from, &passing}); !bytes.Equal(file, whole) {
			t.Error("the archive differs after a database was away for a moment")
		}
		var file bytes.Buffer
		_, err := archive.Write(&file, archive.Scan(t.Context(), flaky{from, &lasting}))
		if queue.KindOf(err) != queue.Unavailable {
			t.Fatalf("the export ended with %v", err)
		}
		if _, err := archive.Check(&file); queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "the database is away") {
			t.Errorf("the archive says %v", err)
		}
	})
}

// TestLargePayloads are kept beside their documents on MongoDB.
func TestLargePayloads(t *testing.T) {
	text := func(n int) rawjson.Value { return rawjson.Value(`{"x":"` + strings.Repeat("x", n) + `"}`) }
	from, into := inMemory(), partitions(t)()
	r := queue.NewRecord("ro-1", queue.Request{Input: text(300 << 10), Metadata: text(100 << 10)}, true, 5)
	r.Begin("at-1", nil, true, 0, 6)
	r.Attempts[0].Metadata = text(100 << 10)
	(&stock{
		resources: []*queue.ResourcesUpdate{{ResourcesID: "rs-1", Resources: text(17 << 20)}},
		records:   []*queue.Record{r},
		counters:  []collections.Counter{{RolloutID: "ro-1", N: 1}},
		spans:     []queue.Span{{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "a", SequenceID: 1, Attributes: text(1 << 20)}},
	}).put(t, from)
	file, counts := export(t, from)
	if report := mustImport(t, into, file, archive.Options{}); report.Stored != counts {
		t.Fatalf("%s of %s: %q", report.String(), counts, report.Problems)
	}
	if report := mustImport(t, into, file, archive.Options{Merge: true}); report.Present != counts {
		t.Errorf("again %s of %s: %q", report.String(), counts, report.Problems)
	}
	if again, _ := export(t, into); !bytes.Equal(file, again) {
		t.Error("the archive of the copy differs")
	}
}

// FuzzRead feeds lines to the reader. What it accepts can be written again and
// reads back the same.
