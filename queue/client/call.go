package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	api        = "/v1/agl/"
	tracesPath = "/v1/traces"

	keyHeader = "Idempotency-Key"

	jsonType     = "application/json"
	protobufType = "application/x-protobuf"
)

// call is one request of the protocol.
type call struct {
	method string
	path   string        // below the base, escaped
	body   []byte        // nil sends none
	kind   string        // content type of body and answer: JSON when ""
	coding string        // content encoding of body
	key    string        // idempotency key, "" for none
	wait   time.Duration // how long the store was asked to wait
}

// failure is what went wrong with one try.
type failure struct {
	err   error
	again bool          // a repetition may help
	after time.Duration // but not before this
}

// newKey makes an idempotency key.
func newKey() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// keyOf is the idempotency key of the call under ctx.
func keyOf(ctx context.Context) string {
	if key := queue.IdempotencyKey(ctx); key != "" {
		return key
	}
	return newKey()
}

// do makes the call until it succeeds or there is no point in going on.
func (c *Client) do(ctx context.Context, rq call) ([]byte, error) {
	var began time.Time // of the failures
	for try := 0; ; try++ {
		answer, fail := c.try(ctx, rq)
		if fail == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ended(ctx, fail.err)
		}
		if !fail.again {
			return nil, fail.err
		}
		if try == 0 {
			began = time.Now()
		}
		if err := c.pause(ctx, try, began, fail); err != nil {
			return nil, err
		}
	}
}

// pause waits before repetition number try and until the store is well. Its
// error ends the call.
func (c *Client) pause(ctx context.Context, try int, began time.Time, fail *failure) error {
	for {
		patient := time.Since(began) < c.opts.Patience
		if try >= len(c.opts.Retry) && !patient {
			return fail.err
		}
		if err := sleep.For(ctx, max(c.delay(try), fail.after)); err != nil {
			return ended(ctx, fail.err)
		}
		if c.well(ctx) {
			return nil
		}
		if ctx.Err() != nil {
			return ended(ctx, fail.err)
		}
		if !patient {
			return fail.err
		}
		try++
	}
}

// delay is the pause before repetition number try; the last one stays.
func (c *Client) delay(try int) time.Duration {
	if n := len(c.opts.Retry); n > 0 {
		return c.opts.Retry[min(try, n-1)]
	}
	return time.Second
}

// well probes the store's health.
func (c *Client) well(ctx context.Context) bool {
	if len(c.opts.Probe) == 0 {
		return true
	}
	for _, pause := range c.opts.Probe {
		if sleep.For(ctx, pause) != nil {
			return false
		}
		if c.Healthy(ctx) == nil {
			return true
		}
	}
	return false
}

// try makes the call once.
func (c *Client) try(ctx context.Context, rq call) ([]byte, *failure) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout+rq.wait)
	defer cancel()
	req, err := c.request(ctx, rq)
	if err != nil {
		return nil, &failure{err: queue.Wrap(queue.Invalid, err, "the request cannot be made")}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(rq, err)
	}
	defer resp.Body.Close()
	answer, err := c.read(resp)
	if err != nil {
		if queue.KindOf(err) == queue.TooLarge {
			return nil, &failure{err: err}
		}
		return nil, c.broken(rq, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, refused(rq, resp, answer)
	}
	want := rq.kind
	if want == "" {
		want = jsonType
	}
	if got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); got != want {
		return nil, &failure{again: true, err: queue.Errorf(queue.Unavailable,
			"%s %s: the answer is %q, not %s: is %s a store?", rq.method, rq.path, got, want, c.base)}
	}
	return answer, nil
}

func (c *Client) request(ctx context.Context, rq call) (*http.Request, error) {
	var body io.Reader
	if rq.body != nil {
		body = bytes.NewReader(rq.body)
	}
	req, err := http.NewRequestWithContext(ctx, rq.method, c.base+rq.path, body)
	if err != nil {
		return nil, err
	}
	if rq.body != nil {
		kind := rq.kind
		if kind == "" {
			kind = jsonType
		}
		req.Header.Set("Content-Type", kind)
	}
	if c.opts.AuthToken != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.AuthToken)
	}
	if rq.coding != "" {
		req.Header.Set("Content-Encoding", rq.coding)
	}
	if rq.key != "" {
		req.Header.Set(keyHeader, rq.key)
	}
	return req, nil
}

// read takes the whole answer, up to MaxAnswer.
func (c *Client) read(resp *http.Response) ([]byte, error) {
	limit := c.opts.MaxAnswer
	if resp.ContentLength > limit {
		return nil, c.tooLarge()
	}
	// What the header promises is believed only as far as a sane buffer.
	room := min(max(resp.ContentLength, 512), 1<<20)
	buf := bytes.NewBuffer(make([]byte, 0, room+bytes.MinRead))
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, c.tooLarge()
	}
	return buf.Bytes(), nil
}

func (c *Client) tooLarge() error {
	return queue.Errorf(queue.TooLarge, "the answer is larger than %d bytes; ask for fewer records at a time", c.opts.MaxAnswer)
}

// broken is a try without a whole answer.
func (c *Client) broken(rq call, err error) *failure {
	doing := fmt.Sprintf("%s %s: no answer from store %s", rq.method, rq.path, c.base)
	return &failure{again: true, err: queue.Wrap(queue.Unavailable, unwrapURL(err), doing)}
}

// unwrapURL drops the method and the URL that net/http puts before the cause.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refused is an answer that is not a success.
func refused(rq call, resp *http.Response, answer []byte) *failure {
	status := resp.StatusCode
	fail := &failure{
		err:   queue.Errorf(queue.KindOfStatus(status), "%s", detail(resp, answer)),
		again: status == http.StatusRequestTimeout || status >= 500,
	}
	if status == http.StatusInternalServerError {
		if err := referenceError(rq, answer); err != nil {
			return &failure{err: err}
		}
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		fail.after = time.Duration(min(s, 60)) * time.Second
	}
	return fail
}

// errNull is the reference's way to say that there is no such record: it fails
// over its own null.
var errNull = errors.New("the record does not exist")

// referenceError tells, of a 500 of the reference's server, what a repetition
// cannot mend: nil means that it may.
func referenceError(rq call, answer []byte) error {
	v, err := rawjson.Parse(answer)
	if err != nil {
		return nil
	}
	switch v.Get("error_type").Text() {
	case "ResponseValidationError":
		if rq.method == http.MethodGet {
			return errNull
		}
	case "ValueError":
		trace := strings.TrimSpace(v.Get("traceback").Text())
		last := trace[strings.LastIndexByte(trace, '\n')+1:]
		text := strings.TrimPrefix(last, "ValueError: ")
		if strings.Contains(text, "not found") || strings.Contains(text, "does not exist") {
			return queue.Errorf(queue.NotFound, "%s", text)
		}
	}
	return nil
}

// detail is what the store says about its refusal.
func detail(resp *http.Response, answer []byte) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == protobufType {
		if text := statusMessage(answer); text != "" {
			return text
		}
	}
	if kind == jsonType {
		if v, err := rawjson.Parse(answer); err == nil {
			switch d := v.Get("detail"); d.Kind() {
			case rawjson.KindString:
				return d.Text()
			case rawjson.KindArray:
				return problems(d)
			}
		}
	}
	return "the store answered with status " + resp.Status
}

// problems puts a list of schema violations into a line.
func problems(list rawjson.Value) string {
	var lines []string
	for p := range list.Elements() {
		var at []string
		for part := range p.Get("loc").Elements() {
			if part.Kind() == rawjson.KindString {
				at = append(at, part.Text())
			} else {
				at = append(at, part.String())
			}
		}
		lines = append(lines, strings.Join(at, ".")+": "+p.Get("msg").Text())
		if len(lines) == 5 {
			break
		}
	}
	return strings.Join(lines, "; ")
}

// json makes a JSON call and parses the answer.
func (c *Client) json(ctx context.Context, rq call) (rawjson.Value, error) {
	answer, err := c.do(ctx, rq)
	if err != nil {
		return nil, err
	}
	v, err := rawjson.Parse(answer)
	if err != nil {
		return nil, queue.Wrap(queue.Internal, err, rq.method+" "+rq.path+": the store's answer is no JSON")
	}
	return v, nil
}

func (c *Client) get(ctx context.Context, path string) (rawjson.Value, error) {
	return c.json(ctx, call{method: http.MethodGet, path: path})
}

func (c *Client) post(ctx context.Context, path string, body []byte) (rawjson.Value, error) {
	return c.json(ctx, call{method: http.MethodPost, path: path, body: body})
}

// create is a post that makes something, under the key of ctx or a new one.
func (c *Client) create(ctx context.Context, path string, body []byte) (rawjson.Value, error) {
	return c.json(ctx, call{method: http.MethodPost, path: path, body: body, key: keyOf(ctx)})
}

// route joins path segments below the API, escaping each.
func route(segments ...string) string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(api, "/"))
	for _, s := range segments {
		b.WriteByte('/')
		switch s {
		case ".", "..": // would be taken for steps in the path
			b.WriteString(strings.ReplaceAll(s, ".", "%2E"))
		default:
			b.WriteString(url.PathEscape(s))
		}
	}
	return b.String()
}
