package program

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
)

func TestParseCommand(t *testing.T) {
	for _, line := range []string{
		`{"enqueue":{"tasks":[{"input":null}]}}`,
		`{"id":7,"enqueue":{"batch":"b","tasks":[{"input":{"x":NaN},"metadata":{"a":1},"data_id":"d"}],"repeat":4,"mode":"val",
			"resources_id":"v1","config":{"max_attempts":2,"retry_condition":["failed"]},"metadata":{"run":null}}}`,
		`{"resources":{"resources":{}}}`, `{"id":"x","cancel":{"all":true}}`, `{"cancel":{"rollout_ids":[]}}`,
		`{"cancel":{"batch":"b"}}`, `{"done":true}`, `{"done":{"cancel":true}}`, `{"id":[1],"done":{}}`,
	} {
		if _, err := ParseCommand([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	for line, want := range map[string]string{
		`{`:                                   "JSON object",
		`[1]`:                                 "JSON object",
		`{}`:                                  "has 0",
		`{"id":1}`:                            "has 0",
		`{"done":true,"cancel":{"all":true}}`: "has 2",
		`{"enqueue":{"tasks":[]}}`:            "at least one",
		`{"enqueue":{"tasks":[{"inptu":1}]}}`: "inptu",
		`{"enqueue":{"tasks":[{"metadata":{}}]}}`:                  "task 0 has no input",
		`{"enqueue":{"tasks":[{"input":1,"metadata":{"run":2}}]}}`: "metadata of task 0",
		`{"enqueue":{"tasks":[{"input":1}],"metadata":{"run":2}}}`: "aglq's",
		`{"enqueue":{"tasks":1}}`:                                  "cannot unmarshal",
		`{"enqeue":{"tasks":[{"input":1}]}}`:                       "enqeue",
		`{"resources":{}}`:                                         "must have resources",
		`{"resources":{"resources":[]}}`:                           "must have resources",
		`{"cancel":{}}`:                                            "one of batch",
		`{"cancel":{"all":true,"batch":"b"}}`:                      "one of batch",
		`{"done":false}`:                                           "must be true",
		`{"done":{"cancle":true}}`:                                 "must be true",
		`{"done":1}`:                                               "must be true",
	} {
		_, err := ParseCommand([]byte(line))
		if queue.KindOf(err) != queue.Invalid || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v; want an Invalid error with %q", line, err, want)
		}
	}
	if c, err := ParseCommand([]byte(`{"id":"x","enqueue":{"tasks":1}}`)); err == nil || string(c.ID) != `"x"` {
		t.Errorf("the id of a faulty line is %s, %v", c.ID, err)
	}
}

func TestConfig(t *testing.T) {
	seconds := 5.0
	base := &queue.Config{TimeoutSeconds: &seconds, MaxAttempts: 3, RetryCondition: []queue.AttemptStatus{queue.AttemptFailed}}
	e := Enqueue{Config: []byte(`{"timeout_seconds":9,"retry_condition":["timeout"]}`)}
	c, err := e.config(base)
	if err != nil || *c.TimeoutSeconds != 9 || c.MaxAttempts != 3 || c.RetryCondition[0] != queue.AttemptTimeout {
		t.Errorf("config %+v, %v", c, err)
	}
	if seconds != 5 || base.RetryCondition[0] != queue.AttemptFailed {
		t.Errorf("the run's config was changed: %+v", base)
	}
	for _, text := range []string{`{"max_attempts":0}`, `{"maxattempts":1}`, `[]`, `{"retry_condition":["never"]}`} {
		if _, err := (&Enqueue{Config: []byte(text)}).config(nil); queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s gives %v", text, err)
		}
	}
}

func TestLineReader(t *testing.T) {
	type line struct {
		N    int
		Text string
	}
	var got []line
	r := &lineReader{each: func(text []byte, n int) {
		if text == nil {
			text = []byte("too long")
		}
		got = append(got, line{n, string(text)})
	}}
	long := strings.Repeat("x", longestLine/2)
	for _, part := range []string{"a\n\n b", "c \r\nd", "\n", long, long, "y", "\ne", "f"} {
		if n, err := r.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	r.end()
	want := []line{{1, "a"}, {3, "bc"}, {4, "d"}, {5, "too long"}, {6, "ef"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzParseCommand checks that no line does more than fail, and that what is taken
// can be carried out as far as no store is needed.
func FuzzParseCommand(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"enqueue":{"tasks":[{"input":{"x":1}}],"repeat":2,"config":{"max_attempts":2}}}`, `{"done":{"cancel":true}}`,
		`{"cancel":{"rollout_ids":["ro-1"]}}`, `{"resources":{"resources_id":"a","resources":{"p":{}}}}`, `{"id":NaN,"done":true}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		c, err := ParseCommand(line)
		if !bytes.Equal(before, line) {
			t.Fatal("the line was written to")
		}
		if err != nil {
			if queue.KindOf(err) != queue.Invalid {
				t.Fatalf("%q gives %v, which is not Invalid", line, err)
			}
			return
		}
		if c.Enqueue != nil {
			_, _ = c.Enqueue.config(nil)
		}
		if _, err := (message{OK: &Answer{ID: c.ID}}).line(); err != nil {
			t.Fatalf("the id of %q cannot be told: %v", line, err)
		}
	})
}
