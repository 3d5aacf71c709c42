package react

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/aglq/aglq/queue/rawjson"
)

// Endpoint is a tool that is an HTTP server. Its Run is a Tool's.
type Endpoint struct {
	// URL gets the arguments as a JSON body, or as its query with GET.
	URL    string
	Method string       // POST when ""
	Header http.Header  // sent with each request
	Client *http.Client // http.DefaultClient when nil
}

// sessionHeader tells tools which session a call belongs to, callHeader which call
// it is.
const (
	sessionHeader = "Aglq-Session-Id"
	callHeader    = "Aglq-Call-Id"
)

// mostAnswer bounds an answer that must be read whole, in bytes.
const mostAnswer = 8 << 20

// Run makes a call. The body of a 2xx answer is the result.
func (e Endpoint) Run(ctx context.Context, c Call) (string, error) {
	method, address := cmp.Or(e.Method, http.MethodPost), e.URL
	var body []byte
	if method == http.MethodGet {
		u, err := url.Parse(address)
		if err != nil {
			return "", err
		}
		query := u.Query()
		for key, val := range c.Arguments.Members() {
			query.Set(rawjson.Unescape(key), textOf(val))
		}
		u.RawQuery = query.Encode()
		address = u.String()
	} else {
		body = c.Arguments
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	setHeader(req, e.Header, body != nil)
	req.Header.Set(callHeader, c.ID)
	if c.Session != nil {
		req.Header.Set(sessionHeader, c.Session.ID)
	}
	answer, err := do(e.Client, req, c.MaxResult+1) // one more, to see that it is longer
	return string(answer), err
}

func setHeader(req *http.Request, header http.Header, json bool) {
	if json {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, header)
}

// do makes a request and reads at most so many bytes of its answer. A status other
// than 2xx is an error.
func do(client *http.Client, req *http.Request, most int) ([]byte, error) {
	res, err := cmp.Or(client, http.DefaultClient).Do(req)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the address, which may hold what is not the model's to know
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(most)))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", req.URL.Host, err)
	}
	if res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s", res.Status, clip(string(body), 500))
	}
	return body, nil
}
