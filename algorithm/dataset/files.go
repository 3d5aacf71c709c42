package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aglq/aglq/internal/atomicfile"
	"github.com/aglq/aglq/internal/lockfile"
	"github.com/aglq/aglq/queue"
)

// Suffixes are the endings of names of files, which say how rows are written.
var Suffixes = []string{".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"}

// partial is what names end with until all is written.
const partial = ".partial"

// Output says where a dataset goes.
type Output struct {
	// Path is the name of the file, with one of [Suffixes].
	Path string
	// Shard is the most rows in a file; with it, files are called "name-00000.jsonl",
	// "name-00001.jsonl" and so on. 0 makes one file of all rows.
	Shard int64
	// Store, Aglq and Filters are what the manifest says of where the rows come from,
	// by what version of the program, and of what was asked for.
	Store, Aglq string
	Filters     any
}

// split parts the path into the stem and the suffix.
func (o *Output) split() (stem, suffix string, err error) {
	for _, suffix := range Suffixes {
		if stem, ok := strings.CutSuffix(o.Path, suffix); ok && filepath.Base(stem) != "." && !strings.HasSuffix(stem, "/") && stem != "" {
			return stem, suffix, nil
		}
	}
	return "", "", queue.Errorf(queue.Invalid, "%q says not how to write the rows; the name must end with %s", o.Path, strings.Join(Suffixes, ", "))
}

// ManifestPath is the name of the manifest.
func (o *Output) ManifestPath() string { return o.Path + ".manifest.json" }

// Validate reports what is wrong with o for a format, as an Invalid error.
func (o *Output) Validate(f Format) error {
	_, suffix, err := o.split()
	switch {
	case err != nil:
		return err
	case o.Shard < 0:
		return queue.Errorf(queue.Invalid, "files of %d rows make no sense; it must be 1 or more, or 0 for one file", o.Shard)
	case suffix == ".parquet" && f == OpenAIFT:
		return queue.Errorf(queue.Invalid, "OpenAI's fine-tuning takes JSON lines, and no Parquet")
	}
	return nil
}

// File is a file of a dataset.
type File struct {
	Name   string `json:"name"` // beside the manifest
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Manifest says what a dataset is and how it was made.
type Manifest struct {
	// Complete is false while the files are put in place: then they may be of two
	// exports.
	Complete bool      `json:"complete"`
	Format   Format    `json:"format"`
	Files    []File    `json:"files"`
	Counts   Counts    `json:"counts"`
	Filters  any       `json:"filters"`
	Seed     uint64    `json:"seed"`
	Store    string    `json:"store"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Aglq     string    `json:"aglq"` // the version
}

// Paths are the names of the files, beside a manifest of the given name.
func (m *Manifest) Paths(manifest string) []string {
	paths := make([]string, len(m.Files))
	for i, f := range m.Files {
		paths[i] = filepath.Join(filepath.Dir(manifest), f.Name)
	}
	return paths
}

// WriteFiles exports to files. They have their names, and a complete manifest beside
// them, only when all of it is on disk; files of an earlier export to the same path are
// replaced then. Until then they are called .partial, and an error removes them. Two
// exports to one path at a time are a Conflict error.
func WriteFiles(ctx context.Context, src Source, opts Options, out Output) (Manifest, error) {
	m := Manifest{Format: opts.Format, Filters: out.Filters, Seed: opts.Seed, Store: out.Store, Aglq: out.Aglq, Began: time.Now().UTC()}
	if err := opts.Validate(); err != nil {
		return m, err
	}
	if err := out.Validate(opts.Format); err != nil {
		return m, err
	}
	w, err := newFileWriter(opts.Format, opts.Origin, out)
	if err != nil {
		return m, err
	}
	m.Counts, err = Export(ctx, src, opts, w.write)
	if err == nil {
		err = w.finish()
	}
	if err != nil {
		return m, errors.Join(err, w.abort())
	}
	m.Files, m.Ended = w.done, time.Now().UTC()
	err = w.commit(m)
	m.Complete = err == nil
	return m, err
}

// fileWriter writes the files of a dataset under partial names.
type fileWriter struct {
	format       Format
	origin       bool
	out          Output
	stem, suffix string
	lock         *lockfile.Lock
	current      *openFile
	done         []File
}

func newFileWriter(format Format, origin bool, out Output) (*fileWriter, error) {
	stem, suffix, err := out.split()
	if err != nil {
		return nil, err
	}
	w := &fileWriter{format: format, origin: origin, out: out, stem: stem, suffix: suffix}
	if w.lock, err = lockDataset(out.ManifestPath()); err != nil {
		return nil, err
	}
	if err := w.removePartial(); err != nil {
		return nil, errors.Join(err, w.lock.Remove())
	}
	if out.Shard > 0 {
		return w, nil // a file is opened with its first row
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, w.lock.Remove())
	}
	return w, nil
}

// lockDataset takes the lock of the dataset with a manifest: the partial manifest.
func lockDataset(manifest string) (*lockfile.Lock, error) {
	lock, err := lockfile.Try(manifest+partial, 0o666)
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, queue.Wrap(queue.Conflict, err, "another export writes to the same place: "+manifest+partial+" is locked")
	}
	return lock, err
}

// removePartial removes what an export that was killed has left.
func (w *fileWriter) removePartial() error {
	entries, err := os.ReadDir(filepath.Dir(w.stem))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), partial)
		if !ok || !w.ours(name) {
			continue
		}
		if err := w.removeLeft(filepath.Join(filepath.Dir(w.stem), name)); err != nil {
			return err
		}
	}
	return nil
}

// removeLeft removes a partial file, but not that of an export of its own which goes on:
// what looks like a part may be all of another dataset.
func (w *fileWriter) removeLeft(path string) error {
	other := Output{Path: path}
	if other.Path != w.stem+w.suffix {
		lock, err := lockDataset(other.ManifestPath())
		if queue.KindOf(err) == queue.Conflict {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(os.Remove(path+partial), lock.Remove())
	}
	return os.Remove(path + partial)
}

var shardNumber = regexp.MustCompile(`^(-\d{5,})?$`)

// ours reports whether a name may be that of a file of this dataset.
func (w *fileWriter) ours(name string) bool {
	rest, ok := strings.CutPrefix(name, filepath.Base(w.stem))
	if !ok {
		return false
	}
	number, ok := strings.CutSuffix(rest, w.suffix)
	return ok && shardNumber.MatchString(number)
}

// open begins the next file.
func (w *fileWriter) open() error {
	name := w.stem + w.suffix
	if w.out.Shard > 0 {
		name = fmt.Sprintf("%s-%05d%s", w.stem, len(w.done), w.suffix)
	}
	var err error
	w.current, err = createFile(name, w.suffix, w.format, w.origin)
	return err
}

func (w *fileWriter) write(r Row) error {
	if w.current != nil && w.out.Shard > 0 && w.current.rows == w.out.Shard {
		if err := w.close(); err != nil {
			return err
		}
	}
	if w.current == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	return w.current.write(r)
}

// close completes the current file.
func (w *fileWriter) close() error {
	f, err := w.current.close()
	if err == nil {
		w.done = append(w.done, f)
		w.current = nil
	}
	return err
}

// finish completes the last file; a dataset has one at least.
func (w *fileWriter) finish() error {
	if w.current == nil && w.done == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.current == nil {
		return nil
	}
	return w.close()
}

// abort removes what was written.
func (w *fileWriter) abort() error {
	var err error
	if w.current != nil {
		err = w.current.file.Close()
		if errors.Is(err, os.ErrClosed) {
			err = nil
		}
	}
	return errors.Join(err, w.removePartial(), w.lock.Remove())
}

// commit puts the files in their place. The manifest says before that they are not
// complete, and after that they are.
func (w *fileWriter) commit(m Manifest) error {
	old := w.stale(m)
	under := m
	under.Files = append(slices.Clone(m.Files), old...)
	if err := w.writeManifest(under); err != nil {
		return errors.Join(err, w.abort())
	}
	dir := filepath.Dir(w.stem)
	for _, f := range m.Files {
		path := filepath.Join(dir, f.Name)
		if err := os.Rename(path+partial, path); err != nil {
			return errors.Join(err, w.abort())
		}
	}
	for _, f := range old {
		if err := os.Remove(filepath.Join(dir, f.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, w.lock.Remove())
		}
	}
	if err := atomicfile.SyncDir(dir); err != nil {
		return errors.Join(err, w.lock.Remove())
	}
	m.Complete = true
	return errors.Join(w.writeManifest(m), w.lock.Remove())
}

// stale are the files of an earlier export that are not to be there any more.
func (w *fileWriter) stale(m Manifest) (files []File) {
	text, err := os.ReadFile(w.out.ManifestPath())
	if err != nil {
		return nil // there was none
	}
	var old Manifest
	if json.Unmarshal(text, &old) != nil {
		return nil // it is not ours
	}
	for _, f := range old.Files {
		if w.ours(f.Name) && !slices.ContainsFunc(m.Files, func(n File) bool { return n.Name == f.Name }) {
			files = append(files, f)
		}
	}
	return files
}

// writeManifest replaces the manifest at once.
func (w *fileWriter) writeManifest(m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the manifest: %w", err)
	}
	return atomicfile.Write(w.out.ManifestPath(), ".new", func(to io.Writer) error {
		_, err := to.Write(append(text, '\n'))
		return err
	})
}

// openFile is a file that rows are written to.
type openFile struct {
	name  string // the final one
	file  *os.File
	sum   hash.Hash
	bytes int64
	rows  int64
	to    RowWriter
}

func createFile(name, suffix string, format Format, origin bool) (*openFile, error) {
	f, err := os.Create(name + partial)
	if err != nil {
		return nil, err
	}
	o := &openFile{name: name, file: f, sum: sha256.New()}
	o.to, err = newRowWriter(o, suffix, format, origin)
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return o, nil
}

// Write implements io.Writer for what compresses and buffers the rows.
func (o *openFile) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	o.sum.Write(p[:n])
	o.bytes += int64(n)
	return n, err
}

func (o *openFile) write(r Row) error {
	o.rows++
	return o.to.Write(r)
}

func (o *openFile) close() (File, error) {
	err := o.to.Close()
	if err == nil {
		err = o.file.Sync()
	}
	err = errors.Join(err, o.file.Close())
	return File{filepath.Base(o.name), o.rows, o.bytes, hex.EncodeToString(o.sum.Sum(nil))}, err
}
