package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// maxLine is the longest line, in bytes: above what any backend holds in one
// record, with room for what JSON adds.
const maxLine = 256 << 20

// Write makes an archive of items and returns how much is in it. When items end
// with an error, that is the archive's last line, and Write returns it.
func Write(w io.Writer, items Items) (Counts, error) {
	// One goroutine: the same lines give the same bytes.
	compressed, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Counts{}, fmt.Errorf("compressing the archive: %w", err)
	}
	a := writer{to: compressed, sum: sha256.New()}
	written := a.write(items)
	if err := compressed.Close(); err != nil && written == nil {
		written = fmt.Errorf("writing the archive: %w", err)
	}
	return a.counts, written
}

type writer struct {
	to     *zstd.Encoder
	sum    hash.Hash
	counts Counts
	line   []byte
}

func (a *writer) write(items Items) error {
	a.line = fmt.Appendf(a.line, `{"kind":"%s","version":%d}`+"\n", kindArchive, Version)
	if err := a.flush(); err != nil {
		return err
	}
	for item, err := range items {
		if err != nil {
			a.fail(err)
			return err
		}
		a.line = appendItem(a.line, &item)
		if err := a.readable(); err != nil {
			a.fail(err)
			return err
		}
		a.counts.add(&item)
		if err := a.flush(); err != nil {
			return err
		}
	}
	a.line = append(a.line, `{"kind":"`+kindEnd+`",`...)
	a.line = a.counts.appendMembers(a.line)
	a.line = append(a.line, `,"sha256":"`...)
	a.line = hex.AppendEncode(a.line, a.sum.Sum(nil))
	a.line = append(a.line, '"', '}', '\n')
	return a.flush()
}

// readable makes sure that the reader takes what is to be written.
func (a *writer) readable() error {
	if len(a.line) <= maxLine {
		return nil
	}
	for line := range bytes.Lines(a.line) {
		if len(line) > maxLine {
			return queue.Errorf(queue.TooLarge, "a record of %d bytes does not fit into an archive, which takes %d: %.120q …", len(line), maxLine, line)
		}
	}
	return nil
}

// fail writes why there is no end. What goes wrong with that changes nothing:
// without an end the archive is incomplete anyway.
func (a *writer) fail(err error) {
	a.line = append(a.line[:0], `{"kind":"`+kindError+`","detail":`...)
	a.line = rawjson.AppendString(a.line, err.Error())
	a.line = append(a.line, '}', '\n')
	_ = a.flush()
}

// flush writes out the line, which may be several.
func (a *writer) flush() error {
	a.sum.Write(a.line)
	_, err := a.to.Write(a.line)
	if a.line = a.line[:0]; cap(a.line) > 1<<20 {
		a.line = nil
	}
	if err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}
