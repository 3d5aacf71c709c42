package verify

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// recorder takes down calls. Begin comes before anything is sent and end after
// the outcome is known. It is safe for concurrent use.
type recorder interface {
	begin(c *Call)
	end(c *Call)
}

// notebook is the recorder of this process, and gathers what worker processes
// report.
type notebook struct {
	ids atomic.Int64

	mu    sync.Mutex
	calls []Call
	open  map[*Call]bool // begun, not ended
}

func newNotebook() *notebook { return &notebook{open: make(map[*Call]bool)} }

func (n *notebook) begin(c *Call) {
	c.ID = n.ids.Add(1)
	n.mu.Lock()
	n.open[c] = true
	n.mu.Unlock()
	c.Begin = now()
}

func (n *notebook) end(c *Call) {
	c.End = now()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, c)
	n.calls = append(n.calls, *c)
}

// add takes over a call of another process.
func (n *notebook) add(c Call) {
	c.ID = n.ids.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, c)
}

// all returns every call; those that never ended are of unknown outcome. No
// call may be made meanwhile.
func (n *notebook) all() []Call {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.open {
		c.Outcome = Unknown
		n.calls = append(n.calls, *c)
	}
	n.open = make(map[*Call]bool)
	return n.calls
}

// count is how many calls have ended.
func (n *notebook) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.calls)
}

// wire is the recorder of a worker process: a line before each call and one
// after it, in one write each, so that what a killed process had begun is known.
type wire struct {
	ids atomic.Int64
	mu  sync.Mutex
	out io.Writer
}

func (w *wire) begin(c *Call) {
	c.ID = w.ids.Add(1)
	c.Begin = now()
	w.write(c)
}

func (w *wire) end(c *Call) {
	c.End = now()
	w.write(c)
}

func (w *wire) write(c *Call) {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // a Call has nothing that JSON cannot say
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.out.Write(append(text, '\n')) // without a reader the process is to end anyway
}

// follow reads what a worker process reports until it has ended, and hands it to
// the notebook. A last line cut off in the middle is one that was not written.
func (n *notebook) follow(r io.Reader) error {
	open := make(map[int64]Call)
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil {
			for _, c := range open {
				c.Outcome = Unknown
				n.add(c)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("reading what a worker process reports: %w", err)
		}
		var c Call
		if err := json.Unmarshal(text, &c); err != nil {
			return fmt.Errorf("a worker process reports %q: %w", text, err)
		}
		if c.End == 0 {
			open[c.ID] = c
			continue
		}
		delete(open, c.ID)
		n.add(c)
	}
}
