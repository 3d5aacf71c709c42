package trace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	spillSuffix = ".spans.jsonl"
	// resendPause is how often spilled spans that could not be sent yet are looked
	// at again.
	resendPause = 30 * time.Second
)

// spill is the file of spans that could not be sent, one a line. It gets its name
// when it is complete. A nil spill is none.
type spill struct {
	file  *os.File
	buf   *bufio.Writer
	spans int
	err   error // the first one
}

// putAside writes a batch to the spill file, if there is a place for one.
func (s *Sender) putAside(batch []parcel) {
	if s.opts.SpillDir == "" {
		s.log.Error("spans are given up: the store did not take them in time", "spans", len(batch))
		s.dropped(len(batch), Stopped)
		return
	}
	if s.spill == nil {
		s.spill = newSpill(s.opts.SpillDir)
	}
	s.spill.write(batch)
}

func newSpill(dir string) *spill {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &spill{err: err}
	}
	f, err := os.CreateTemp(dir, "*.tmp")
	if err != nil {
		return &spill{err: err}
	}
	return &spill{file: f, buf: bufio.NewWriterSize(f, 1<<16)}
}

func (sp *spill) write(batch []parcel) {
	sp.spans += len(batch)
	var line []byte
	for i := range batch {
		if sp.err != nil {
			return
		}
		line = append(batch[i].span.AppendJSON(line[:0]), '\n')
		_, sp.err = sp.buf.Write(line)
	}
}

// finishSpill completes the file, if there is one, and says what became of it.
func (s *Sender) finishSpill() {
	if s.spill == nil {
		return
	}
	file, err := s.spill.finish()
	if err != nil {
		s.log.Error("spans are given up: they could not be written", "spans", s.spill.spans, "error", err)
		s.dropped(s.spill.spans, Stopped)
		return
	}
	s.log.Warn("spans are kept for the next process", "spans", s.spill.spans, "file", file)
}

func (sp *spill) finish() (file string, err error) {
	if sp.file == nil {
		return "", sp.err
	}
	name := sp.file.Name()
	err = errors.Join(sp.err, sp.buf.Flush(), sp.file.Sync(), sp.file.Close())
	if err == nil {
		err = os.Rename(name, name+spillSuffix)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(name))
	}
	return name + spillSuffix, nil
}

// resendSpilled sends what is in the spill directory until nothing is left of it
// or ctx ends.
func (s *Sender) resendSpilled(ctx context.Context) {
	if s.opts.SpillDir == "" {
		return
	}
	for {
		files := spilled(s.opts.SpillDir)
		if len(files) == 0 {
			return
		}
		for _, file := range files {
			s.resendFile(ctx, file)
			if ctx.Err() != nil {
				return
			}
		}
		_ = sleep.For(ctx, resendPause)
		if ctx.Err() != nil {
			return
		}
	}
}

// spilled lists the complete files of a directory.
func spilled(dir string) (files []string) {
	entries, _ := os.ReadDir(dir) // one that is not there has none
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), spillSuffix) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files
}

// resendFile sends the spans of a file, and removes it when all are stored.
func (s *Sender) resendFile(ctx context.Context, file string) {
	r := resender{Sender: s, file: file, fit: map[queue.AttemptRef]bool{}}
	err := r.run(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist): // another process sent it
	case ctx.Err() != nil:
	case err != nil:
		s.log.Warn("spilled spans could not be sent yet", "file", file, "error", err, "again_in", resendPause)
	case r.held > 0:
		s.log.Info("spilled spans are held back: they would revive an attempt", "file", file, "spans", r.held)
	default:
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("a file of spans that are stored cannot be removed", "file", file, "error", err)
			return
		}
		s.log.Info("spilled spans are stored", "file", file)
	}
}

// resender sends the spans of one file. Sending one twice does no harm: the store
// knows it by its id.
type resender struct {
	*Sender
	file  string
	fit   map[queue.AttemptRef]bool // whether spans of an attempt may be sent
	held  int                       // spans that may not
	batch []queue.Span
	bytes int
}

func (r *resender) run(ctx context.Context) error {
	f, err := os.Open(r.file)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return r.send(ctx)
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", r.file, err)
		}
		if err := r.add(ctx, line); err != nil {
			return err
		}
	}
}

func (r *resender) add(ctx context.Context, line []byte) error {
	v, err := rawjson.Parse(line)
	if err != nil {
		r.log.Warn("a spilled span cannot be read", "file", r.file, "error", err)
		return nil
	}
	span := queue.DecodeSpan(v)
	ref := queue.AttemptRef{RolloutID: span.RolloutID, AttemptID: span.AttemptID}
	fit, known := r.fit[ref]
	if !known {
		if fit, err = r.harmless(ctx, ref); err != nil {
			return err
		}
		r.fit[ref] = fit
	}
	if !fit {
		r.held++
		return nil
	}
	r.batch, r.bytes = append(r.batch, span), r.bytes+span.Size()
	if len(r.batch) == batchSpans || r.bytes >= batchBytes {
		return r.send(ctx)
	}
	return nil
}

func (r *resender) send(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	added, err := r.store.AddSpans(ctx, r.batch)
	r.heard(err)
	if err != nil && !queue.Hopeless(err) {
		return err
	}
	if err != nil || added.Rejected > 0 {
		r.log.Warn("the store rejected spilled spans", "file", r.file, "spans", added.Rejected, "reason", added.Reason, "error", err)
	}
	r.batch, r.bytes = nil, 0
	return nil
}

// harmless reports whether a late span of an attempt leaves its rollout alone. A
// span is a sign of life: it would take a rollout that waits for its next attempt
// out of the queue, though nobody works on it.
func (s *Sender) harmless(ctx context.Context, ref queue.AttemptRef) (bool, error) {
	r, err := s.store.Rollout(ctx, ref.RolloutID)
	s.heard(err)
	if err != nil {
		return false, fmt.Errorf("looking up rollout %s: %w", ref.RolloutID, err)
	}
	if r == nil || r.Attempt == nil || r.Attempt.AttemptID != ref.AttemptID {
		return true, nil
	}
	return !r.Status.Queued(), nil
}
