package dataset_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/where"
)

// exported makes a dataset in memory.
func exported(t testing.TB, src dataset.Source, opts dataset.Options) (rows []string, counts dataset.Counts) {
	t.Helper()
	counts, err := dataset.Export(context.Background(), src, opts, func(r dataset.Row) error {
		rows = append(rows, string(r.AppendJSON(nil)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, counts
}

// TestRows compares the rows of each format with golden files.
func TestRows(t *testing.T) {
	r := inMemory(t)
	r.fill()
	for name, opts := range map[string]dataset.Options{
		"conversational":    {Format: dataset.Conversational, Origin: true},
		"each-call":         {Format: dataset.Conversational, EachCall: true},
		"text-only":         {Format: dataset.Conversational, WithoutSystem: true, WithoutToolCalls: true},
		"prompt-completion": {Format: dataset.PromptCompletionFormat, Origin: true},
		"triplet":           {Format: dataset.TripletFormat},
		"openai-ft":         {Format: dataset.OpenAIFT},
		"openai-ft-last":    {Format: dataset.OpenAIFT, LastOnly: true},
		"raw":               {Format: dataset.Raw},
	} {
		t.Run(name, func(t *testing.T) {
			rows, _ := exported(t, r.source(), opts)
			got := strings.Join(rows, "\n") + "\n"
			path := filepath.Join("testdata", name+".jsonl")
			if *update {
				r.must(os.MkdirAll("testdata", 0o777))
				r.must(os.WriteFile(path, []byte(got), 0o666))
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func pointer[T any](v T) *T { return &v }

// TestFilters names the rollouts whose rows each filter leaves, and why the others are
// not there. A store, the database behind it and its archive give the same.
func TestFilters(t *testing.T) {
	r := inMemory(t)
	r.fill()
	everything := dataset.Filter{Statuses: queue.RolloutStatuses}
	all := func(change func(*dataset.Filter)) dataset.Filter {
		f := everything
		change(&f)
		return f
	}
	expression := func(text string) *where.Filter {
		f, err := where.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, test := range []struct {
		name    string
		filter  dataset.Filter
		want    string // of attempts
		dropped map[dataset.Reason]int64
	}{
		{"succeeded by default", dataset.Filter{}, "at-1 at-2 at-8",
			map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.NothingSaid: 1, dataset.Malformed: 1}},
		{"everything", everything, "at-1 at-2 at-3 at-8",
			map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.NothingSaid: 1, dataset.Malformed: 1, dataset.NoAttempt: 1}},
		{"failed", dataset.Filter{Statuses: []queue.RolloutStatus{queue.RolloutFailed}}, "at-3", nil},
		{"no status", dataset.Filter{Statuses: []queue.RolloutStatus{}}, "", nil},
		{"ids", dataset.Filter{RolloutIDs: []string{"ro-1", "ro-2"}}, "at-1 at-2", nil},
		{"an id of another status", dataset.Filter{RolloutIDs: []string{"ro-3"}}, "", map[dataset.Reason]int64{dataset.WrongStatus: 1}},
		{"mode", all(func(f *dataset.Filter) { f.Modes = []queue.Mode{queue.ModeVal} }), "at-2", map[dataset.Reason]int64{dataset.WrongMode: 7}},
		{"resources", all(func(f *dataset.Filter) { f.ResourceIDs = []string{"v3"} }), "", map[dataset.Reason]int64{dataset.WrongResources: 8}},
		{"metadata", all(func(f *dataset.Filter) { f.Metadata = []dataset.MetadataMatch{{Key: "project", Value: "x"}} }), "at-1 at-3",
			map[dataset.Reason]int64{dataset.WrongMetadata: 6}},
		{"metadata below", all(func(f *dataset.Filter) { f.Metadata = []dataset.MetadataMatch{{Key: "data.n", Value: "1"}} }), "at-1",
			map[dataset.Reason]int64{dataset.WrongMetadata: 7}},
		{"since", all(func(f *dataset.Filter) { f.Since = time.Unix(1007, 0) }), "at-8", map[dataset.Reason]int64{dataset.WrongTime: 6, dataset.NoAttempt: 1}},
		{"until", all(func(f *dataset.Filter) { f.Until = time.Unix(1003, 0) }), "at-1 at-2", map[dataset.Reason]int64{dataset.WrongTime: 6}},
		{"least reward", dataset.Filter{MinReward: pointer(0.5)}, "at-1 at-2",
			map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.NothingSaid: 1, dataset.NoReward: 1, dataset.WrongReward: 1}},
		{"highest reward", dataset.Filter{MaxReward: pointer(0.5)}, "at-2 at-8",
			map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.NoReward: 1, dataset.WrongReward: 2}},
		{"tag", dataset.Filter{Tags: []string{"good"}}, "at-1", map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.WrongTag: 4}},
		{"best attempt", dataset.Filter{Attempt: dataset.BestAttempt, RolloutIDs: []string{"ro-7"}}, "at-7", map[dataset.Reason]int64{dataset.NotBest: 1}},
		{"all attempts", dataset.Filter{Attempt: dataset.AllAttempts, RolloutIDs: []string{"ro-7"}}, "at-7 at-8", nil},
		{"top half", dataset.Filter{TopFraction: 0.5}, "at-1", // with the attempt that has no calls
			map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.NoReward: 1, dataset.NothingSaid: 1, dataset.NotTop: 2}},
		{"where", dataset.Filter{Where: expression(`metadata.project == "x"`)}, "at-1", map[dataset.Reason]int64{dataset.WrongWhere: 5}},
		{"where of spans", dataset.Filter{Where: expression(`reward > 0.6 or "good" in tags`)}, "at-1",
			map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.NothingSaid: 1, dataset.WrongWhere: 3}},
		{"where fails", dataset.Filter{RolloutIDs: []string{"ro-1"}, Where: expression(`metadata.project + 1 > 0`)}, "",
			map[dataset.Reason]int64{dataset.WhereFailed: 1}},
		{"predicate", dataset.Filter{Predicate: func(c *dataset.Candidate) (bool, error) {
			if c.AttemptID == "at-1" {
				return false, errors.New("cannot tell")
			}
			return c.AttemptID == "at-2", nil
		}}, "at-2", map[dataset.Reason]int64{dataset.NoSpans: 1, dataset.WhereFailed: 1, dataset.WrongWhere: 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, src := range r.sources(t) {
				var attempts []string
				counts, err := dataset.Export(t.Context(), src, dataset.Options{Filter: test.filter, Format: dataset.Conversational, Origin: true}, func(row dataset.Row) error {
					attempts = append(attempts, row.(*dataset.ChatRow).Origin.AttemptID)
					return nil
				})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				slices.Sort(attempts) // a scan gives them in the order of ids
				if got := strings.Join(attempts, " "); got != test.want {
					t.Errorf("%s: %s, and not %s", name, got, test.want)
				}
				if test.dropped == nil {
					test.dropped = map[dataset.Reason]int64{}
				}
				if !maps.Equal(test.dropped, counts.Dropped) {
					t.Errorf("%s: dropped %v, and not %v", name, counts.Dropped, test.dropped)
				}
				if counts.Rows != int64(len(attempts)) || counts.AttemptsKept != int64(len(attempts)) {
					t.Errorf("%s: %+v", name, counts)
				}
			}
		})
	}
}

// sources are the ways to the data of a store.
func (r *rig) sources(t testing.TB) map[string]dataset.Source {
	path := filepath.Join(t.TempDir(), "archive")
	f, err := os.Create(path)
	r.must(err)
	_, err = archive.Write(f, archive.Scan(context.Background(), r.backend))
	r.must(err)
	r.must(f.Close())
	return map[string]dataset.Source{
		"store": r.source(),
		"database": dataset.ArchiveSource{Open: func(ctx context.Context) (archive.Items, io.Closer, error) {
			return archive.Scan(ctx, r.backend), io.NopCloser(nil), nil
		}},
		"archive": dataset.ArchiveSource{Open: func(context.Context) (archive.Items, io.Closer, error) {
			f, err := os.Open(path)
			if err != nil {
				return nil, nil, err
			}
			from, err := archive.NewReader(f)
			if err != nil {
				return nil, nil, err
			}
			return from.Items(), closers{from, f}, nil
		}},
	}
}

type closers struct {
	r *archive.Reader
	f *os.File
}

func (c closers) Close() error {
	c.r.Close()
	return c.f.Close()
}

func TestUnknownRollouts(t *testing.T) {
	r := inMemory(t)
	r.fill()
	for name, src := range r.sources(t) {
		_, err := dataset.Export(t.Context(), src, dataset.Options{
			Filter: dataset.Filter{RolloutIDs: []string{"ro-1", "ro-none"}}, Format: dataset.Raw,
		}, func(dataset.Row) error { return nil })
		if queue.KindOf(err) != queue.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTopFraction takes as many as the fraction says, the best ones, and of equals
// those that the seed says, from any source.
func TestTopFraction(t *testing.T) {
	r := inMemory(t)
	for i := range 100 {
		reward := 0.5
		if i%10 == 0 {
			reward = 1
		}
		r.run(queue.Request{}, queue.AttemptSucceeded, called(fmt.Sprintf("a%d", i), `[{"role":"user","content":"u"}]`, fmt.Sprintf(`{"role":"assistant","content":"%d"}`, i), ""),
			rewarded(fmt.Sprintf("r%d", i), reward))
	}
	take := func(src dataset.Source, fraction float64, seed uint64) []string {
		rows, counts := exported(t, src, dataset.Options{Filter: dataset.Filter{TopFraction: fraction, Seed: seed}, Format: dataset.PromptCompletionFormat})
		if counts.Dropped[dataset.NotTop]+counts.Rows != 100 {
			t.Errorf("%+v", counts)
		}
		slices.Sort(rows)
		return rows
	}
	sources := r.sources(t)
	for fraction, n := range map[float64]int{0.07: 7, 0.1: 10, 0.101: 11, 0.5: 50, 1: 100, 1e-9: 1} {
		got := take(r.source(), fraction, 1)
		if len(got) != n {
			t.Errorf("%g of 100 are %d", fraction, len(got))
		}
		for name, src := range sources {
			if diff := cmp.Diff(got, take(src, fraction, 1)); diff != "" {
				t.Errorf("%s takes others: %s", name, diff)
			}
		}
		best := 0
		for _, row := range got {
			if strings.HasSuffix(row, `0"}`) {
				best++
			}
		}
		if best != min(n, 10) {
			t.Errorf("%d of the best are among the first %d", best, n)
		}
	}
	if slices.Equal(take(r.source(), 0.5, 1), take(r.source(), 0.5, 2)) {
		t.Error("the seed changes nothing")
	}
}

func TestMax(t *testing.T) {
	r := inMemory(t)
	r.fill()
	for most, stopped := range map[int64]bool{0: true, 1: true, 2: true, 3: false, 4: false} {
		rows, counts := exported(t, r.source(), dataset.Options{Format: dataset.Conversational, Max: &most})
		if int64(len(rows)) != min(most, 3) || counts.Rows != min(most, 3) || counts.StoppedAtMax != stopped {
			t.Errorf("at most %d: %d rows, %+v", most, len(rows), counts)
		}
	}
}

func TestDedup(t *testing.T) {
	r := inMemory(t)
	for range 2 {
		call := called("a", `[{"role":"user","content":"u"}]`, `{"role":"assistant","content":"a"}`, "")
		twin := call
		twin.SpanID, twin.Name = "b", "litellm_request" // another tracer's view of it
		r.run(queue.Request{}, queue.AttemptSucceeded, call, twin)
	}
	for _, format := range []dataset.Format{dataset.Conversational, dataset.PromptCompletionFormat, dataset.OpenAIFT, dataset.TripletFormat} {
		rows, _ := exported(t, r.source(), dataset.Options{Format: format})
		if len(rows) != 2 {
			t.Errorf("%s has %d rows, and there are two calls", format, len(rows))
		}
		rows, counts := exported(t, r.source(), dataset.Options{Format: format, DedupResponses: true})
		if len(rows) != 1 || counts.DroppedRows[dataset.Duplicate] != 1 || counts.Dropped[dataset.NoRows] != 1 {
			t.Errorf("%s: %d rows, %+v", format, len(rows), counts)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	for name, opts := range map[string]dataset.Options{
		"no format":     {},
		"a format":      {Format: "csv"},
		"most":          {Format: dataset.Raw, Max: pointer(int64(-1))},
		"learned":       {Format: dataset.Raw, LastOnly: true},
		"triplets":      {Format: dataset.TripletFormat, Triplets: dataset.TripletOptions{Source: "x"}},
		"fraction":      {Format: dataset.Raw, Filter: dataset.Filter{TopFraction: 1.5}},
		"attempt":       {Format: dataset.Raw, Filter: dataset.Filter{Attempt: "third"}},
		"status":        {Format: dataset.Raw, Filter: dataset.Filter{Statuses: []queue.RolloutStatus{"x"}}},
		"which measure": {Format: dataset.Raw, Filter: dataset.Filter{MeasureFailed: true}},
	} {
		if _, err := dataset.Export(t.Context(), nil, opts, nil); queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMongoGivesTheSame(t *testing.T) {
	one, two := inMemory(t), onMongo(t)
	one.fill()
	two.fill()
	for _, format := range dataset.Formats {
		want, wantCounts := exported(t, one.source(), dataset.Options{Format: format, Filter: dataset.Filter{Attempt: dataset.AllAttempts, Statuses: queue.RolloutStatuses}})
		got, gotCounts := exported(t, two.source(), dataset.Options{Format: format, Filter: dataset.Filter{Attempt: dataset.AllAttempts, Statuses: queue.RolloutStatuses}})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
		if diff := cmp.Diff(wantCounts, gotCounts); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
}

// TestSourcesAgree has more rollouts than a page, with and without spans.
func TestSourcesAgree(t *testing.T) {
	r := inMemory(t)
	for i := range 230 {
		var spans []queue.Span
		for j := range i % 3 {
			spans = append(spans, rewarded(fmt.Sprintf("s%d", j), float64(i)))
		}
		r.run(queue.Request{Metadata: rawjson.Value(fmt.Sprintf(`{"i":%d}`, i%2))}, queue.AttemptSucceeded, spans...)
	}
	opts := dataset.Options{Format: dataset.Raw, Filter: dataset.Filter{Metadata: []dataset.MetadataMatch{{Key: "i", Value: "1"}}}}
	sources := r.sources(t)
	want, wantCounts := exported(t, sources["store"], opts)
	slices.Sort(want)
	if len(want) != 115 || wantCounts.Dropped[dataset.NoSpans] != 38 || wantCounts.Dropped[dataset.WrongMetadata] != 115 {
		t.Fatalf("%d rows, %+v", len(want), wantCounts)
	}
	for name, src := range sources {
		got, counts := exported(t, src, opts)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(wantCounts, counts); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// FuzzRows makes rows in every format of spans with any attributes: they are JSON, or
// the attempt is malformed.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{
		`{"gen_ai.prompt.0.role":"user","gen_ai.prompt.0.content":"u","gen_ai.completion.0.role":"assistant","gen_ai.completion.0.content":"a"}`,
		`{"gen_ai.completion.0.tool_calls.0.function.name":"f","gen_ai.request.functions.0.name":"f","gen_ai.request.functions.0.parameters":"{}"}`,
		`{"tool.name":"f","tool.call.id":"a","tool.parameters":"{}","tool.call.type":"function","agentlightning.tag.0":"history","agentlightning.object.json":"[1]"}`,
		`{"agentlightning.reward.0.name":"x","agentlightning.reward.0.value":1,"aglq.measure.name":"m","aglq.judgment.text":"x"}`,
		`{"prompt_token_ids":[1],"response_token_ids":[2],"logprobs.content":"[]"}`,
	} {
		f.Add([]byte(seed), "openai.chat.completion", "agentlightning.object")
	}
	f.Fuzz(func(t *testing.T, text []byte, name, below string) {
		attributes, err := rawjson.Parse(text)
		if err != nil || attributes.Kind() != rawjson.KindObject {
			return
		}
		parent := "a"
		one := queue.Span{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "a", Name: name, Attributes: attributes}
		two := queue.Span{RolloutID: "ro-1", AttemptID: "at-1", SpanID: "b", SequenceID: 2, ParentID: &parent, Name: below, Attributes: attributes}
		r := queue.AttemptedRollout{Rollout: queue.Rollout{RolloutID: "ro-1", Status: queue.RolloutSucceeded}, Attempt: &queue.Attempt{AttemptID: "at-1"}}
		for _, format := range dataset.Formats {
			_, err := dataset.Export(context.Background(), given{{Rollout: r, Spans: []queue.Span{one, two}}}, dataset.Options{Format: format}, func(row dataset.Row) error {
				if line := row.AppendJSON(nil); !json.Valid(line) {
					t.Errorf("%s: %s", format, line)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", format, err)
			}
		}
	})
}

// given is a source of traces that are there.
type given []adapter.Trace

func (g given) Traces(_ context.Context, q dataset.Query) iter.Seq2[adapter.Trace, error] {
	return func(yield func(adapter.Trace, error) bool) {
		for _, t := range g {
			if q.Want(&t.Rollout) && !yield(t, nil) {
				return
			}
		}
	}
}
