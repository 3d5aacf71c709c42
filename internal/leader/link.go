package leader

import (
	"bufio"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var epoch = time.Now()

// link is a follower's connection to the leader.
type link struct {
	wire wire
	lost chan struct{} // closed once it is of no more use

	heard atomic.Int64 // when the last frame came, since epoch

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan []byte // nil once lost
	sent    [sentCalls]time.Time   // of the last calls, by number
}

// sentCalls is of how many calls a link knows when they were sent.
const sentCalls = 1024

// sentAt is when a call was sent, zero where that is not known.
func (l *link) sentAt(number uint64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number == 0 || number > l.last || l.last-number >= sentCalls {
		return time.Time{}
	}
	return l.sent[number%sentCalls]
}

func newLink(conn net.Conn) *link {
	return &link{wire: wire{conn: conn}, lost: make(chan struct{}), waiting: make(map[uint64]chan []byte)}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		return
	}
	l.waiting = nil
	close(l.lost)
	l.wire.conn.Close()
}

func (l *link) call(ctx context.Context, kind byte, body []byte) ([]byte, error) {
	answered := make(chan []byte, 1)
	l.mu.Lock()
	if l.waiting == nil {
		l.mu.Unlock()
		return nil, ErrNone
	}
	l.last++
	number := l.last
	l.waiting[number] = answered
	l.sent[number%sentCalls] = time.Now()
	l.mu.Unlock()
	if err := l.wire.write(frame{kind, number, body}); err != nil {
		l.close()
		return nil, ErrLost
	}
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	for asked := time.Now(); ; {
		select {
		case a := <-answered:
			return a, nil
		case now := <-probe.C:
			l.probe(now, asked)
			continue
		case <-l.lost:
		case <-ctx.Done():
			l.forget(number)
		}
		break
	}
	select {
	case a := <-answered: // at the same time
		return a, nil
	default:
		return nil, ErrLost
	}
}

// probe closes a link whose leader has been silent for too long since a call, and
// else makes it say something.
func (l *link) probe(now, asked time.Time) {
	if heard := epoch.Add(time.Duration(l.heard.Load())); now.Sub(later(heard, asked)) > silence {
		l.close()
		return
	}
	if err := l.wire.write(frame{kind: hello}); err != nil {
		l.close()
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (l *link) forget(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, number)
}

// read hands on what comes until the connection ends.
func (l *link) read(h Handler) {
	defer l.close()
	from := bufio.NewReaderSize(l.wire.conn, 64<<10)
	for {
		f, err := read(from)
		if err != nil {
			return
		}
		l.heard.Store(int64(time.Since(epoch)))
		if f.kind != answer {
			h.Hear(f.kind, f.body, l.sentAt)
			continue
		}
		l.mu.Lock()
		if answered, ok := l.waiting[f.number]; ok {
			delete(l.waiting, f.number)
			answered <- f.body
		}
		l.mu.Unlock()
	}
}

// Follower is a process that follows this one.
type Follower struct {
	wire     wire
	received atomic.Uint64
	gone     atomic.Bool
}

// Received is the number of the last call that has come from the follower, see
// [Member.SentAt].
func (f *Follower) Received() uint64 { return f.received.Load() }

// Gone reports whether the connection has ended.
func (f *Follower) Gone() bool { return f.gone.Load() }

// Leave ends the connection.
func (f *Follower) Leave() { f.wire.conn.Close() }

// Send sends a message to the follower. One that does not read what it is sent is
// cut off, and does its work by itself.
func (f *Follower) Send(kind byte, body []byte) {
	if err := f.wire.write(frame{kind: kind, body: body}); err != nil {
		f.Leave()
	}
}

// serve answers the calls of one follower, each in a goroutine of its own.
func (m *Member) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	f := &Follower{wire: wire{conn: conn}}
	var calls sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		f.gone.Store(true)
		cancel()
		stop()
		conn.Close()
		calls.Wait()
	}()
	from := bufio.NewReaderSize(conn, 64<<10)
	for {
		call, err := read(from)
		if err != nil {
			return
		}
		if call.number > f.received.Load() {
			f.received.Store(call.number)
		}
		if call.kind == hello {
			f.answer(call, nil)
			continue
		}
		calls.Go(func() {
			body := m.handler.Serve(ctx, f, call.kind, call.body)
			if ctx.Err() == nil { // else it was broken off
				f.answer(call, body)
			}
		})
	}
}

func (f *Follower) answer(call frame, body []byte) {
	if err := f.wire.write(frame{answer, call.number, body}); err != nil {
		f.Leave()
	}
}
