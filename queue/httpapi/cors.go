package httpapi

import (
	"io"
	"net/http"
	"slices"
	"strings"
)

var corsMethods = []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

// cors lets pages of other origins call. It stands before everything else, so
// that errors can be read too.
type cors struct {
	all     bool
	origins []string
}

// newCORS is nil where no origin is allowed.
func newCORS(origins []string) *cors {
	c := &cors{}
	for _, o := range origins {
		if o = strings.TrimSpace(o); o == "*" {
			c.all = true
		} else if o != "" {
			c.origins = append(c.origins, o)
		}
	}
	if !c.all && len(c.origins) == 0 {
		return nil
	}
	return c
}

// handle sets the headers of an answer. It reports whether the request was a
// preflight, which it has then answered.
func (c *cors) handle(w http.ResponseWriter, r *http.Request) bool {
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	allowed := c.all || slices.Contains(c.origins, origin)
	if allowed {
		h.Set("Access-Control-Allow-Origin", origin)
	}
	h.Set("Access-Control-Allow-Credentials", "true")
	method := r.Header.Get("Access-Control-Request-Method")
	if r.Method != http.MethodOptions || method == "" {
		h.Set("Access-Control-Expose-Headers", "*")
		return false
	}
	h.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", strings.Join(corsMethods, ", "))
	h.Set("Access-Control-Max-Age", "600")
	if headers := r.Header.Get("Access-Control-Request-Headers"); headers != "" && allowed {
		h.Set("Access-Control-Allow-Headers", headers)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	status, text := http.StatusOK, "OK"
	switch {
	case !allowed:
		status, text = http.StatusBadRequest, "Disallowed CORS origin"
	case !slices.Contains(corsMethods, method):
		status, text = http.StatusBadRequest, "Disallowed CORS method"
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the browser is gone, or has it
	return true
}
