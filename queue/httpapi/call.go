package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// clientGone is the status reported for a request whose client went away before
// the answer, as nginx has it.
const clientGone = 499

// call is one request and its answer.
type call struct {
	server *Server
	r      *http.Request
	w      answer
	ids    [2]string // of the path
	route  string
	// flushes tells that the answer is flushed at once.
	flushes bool
}

// answer remembers the status written.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 || a.status < 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap serves http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// ctx is the request's context, with the key that makes it repeatable.
func (c *call) ctx() context.Context {
	ctx := c.r.Context()
	if key := c.r.Header["Idempotency-Key"]; len(key) > 0 && key[0] != "" {
		ctx = queue.WithIdempotencyKey(ctx, key[0])
	}
	return ctx
}

// waitCtx is ctx for a call that may wait; it also ends when the server does.
func (c *call) waitCtx(wait time.Duration) (context.Context, context.CancelFunc) {
	if wait == 0 {
		return c.ctx(), func() {}
	}
	c.readUntil(time.Time{})
	ctx, cancel := context.WithCancel(c.ctx())
	stop := context.AfterFunc(c.server.ending, cancel)
	return ctx, func() { stop(); cancel() }
}

// ended reports whether err is only that the server ends.
func (c *call) ended(err error) bool {
	return errors.Is(err, context.Canceled) && c.server.ending.Err() != nil && c.r.Context().Err() == nil
}

// buffers hold request bodies and answers.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func putBuffer(b *[]byte) {
	if cap(*b) <= 1<<20 {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// readBody appends the body to dst.
func (c *call) readBody(dst []byte) ([]byte, error) {
	limit := c.server.options.MaxBody
	if c.r.ContentLength > limit {
		return dst, errTooLarge(limit)
	}
	if c.r.Body == nil || c.r.Body == http.NoBody || c.r.ContentLength == 0 {
		return dst, nil
	}
	// The server's own deadline for the request serves until there is progress
	// to report; see Serve.
	began := time.Now()
	progress := began
	// A length is a promise, not a reason to allocate.
	want := min(max(c.r.ContentLength+1, 512), 64<<10)
	if int64(cap(dst)-len(dst)) < want {
		dst = append(make([]byte, 0, int64(len(dst))+want), dst...)
	}
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := c.r.Body.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if int64(len(dst)) > limit {
			return dst, errTooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return dst, errBody{err}
		}
		if now := time.Now(); n > 0 && now.Sub(progress) > c.server.options.BodyStall/16 {
			progress = now
			c.readUntil(now.Add(c.server.options.BodyStall))
		}
	}
	if time.Since(began) > c.server.options.BodyStall/16 {
		c.readUntil(time.Time{}) // little of it may be left for the answer
	}
	return dst, nil
}

// readUntil moves the end of reading from the client, who is taken for gone
// after it; the zero time is never.
func (c *call) readUntil(t time.Time) {
	// Without a connection there is no deadline to move.
	_ = http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(t)
}

// errBody means that the body could not be read: the client is gone or stalled.
type errBody struct{ err error }

// Error implements error.
func (e errBody) Error() string { return "reading the request body: " + e.err.Error() }

func errTooLarge(limit int64) error {
	return queue.Errorf(queue.TooLarge, "request body is larger than %d bytes", limit)
}

// errParse is the reference's answer to a body that is no text.
var errParse = queue.Errorf(queue.Invalid, "There was an error parsing the body")

// json reads the body as canonical JSON into memory that the store may keep; an
// empty body is nil. Problems are those of v.
func (c *call) json(v *checker) (rawjson.Value, error) { return c.jsonInto(v, nil) }

// jsonInto is json with the memory to use; nil is new memory.
func (c *call) jsonInto(v *checker, dst []byte) (rawjson.Value, error) {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	text, err := c.readBody((*buf)[:0])
	*buf = text
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, nil
	}
	if dst == nil {
		dst = make([]byte, 0, len(text))
	}
	body, nonFinite, err := rawjson.Compact(dst, text)
	var syntax *rawjson.SyntaxError
	switch {
	case errors.As(err, &syntax) && utf8.Valid(text):
		return nil, invalidJSON(syntax)
	case errors.Is(err, rawjson.ErrTooDeep):
		return nil, invalidJSON(&rawjson.SyntaxError{Reason: err.Error()})
	case err != nil:
		return nil, errParse
	}
	v.nonFinite = nonFinite
	return body, nil
}

var (
	jsonType  = []string{"application/json"}
	protoType = []string{"application/x-protobuf"}
)

// shortAnswer is the size up to which net/http itself sets the Content-Length
// of an answer that is not flushed: such answers need not carry one.
const shortAnswer = 2048

// send writes a whole answer.
func (c *call) send(status int, contentType []string, body []byte) error {
	h := c.w.Header()
	if contentType != nil {
		h["Content-Type"] = contentType
	}
	if len(body) > shortAnswer || c.flushes {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	c.w.WriteHeader(status)
	if len(body) == 0 {
		return nil
	}
	_, err := c.w.Write(body)
	return err
}

// reply writes the JSON that body appends. The answer may never arrive; that is
// the client's loss, and where it matters the caller looks at the error.
func (c *call) reply(status int, body func(dst []byte) []byte) error {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	*buf = body((*buf)[:0])
	return c.send(status, jsonType, *buf)
}

// appender is a record that writes its own wire form.
type appender[T any] interface {
	*T
	AppendJSON(dst []byte) []byte
}

// one answers with a record, or null.
func one[T any, P appender[T]](c *call, status int, record P) {
	_ = c.reply(status, func(dst []byte) []byte {
		if record == nil {
			return append(dst, "null"...)
		}
		return record.AppendJSON(dst)
	})
}

// many answers with an array of records.
func many[T any, P appender[T]](c *call, status int, records []T) error {
	return c.reply(status, func(dst []byte) []byte { return appendArray[T, P](dst, records) })
}

// page answers with one page of a list.
func page[T any, P appender[T]](c *call, p queue.Page[T]) {
	_ = c.reply(http.StatusOK, func(dst []byte) []byte {
		dst = append(dst, `{"items":`...)
		dst = appendArray[T, P](dst, p.Items)
		dst = append(dst, `,"limit":`...)
		dst = rawjson.AppendInt(dst, int64(p.Limit))
		dst = append(dst, `,"offset":`...)
		dst = rawjson.AppendInt(dst, int64(p.Offset))
		dst = append(dst, `,"total":`...)
		dst = rawjson.AppendInt(dst, int64(p.Total))
		return append(dst, '}')
	})
}

func appendArray[T any, P appender[T]](dst []byte, records []T) []byte {
	dst = append(dst, '[')
	for i := range records {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = P(&records[i]).AppendJSON(dst)
	}
	return append(dst, ']')
}

// detail answers with an error text.
func (c *call) detail(status int, text string) {
	_ = c.reply(status, func(dst []byte) []byte {
		dst = append(dst, `{"detail":`...)
		dst = rawjson.AppendString(dst, text)
		return append(dst, '}')
	})
}

func (c *call) notAllowed(allow string) {
	c.w.Header().Set("Allow", allow)
	c.detail(http.StatusMethodNotAllowed, "Method Not Allowed")
}

// error answers with what went wrong.
func (c *call) error(err error) {
	var problems unprocessable
	var body errBody
	switch {
	case errors.As(err, &body) && errors.Is(body.err, os.ErrDeadlineExceeded):
		c.w.Header().Set("Connection", "close")
		c.detail(http.StatusRequestTimeout, body.Error())
	case c.r.Context().Err() != nil:
		c.gone()
	case errors.As(err, &body):
		c.w.Header().Set("Connection", "close")
		c.detail(http.StatusBadRequest, body.Error())
	case errors.As(err, &problems):
		_ = c.send(http.StatusUnprocessableEntity, jsonType, problems)
	default:
		c.fail(statusOf(err), err)
	}
}

// gone ends a call whose client went away. One that has only closed its side of
// the connection must not take silence for success.
func (c *call) gone() {
	if c.w.status == 0 {
		c.w.Header().Set("Connection", "close")
		c.detail(clientGone, "The client closed the connection before the answer")
	}
	c.w.status = clientGone
}

// statusOf is the status of a store's error.
func statusOf(err error) int {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return http.StatusServiceUnavailable
	}
	return queue.KindOf(err).HTTPStatus()
}

func (c *call) fail(status int, err error) {
	switch status {
	case http.StatusInternalServerError:
		c.server.log.Error("request failed", "method", c.r.Method, "route", c.route, "error", err)
		_ = c.send(status, jsonType, []byte(`{"detail":"Internal server error","error_type":"InternalError"}`))
		return
	case http.StatusServiceUnavailable:
		c.server.log.Warn("request refused: the store is unavailable", "method", c.r.Method, "route", c.route, "error", err)
		c.w.Header().Set("Retry-After", "1")
	case http.StatusRequestEntityTooLarge:
		c.w.Header().Set("Connection", "close") // the rest of the body is not read
	}
	c.detail(status, err.Error())
}

// accepts reports whether a header lists a token, whatever its quality.
func accepts(header, token string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, _, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), token) {
			return true
		}
	}
	return false
}

// upperFirst makes the parser's reasons read as the reference's do.
func upperFirst(s string) string {
	b := []byte(s)
	return string(append(bytes.ToUpper(b[:1]), b[1:]...))
}
