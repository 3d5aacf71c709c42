package llmproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

const (
	maxErrorBody = 1 << 20
	// clientStall is how long a client may take no bytes of its answer.
	clientStall = time.Minute
)

// answerHeaders are the prefixes of the upstream's headers that go along.
var answerHeaders = []string{"X-Request-Id", "Request-Id", "Retry-After", "X-Ratelimit-", "Openai-", "Anthropic-", "X-Should-Retry"}

func copyHeaders(to, from http.Header) {
	for name, values := range from {
		for _, prefix := range answerHeaders {
			if strings.HasPrefix(name, prefix) {
				to[name] = values
			}
		}
	}
}

// deliver hands an upstream's answer to the client. As for try, a retry means
// that the client has seen nothing of it.
func (c *call) deliver(u *upstream, ctx context.Context, resp *http.Response, silence *watch) (*retry, error) {
	stream := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return nil, c.deliverError(u, resp)
	case stream:
		c.deliverStream(u, ctx, resp, silence)
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(&watchedReader{resp.Body, silence}, c.p.opts.MaxAnswer+1))
	if err != nil {
		return c.lost(u, ctx, err, OutcomeTruncated)
	}
	c.firstByte = time.Now()
	if err := c.tooMuch(int64(len(body))); err != nil {
		c.settle(OutcomeTruncated, err.Error())
		return nil, err
	}
	u.succeeded()
	return nil, c.deliverWhole(u, resp.Header, body)
}

// tooMuch is the error of an answer of more bytes than are taken.
func (c *call) tooMuch(n int64) error {
	if n <= c.p.opts.MaxAnswer {
		return nil
	}
	return fmt.Errorf("the upstream's answer is larger than %d bytes", c.p.opts.MaxAnswer)
}

// deliverError hands on an error of the upstream's.
func (c *call) deliverError(u *upstream, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		body = []byte(err.Error())
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		c.blame(u, fmt.Sprintf("status %d: %s", resp.StatusCode, upstreamMessage(body)))
	} else if after := retryAfter(resp.Header); resp.StatusCode == http.StatusTooManyRequests && after > 0 {
		u.rest(time.Now(), after, "status 429")
	}
	c.settle(OutcomeUpstreamError, fmt.Sprintf("status %d: %s", resp.StatusCode, upstreamMessage(body)))
	c.status = resp.StatusCode
	if c.status < 400 { // redirects and the like are of no use to a client
		c.status = http.StatusBadGateway
	}
	c.record()
	kind := resp.Header.Get("Content-Type")
	if speaks := c.endpoint.protocol(); speaks != u.protocol() || c.status != resp.StatusCode {
		body, kind = translateError(body, c.status, speaks), "application/json"
	}
	copyHeaders(c.w.Header(), resp.Header)
	c.w.Header().Set("Content-Type", kind)
	c.w.WriteHeader(c.status)
	_, _ = c.w.Write(body) // a client that is gone is none of ours
	return nil
}

// deliverWhole hands on an answer that is not a stream. It is recorded before
// the client has it, so that its spans are on their way first.
func (c *call) deliverWhole(u *upstream, header http.Header, body []byte) error {
	const notJSON = "the answer is not a JSON object"
	answer, err := parseForeign(body)
	c.status = http.StatusOK
	switch {
	case err == nil && answer.Kind() == rawjson.KindObject:
		c.answer = answer
		if failure := present(answer.Get("error")); failure != nil { // some say 200 to it
			c.settle(OutcomeUpstreamError, upstreamMessage(body))
		}
		c.settle(OutcomeOK, "")
	case c.endpoint != c.wire:
		c.settle(OutcomeUpstreamError, notJSON)
		return errors.New("of the upstream: " + notJSON)
	default:
		c.settle(OutcomeUpstreamError, notJSON)
	}
	kind := header.Get("Content-Type")
	if c.endpoint != c.wire {
		if c.stream {
			c.outcome, c.failure = OutcomeUpstreamError, "the answer is not a stream"
			return errors.New("the upstream answered without a stream, which cannot be translated into one")
		}
		kind = "application/json"
		body = c.translateAnswer(answer)
	}
	if c.ctx.Err() != nil {
		c.status, c.outcome, c.failure = statusClientGone, OutcomeCancelled, "the client went away"
	}
	c.record()
	c.keepTurn()
	copyHeaders(c.w.Header(), header)
	c.remember(kind, body)
	c.write(kind, body)
	return nil
}

func (c *call) write(kind string, body []byte) {
	c.w.Header().Set("Content-Type", kind)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(clientStall)) // recorders of tests have none
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(body) // a client that is gone is none of ours
}

// watchedReader tells a watch of every byte.
type watchedReader struct {
	io.Reader
	silence *watch
}

// Read implements io.Reader.
func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.silence.reset()
	return n, err
}

var streamBuffers = sync.Pool{New: func() any { b := make([]byte, 8<<10); return &b }}

// streamWriter writes to the client at once. Meanwhile no upstream is watched:
// a slow client is not its fault.
type streamWriter struct {
	w       http.ResponseWriter
	silence *watch
	control *http.ResponseController
	copied  []byte // what was written, where that is kept
	keep    int    // how much may be kept
	err     error
}

// Write implements io.Writer.
func (s *streamWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.silence.stop()
	defer s.silence.reset()
	_ = s.control.SetWriteDeadline(time.Now().Add(clientStall)) // recorders of tests have none
	_, s.err = s.w.Write(p)
	if s.err == nil {
		s.err = s.control.Flush()
	}
	if s.keep > 0 {
		if len(s.copied)+len(p) > s.keep {
			s.copied, s.keep = nil, 0
		} else {
			s.copied = append(s.copied, p...)
		}
	}
	return len(p), s.err
}

// deliverStream forwards a stream as it comes, and puts its message together
// beside it.
func (c *call) deliverStream(u *upstream, ctx context.Context, resp *http.Response, silence *watch) {
	out := &streamWriter{w: c.w, silence: silence, control: http.NewResponseController(c.w), keep: c.p.cache.room()}
	h := c.w.Header()
	copyHeaders(h, resp.Header)
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	c.status = http.StatusOK
	c.w.WriteHeader(http.StatusOK)
	_ = out.control.Flush() // the first write tells of a client that is gone

	translator := c.translator(out)
	message := newAssembler(c.wire)
	receive := func(name string, data []byte) {
		if string(data) == doneMark {
			message.done()
			return
		}
		event, err := parseForeign(data)
		if err != nil {
			return // not of the protocol; the client sees it, or not, as it came
		}
		message.add(name, event)
		if translator != nil {
			_ = translator.add(name, event) // out keeps the error
		}
	}
	var events sseReader
	buf := streamBuffers.Get().(*[]byte)
	defer streamBuffers.Put(buf)
	var readErr error
	var total int64
	for readErr == nil && out.err == nil {
		var n int
		n, readErr = resp.Body.Read(*buf)
		silence.reset()
		if n == 0 {
			continue
		}
		if c.firstByte.IsZero() {
			c.firstByte = time.Now()
		}
		if translator == nil {
			_, _ = out.Write((*buf)[:n]) // out keeps the error
		}
		events.feed((*buf)[:n], receive)
		if total += int64(n); readErr == nil {
			readErr = c.tooMuch(total)
		}
	}
	events.end(receive)
	c.answer = message.response()
	c.settleStream(u, ctx, message, readErr, out.err)
	c.keepTurn()
	if translator != nil {
		var failure error
		if c.outcome != OutcomeOK {
			failure = errors.New(c.failure)
		}
		_ = translator.end(failure)
	}
	if c.outcome == OutcomeOK && out.copied != nil {
		c.remember("text/event-stream", out.copied)
	}
}

// settleStream says how a stream ended.
func (c *call) settleStream(u *upstream, ctx context.Context, message assembler, readErr, writeErr error) {
	if failure := message.failure(); failure != nil {
		text := failure.Get("message").Text()
		if text == "" {
			text = string(failure)
		}
		c.blame(u, text)
		c.settle(OutcomeUpstreamError, text)
		return
	}
	if message.complete() {
		u.succeeded()
		c.settle(OutcomeOK, "")
		return
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errShutdown):
		c.settle(OutcomeShutdown, errShutdown.Error())
	case errors.Is(cause, errTimeout):
		c.blame(u, errTimeout.Error())
		c.settle(OutcomeTimeout, errTimeout.Error())
	case cause != nil || writeErr != nil:
		c.settle(OutcomeCancelled, "the client went away")
	case errors.Is(readErr, io.EOF):
		c.blame(u, "the stream ended without its closing event")
		c.settle(OutcomeTruncated, "the stream ended without its closing event")
	default:
		c.blame(u, readErr.Error())
		c.settle(OutcomeTruncated, readErr.Error())
	}
}
