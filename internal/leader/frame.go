package leader

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A frame is its length in four bytes, then a kind, a number of eight bytes and a
// body; the length is that of all but itself. The number of an answer is that of
// its call, and messages have 0. Numbers are big-endian.

const (
	headSize = 4 + 1 + 8
	// maxFrame is the largest that is read, in bytes: more than a command of
	// MongoDB holds.
	maxFrame = 64 << 20
)

// The kinds that the package itself uses. Those of its users begin at FirstKind.
const (
	hello byte = iota
	answer
	FirstKind = 16
)

type frame struct {
	kind   byte
	number uint64
	body   []byte
}

// wire is a connection that several goroutines write to.
type wire struct {
	conn net.Conn
	mu   sync.Mutex
	buf  []byte
}

func (w *wire) write(f frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := binary.BigEndian.AppendUint32(w.buf[:0], uint32(headSize-4+len(f.body)))
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint64(b, f.number)
	b = append(b, f.body...)
	if cap(b) <= 1<<20 { // a giant does not stay in memory
		w.buf = b
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}

// read reads one frame, whose body is the caller's.
func read(from io.Reader) (f frame, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return f, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < headSize-4 || length > maxFrame {
		return f, fmt.Errorf("a frame of %d bytes", length)
	}
	f.kind, f.number = head[4], binary.BigEndian.Uint64(head[5:])
	f.body = make([]byte, length-(headSize-4))
	_, err = io.ReadFull(from, f.body)
	return f, err
}
