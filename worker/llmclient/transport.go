// Package llmclient calls language models that speak OpenAI's chat completions, and
// records the calls as spans of the task at hand, in the shape that adapters read.
//
// [Transport] records the calls of any client that takes an http.Client: OpenAI's
// own, or one that a framework brings. [Client] is a small one of its own, for
// agents that need no more.
package llmclient

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/trace"
)

// MaxRecorded is how much of a response is recorded, in bytes, so that one that
// never ends does not fill the memory. Callers get all of it.
const MaxRecorded = 64 << 20

// Transport records each call of chat completions that is made under a task's
// context: a span openai.chat.completion, and below it one for each tool that the
// model calls. It is sent when the response was read to its end, or closed. Streams
// are recorded as what they amount to. Other requests pass. The requests are not
// changed, and errors of recording are not the caller's.
type Transport struct {
	// Base makes the requests; http.DefaultTransport when nil.
	Base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := cmp.Or(t.Base, http.DefaultTransport)
	sc := trace.ScopeOf(req.Context())
	if sc == nil || req.Method != http.MethodPost || req.Body == nil || !strings.HasSuffix(req.URL.Path, "/chat/completions") {
		return base.RoundTrip(req)
	}
	body, err := io.ReadAll(req.Body)
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	sent := req.Clone(req.Context())
	sent.Body = io.NopCloser(bytes.NewReader(body))
	sent.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }

	c := &call{ctx: req.Context(), scope: sc, number: sc.Number(req.Context()), began: sc.Now(), start: time.Now()}
	c.request, _ = rawjson.Parse(body) // one that is no JSON is the server's to refuse
	res, err := base.RoundTrip(sent)
	if err != nil {
		c.finish(err)
		return nil, err
	}
	c.answer(res)
	res.Body = c
	return res, nil
}

// call is a call whose response is being read. It is the response's body.
type call struct {
	ctx     context.Context
	scope   *trace.Scope
	number  int64
	began   float64
	start   time.Time
	request rawjson.Value

	body   io.ReadCloser
	status int
	stream bool
	coded  bool // in a way that is not read here

	mu       sync.Mutex // a body may be closed while it is read
	finished bool
	recorded []byte
	cut      bool
	first    time.Duration // until the first byte
}

func (c *call) answer(res *http.Response) {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	c.body, c.status, c.stream = res.Body, res.StatusCode, kind == "text/event-stream"
	encoding := res.Header.Get("Content-Encoding")
	c.coded = encoding != "" && encoding != "identity"
}

// Read implements io.Reader.
func (c *call) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	c.record(p[:n])
	switch {
	case err == io.EOF:
		c.finish(nil)
	case err != nil:
		c.finish(err)
	}
	return n, err
}

func (c *call) record(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > 0 && c.first == 0 {
		c.first = time.Since(c.start)
	}
	room := MaxRecorded - len(c.recorded)
	c.cut = c.cut || len(p) > room
	if !c.finished {
		c.recorded = append(c.recorded, p[:min(len(p), room)]...)
	}
}

// errHalf says that a response was given up.
var errHalf = errors.New("the response was closed before its end")

// Close implements io.Closer.
func (c *call) Close() error {
	err := c.body.Close()
	c.finish(errHalf)
	return err
}

// finish sends the spans of the call, once. Cause is why it ended early.
func (c *call) finish(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return
	}
	c.finished = true
	response, done := c.response()
	if done && cause == errHalf {
		cause = nil // clients close a stream at its last event
	}
	if cause == nil && c.status >= http.StatusBadRequest {
		cause = fmt.Errorf("%d %s: %s", c.status, http.StatusText(c.status),
			cmp.Or(response.Get("error").Get("message").Text(), string(c.recorded[:min(len(c.recorded), 500)])))
	}
	c.send(response, cause)
	c.recorded = nil
}

// response is what was answered, as one object; done is whether it is whole.
func (c *call) response() (v rawjson.Value, done bool) {
	switch {
	case c.coded || c.cut:
		return nil, false
	case c.stream:
		return assemble(c.recorded)
	}
	v, err := rawjson.Parse(c.recorded)
	return v, err == nil
}

func (c *call) send(response rawjson.Value, cause error) {
	traceID, parent := c.scope.Parent(c.ctx)
	attributes := CallAttributes(c.request, response)
	if c.stream && c.first > 0 {
		attributes = append(attributes[:len(attributes)-1], `,"gen_ai.streaming.time_to_first_token":`...)
		attributes = append(rawjson.AppendFloat(attributes, c.first.Seconds()), '}')
	}
	end := c.scope.Now()
	span := queue.Span{
		Name: semconv.ChatSpan, TraceID: traceID.String(), SpanID: newSpanID(), Attributes: attributes,
		SequenceID: c.number, StartTime: &c.began, EndTime: &end, Status: semconv.StatusOK,
	}
	if parent.IsValid() {
		id := parent.String()
		span.ParentID = &id
	}
	if cause != nil {
		emit.FailureOf(cause).Mark(&span, end)
	}
	for _, tool := range toolSpans(response) {
		tool.TraceID, tool.ParentID, tool.StartTime, tool.EndTime = span.TraceID, &span.SpanID, &end, &end
		_ = c.scope.Send(c.ctx, tool) // counted as missing if it fails
	}
	_ = c.scope.Send(c.ctx, span)
}

func newSpanID() string { return trace.NewSpanID().String() }
