package llmproxy

import (
	"bytes"
	"io"
	"net/http"

	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// fakeKey is for upstreams of one's own without a key: some clients' servers
// want to see one.
const fakeKey = "fake-api-key"

// forwarded are the headers of a call that go along.
var forwarded = []string{"Anthropic-Version", "Anthropic-Beta", "Openai-Beta", "Traceparent", "Tracestate", "X-Request-Id"}

// anthropicVersion is of the API that the translations are written for.
const anthropicVersion = "2023-06-01"

// prepare makes what an upstream is sent, and the path to send it to.
func (c *call) prepare(u *upstream) (path string, err error) {
	c.wire = u.wire(c.endpoint)
	body := c.body
	if c.wire != c.endpoint {
		if body, err = c.remembered(); err == nil {
			body, err = translateRequest(body, c.endpoint, c.wire)
		}
	} else if c.wire.protocol() != u.protocol() {
		err = untranslatable("%s cannot be translated", c.endpoint)
	}
	if err != nil {
		return "", err
	}
	var over object
	over.text("model", u.upstreamModel(c.asked))
	if c.wire == chat || c.wire == completions {
		c.mutate(&over, body, u)
	}
	body = merge(merge(merge(u.Defaults, body), over.close()), u.Extra)
	c.sent = body
	return paths[c.wire], nil
}

// mutate asks for token ids and log probabilities where the call leaves that
// open.
func (c *call) mutate(over *object, body rawjson.Value, u *upstream) {
	ids := u.takesTokenIDs() && !c.p.opts.NoTokenIDs
	if u.ReturnTokenIDs != nil {
		ids = *u.ReturnTokenIDs
	}
	if ids && present(body.Get("return_token_ids")) == nil {
		over.raw("return_token_ids", rawjson.Value("true"))
	}
	probs := u.takesTokenIDs() && c.p.opts.Logprobs
	if u.Logprobs != nil {
		probs = *u.Logprobs
	}
	if probs && present(body.Get("logprobs")) == nil {
		value := "true"
		if c.wire == completions {
			value = "1" // there it is how many to give
		}
		over.raw("logprobs", rawjson.Value(value))
	}
}

func (c *call) setHeaders(h http.Header, u *upstream) {
	for _, name := range forwarded {
		if v := c.r.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "aglq")
	h.Set("Accept-Encoding", "identity") // answers are read on their way
	key := u.APIKey
	if u.protocol() == anthropic {
		if key != "" {
			h.Set("X-Api-Key", key)
		}
		if h.Get("Anthropic-Version") == "" {
			h.Set("Anthropic-Version", anthropicVersion)
		}
	} else {
		if key == "" {
			key = fakeKey
		}
		h.Set("Authorization", "Bearer "+key)
	}
	for name, value := range u.Headers {
		h.Set(name, value)
	}
}

func newBody(v rawjson.Value) io.Reader { return bytes.NewReader(v) }

// watch calls a function once nothing has reset it for a while.
type watch struct {
	timer *time.Timer
	limit time.Duration
}

func newWatch(limit time.Duration, expired func()) *watch {
	return &watch{timer: time.AfterFunc(limit, expired), limit: limit}
}

func (w *watch) reset() { w.timer.Reset(w.limit) }

func (w *watch) stop() { w.timer.Stop() }
