package llmproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// How a call can end; the value of a span's aglq.llm.outcome.
const (
	OutcomeOK            = "ok"
	OutcomeUpstreamError = "upstream_error" // the upstream answered with an error, or put one into its stream
	OutcomeUnreachable   = "unreachable"    // there was no answer
	OutcomeTimeout       = "timeout"        // the upstream was silent for too long
	OutcomeTruncated     = "truncated"      // the answer broke off
	OutcomeCancelled     = "cancelled"      // the client went away first
	OutcomeShutdown      = "shutdown"       // this proxy ended first
	OutcomeRefused       = "refused"        // this proxy would not make the call
)

var (
	errTimeout  = errors.New("the upstream was silent for too long")
	errShutdown = errors.New("the proxy is shutting down")
)

// statusClientGone is what a call is counted as whose client went away.
const statusClientGone = 499

// call is one request on its way.
type call struct {
	p        *Proxy
	w        http.ResponseWriter
	r        *http.Request
	ctx      context.Context
	endpoint endpoint
	wire     endpoint         // of the upstream; the same as endpoint unless translated
	ref      queue.AttemptRef // the zero ref is nobody's
	began    time.Time
	number   *number // nil where nothing is filed

	body   rawjson.Value // as the client sent it
	whole  rawjson.Value // with the conversation that it goes on from; nil as body
	asked  string        // the model, as the client named it
	stream bool

	model     *model
	upstream  *upstream     // the last one tried
	sent      rawjson.Value // what it was sent
	retries   int
	status    int // of the answer to the client, 0 before there is one
	outcome   string
	failure   string        // what went wrong
	answer    rawjson.Value // of the upstream, put together when it was a stream
	firstByte time.Time
	cached    bool
	recorded  bool
}

// serveCall forwards a call and files it.
func (p *Proxy) serveCall(w http.ResponseWriter, r *http.Request, e endpoint, ref queue.AttemptRef) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(p.ending, func() { cancel(errShutdown) })()
	c := &call{p: p, w: w, r: r, ctx: ctx, endpoint: e, wire: e, ref: ref, began: time.Now()}
	if err := checkRef(ref); err != nil {
		c.refuse(err)
		return
	}
	if p.spans != nil && e != countTokens {
		if ref.RolloutID != "" {
			c.number = p.numbers.ask(ref.RolloutID)
		} else if p.unfiled.Add(1) == 1 {
			p.log.Warn("a call names no attempt: it is forwarded, and not filed; this is said once", "path", r.URL.Path)
		}
	}
	// A deadline that a write has set would be the connection's next call's too.
	defer func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) }()
	defer p.active.Add(-1)
	if n := p.active.Add(1); p.opts.MaxConcurrency > 0 && n > int64(p.opts.MaxConcurrency) {
		c.refuse(&refusal{
			status: http.StatusTooManyRequests, kind: "rate_limit_error", retryAfter: time.Second,
			msg: fmt.Sprintf("%d calls are open, and the proxy takes no more at a time", p.opts.MaxConcurrency),
		})
		return
	}
	if err := c.run(); err != nil {
		c.refuse(err)
	}
	c.record()
	if c.outcome != OutcomeOK && c.broken() {
		panic(http.ErrAbortHandler) // so that the client does not take it for whole
	}
}

// broken reports whether the answer was begun and has no end that the client
// could tell from a good one.
func (c *call) broken() bool {
	switch c.outcome {
	case OutcomeTruncated, OutcomeTimeout, OutcomeShutdown, OutcomeCancelled:
		return c.status == http.StatusOK
	}
	return false
}

// run reads the request and makes the call. An error is one that the client has
// not been told of.
func (c *call) run() error {
	if err := c.read(); err != nil {
		return err
	}
	c.model = c.p.models.Load().find(c.asked)
	if c.model == nil {
		return &refusal{
			status: http.StatusBadRequest, kind: "invalid_request_error",
			msg: fmt.Sprintf("there is no model %q; GET /v1/models lists those there are", c.asked),
		}
	}
	return c.forward()
}

// read takes the request's body.
func (c *call) read() error {
	limit := c.p.opts.MaxBody
	if c.r.ContentLength > limit {
		return tooLarge(limit)
	}
	text, err := readBody(c.w, c.r, limit)
	var much *http.MaxBytesError
	switch {
	case errors.As(err, &much):
		return tooLarge(limit)
	case err != nil:
		return &refusal{status: http.StatusBadRequest, kind: "invalid_request_error", msg: "the request broke off: " + err.Error()}
	}
	c.body, err = rawjson.Parse(text)
	if err != nil || c.body.Kind() != rawjson.KindObject {
		return &refusal{status: http.StatusBadRequest, kind: "invalid_request_error", msg: "the body is not a JSON object"}
	}
	c.asked = c.body.Get("model").Text()
	c.stream = c.body.Get("stream").Bool()
	if c.asked == "" {
		return &refusal{status: http.StatusBadRequest, kind: "invalid_request_error", msg: "model is missing"}
	}
	return nil
}

// readBody reads a request's body, which must come within bodyTimeout. The
// deadline is lifted afterwards: the server goes on reading, to notice a client
// that goes away.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // recorders of tests have none
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = control.SetReadDeadline(time.Time{})
	return text, err
}

func tooLarge(limit int64) error {
	return &refusal{
		status: http.StatusRequestEntityTooLarge, kind: "request_too_large",
		msg: fmt.Sprintf("the body is larger than %d bytes", limit),
	}
}

// refuse tells the client of an error, unless it is gone, and settles how the
// call ended where that is open.
func (c *call) refuse(err error) {
	var own *refusal
	cause := context.Cause(c.ctx)
	switch {
	case errors.As(err, &own):
	case errors.Is(cause, errShutdown):
		own = &refusal{status: http.StatusServiceUnavailable, kind: "api_error", msg: errShutdown.Error(), retryAfter: time.Second}
		c.settle(OutcomeShutdown, errShutdown.Error())
	case cause != nil:
		c.status = statusClientGone
		c.settle(OutcomeCancelled, "the client went away")
		return
	case queue.KindOf(err) == queue.Invalid:
		own = &refusal{status: http.StatusBadRequest, kind: "invalid_request_error", msg: err.Error()}
	default:
		own = &refusal{status: http.StatusBadGateway, kind: "api_error", msg: err.Error()}
		if errors.Is(err, errTimeout) {
			own.status = http.StatusGatewayTimeout
		}
	}
	c.settle(OutcomeRefused, own.msg)
	c.status = own.status
	c.record()
	refuse(c.w, c.endpoint.protocol(), own)
}

// settle says how the call ended; the first word counts.
func (c *call) settle(outcome, failure string) {
	if c.outcome == "" {
		c.outcome, c.failure = outcome, failure
	}
}

const (
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 5 * time.Second
)

// retry says that a try failed in a way that another one may not.
type retry struct {
	err     error
	outcome string
	after   time.Duration // as the upstream asks for, 0 where it does not
}

// forward tries upstreams until one answers.
func (c *call) forward() error {
	var tried []*upstream
	for {
		u, err := c.model.acquire(c.ctx, tried, c.p.opts.LimitWait)
		if err != nil {
			return err
		}
		again, err := c.hold(u)
		if again == nil {
			return err
		}
		tried = append(tried, u)
		if c.ctx.Err() != nil || c.retries >= c.p.opts.Retries {
			if c.ctx.Err() == nil {
				c.settle(again.outcome, again.err.Error())
			}
			return again.err
		}
		c.retries++
		if len(tried) >= len(c.model.upstreams) { // none is fresh
			backoff := min(firstBackoff<<min(c.retries-1, 10), longestBackoff)
			if err := sleep.For(c.ctx, max(again.after, backoff/2+rand.N(backoff))); err != nil {
				return err
			}
		}
	}
}

// hold makes the call of an upstream that was acquired, and releases it. The slot
// over all models comes last, so that none of them waits for another one.
func (c *call) hold(u *upstream) (*retry, error) {
	defer c.model.release(u)
	leave, err := c.p.opts.Limit.Take(c.ctx, c.p.opts.LimitWait)
	if err != nil {
		return nil, overLimit(err, "the proxy is at its limit of calls over all models: try again later, or raise --limit llm")
	}
	defer leave()
	c.upstream = u
	return c.try(u, c.retries >= c.p.opts.Retries)
}

// try makes the call of one upstream. A retry that is not nil asks for another
// try; nothing has been sent to the client then.
func (c *call) try(u *upstream, last bool) (*retry, error) {
	path, err := c.prepare(u)
	if err != nil {
		return nil, err
	}
	if c.replayed() {
		return nil, nil
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	silence := newWatch(c.timeout(u), func() { cancel(errTimeout) })
	defer silence.stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.APIBase+path, newBody(c.sent))
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(c.sent))
	c.setHeaders(req.Header, u)
	resp, err := c.p.client.RoundTrip(req)
	if err != nil {
		return c.lost(u, ctx, err, OutcomeUnreachable)
	}
	defer resp.Body.Close()
	silence.reset()
	if !last && retriable(resp.StatusCode) {
		return c.rejected(u, resp), nil
	}
	return c.deliver(u, ctx, resp, silence)
}

// timeout is how long an upstream may be silent.
func (c *call) timeout(u *upstream) time.Duration {
	if u.Timeout > 0 {
		return u.Timeout
	}
	return c.p.opts.RequestTimeout
}

// lost is a try whose connection failed before anything was forwarded.
func (c *call) lost(u *upstream, ctx context.Context, err error, outcome string) (*retry, error) {
	if c.ctx.Err() != nil {
		return nil, context.Cause(c.ctx)
	}
	if errors.Is(context.Cause(ctx), errTimeout) {
		err, outcome = errTimeout, OutcomeTimeout
	}
	c.blame(u, err.Error())
	return &retry{err: fmt.Errorf("the upstream of model %s failed: %w", c.model.name, err), outcome: outcome}, nil
}

// blame notes a failure of an upstream.
func (c *call) blame(u *upstream, cause string) {
	if u.failed(time.Now(), cause) {
		c.p.log.Warn("an upstream failed several times in a row and rests", "model", c.model.name, "upstream", u.APIBase, "cause", cause)
	}
}

func retriable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout, statusOverloaded:
		return true
	}
	return false
}

// statusOverloaded is Anthropic's word for it.
const statusOverloaded = 529

// rejected is a try that was answered with an error worth another one.
func (c *call) rejected(u *upstream, resp *http.Response) *retry {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what is there is enough
	msg := fmt.Sprintf("status %d: %s", resp.StatusCode, upstreamMessage(body))
	after := retryAfter(resp.Header)
	if resp.StatusCode == http.StatusTooManyRequests {
		if after > 0 {
			u.rest(time.Now(), after, msg)
		}
	} else {
		c.blame(u, msg)
	}
	return &retry{err: errors.New(msg), outcome: OutcomeUpstreamError, after: min(after, longestBackoff)}
}

// retryAfter is how long an upstream wants to be left alone, 0 where it does
// not say so in seconds.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(h.Get("Retry-After"), 64)
	if err != nil || !(seconds > 0 && seconds < 1e6) {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}
