package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/trace"
)

// HTTPOptions says which server runs the tasks.
type HTTPOptions struct {
	// URL takes the tasks: http or https. Its user and password are sent as Basic
	// authorization.
	URL string
	// TaskEnv, if not nil, gives variables ("name=value") that win over those of
	// the task in the member env of the message.
	TaskEnv func(t *Task) []string
	// Transport makes the requests: one like http.DefaultTransport, with a new
	// connection for each task, when nil.
	Transport http.RoundTripper
}

// Validate reports what is wrong with the URL, as an Invalid error.
func (o HTTPOptions) Validate() error {
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return queue.Errorf(queue.Invalid, "the agent's URL must be one as http://agent:8000/rollout")
	}
	return nil
}

// httpSpan is the span of a task that a server did. What the server's own spans
// continue is it.
const httpSpan = "aglq.http"

// HTTP is a handler that posts each task to a server, as the JSON object that
// agents of a [Pool] are given, and takes the response for the result: its body is
// a number, an object as from agents of a Pool, or empty. A status of 300 and more
// fails the attempt, as do a body that is none of these and a server that cannot be
// reached; the latter slows down the tasks that follow.
//
// The headers name the attempt (X-Rollout-Id, X-Attempt-Id) and the trace
// (traceparent); the ids are in baggage too, for servers that copy it onto their
// spans. The request is cancelled when the task is, and when its time is up.
func HTTP(opts HTTPOptions) Handler {
	if opts.Transport == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		// A server may close an idle connection in the moment that a task is sent, and
		// a task must not be sent twice.
		transport.DisableKeepAlives = true
		opts.Transport = transport
	}
	b := &httpBridge{HTTPOptions: opts, client: http.Client{
		Transport: opts.Transport,
		// A POST that is redirected would lose its task.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return b.handle
}

type httpBridge struct {
	HTTPOptions
	client http.Client
	reach  throttle
}

func (b *httpBridge) handle(ctx context.Context, t *Task) (Result, error) {
	if err := b.Validate(); err != nil {
		return Result{}, err
	}
	var more []string
	if b.TaskEnv != nil {
		more = b.TaskEnv(t)
	}
	message, err := t.message("", more)
	if err != nil {
		return Result{}, err
	}
	if err := b.reach.wait(ctx); err != nil {
		return Result{}, err
	}
	began := queue.Seconds(t.worker.opts.Now())
	traceID, _ := t.scope.Parent(ctx)
	span := queue.Span{Name: httpSpan, TraceID: traceID.String(), SpanID: trace.NewSpanID().String(), StartTime: &began}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.URL, bytes.NewReader(message))
	if err != nil {
		return Result{}, fmt.Errorf("asking the agent: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set(semconv.HeaderRollout, t.ref.RolloutID)
	req.Header.Set(semconv.HeaderAttempt, t.ref.AttemptID)
	req.Header.Set("Traceparent", "00-"+span.TraceID+"-"+span.SpanID+"-01")
	req.Header.Set("Baggage", resourceAttributes("", t.ref))
	var told object
	told.text("http.request.method", req.Method)
	told.text("url.full", req.URL.Redacted())
	result, failure := b.ask(ctx, req, &told)
	span.Attributes = told.close()
	return t.bridged(ctx, span, result, failure)
}

// ask makes the request and reads the answer.
func (b *httpBridge) ask(ctx context.Context, req *http.Request, told *object) (Result, error) {
	where := "the agent at " + req.URL.Redacted()
	resp, err := b.client.Do(req)
	if err != nil {
		return Result{}, b.broken(ctx, where+" cannot be asked: ", err)
	}
	defer resp.Body.Close()
	b.reach.worked()
	told.int("http.response.status_code", int64(resp.StatusCode))
	body, err := io.ReadAll(io.LimitReader(resp.Body, longestLine+1))
	told.int("http.response.body.size", int64(len(body)))
	switch {
	case err != nil:
		return Result{}, b.broken(ctx, "the answer of "+where+" broke off: ", err)
	case resp.StatusCode >= 300:
		return Result{}, refusedBy(where, resp, body)
	case len(body) > longestLine:
		return Result{}, malformed(fmt.Errorf("it is longer than %d MiB", longestLine>>20))
	}
	return answer(body)
}

// broken says why there is no answer.
func (b *httpBridge) broken(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return &Failure{Type: "cancelled", Message: cause.Error(), Err: cause}
	}
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		b.reach.failed()
	}
	var told *url.Error // repeats the URL, password and all
	if errors.As(err, &told) {
		err = told.Err
	}
	return &Failure{Type: "http", Message: what + err.Error(), Err: err}
}

// refusedBy is the failure of a response that says so by its status.
func refusedBy(where string, resp *http.Response, body []byte) error {
	text := strings.ToValidUTF8(string(body[:min(len(body), tailBytes)]), "\uFFFD")
	f := &Failure{Type: "http", Message: where + " answered " + resp.Status, Stack: text}
	var meta object
	meta.int("http_status", int64(resp.StatusCode))
	if to := resp.Header.Get("Location"); to != "" {
		f.Message += "; it is now at " + clip(to, 200)
	}
	if first := strings.TrimSpace(text); first != "" {
		line, _, _ := strings.Cut(first, "\n")
		f.Message += ": " + clip(strings.TrimSpace(line), 500)
		meta.text("response", text)
	}
	f.Metadata = meta.close()
	return f
}
