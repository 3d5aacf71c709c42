// Package leader lets the processes of one machine that do the same work agree
// on a leader, which does for all of them what is cheaper done together.
//
// The leader is whoever holds a lock on a file, so there is never more than one,
// and none for longer than it takes the next process to notice that the kernel
// has closed the connections of the one before. The others speak to it over a
// Unix socket beside that file: they call it, and it sends them messages. Both
// files are in a folder of the user's own, so nobody else can join.
//
// Nothing here is needed for a process to go on: where there is no leader, or it
// does not answer, a member is told so and does its work itself.
package leader

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// greetTimeout is how long a leader may take to say hello. One that is stopped
	// or overloaded is no help.
	greetTimeout = 500 * time.Millisecond
	// probeEvery is how often a follower that waits for an answer says hello, and
	// silence how long the leader may then say nothing at all before its follower
	// turns away from it.
	probeEvery = 300 * time.Millisecond
	silence    = 900 * time.Millisecond
	// writeTimeout is how long a process may take to read what it is sent.
	writeTimeout = 500 * time.Millisecond
	// firstPause and lastPause are the times between two looks for a leader.
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

var (
	// ErrNone is the answer to a call where there is no leader to send it to, this
	// process being it or not.
	ErrNone = errors.New("no leader on this machine")
	// ErrLost is the answer to a call that the leader may have served or not.
	ErrLost = errors.New("the leader on this machine did not answer")
)

// Handler is what a member does for others, and hears from them. Its methods are
// called by several goroutines.
type Handler interface {
	// Serve answers a follower's call, in the leader. The context ends with the
	// connection. It may keep body.
	Serve(ctx context.Context, from *Follower, kind byte, body []byte) (answer []byte)
	// Hear is called in a follower with what the leader sends it, in order. It may
	// keep body. It must not block. SentAt is when this process sent a call to that
	// leader, zero where that is not known: the leader knows calls by their number
	// ([Follower.Received]), so by returning one it says, without a common clock,
	// what it knows to be later than it. Of the last thousand calls it is known.
	Hear(kind byte, body []byte, sentAt func(number uint64) time.Time)
	// Followed is called in a follower when there is a leader, and again with
	// false when it is lost; in the leader with false when it begins to lead.
	Followed(there bool)
}

// Member is one process's part in a group. Use Join. Its methods are safe for
// concurrent use.
type Member struct {
	path    string
	handler Handler
	log     *slog.Logger
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	link  *link // to the leader, nil without
	leads bool
}

// Leads reports whether the others speak to this process, and Follows whether it
// has a leader to speak to.
func (m *Member) Leads() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leads
}

// Follows: see Leads.
func (m *Member) Follows() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.link != nil
}

// Join enters the group of those whose path is the same: path.lock and path.sock
// are its files. The member looks for a leader, or becomes it, until Close.
func Join(path string, h Handler, log *slog.Logger) *Member {
	ctx, stop := context.WithCancel(context.Background())
	m := &Member{path: path, handler: h, log: log, stop: stop}
	m.running.Go(func() { m.run(ctx) })
	return m
}

// Close leaves the group. Calls that wait end with ErrLost.
func (m *Member) Close() {
	m.stop()
	m.running.Wait()
}

// Call has the leader serve a call. The error is ErrNone where it was not sent,
// and ErrLost where it was and no answer came.
func (m *Member) Call(ctx context.Context, kind byte, body []byte) (answer []byte, err error) {
	m.mu.Lock()
	l := m.link
	m.mu.Unlock()
	if l == nil {
		return nil, ErrNone
	}
	return l.call(ctx, kind, body)
}

func (m *Member) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		lock, err := tryLock(m.path + ".lock")
		switch {
		case err != nil:
		case lock != nil:
			err = m.lead(ctx)
			lock.Close()
		default:
			err = m.follow(ctx)
		}
		if err != nil && ctx.Err() == nil {
			m.log.Debug("no leader on this machine at present", "error", err)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastPause)
	}
}

// lead serves followers until ctx ends.
func (m *Member) lead(ctx context.Context) error {
	socket := m.path + ".sock"
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	m.leading(true)
	defer m.leading(false)
	m.handler.Followed(false)
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	defer listener.Close()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		serving.Go(func() { m.serve(ctx, conn) })
	}
}

// follow speaks to the leader until it is lost.
func (m *Member) follow(ctx context.Context) error {
	dialer := net.Dialer{Timeout: greetTimeout}
	conn, err := dialer.DialContext(ctx, "unix", m.path+".sock")
	if err != nil {
		return err
	}
	l := newLink(conn)
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		l.read(m.handler)
	}()
	defer func() { <-reading }()
	defer l.close()
	greet, cancel := context.WithTimeout(ctx, greetTimeout)
	_, err = l.call(greet, hello, nil)
	cancel()
	if err != nil {
		return err
	}
	m.follows(l)
	m.handler.Followed(true)
	<-l.lost
	m.follows(nil)
	m.handler.Followed(false)
	return ErrLost
}

func (m *Member) leading(does bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads = does
}

func (m *Member) follows(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link = l
}
