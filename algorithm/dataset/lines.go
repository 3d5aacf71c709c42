package dataset

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// RowWriter writes rows somewhere. Close ends what it writes, and not what it writes
// to.
type RowWriter interface {
	Write(Row) error
	Close() error
}

func newRowWriter(w io.Writer, suffix string, format Format, origin bool) (RowWriter, error) {
	switch suffix {
	case ".parquet":
		return newParquet(w, format, origin)
	case ".jsonl.gz":
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return nil, fmt.Errorf("compressing rows: %w", err)
		}
		return newLines(z, z), nil
	case ".jsonl.zst":
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) // the same rows give the same bytes
		if err != nil {
			return nil, fmt.Errorf("compressing rows: %w", err)
		}
		return newLines(z, z), nil
	}
	return NewLines(w), nil
}

// lines writes JSON lines.
type lines struct {
	to    *bufio.Writer
	below io.Closer // nil for none
	line  []byte
}

// NewLines writes rows as JSON lines.
func NewLines(w io.Writer) RowWriter { return newLines(w, nil) }

func newLines(w io.Writer, below io.Closer) *lines {
	return &lines{to: bufio.NewWriterSize(w, 256<<10), below: below}
}

// Write implements RowWriter.
func (l *lines) Write(r Row) error {
	l.line = append(r.AppendJSON(l.line[:0]), '\n')
	_, err := l.to.Write(l.line)
	if cap(l.line) > 1<<20 {
		l.line = nil
	}
	return err
}

// Close implements RowWriter.
func (l *lines) Close() error {
	err := l.to.Flush()
	if l.below != nil {
		err = errors.Join(err, l.below.Close())
	}
	return err
}
