package client

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/aglq/aglq/queue"
)

// Ready asks the store once whether it can reach its data; nil says yes.
func (c *Client) Ready(ctx context.Context) error {
	_, fail := c.try(ctx, call{method: http.MethodGet, path: route("ready")})
	if fail != nil {
		return fail.err
	}
	return nil
}

// Clock tells how far the store's clock is ahead of this machine's, and how far
// off that may be: the store says its time in whole seconds.
func (c *Client) Clock(ctx context.Context) (ahead, within time.Duration, err error) {
	began := time.Now()
	header, _, err := c.probe(ctx, route("health"))
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, 0, queue.Wrap(queue.Invalid, err, "store "+c.base+" does not say its time")
	}
	const half = time.Second / 2
	return date.Add(half).Sub(began.Add(took / 2)), half + took/2, nil
}

// Metrics reads what the store publishes for Prometheus, NotFound where it
// publishes nothing.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	_, body, err := c.probe(ctx, "/v1/prometheus/")
	return body, err
}

// probe gets a path once, whatever the type of the answer.
func (c *Client) probe(ctx context.Context, path string) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	req, err := c.request(ctx, call{method: http.MethodGet, path: path})
	if err != nil {
		return nil, nil, queue.Wrap(queue.Invalid, err, "the request cannot be made")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, queue.Wrap(queue.Unavailable, unwrapURL(err), "store "+c.base+" does not answer")
	}
	defer resp.Body.Close()
	const most = 16 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, nil, queue.Wrap(queue.Unavailable, err, "reading "+path+" from store "+c.base)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, queue.Errorf(queue.KindOfStatus(resp.StatusCode), "%s", detail(resp, body))
	}
	return resp.Header, body, nil
}
