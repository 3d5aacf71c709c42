package httpapitest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

// changesState reports whether this server accepts a request that the reference
// refuses: bodies whose content type does not say JSON, ids with a slash, and
// large integers. These are sent to a store of their own, since what they create
// would show in every later answer.
func changesState(e exchange) bool {
	return e.Status == 422 && (strings.HasSuffix(e.Note, "] text/plain content type") || strings.HasSuffix(e.Note, "] no content type")) ||
		e.Status == 500 && strings.HasSuffix(e.Note, "[mongo] bigint") ||
		e.Method == http.MethodPost && e.Status == 405 && strings.Contains(e.Path, "%2F")
}

// deviation is one exchange whose answer here is not the reference's, and the
// answer that it has to have.
type deviation struct {
	Line int    `json:"line"` // of the captures
	Why  string `json:"why"`  // the section of the HTTP contract and what it says
	// Status and Answer are those of this server; ids that the reference has too
	// are the reference's, others numbers.
	Status int    `json:"status"`
	Answer string `json:"answer,omitempty"`
	// Order, in place of Answer, is for a list that has the reference's elements in
	// another order: element i is the reference's element Order[i].
	Order []int `json:"order,omitempty"`

	used bool
}

// deviations is everything in which answers may differ from the reference's.
type deviations struct {
	byLine map[int]*deviation
	update bool
}

//go:embed testdata/deviations.jsonl
var deviationList []byte

var update = flag.Bool("update-deviations", false, "write the answers that differ from the reference's into testdata/deviations.jsonl")

func readDeviations(t *testing.T) *deviations {
	t.Helper()
	list := &deviations{byLine: map[int]*deviation{}, update: *update}
	text := deviationList
	if list.update {
		var err error
		if text, err = os.ReadFile(deviationsFile); err != nil {
			t.Fatal(err)
		}
	}
	for line := range bytes.Lines(text) {
		d := &deviation{}
		if err := json.Unmarshal(line, d); err != nil {
			t.Fatalf("deviations: %v", err)
		}
		list.byLine[d.Line] = d
	}
	return list
}

// deviationsFile is where the tests of httpapi find the list.
const deviationsFile = "httpapitest/testdata/deviations.jsonl"

// check compares an answer that is not the reference's with the list; "" is
// well.
func (l *deviations) check(r *replayer, e exchange, w *httptest.ResponseRecorder, got []byte, problem string) string {
	now := deviation{Line: e.line, Status: w.Code, used: true}
	if now.Order = r.permutation(e, w.Code, got); now.Order == nil {
		now.Answer = string(r.theirs(plain(e, got)))
	}
	d := l.byLine[e.line]
	if l.update {
		now.Why = "?"
		if d != nil {
			now.Why = d.Why
		}
		l.byLine[e.line] = &now
		return ""
	}
	switch {
	case d == nil:
		return problem
	case d.Why == "" || d.Why == "?":
		return problem + "; the listed deviation gives no reason"
	case w.Code >= http.StatusInternalServerError:
		return "a deviation must not be a failure"
	case d.Status != w.Code || !slices.Equal(d.Order, now.Order):
		return fmt.Sprintf("%s; the listed deviation has status %d, order %v; not order %v", problem, d.Status, d.Order, now.Order)
	case d.Answer != now.Answer:
		return fmt.Sprintf("%s; the listed deviation is\n  %s\n  not\n  %s", problem, d.Answer, now.Answer)
	}
	d.used = true
	return ""
}

// plain is an answer without what depends on the backend and the machine.
func plain(e exchange, got []byte) []byte {
	if text, ok := unzip(got); ok {
		return text
	}
	if strings.HasSuffix(e.Path, "/statistics") {
		text, err := json.Marshal(counts(decode(got)))
		if err != nil {
			return got
		}
		return text
	}
	return got
}

// leave reports a deviation that did not happen.
func (l *deviations) leave(t *testing.T, e exchange) {
	t.Helper()
	d := l.byLine[e.line]
	switch {
	case d == nil || d.used:
	case l.update:
		delete(l.byLine, e.line)
	default:
		t.Errorf("line %d %s answers as the reference did: %q is no deviation any more", e.line, e.Note, d.Why)
	}
}

func (l *deviations) write(t *testing.T) {
	t.Helper()
	if !l.update {
		return
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for line := range bytes.Count(captures, []byte("\n")) + 1 {
		if d := l.byLine[line+1]; d != nil {
			if err := encoder.Encode(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(deviationsFile, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// permutation tells where the elements of a list stand in the reference's; nil
// when the answer is not a list of the same elements.
func (r *replayer) permutation(e exchange, status int, got []byte) []int {
	was, is := decode(e.ResponseBody), decode(got)
	want, ours := elements(was), elements(is)
	if status != e.Status || total(was) != total(is) || len(want) != len(ours) || len(want) < 2 {
		return nil
	}
	var order []int
	for _, element := range ours {
		at := slices.IndexFunc(want, func(w any) bool {
			trial := &replayer{ids: maps.Clone(r.ids), times: maps.Clone(r.times)}
			return trial.match("", w, element) == ""
		})
		if at < 0 || slices.Contains(order, at) {
			return nil
		}
		order = append(order, at)
	}
	return order
}

// total is a page's count of all that matches.
func total(answer any) any {
	page, _ := answer.(map[string]any)
	return page["total"]
}

func elements(answer any) []any {
	switch answer := answer.(type) {
	case []any:
		return answer
	case map[string]any:
		list, _ := answer["items"].([]any)
		return list
	}
	return nil
}
