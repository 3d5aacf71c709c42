package httpapitest

import (
	"net/http"
	"regexp"
	"strings"
)

// changesState reports whether this server accepts a request that the reference
// refuses: bodies whose content type does not say JSON, and ids with a slash.
// They are left out, since what they create would show in every later answer.
func changesState(e exchange) bool {
	return e.Status == 422 && (strings.HasSuffix(e.Note, "] text/plain content type") || strings.HasSuffix(e.Note, "] no content type")) ||
		e.Method == http.MethodPost && e.Status == 405 && strings.Contains(e.Path, "%2F")
}

// deviations is everything in which the answers may differ from the reference's:
// for exchanges whose path and note match, the status it gave and the one given
// here, 0 for any. The sections are those of the HTTP contract.
var deviations = []struct {
	why        string
	was, is    int
	path, note *regexp.Regexp
}{
	{"2.4: an unknown rollout reads as null", 500, 200, regexp.MustCompile(`^/v1/agl/rollouts/[^/?]+$`), nil},
	{"2.4: an unknown record cannot be written to", 500, 404, nil, nil},
	{"2.4: objects and arrays do not sort", 500, 400, sortBy, nil},
	{"2.4: objects and arrays do not sort", 200, 400, sortBy, nil},
	{"4: more fields sort", 400, 200, regexp.MustCompile(`sort_by=(duration|last_heartbeat_time|worker_id|attempt_id|status_code)`), nil},
	{"2.4: integers fit int64", 200, 422, nil, regexp.MustCompile(`int64`)},
	{"14.19: an id may hold a slash", 404, 200, regexp.MustCompile(`%2F`), nil},
	{"4: mode_in filters", 200, 200, regexp.MustCompile(`mode_in=`), nil},
	{"4: _contains ignores case", 200, 200, regexp.MustCompile(`_contains=`), nil},
	{"4: null times are smallest", 200, 200, nil, regexp.MustCompile(`null (first|last) in memory|nulls (first|last)|null times|null strings|last_heartbeat_time desc`)},
	{"4: spans without an order come as they were stored", 200, 200, nil, regexp.MustCompile(`storage order`)},
	{"4: or without conditions matches all", 200, 200, nil, regexp.MustCompile(`or without filters`)},
	{"11.2: a finished attempt does not change its rollout again", 200, 200, nil, regexp.MustCompile(`rollout (failed after unresponsive|preparing again)|re-derived from attempt|late success turns`)},
	{"14.12: a worker is freed by its own attempt only, and then wholly", 200, 200, nil, regexp.MustCompile(`current ids are stale|attempt 2 is its current one`)},
	{"7.1: OTLP/JSON is taken", 400, 200, regexp.MustCompile(`^/v1/traces`), regexp.MustCompile(`JSON content type|OTLP/JSON|bad content type`)},
	{"7.1: a body must be encoded as its header says", 500, 400, regexp.MustCompile(`^/v1/traces`), nil},
	{"7.1: a body must be encoded as its header says", 200, 400, regexp.MustCompile(`^/v1/traces`), regexp.MustCompile(`deflate header`)},
	{"9: the page answers HEAD", 405, 200, regexp.MustCompile(`^/$`), nil},
	{"9: the dashboard's files are others", 0, 404, regexp.MustCompile(`^/assets/`), nil},
	{"14.4: what is no number is a word in attributes", 200, 200, nil, regexp.MustCompile(`null inside attributes`)},
	{"14.4: what is no number is a word in attributes", 201, 201, nil, regexp.MustCompile(`NaN/Infinity literals in span attributes`)},
	{"14.8: no value poisons the store", 500, 0, nil, regexp.MustCompile(`drain|lone surrogate`)},
	{"13: integers of any size are kept", 500, 201, nil, regexp.MustCompile(`bigint`)},
	{"2.4: integers fit int64", 201, 422, nil, regexp.MustCompile(`int64`)},
	{"7.4: what cannot be stored is converted or reported", 500, 200, regexp.MustCompile(`^/v1/traces`), nil},
}

var sortBy = regexp.MustCompile(`sort_by=(input|config|metadata|status|attributes|events|links|context|parent|resource|resources|heartbeat_stats)`)

// deviates reports whether an answer to e that is not the reference's is listed.
func deviates(e exchange, status int) bool {
	for _, d := range deviations {
		if (d.was == e.Status || d.was == 0) && (d.is == status || d.is == 0) &&
			(d.path == nil || d.path.MatchString(e.Path)) && (d.note == nil || d.note.MatchString(e.Note)) {
			return true
		}
	}
	return false
}
