package httpapitest

import (
	"net/http"
	"regexp"
	"strings"
)

// changesState reports whether this server accepts a request that the reference
// refuses: bodies whose content type does not say JSON, ids with a slash, and large
// integers. The number after the largest is left out as well: the reference's
// backends disagree on it.
// They are left out, since what they create would show in every later answer.
func changesState(e exchange) bool {
	return e.Status == 422 && (strings.HasSuffix(e.Note, "] text/plain content type") || strings.HasSuffix(e.Note, "] no content type")) ||
		e.Status == 500 && strings.HasSuffix(e.Note, "[mongo] bigint") ||
		strings.HasSuffix(e.Note, "] next after int64 max") ||
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
	{"14.19: an id may hold a slash", 404, 200, regexp.MustCompile(`%2F`), nil},
	{"4: mode_in filters", 200, 200, regexp.MustCompile(`mode_in=`), nil},
	{"4: _contains ignores case", 200, 200, regexp.MustCompile(`_contains=`), nil},
	{"4: null times are smallest", 200, 200, nil, regexp.MustCompile(`null (first|last) in memory|nulls (first|last)|null times|null strings|last_heartbeat_time desc`)},
	{"4: spans without an order come as they were stored", 200, 200, nil, regexp.MustCompile(`storage order`)},
	{"4: or without conditions matches all", 200, 200, nil, regexp.MustCompile(`or without filters`)},
	{"11.2: a finished attempt does not change its rollout again", 200, 200, nil, regexp.MustCompile(`rollout (failed after unresponsive|preparing again)|re-derived from attempt|late success turns`)},
	{"11.2: as before, seen in lists and counts", 200, 200, nil, regexp.MustCompile(`\] (or logic|search empty object|statistics at the end)$`)},
	{"7.4: spans kept here take numbers, and are found", 200, 200, regexp.MustCompile(`^/v1/agl/spans\?.*name=(good|ok-then|code7|codeok|gz)$`), nil},
	{"7.1: a JSON request is answered in JSON", 400, 400, regexp.MustCompile(`^/v1/traces`), regexp.MustCompile(`OTLP/JSON`)},
	{"14.4: what is no time changes nothing", 200, 200, nil, regexp.MustCompile(`Infinity heartbeat`)},
	{"15: recorded on a store with the resources of another script", 201, 201, nil, regexp.MustCompile(`^\[memory cors=\*\] NUL`)},
	{"14.12: a worker is freed by its own attempt only, and then wholly", 200, 200, nil, regexp.MustCompile(`current ids are stale|attempt 2 is its current one`)},
	{"7.1: OTLP/JSON is taken", 400, 200, regexp.MustCompile(`^/v1/traces`), regexp.MustCompile(`JSON content type|OTLP/JSON|bad content type`)},
	{"7.1: a body must be encoded as its header says", 500, 400, regexp.MustCompile(`^/v1/traces`), nil},
	{"7.1: a body must be encoded as its header says", 200, 400, regexp.MustCompile(`^/v1/traces`), regexp.MustCompile(`deflate header`)},
	{"9: the page answers HEAD", 405, 200, regexp.MustCompile(`^/$`), nil},
	{"9: the dashboard's files are others", 0, 404, regexp.MustCompile(`^/assets/`), nil},
	{"14.4: what is no number is a word in attributes", 200, 200, nil, regexp.MustCompile(`null inside attributes`)},
	{"14.4: what is no number is a word in attributes", 201, 201, nil, regexp.MustCompile(`NaN/Infinity literals in span attributes`)},
	{"2.4: integers fit int64", 0, 0, nil, regexp.MustCompile(`int64|sequence max`)},
	{"4: without an order, and among equals, the order is that of insertion", 200, 200, regexp.MustCompile(`/(rollouts|attempts|workers|resources|spans)(\?|/search|$)`), regexp.MustCompile(`^\[mongo\]`)},
	{"8: the keys are those of the backend that is replayed on", 200, 200, regexp.MustCompile(`/statistics$`), nil},
	{"5.1: rollouts enqueued by one call start at one time", 200, 200, nil, regexp.MustCompile(`query_rollouts filters`)},
	{"6: a negative timeout is like 0", 200, 200, nil, regexp.MustCompile(`negative timeout`)},
	{"13: a key may hold NUL", 500, 201, nil, regexp.MustCompile(`NUL inside`)},
	{"14.8: no value poisons the store", 0, 0, nil, regexp.MustCompile(`drain|lone surrogate`)},
	{"7.4: what cannot be stored is converted or reported", 500, 200, regexp.MustCompile(`^/v1/traces`), nil},
}

var sortBy = regexp.MustCompile(`sort_by=(input|config|metadata|status|attributes|events|links|context|parent|resource|resources|heartbeat_stats)`)

// deviates reports whether an answer to e that is not the reference's is listed.
func deviates(e exchange, status int) bool {
	for _, d := range deviations {
		if status < http.StatusInternalServerError && (d.was == e.Status || d.was == 0) && (d.is == status || d.is == 0) &&
			(d.path == nil || d.path.MatchString(e.Path)) && (d.note == nil || d.note.MatchString(e.Note)) {
			return true
		}
	}
	return false
}
