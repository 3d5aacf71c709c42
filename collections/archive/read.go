package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// maxWindow is how much a decoder may have to look back on, in bytes: what
// "zstd --long" needs.
const maxWindow = 128 << 20

// Reader reads an archive. Use [NewReader].
type Reader struct {
	from       *source
	compressed *zstd.Decoder
	lines      *bufio.Reader
	sum        hash.Hash
	line       []byte
	number     int // of the line
	counts     Counts
	ended      bool // the end has been read, and was right
}

// NewReader reads an archive from r. The caller closes it.
func NewReader(r io.Reader) (*Reader, error) {
	from := &source{Reader: r}
	d, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, fmt.Errorf("decompressing the archive: %w", err)
	}
	return &Reader{from: from, compressed: d, lines: bufio.NewReaderSize(d, 64<<10), sum: sha256.New()}, nil
}

// Close frees what the reader holds. It does not close what it reads from.
func (r *Reader) Close() { r.compressed.Close() }

// Counts is how much has been read.
func (r *Reader) Counts() Counts { return r.counts }

// Items yields what is in the archive, once. The error that it ends with is
// Invalid for an archive that is cut short, has been changed, or is none, and
// says at which line. What came before it had the right form, but that nothing of
// it was changed or lost is known only when all was read without an error.
func (r *Reader) Items() Items {
	return func(yield func(Item, error) bool) {
		err := r.readHeader()
		for err == nil && !r.ended {
			var item Item
			if item, err = r.next(); err == nil && !r.ended {
				r.counts.add(&item)
				if !yield(item, nil) {
					return
				}
			}
		}
		if err == nil {
			err = r.readNothing()
		}
		if err != nil {
			yield(Item{}, err)
		}
	}
}

// Check reads an archive to its end and reports what is in it.
func Check(from io.Reader) (Counts, error) {
	r, err := NewReader(from)
	if err != nil {
		return Counts{}, err
	}
	defer r.Close()
	for _, err := range r.Items() {
		if err != nil {
			return r.counts, err
		}
	}
	return r.counts, nil
}

// wrong says what is wrong with the line just read.
func (r *Reader) wrong(err error) error {
	return queue.Wrap(queue.Invalid, err, fmt.Sprintf("line %d of the archive", r.number))
}

var errCut = errors.New("the archive ends here, before its end: it was cut short, or never finished")

// readLine reads the next line, without its end, into memory that the next call
// uses again. The sum is that of the lines before it.
func (r *Reader) readLine() (sum []byte, err error) {
	r.number++
	sum = r.sum.Sum(nil)
	r.line = r.line[:0]
	for {
		part, err := r.lines.ReadSlice('\n')
		r.sum.Write(part)
		r.line = append(r.line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(r.line) < maxLine:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, r.wrong(fmt.Errorf("it is longer than %d bytes", maxLine))
		case err != nil:
			return nil, r.failed(err)
		}
		r.line = bytes.TrimSuffix(r.line, []byte("\n"))
		return sum, nil
	}
}

// source remembers how reading from it failed, so that such a failure is not
// taken for a fault of the archive.
type source struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		s.err = err
	}
	return n, err
}

// failed tells a fault of the archive from one of what it is read from.
func (r *Reader) failed(err error) error {
	switch {
	case r.from.err != nil:
		return fmt.Errorf("reading the archive, at line %d: %w", r.number, r.from.err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return r.wrong(errCut)
	}
	return r.wrong(fmt.Errorf("this is no archive of aglq, or a damaged one: %w", err))
}

// parse makes a value of the line, in memory of its own.
func (r *Reader) parse() (v rawjson.Value, kind string, err error) {
	v, err = rawjson.Parse(r.line)
	if err != nil {
		return nil, "", r.wrong(err)
	}
	for key, val := range v.Members() {
		switch string(key) {
		case "kind":
			return v, val.Text(), nil
		case "rollout_id":
			return v, "", nil // a span
		}
		break
	}
	return nil, "", r.wrong(fmt.Errorf("it begins neither with its kind nor with a rollout's id"))
}

func (r *Reader) readHeader() error {
	if _, err := r.readLine(); err != nil {
		return err
	}
	v, kind, err := r.parse()
	if err != nil || kind != kindArchive {
		return r.wrong(fmt.Errorf("this is no archive of aglq"))
	}
	if version, _ := v.Get("version").Int(); version != Version {
		return r.wrong(fmt.Errorf("the archive has version %s, and this aglq reads version %d", v.Get("version"), Version))
	}
	return nil
}

func (r *Reader) next() (Item, error) {
	sum, err := r.readLine()
	if err != nil {
		return Item{}, err
	}
	v, kind, err := r.parse()
	if err != nil {
		return Item{}, err
	}
	var d decoder
	var item Item
	switch kind {
	case "":
		item.Span = d.span(v)
	case kindRollout:
		var attempts int64
		item.Rollout, attempts, item.Counter = d.record(v)
		if d.err == nil {
			return item, r.attempts(item.Rollout, attempts)
		}
	case kindWorker:
		item.Worker = d.worker(v)
	case kindResources:
		item.Resources, item.Latest = d.resources(v)
	case kindEnd:
		d.err = r.end(v, sum)
	case kindError:
		d.err = fmt.Errorf("whoever wrote the archive could not finish it: %s", v.Get("detail").Text())
	default:
		d.err = fmt.Errorf("%q is a kind of line that does not belong here, or that this version of aglq does not know", kind)
	}
	if d.err != nil {
		return Item{}, r.wrong(d.err)
	}
	return item, nil
}

// attempts reads the lines that belong to a rollout.
func (r *Reader) attempts(to *queue.Record, n int64) error {
	for range n {
		if _, err := r.readLine(); err != nil {
			return err
		}
		v, kind, err := r.parse()
		if err != nil {
			return err
		}
		if kind != kindAttempt {
			return r.wrong(fmt.Errorf("rollout %s has %d attempts, and here are only %d", to.Rollout.RolloutID, n, len(to.Attempts)))
		}
		var d decoder
		a := d.attempt(v)
		if d.err == nil && a.RolloutID != to.Rollout.RolloutID {
			d.err = fmt.Errorf("attempt %s is of rollout %s, not of %s", a.AttemptID, a.RolloutID, to.Rollout.RolloutID)
		}
		if d.err != nil {
			return r.wrong(d.err)
		}
		to.Attempts = append(to.Attempts, a)
	}
	return nil
}

// end compares what was read with what was written.
func (r *Reader) end(v rawjson.Value, sum []byte) error {
	r.ended = true
	if counts := DecodeCounts(v); counts != r.counts {
		return fmt.Errorf("lines were lost or added: there are %s, and there were %s", r.counts, counts)
	}
	if want := v.Get("sha256").Text(); want != hex.EncodeToString(sum) {
		return fmt.Errorf("the archive was changed after it was written: its sum is %x, and was %.64s", sum, want)
	}
	return nil
}

// readNothing makes sure that nothing follows the end.
func (r *Reader) readNothing() error {
	switch n, err := r.lines.Read(make([]byte, 1)); {
	case n > 0:
		r.number++
		return r.wrong(errors.New("something follows the end of the archive"))
	case errors.Is(err, io.EOF):
		return nil
	default:
		return r.failed(err)
	}
}
