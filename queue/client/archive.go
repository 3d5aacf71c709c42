package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const archivePath = api + "archive"

// archiveType is the media type of an archive.
const archiveType = "application/zstd"

// Export asks an aglq store for an archive of all it holds, which the caller
// reads and closes. Nothing bounds the time that takes but ctx. Whether it is
// complete the archive itself tells.
func (c *Client) Export(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.stream(ctx, http.MethodGet, archivePath, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != archiveType {
		defer resp.Body.Close()
		_, err := c.archiveRefused(resp)
		return nil, err
	}
	return resp.Body, nil
}

// Import sends an archive to an aglq store and returns its report on what it took
// in, also with an error, nil when there is none. It is not repeated.
func (c *Client) Import(ctx context.Context, archive io.Reader, merge bool) (report rawjson.Value, err error) {
	resp, err := c.stream(ctx, http.MethodPost, archivePath+"?merge="+strconv.FormatBool(merge), archive)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.archiveRefused(resp)
	}
	answer, err := c.read(resp)
	if err == nil {
		report, err = rawjson.Parse(answer)
	}
	if err != nil {
		return nil, queue.Wrap(queue.Unavailable, err, "the answer to the import was lost on the way: it may have been finished; importing again with merge tells")
	}
	return report, nil
}

func (c *Client) stream(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	rq, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "the request cannot be made")
	}
	if body != nil {
		rq.Header.Set("Content-Type", archiveType)
		// A store that refuses says so before everything has been sent.
		rq.Header.Set("Expect", "100-continue")
	}
	if c.opts.AuthToken != "" {
		rq.Header.Set("Authorization", "Bearer "+c.opts.AuthToken)
	}
	resp, err := c.http.Do(rq)
	if err != nil {
		doing := fmt.Sprintf("%s %s: no answer from store %s", method, path, c.base)
		if body != nil {
			doing += "; what it had taken in stays, and importing again with merge goes on from there"
		}
		return nil, queue.Wrap(queue.Unavailable, unwrapURL(err), doing)
	}
	return resp, nil
}

// archiveRefused is an answer that is no success, with the report in it.
func (c *Client) archiveRefused(resp *http.Response) (report rawjson.Value, err error) {
	answer, err := c.read(resp)
	if err != nil {
		return nil, queue.Wrap(queue.Unavailable, err, "reading the answer of store "+c.base)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return nil, queue.Errorf(queue.Invalid, "store %s does not send archives: it is not aglq's, or an older one", c.base)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return nil, queue.Errorf(queue.Invalid, "store %s takes and sends no archives: it is not aglq's, or an older one", c.base)
	}
	if v, err := rawjson.Parse(answer); err == nil {
		report = v.Get("report")
	}
	return report, queue.Errorf(queue.KindOfStatus(resp.StatusCode), "%s", detail(resp, answer))
}
