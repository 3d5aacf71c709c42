package dataset_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/queue"
)

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// listed are the names in a folder.
func listed(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func manifest(t testing.TB, path string) dataset.Manifest {
	t.Helper()
	var m dataset.Manifest
	if err := json.Unmarshal([]byte(read(t, path)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// uncompressed reads a file by what its name says.
func uncompressed(t testing.TB, path string) string {
	t.Helper()
	var from io.Reader = strings.NewReader(read(t, path))
	switch filepath.Ext(path) {
	case ".gz":
		z, err := gzip.NewReader(from)
		if err != nil {
			t.Fatal(err)
		}
		from = z
	case ".zst":
		z, err := zstd.NewReader(from)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		from = z
	}
	text, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestFiles writes every kind of file, whole and in parts, and compares them with the
// rows and with their manifest.
func TestFiles(t *testing.T) {
	r := inMemory(t)
	r.fill()
	opts := dataset.Options{Format: dataset.PromptCompletionFormat, Filter: dataset.Filter{Seed: 7}}
	rows, counts := exported(t, r.source(), opts)
	want := strings.Join(rows, "\n") + "\n"
	for _, suffix := range []string{".jsonl", ".jsonl.gz", ".jsonl.zst"} {
		for shard, files := range map[int64]int{0: 1, 1: 3, 2: 2, 3: 1, 100: 1} {
			dir := t.TempDir()
			out := dataset.Output{Path: filepath.Join(dir, "set"+suffix), Shard: shard, Store: "here", Aglq: "v1", Filters: map[string]any{"mode": "train"}}
			m, err := dataset.WriteFiles(t.Context(), r.source(), opts, out)
			r.must(err)
			var got strings.Builder
			total := int64(0)
			for i, f := range m.Files {
				name := "set" + suffix
				if shard > 0 {
					name = fmt.Sprintf("set-%05d%s", i, suffix)
				}
				path := filepath.Join(dir, f.Name)
				text := read(t, path)
				if f.Name != name || f.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte(text))) || f.Bytes != int64(len(text)) {
					t.Errorf("%+v is no file of %d bytes called %s", f, len(text), name)
				}
				plain := uncompressed(t, path)
				if f.Rows != int64(strings.Count(plain, "\n")) {
					t.Errorf("%+v has %d rows", f, strings.Count(plain, "\n"))
				}
				total += f.Rows
				got.WriteString(plain)
			}
			if got.String() != want || len(m.Files) != files || total != m.Counts.Rows {
				t.Errorf("%s in parts of %d: %d files with %d rows\n%s", suffix, shard, len(m.Files), total, cmp.Diff(want, got.String()))
			}
			written := manifest(t, filepath.Join(dir, "set"+suffix+".manifest.json"))
			if diff := cmp.Diff(m.Files, written.Files); diff != "" || !written.Complete {
				t.Errorf("complete: %v; %s", written.Complete, diff)
			}
			if diff := cmp.Diff(counts, written.Counts); diff != "" {
				t.Error(diff)
			}
			if written.Seed != 7 || written.Store != "here" || written.Aglq != "v1" || written.Ended.Before(written.Began) || written.Format != opts.Format {
				t.Errorf("%+v", written)
			}
			if n := strings.Count(listed(t, dir), " "); n != len(m.Files) {
				t.Errorf("there is something more: %s", listed(t, dir))
			}
		}
	}
}

func TestNoRowsMakeAFile(t *testing.T) {
	for _, suffix := range dataset.Suffixes {
		for _, shard := range []int64{0, 5} {
			dir := t.TempDir()
			m, err := dataset.WriteFiles(t.Context(), inMemory(t).source(), dataset.Options{Format: dataset.Raw}, dataset.Output{Path: filepath.Join(dir, "set"+suffix), Shard: shard})
			if err != nil || len(m.Files) != 1 || m.Files[0].Rows != 0 || manifest(t, filepath.Join(dir, "set"+suffix+".manifest.json")).Files[0] != m.Files[0] {
				t.Errorf("%s: %+v, %v", suffix, m, err)
			}
		}
	}
}

// breaking is a source that fails after some rollouts.
type breaking struct {
	dataset.Source
	after int
	then  func() error
}

func (b breaking) Traces(ctx context.Context, q dataset.Query) iter.Seq2[adapter.Trace, error] {
	return func(yield func(adapter.Trace, error) bool) {
		n := 0
		for trace, err := range b.Source.Traces(ctx, q) {
			if n++; err == nil && n > b.after {
				err = b.then()
			}
			if !yield(trace, err) || err != nil {
				return
			}
		}
	}
}

// TestInterruptedExports leave what was there, and nothing of their own.
func TestInterruptedExports(t *testing.T) {
	r := inMemory(t)
	r.fill()
	dir := t.TempDir()
	path := filepath.Join(dir, "set.jsonl")
	opts := dataset.Options{Format: dataset.PromptCompletionFormat}
	for _, out := range []dataset.Output{{Path: path}, {Path: path, Shard: 1}} {
		_, err := dataset.WriteFiles(t.Context(), breaking{r.source(), 1, func() error { return errors.New("away") }}, opts, out)
		if err == nil || listed(t, dir) != "" {
			t.Fatalf("%v, and there is %s", err, listed(t, dir))
		}
	}
	_, err := dataset.WriteFiles(t.Context(), r.source(), opts, dataset.Output{Path: path, Shard: 1})
	r.must(err)
	before := listed(t, dir)
	_, err = dataset.WriteFiles(t.Context(), breaking{r.source(), 1, func() error { return errors.New("away") }}, opts, dataset.Output{Path: path})
	if err == nil || listed(t, dir) != before {
		t.Fatalf("%v, and there is %s", err, listed(t, dir))
	}

	// What a killed one leaves is cleared away, and parts of an earlier one are replaced.
	for _, name := range []string{"set.jsonl.partial", "set-00007.jsonl.partial", "set.jsonl.manifest.json.partial"} {
		r.must(os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o666))
	}
	r.must(os.WriteFile(filepath.Join(dir, "set-mine.jsonl.partial"), nil, 0o666))
	r.must(os.WriteFile(filepath.Join(dir, "set-00009.jsonl"), nil, 0o666)) // of no manifest
	_, err = dataset.WriteFiles(t.Context(), r.source(), opts, dataset.Output{Path: path})
	if want := "set-00009.jsonl set-mine.jsonl.partial set.jsonl set.jsonl.manifest.json"; err != nil || listed(t, dir) != want {
		t.Errorf("%v, and there is %s", err, listed(t, dir))
	}
}

// An export that cannot put all its files in their place does not look whole.
func TestFileInTheWay(t *testing.T) {
	r := inMemory(t)
	r.fill()
	dir := t.TempDir()
	out := dataset.Output{Path: filepath.Join(dir, "set.jsonl"), Shard: 1}
	opts := dataset.Options{Format: dataset.PromptCompletionFormat}
	r.must(os.MkdirAll(filepath.Join(dir, "set-00001.jsonl", "below"), 0o777))
	_, err := dataset.WriteFiles(t.Context(), r.source(), opts, out)
	if want := "set-00000.jsonl set-00001.jsonl set.jsonl.manifest.json"; err == nil || listed(t, dir) != want {
		t.Errorf("%v, and there is %s", err, listed(t, dir))
	}
	if m := manifest(t, out.ManifestPath()); m.Complete {
		t.Errorf("%+v", m)
	}
	r.must(os.RemoveAll(filepath.Join(dir, "set-00001.jsonl")))
	_, err = dataset.WriteFiles(t.Context(), r.source(), dataset.Options{Format: opts.Format, Max: pointer(int64(1))}, out)
	r.must(err)
	if want := "set-00000.jsonl set.jsonl.manifest.json"; listed(t, dir) != want || !manifest(t, out.ManifestPath()).Complete {
		t.Errorf("there is %s", listed(t, dir))
	}
}

// TestExportBesideAnother lets an export go on whose name looks like a part of another's.
func TestExportBesideAnother(t *testing.T) {
	r := inMemory(t)
	r.fill()
	dir := t.TempDir()
	opts := dataset.Options{Format: dataset.Raw}
	other := dataset.Output{Path: filepath.Join(dir, "set.jsonl")}
	_, err := dataset.WriteFiles(t.Context(), breaking{r.source(), 0, func() error {
		for _, shard := range []int64{0, 1} {
			other.Shard = shard
			_, err := dataset.WriteFiles(t.Context(), r.source(), opts, other)
			r.must(err)
		}
		return nil
	}}, opts, dataset.Output{Path: filepath.Join(dir, "set-20260101.jsonl")})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(listed(t, dir), ".partial") {
		t.Errorf("there is %s", listed(t, dir))
	}
}

// TestTwoExportsAtOnce lets one of them write.
func TestTwoExportsAtOnce(t *testing.T) {
	r := inMemory(t)
	r.fill()
	out := dataset.Output{Path: filepath.Join(t.TempDir(), "set.jsonl")}
	opts := dataset.Options{Format: dataset.Raw}
	_, err := dataset.WriteFiles(t.Context(), breaking{r.source(), 0, func() error {
		_, err := dataset.WriteFiles(t.Context(), r.source(), opts, out)
		if queue.KindOf(err) != queue.Conflict {
			t.Errorf("the second one: %v", err)
		}
		return nil
	}}, opts, out)
	r.must(err)
}

func TestWrongOutputs(t *testing.T) {
	dir := t.TempDir()
	for _, out := range []dataset.Output{
		{}, {Path: "-"}, {Path: filepath.Join(dir, "set.csv")}, {Path: filepath.Join(dir, "set")}, {Path: dir + "/.jsonl"}, {Path: ".parquet"},
		{Path: filepath.Join(dir, "set.jsonl"), Shard: -1}, {Path: filepath.Join(dir, "set.parquet")},
	} {
		_, err := dataset.WriteFiles(t.Context(), nil, dataset.Options{Format: dataset.OpenAIFT}, out)
		if queue.KindOf(err) != queue.Invalid {
			t.Errorf("%q: %v", out.Path, err)
		}
	}
	_, err := dataset.WriteFiles(t.Context(), nil, dataset.Options{Format: dataset.Raw}, dataset.Output{Path: filepath.Join(dir, "no", "set.jsonl")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if listed(t, dir) != "" {
		t.Error(listed(t, dir))
	}
}

// TestParquet has another reader, Arrow's, compare Parquet files with the rows.
func TestParquet(t *testing.T) {
	r := inMemory(t)
	r.fill()
	python, err := exec.Command("../../scripts/get-python-env", "datasets").Output()
	if err != nil {
		t.Fatalf("making a Python with Arrow: %v", err)
	}
	dir := t.TempDir()
	var files []string
	for _, format := range []dataset.Format{dataset.Conversational, dataset.PromptCompletionFormat, dataset.TripletFormat, dataset.Raw} {
		for _, origin := range []bool{false, true} {
			opts := dataset.Options{Format: format, Origin: origin, Filter: dataset.Filter{Statuses: queue.RolloutStatuses}}
			stem := filepath.Join(dir, fmt.Sprintf("%s-%v", format, origin))
			for _, suffix := range []string{".jsonl", ".parquet"} {
				_, err := dataset.WriteFiles(t.Context(), r.source(), opts, dataset.Output{Path: stem + suffix})
				r.must(err)
			}
			files = append(files, stem)
		}
	}
	out, err := exec.Command(strings.TrimSpace(string(python)), append([]string{"python/compare.py"}, files...)...).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("8 files are the same")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestParquetGroups writes more than a group of rows, in groups.
func TestParquetGroups(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	var src given
	for i := range 20 {
		call := called("a", `[{"role":"user","content":"`+long+`"}]`, fmt.Sprintf(`{"role":"assistant","content":"%d"}`, i), "")
		r := queue.AttemptedRollout{Rollout: queue.Rollout{Status: queue.RolloutSucceeded}, Attempt: &queue.Attempt{}}
		src = append(src, adapter.Trace{Rollout: r, Spans: []queue.Span{call}})
	}
	path := filepath.Join(t.TempDir(), "set.parquet")
	_, err := dataset.WriteFiles(t.Context(), src, dataset.Options{Format: dataset.PromptCompletionFormat}, dataset.Output{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	groups, rows := readParquet(t, path)
	if groups < 2 || !slices.Equal(rows, numbers(20)) {
		t.Errorf("%d groups of rows, %v", groups, rows)
	}
}

func numbers(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// readParquet reads the completions.
func readParquet(t *testing.T, path string) (groups int, completions []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.Read[struct {
		Completion string `parquet:"completion"`
	}](f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		completions = append(completions, row.Completion)
	}
	return len(file.RowGroups()), completions
}
