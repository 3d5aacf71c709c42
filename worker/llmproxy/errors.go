package llmproxy

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// refusal is an answer that this proxy gives by itself. Its text is for the
// caller.
type refusal struct {
	status     int
	kind       string // the type of error, as both APIs name it
	msg        string
	retryAfter time.Duration
}

// Error implements error.
func (r *refusal) Error() string { return r.msg }

// openAIError is the body of an error of OpenAI's. The code is the status as
// text, as the reference has it.
func openAIError(kind, msg string, status int) rawjson.Value {
	var inner, out object
	inner.text("message", msg)
	inner.text("type", kind)
	inner.raw("param", rawjson.Null)
	inner.text("code", strconv.Itoa(status))
	out.raw("error", inner.close())
	return out.close()
}

// anthropicError is the body of an error of Anthropic's.
func anthropicError(kind, msg string) rawjson.Value {
	var inner, out object
	inner.text("type", kind)
	inner.text("message", msg)
	out.text("type", "error")
	out.raw("error", inner.close())
	return out.close()
}

// errorBody is an error in the words of the API that a client speaks.
func errorBody(p protocol, kind, msg string, status int) rawjson.Value {
	if p == anthropic {
		return anthropicError(kind, msg)
	}
	return openAIError(kind, msg, status)
}

// translateError puts the error of an upstream into the other API's words.
func translateError(body []byte, status int, to protocol) rawjson.Value {
	kind, msg := kindOfStatus(status), upstreamMessage(body)
	if v, err := rawjson.Parse(body); err == nil {
		if k := v.Get("error").Get("type").Text(); k != "" {
			kind = k
		}
	}
	return errorBody(to, kind, msg, status)
}

// upstreamMessage is what an error says, in whatever form it comes.
func upstreamMessage(body []byte) string {
	if v, err := rawjson.Parse(body); err == nil {
		for _, m := range []rawjson.Value{v.Get("error").Get("message"), v.Get("message"), v.Get("detail"), v.Get("error")} {
			if text := m.Text(); text != "" {
				return text
			}
		}
	}
	const most = 2000
	if len(body) > most {
		body = body[:most]
	}
	return string(body)
}

// kindOfStatus is the type of error that goes with a status in both APIs.
func kindOfStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound:
		return "not_found_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	}
	if status >= http.StatusInternalServerError {
		return "api_error"
	}
	return "invalid_request_error"
}

// refuse answers with an error of the proxy's own.
func refuse(w http.ResponseWriter, p protocol, r *refusal) {
	if r.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(r.retryAfter.Seconds()))))
	}
	if r.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, r.status, errorBody(p, r.kind, r.msg, r.status))
}

func writeJSON(w http.ResponseWriter, status int, v rawjson.Value) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(v)))
	w.WriteHeader(status)
	_, _ = w.Write(v) // a client that is gone is none of ours
}
