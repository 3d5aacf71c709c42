package child

import "bytes"

// Head keeps the first bytes that are written to it. It is an io.Writer for one
// goroutine.
type Head struct {
	Most int  // how many bytes it keeps
	Over bool // more have come

	kept bytes.Buffer
}

// Write implements io.Writer. It takes in everything and never fails.
func (h *Head) Write(p []byte) (int, error) {
	room := min(h.Most-h.kept.Len(), len(p))
	h.Over = h.Over || room < len(p)
	h.kept.Write(p[:room])
	return len(p), nil
}

// Bytes is what was kept, until the next Write.
func (h *Head) Bytes() []byte { return h.kept.Bytes() }

// Tail keeps the last bytes that are written to it. It is an io.Writer for one
// goroutine.
type Tail struct {
	Most int // how many bytes it keeps

	kept bytes.Buffer
}

// Write implements io.Writer. It takes in everything and never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.kept.Write(p[max(0, len(p)-t.Most):])
	t.kept.Next(max(0, t.kept.Len()-t.Most))
	return len(p), nil
}

// Bytes is what was kept, until the next Write.
func (t *Tail) Bytes() []byte { return t.kept.Bytes() }
