package worker

import (
	"bytes"
	"strings"
)

const (
	tailBytes = 8 << 10
	// longestLine bounds a line that may be the result; longer ones are output.
	longestLine = 8 << 20
)

// tail keeps the last bytes of a stream. It is an io.Writer.
type tail struct {
	buf   [tailBytes]byte
	total int64
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > tailBytes {
		t.total += int64(n - tailBytes)
		p = p[n-tailBytes:]
	}
	for len(p) > 0 {
		done := copy(t.buf[t.total%tailBytes:], p)
		t.total += int64(done)
		p = p[done:]
	}
	return n, nil
}

// String is the tail as valid text, cut at the start of a character.
func (t *tail) String() string { return t.since(0) }

// since is the tail of what was written after the first mark bytes.
func (t *tail) since(mark int64) string {
	n := int(min(t.total-mark, tailBytes))
	end := int(t.total % tailBytes)
	text := make([]byte, 0, n)
	if n > end {
		text = append(text, t.buf[tailBytes-(n-end):]...)
		n = end
	}
	text = append(text, t.buf[end-n:end]...)
	if t.total-mark > tailBytes {
		for i := 0; i < 3 && len(text) > 0 && text[0]&0xC0 == 0x80; i++ {
			text = text[1:]
		}
	}
	return strings.ToValidUTF8(string(text), "\uFFFD")
}

// lineCutter cuts a stream into lines and keeps one of them at most. The zero one is
// at the beginning of one.
type lineCutter struct {
	line []byte
	skip bool // what is left of the line is of no interest
}

// cut takes the next piece of the stream and hands over each line that ends in it
// and begins with one of the bytes of starts, without the white space around it.
// Of a line that is longer than longestLine only the beginning is handed over,
// and whole is false. A line is valid until its call returns.
func (l *lineCutter) cut(p []byte, starts string, each func(line []byte, whole bool)) {
	for len(p) > 0 {
		part, rest, ends := bytes.Cut(p, []byte{'\n'})
		p = rest
		l.add(part, starts, each)
		if !ends {
			return
		}
		if line := bytes.TrimSpace(l.line); !l.skip && len(line) > 0 {
			each(line, true)
		}
		l.skip = false
		if l.line = l.line[:0]; cap(l.line) > 1<<16 {
			l.line = nil
		}
	}
}

// add takes a piece of a line, unless its beginning shows that it is of no
// interest.
func (l *lineCutter) add(part []byte, starts string, each func(line []byte, whole bool)) {
	if l.skip {
		return
	}
	if len(l.line) == 0 {
		part = bytes.TrimLeft(part, " \t\r\xef\xbb\xbf")
		if len(part) == 0 {
			return
		}
		if strings.IndexByte(starts, part[0]) < 0 {
			l.skip = true
			return
		}
	}
	if len(l.line)+len(part) > longestLine {
		l.line = append(l.line, part[:longestLine-len(l.line)]...)
		each(l.line, false)
		l.skip, l.line = true, nil
		return
	}
	l.line = append(l.line, part...)
}
