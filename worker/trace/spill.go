package trace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

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
		files, err := filepath.Glob(filepath.Join(s.opts.SpillDir, "*"+spillSuffix))
		if err != nil || len(files) == 0 {
			return
		}
		for _, file := range files {
			done, err := s.resend(ctx, file)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.log.Warn("spilled spans could not be sent yet", "file", file, "error", err, "again_in", resendPause)
			}
			if done {
				if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
					s.log.Error("a file of spans that are stored cannot be removed", "file", file, "error", err)
					return
				}
				s.log.Info("spilled spans are stored", "file", file)
			}
		}
		pauseFor(ctx, resendPause)
		if ctx.Err() != nil {
			return
		}
	}
}

// resend sends the spans of a file. Sending one twice does no harm: the store
// knows it by its id. Done is false when some are to be sent later.
func (s *Sender) resend(ctx context.Context, file string) (done bool, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) { // another process sent it
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	done = true
	fit := map[queue.AttemptRef]bool{}
	var batch []queue.Span
	bytes := 0
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		added, err := s.store.AddSpans(ctx, batch)
		s.heard(err)
		if err != nil && !queue.Hopeless(err) {
			return err
		}
		if err != nil || added.Rejected > 0 {
			s.log.Warn("the store rejected spilled spans", "spans", added.Rejected, "reason", added.Reason, "error", err)
		}
		batch, bytes = nil, 0
		return nil
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, bufferBytes+1<<20)
	for lines.Scan() {
		v, err := rawjson.Parse(lines.Bytes())
		if err != nil {
			s.log.Warn("a spilled span cannot be read", "file", file, "error", err)
			continue
		}
		span := queue.DecodeSpan(v)
		ref := queue.AttemptRef{RolloutID: span.RolloutID, AttemptID: span.AttemptID}
		ok, known := fit[ref]
		if !known {
			if ok, err = s.harmless(ctx, ref); err != nil {
				return false, err
			}
			fit[ref] = ok
		}
		if !ok {
			done = false
			continue
		}
		batch, bytes = append(batch, span), bytes+span.Size()
		if len(batch) == batchSpans || bytes >= batchBytes {
			if err := send(); err != nil {
				return false, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("reading %s: %w", file, err)
	}
	return done, send()
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
