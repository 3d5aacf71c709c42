package main

import (
	"context"
	"io"
	"os"
)

// What readAhead holds that nobody has asked for yet: so many chunks of such a size.
const (
	aheadChunk  = 64 << 10
	aheadChunks = 64
)

// inputFile is a file to read.
type inputFile struct {
	name string
	open func() (io.ReadCloser, error)
	// again tells that the file can be read more than once, and never waits.
	again bool
}

// inputFile is the file of that name; "-" is standard input.
func (a *app) inputFile(name string) inputFile {
	if name == "-" {
		return inputFile{"standard input", func() (io.ReadCloser, error) { return io.NopCloser(a.stdin), nil }, false}
	}
	info, err := os.Stat(name)
	// What is not there is looked at first too: its error comes before any work.
	again := err != nil || info.Mode().IsRegular()
	return inputFile{name, func() (io.ReadCloser, error) { return os.Open(name) }, again}
}

// reader reads the file. What waits for more input ends with ctx, see [readAhead].
func (f inputFile) reader(ctx context.Context, waits func()) (io.ReadCloser, error) {
	if f.again {
		return f.open()
	}
	return io.NopCloser(readAhead(ctx, f.open, waits)), nil
}

// readAhead reads what may keep its reader waiting: standard input, or a pipe. Its
// Read ends with the cause of ctx, though the one below, in a goroutine of its own,
// may go on. Waits, which may be nil, is called whenever a Read has nothing to give
// yet.
func readAhead(ctx context.Context, open func() (io.ReadCloser, error), waits func()) io.Reader {
	a := &ahead{ended: ctx.Done(), cause: func() error { return context.Cause(ctx) }, waits: waits, chunks: make(chan []byte, aheadChunks)}
	go a.fill(open)
	return a
}

type ahead struct {
	ended  <-chan struct{}
	cause  func() error // once ended is closed
	waits  func()
	chunks chan []byte
	last   error // why there are no more chunks, once they are closed
	rest   []byte
}

func (a *ahead) fill(open func() (io.ReadCloser, error)) {
	defer close(a.chunks)
	file, err := open() // a pipe may wait for its writer
	if err != nil {
		a.last = err
		return
	}
	defer file.Close()
	for a.last == nil {
		chunk := make([]byte, aheadChunk)
		n, err := file.Read(chunk)
		if n > 0 {
			select {
			case a.chunks <- chunk[:n]:
			case <-a.ended:
				return
			}
		}
		a.last = err
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if len(a.chunks) == 0 && a.waits != nil {
			a.waits()
		}
		select {
		case <-a.ended:
			return 0, a.cause()
		default:
		}
		select {
		case chunk, more := <-a.chunks:
			if !more {
				return 0, a.last
			}
			a.rest = chunk
		case <-a.ended:
			return 0, a.cause()
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}
