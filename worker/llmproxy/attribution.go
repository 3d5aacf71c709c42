package llmproxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// KeyPrefix begins an API key that names an attempt: agl-<rollout>-<attempt>,
// and a real key behind a point where the proxy demands one.
const KeyPrefix = "agl-"

// attribute finds the attempt that a call belongs to, none when it does not say,
// and the path without what says so. The path wins over headers, and headers
// over the key.
func attribute(r *http.Request) (ref queue.AttemptRef, path string) {
	ref, path = refOfPath(r.URL.EscapedPath())
	if ref.RolloutID != "" {
		return ref, path
	}
	if rollout, attempt := r.Header.Get(semconv.HeaderRollout), r.Header.Get(semconv.HeaderAttempt); rollout != "" && attempt != "" {
		return queue.AttemptRef{RolloutID: rollout, AttemptID: attempt}, path
	}
	ref, _ = refOfKey(presentedKey(r))
	return ref, path
}

// maxID bounds the ids that a call may name, in bytes: they are kept with each of
// its spans.
const maxID = 256

// checkRef refuses ids that no store gives.
func checkRef(ref queue.AttemptRef) error {
	for _, id := range []string{ref.RolloutID, ref.AttemptID} {
		if len(id) > maxID || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
			return &refusal{
				status: http.StatusBadRequest, kind: "invalid_request_error",
				msg: fmt.Sprintf("%.80q is no id of a rollout or an attempt: an id is printable text of at most %d bytes", id, maxID),
			}
		}
	}
	return nil
}

// refOfPath cuts /rollout/R/attempt/A off an escaped path.
func refOfPath(path string) (queue.AttemptRef, string) {
	rest, ok := strings.CutPrefix(path, "/rollout/")
	if !ok {
		return queue.AttemptRef{}, path
	}
	rollout, rest, ok := strings.Cut(rest, "/attempt/")
	attempt, tail, _ := strings.Cut(rest, "/")
	if !ok || rollout == "" || attempt == "" || strings.Contains(rollout, "/") {
		return queue.AttemptRef{}, path
	}
	r, err1 := url.PathUnescape(rollout)
	a, err2 := url.PathUnescape(attempt)
	if err1 != nil || err2 != nil {
		return queue.AttemptRef{}, path
	}
	return queue.AttemptRef{RolloutID: r, AttemptID: a}, "/" + tail
}

// refOfKey reads an API key that names an attempt, and the key behind the point.
func refOfKey(key string) (_ queue.AttemptRef, secret string) {
	names, ok := strings.CutPrefix(key, KeyPrefix)
	if !ok {
		return queue.AttemptRef{}, key
	}
	names, secret, _ = strings.Cut(names, ".")
	// The store's own attempt ids begin with at-; others have no "-" in them.
	at := strings.LastIndex(names, "-at-")
	if at < 0 {
		at = strings.LastIndexByte(names, '-')
	}
	if at <= 0 || at == len(names)-1 {
		return queue.AttemptRef{}, key
	}
	return queue.AttemptRef{RolloutID: names[:at], AttemptID: names[at+1:]}, secret
}

// presentedKey is the key that a call brings, as OpenAI's libraries or as
// Anthropic's send it.
func presentedKey(r *http.Request) string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}
