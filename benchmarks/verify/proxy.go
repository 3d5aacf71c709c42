package verify

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// proxy passes TCP connections on to a target, and spoils them when told to.
type proxy struct {
	listener net.Listener
	target   string
	// spares, if not nil, tells by a connection's first bytes that faults are not
	// for it.
	spares func(first []byte) bool

	mu     sync.Mutex
	links  map[*link]struct{}
	ill    illness
	closed bool
	done   sync.WaitGroup
}

// illness is what is wrong with a proxy at the moment.
type illness struct {
	delay  time.Duration // of each piece of data
	hung   chan struct{} // not nil: nothing passes until it is closed
	chance float64       // of an answer to be cut off in the middle
}

// newProxy listens on a port of its own and passes on to target.
func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	p := &proxy{listener: l, target: target, links: make(map[*link]struct{})}
	p.done.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	_ = p.listener.Close()
	p.heal()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.reset()
	}
	p.mu.Unlock()
	p.done.Wait()
}

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.done.Go(func() { p.serve(conn) })
	}
}

// link is one connection through the proxy.
type link struct {
	near, far net.Conn
	spared    bool
}

// reset ends both sides with a reset, as the death of a machine or a firewall
// would.
func (l *link) reset() {
	for _, c := range []net.Conn{l.near, l.far} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

func (p *proxy) serve(near net.Conn) {
	if hung := p.now().hung; hung != nil && p.spares == nil {
		<-hung // half open: taken by the kernel, and nobody there
	}
	far, err := net.DialTimeout("tcp", p.target, 2*time.Second)
	if err != nil {
		_ = near.(*net.TCPConn).SetLinger(0)
		_ = near.Close()
		return
	}
	l := &link{near: near, far: far}
	p.mu.Lock()
	p.links[l] = struct{}{}
	if p.closed {
		l.reset()
	}
	p.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, far, near, true) })
	pumps.Go(func() { p.pump(l, near, far, false) })
	pumps.Wait()
	l.reset()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump passes data one way until a side ends.
func (p *proxy) pump(l *link, to, from net.Conn, asking bool) {
	buf := make([]byte, 32<<10)
	first := true
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if asking && first && p.spares != nil {
				p.mu.Lock()
				l.spared = p.spares(buf[:n])
				p.mu.Unlock()
			}
			first = false
			if !p.pass(l, to, buf[:n], asking) {
				l.reset()
				return
			}
		}
		if err != nil {
			if tcp, ok := to.(*net.TCPConn); ok && err == io.EOF {
				_ = tcp.CloseWrite()
			} else {
				l.reset()
			}
			return
		}
	}
}

// pass hands data on as the proxy's illness has it; false breaks the link.
func (p *proxy) pass(l *link, to net.Conn, data []byte, asking bool) bool {
	ill := p.now()
	p.mu.Lock()
	spared := l.spared
	p.mu.Unlock()
	if spared {
		ill = illness{}
	}
	if ill.hung != nil {
		<-ill.hung
	}
	if ill.delay > 0 {
		time.Sleep(ill.delay)
	}
	if !asking && ill.chance > 0 && rand.Float64() < ill.chance {
		_, _ = to.Write(data[:rand.IntN(len(data))])
		return false
	}
	_, err := to.Write(data)
	return err == nil
}

func (p *proxy) now() illness {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ill
}

// cut resets every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if !l.spared {
			l.reset()
		}
	}
}

// slow delays every piece of data, until healed.
func (p *proxy) slow(by time.Duration) { p.set(illness{delay: by}) }

// hang lets nothing pass, until healed.
func (p *proxy) hang() { p.set(illness{hung: make(chan struct{})}) }

// cutAnswers resets connections in the middle of an answer, with that chance,
// until healed.
func (p *proxy) cutAnswers(chance float64) { p.set(illness{chance: chance}) }

func (p *proxy) heal() { p.set(illness{}) }

func (p *proxy) set(ill illness) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ill.hung != nil {
		close(p.ill.hung)
	}
	p.ill = ill
}

// memberOfSet recognises the connections of MongoDB servers among each other:
// faults are meant for those of the stores.
func memberOfSet(first []byte) bool { return bytes.Contains(first, []byte("internalClient")) }
