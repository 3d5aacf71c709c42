package program

import "bytes"

// longestLine bounds a line of the program, in bytes.
const longestLine = 64 << 20

// lineReader is an io.Writer that cuts what it is written into lines. Each is called
// with a line and its number, from 1; with nil for one that is too long. Blank lines
// are passed over.
type lineReader struct {
	each func(line []byte, n int)
	line []byte
	skip bool // the rest of a line that is too long
	n    int
}

// Write implements io.Writer.
func (r *lineReader) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, rest, ends := bytes.Cut(p, []byte{'\n'})
		switch {
		case r.skip:
		case len(r.line)+len(part) > longestLine:
			r.skip, r.line = true, nil
		default:
			r.line = append(r.line, part...)
		}
		if ends {
			r.end()
			r.n++
		}
		p = rest
	}
	return n, nil
}

// end ends the line at hand.
func (r *lineReader) end() {
	line := bytes.TrimSpace(r.line)
	switch {
	case r.skip:
		r.each(nil, r.n+1)
	case len(line) > 0:
		r.each(line, r.n+1)
	}
	r.skip, r.line = false, r.line[:0]
	if cap(r.line) > 1<<20 {
		r.line = nil
	}
}
