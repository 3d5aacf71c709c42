package benchmarks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// maxIdle is how long a connection may have been idle to be used again: servers
// close idle connections, some after 5 s, and a request that crosses that on its
// way is lost.
const maxIdle = 2 * time.Second

// requestTimeout bounds one request; a store that takes longer has failed.
const requestTimeout = 60 * time.Second

// Conn is one keep-alive HTTP/1.1 connection, for one goroutine. It writes a
// request with one system call and allocates nothing once its buffers have
// grown: with net/http the client would cost as much as the server it measures.
type Conn struct {
	host string
	tcp  net.Conn
	used time.Time // when the last answer came
	in   *bufio.Reader
	out  []byte
	body []byte

	mu     sync.Mutex // guards closed, and tcp while it is replaced
	closed bool
}

// Dial connects to the store at base, http://host:port.
func Dial(base string) (*Conn, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("cannot drive %q: the address must look like http://host:port", base)
	}
	c := &Conn{host: u.Host, in: bufio.NewReaderSize(nil, 64<<10)}
	return c, c.dial()
}

func (c *Conn) dial() error {
	tcp, err := net.DialTimeout("tcp", c.host, 10*time.Second)
	if err != nil {
		return fmt.Errorf("cannot reach the store: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tcp != nil {
		c.tcp.Close()
	}
	c.tcp, c.used = tcp, time.Now()
	c.in.Reset(tcp)
	if c.closed {
		tcp.Close()
	}
	return nil
}

// Close ends the connection, and a request on it with an error. It may be
// called by any goroutine.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.tcp != nil {
		c.tcp.Close()
	}
}

// Do sends one request and returns the status and the body, which is valid
// until the next call. It dials anew when the connection was idle for long.
func (c *Conn) Do(method, path, contentType string, body []byte) (int, []byte, error) {
	c.out = append(c.out[:0], method...)
	c.out = append(c.out, ' ')
	c.out = append(c.out, path...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.host...)
	if method != "GET" {
		c.out = append(c.out, "\r\nContent-Type: "...)
		c.out = append(c.out, contentType...)
		c.out = append(c.out, "\r\nContent-Length: "...)
		c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	}
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)

	if time.Since(c.used) > maxIdle {
		if err := c.dial(); err != nil {
			return 0, nil, err
		}
	}
	if err := c.tcp.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.tcp.Write(c.out); err != nil {
		return 0, nil, fmt.Errorf("cannot send %s %s: %w", method, path, err)
	}
	status, err := c.answer()
	c.used = time.Now()
	if err != nil {
		return 0, nil, fmt.Errorf("cannot read the answer to %s %s: %w", method, path, err)
	}
	return status, c.body, nil
}

// answer reads one response into c.body.
func (c *Conn) answer() (status int, err error) {
	line, err := c.line()
	if err != nil {
		return 0, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, fmt.Errorf("not an HTTP/1.1 status line: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length, chunked := 0, false
	for {
		if line, err = c.line(); err != nil {
			return 0, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	c.body = c.body[:0]
	if !chunked {
		return status, c.take(length)
	}
	for {
		if line, err = c.line(); err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return 0, err
		}
		if err := c.take(int(n)); err != nil {
			return 0, err
		}
		if _, err := c.line(); err != nil { // the line end after the chunk
			return 0, err
		}
		if n == 0 {
			return status, nil
		}
	}
}

func (c *Conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// take appends the next n bytes of the connection to c.body.
func (c *Conn) take(n int) error {
	at := len(c.body)
	for cap(c.body) < at+n {
		c.body = append(c.body[:cap(c.body)], 0)
	}
	c.body = c.body[:at+n]
	_, err := io.ReadFull(c.in, c.body[at:])
	return err
}
