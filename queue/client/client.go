// Package client is [queue.Store] spoken over HTTP: what workers and algorithms
// hold when the store is another process. It works against aglq and against the
// reference's server; where the latter lacks something (long waits, attempts in
// a heartbeat, giving claims back) it does the nearest thing with what there is.
//
// A call that fails in a way that a repetition may mend (see [Options.Retry]) is
// repeated. Each call that creates something carries an idempotency key, the
// same over its repetitions, so a store that knows them creates it once even
// when the first answer was lost on the way.
package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
)

// Options adjusts a Client. The zero Options is right for most.
type Options struct {
	// RequestTimeout bounds one try of one request, on top of what the request
	// asks the store to wait: 30 s when 0.
	RequestTimeout time.Duration
	// ConnectTimeout bounds making a connection: 5 s when 0.
	ConnectTimeout time.Duration
	// Retry is how long to pause before each repetition of a request that met a
	// broken connection, a timeout, status 408 or 500 and above, or an answer
	// that is not what it should be: 1, 2 and 5 s when nil. An empty list
	// repeats nothing.
	Retry []time.Duration
	// Probe is how long to pause before each look at the store's health that
	// precedes a repetition: 0, 0.1, 0.2 and 0.5 s when nil. A store that is
	// unwell at the last look ends the call. An empty list does not look.
	Probe []time.Duration
	// Patience is how long a call keeps trying from its first failure on,
	// whatever Retry and Probe would end: for those who ride out a restart of
	// the store. 0 leaves it to them.
	Patience time.Duration
	// MaxAnswer is the largest answer read, in bytes: 1 GiB when 0.
	MaxAnswer int64
	// CompressFrom is the size in bytes from which OTLP requests are gzipped:
	// 64 KiB when 0, never when negative.
	CompressFrom int
	// AuthToken is the bearer token that the store asks for, "" for none.
	AuthToken string
	// Transport sends the requests. Nil is one of the client's own that keeps as
	// many idle connections as there are callers.
	Transport http.RoundTripper
}

// Client is a store behind a URL. It is safe for concurrent use, by hundreds of
// goroutines too.
type Client struct {
	base   string // without a trailing slash
	opts   Options
	http   *http.Client
	own    *http.Transport // closed by Close, nil when the caller's
	health string
}

var _ queue.Store = (*Client)(nil)

// New makes a client of the store at baseURL, "http://host:4747". A path is
// kept: the store's own paths are appended to it. Nothing is sent yet; a URL
// that is no URL fails the first call.
func New(baseURL string, opts Options) *Client {
	opts.RequestTimeout = cmp.Or(opts.RequestTimeout, 30*time.Second)
	opts.ConnectTimeout = cmp.Or(opts.ConnectTimeout, 5*time.Second)
	opts.MaxAnswer = cmp.Or(opts.MaxAnswer, 1<<30)
	opts.CompressFrom = cmp.Or(opts.CompressFrom, 64<<10)
	if opts.Retry == nil {
		opts.Retry = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second}
	}
	if opts.Probe == nil {
		opts.Probe = []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond}
	}
	if !strings.Contains(baseURL, "://") {
		baseURL = "http://" + baseURL
	}
	c := &Client{base: strings.TrimRight(baseURL, "/"), opts: opts}
	c.health = c.base + api + "health"
	transport := opts.Transport
	if transport == nil {
		c.own = newTransport(opts)
		transport = c.own
	}
	c.http = &http.Client{
		Transport: transport,
		// The protocol has no redirects; following one would turn a POST into a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// newTransport pools connections without a bound: callers are bounded
// themselves. Idle ones go before the shortest-lived server (30 s) drops them.
func newTransport(opts Options) *http.Transport {
	dialer := &net.Dialer{Timeout: opts.ConnectTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: opts.ConnectTimeout,
		// Only requests that expect to be told to continue wait.
		ExpectContinueTimeout: opts.RequestTimeout,
		MaxIdleConnsPerHost:   4096,
		IdleConnTimeout:       20 * time.Second,
		DisableCompression:    true,
		WriteBufferSize:       16 << 10,
		ReadBufferSize:        16 << 10,
	}
}

// Close closes idle connections. Calls in flight are not disturbed.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// URL is the address the client was made with, without a trailing slash.
func (c *Client) URL() string { return c.base }

// Healthy asks the store once whether it is well; nil says yes.
func (c *Client) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.health, nil)
	if err != nil {
		return queue.Wrap(queue.Invalid, err, "the store's URL is wrong")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return queue.Wrap(queue.Unavailable, unwrapURL(err), "store "+c.base+" does not answer")
	}
	defer resp.Body.Close()
	// Read to its end, the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return queue.Errorf(queue.Unavailable, "store %s is not well: status %d", c.base, resp.StatusCode)
	}
	return nil
}

// ended tells a caller's end from a failure of the store.
func ended(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if last == nil || errors.Is(last, cause) {
		return queue.Wrap(queue.Unavailable, cause, "the call was ended before the store answered")
	}
	return queue.Wrap(queue.Unavailable, errors.Join(cause, last), "the call was ended while it was tried again")
}
