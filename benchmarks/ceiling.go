package benchmarks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// Record keeps one answer of each kind, from a run against a real store, for
// [Ceiling] to repeat. The zero Record is empty. It is safe for concurrent use.
type Record struct {
	mu      sync.Mutex
	Answers map[string]Answer `json:"answers"` // by the name of the call
}

// Answer is a recorded response.
type Answer struct {
	Status int    `json:"status"`
	Body   []byte `json:"body"`
}

// ReadRecord reads a record from a file of JSON.
func ReadRecord(path string) (*Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the record: %w", err)
	}
	r := &Record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("cannot read the record in %s: %w", path, err)
	}
	return r, nil
}

// keep remembers the longest answer of a kind: an empty claim says little.
func (r *Record) keep(kind callKind, status int, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.Answers[callNames[kind]]; ok && len(old.Body) >= len(body) {
		return
	}
	if r.Answers == nil {
		r.Answers = map[string]Answer{}
	}
	r.Answers[callNames[kind]] = Answer{Status: status, Body: append([]byte(nil), body...)}
}

// Ceiling answers the requests of [Lifecycle] with the recorded bodies, after
// reading the whole request, and does nothing else. GET answers 200, so that a
// starter sees that it is there.
func Ceiling(r *Record) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			return
		}
		io.Copy(io.Discard, req.Body)
		answer, contentType := r.Answers[callNames[kindOf(req.URL.Path)]], "application/json"
		if answer.Status == 0 {
			http.NotFound(w, req)
			return
		}
		if req.URL.Path == "/v1/traces" {
			contentType = "application/x-protobuf"
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(answer.Status)
		w.Write(answer.Body)
	})
}

func kindOf(path string) callKind {
	switch {
	case strings.HasSuffix(path, "/enqueue"):
		return callEnqueue
	case strings.HasSuffix(path, "/dequeue"):
		return callClaim
	case path == "/v1/traces", strings.HasSuffix(path, "/spans"):
		return callSpans
	case strings.HasSuffix(path, "/waits/rollouts"):
		return callWait
	case strings.HasSuffix(path, "/spans/search"):
		return callQuery
	}
	return callFinish
}
