package queue

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind classes an error by what its receiver should do. The list is closed. A
// kind travels as its HTTP status.
type Kind int

// The kinds of error.
const (
	Internal    Kind = iota // a fault of aglq; a retry may help
	Invalid                 // the request can never succeed as it is
	NotFound                // a record that the request names does not exist
	Conflict                // the request contradicts what is stored
	TooLarge                // the backend cannot hold a value of this size
	Unavailable             // the backend is away or overloaded; retry later
)

// kinds is the one table of what a kind means outside the process.
var kinds = map[Kind]struct {
	name   string
	status int
}{
	Internal:    {"internal", http.StatusInternalServerError},
	Invalid:     {"invalid", http.StatusBadRequest},
	NotFound:    {"not found", http.StatusNotFound},
	Conflict:    {"conflict", http.StatusConflict},
	TooLarge:    {"too large", http.StatusRequestEntityTooLarge},
	Unavailable: {"unavailable", http.StatusServiceUnavailable},
}

// String names the kind.
func (k Kind) String() string { return kinds[k].name }

// HTTPStatus is the status code the kind travels as.
func (k Kind) HTTPStatus() int { return kinds[k].status }

// KindOfStatus is the kind that an HTTP status code stands for.
func KindOfStatus(code int) Kind {
	switch {
	case code == http.StatusNotFound:
		return NotFound
	case code == http.StatusConflict:
		return Conflict
	case code == http.StatusRequestEntityTooLarge:
		return TooLarge
	case code == http.StatusRequestTimeout, code == http.StatusServiceUnavailable,
		code == http.StatusBadGateway, code == http.StatusGatewayTimeout:
		return Unavailable
	case code >= 400 && code < 500:
		return Invalid
	}
	return Internal
}

// Error is an error with a kind. Its message is fit for the caller of the API.
type Error struct {
	Kind Kind
	Msg  string
	Err  error // the cause, nil when Msg says all
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a kind that has no cause; see [Wrap].
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// Wrap gives err a kind and says what was being done; nil stays nil.
func Wrap(kind Kind, err error, doing string) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Msg: doing, Err: err}
}

// KindOf is the kind of the first Error in err's chain, Internal without one.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Hopeless reports whether an error is about the request itself, so that no
// repetition mends it.
func Hopeless(err error) bool {
	switch KindOf(err) {
	case Invalid, NotFound, Conflict, TooLarge:
		return true
	}
	return false
}

// ErrNoRollout says that a rollout does not exist.
func ErrNoRollout(id string) error { return Errorf(NotFound, "Rollout %s not found", id) }

// ErrNoAttempt says that a rollout has no attempt of that id.
func ErrNoAttempt(rolloutID, attemptID string) error {
	return Errorf(NotFound, "Attempt %s not found for rollout %s", attemptID, rolloutID)
}

// ErrNoNumbers says that fewer than one sequence number was asked for.
func ErrNoNumbers(n int) error {
	return Errorf(Invalid, "asked for %d sequence numbers; ask for 1 or more", n)
}

// ErrNoAttempts says that a rollout has no attempts at all.
func ErrNoAttempts(rolloutID string) error {
	return Errorf(NotFound, "No attempts found for rollout %s", rolloutID)
}
