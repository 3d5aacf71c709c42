package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func TestSpreadTrackers(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"aglq store --tracker console prometheus", "aglq store --tracker console --tracker prometheus"},
		{"aglq store --tracker prometheus --port 1", "aglq store --tracker prometheus --port 1"},
		{"aglq store --tracker console,prometheus", "aglq store --tracker console,prometheus"},
		{"aglq store --tracker=console --port 1", "aglq store --tracker=console --port 1"},
		{"aglq store --port 1 --tracker", "aglq store --port 1 --tracker"},
		{"aglq store --tracker a b c --host h", "aglq store --tracker a --tracker b --tracker c --host h"},
		{"aglq store --tracker a --tracker b", "aglq store --tracker a --tracker b"},
	} {
		if got := strings.Join(spreadTrackers(strings.Fields(c.in)), " "); got != c.want {
			t.Errorf("spreadTrackers(%s) = %s, want %s", c.in, got, c.want)
		}
	}
}

func TestSplitAgent(t *testing.T) {
	own, agent, given := splitAgent(strings.Fields("aglq worker --a 1 -- python x.py -- -b"))
	if diff := cmp.Diff([]any{own, agent, given}, []any{
		[]string{"aglq", "worker", "--a", "1"}, []string{"python", "x.py", "--", "-b"}, true,
	}); diff != "" {
		t.Error(diff)
	}
	if _, _, given := splitAgent([]string{"aglq", "run"}); given {
		t.Error("an agent is given where none is")
	}
}

func TestWorkerIDs(t *testing.T) {
	for _, c := range []struct {
		base string
		n    int
		want []string
	}{
		{"", 1, []string{""}},
		{"", 3, []string{"", "", ""}},
		{"w", 1, []string{"w"}},
		{"w", 2, []string{"w-0", "w-1"}},
	} {
		if diff := cmp.Diff(c.want, workerIDs(c.base, c.n)); diff != "" {
			t.Errorf("workerIDs(%q, %d): %s", c.base, c.n, diff)
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "2026-01-31T12:00:00Z": time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31": time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local), "1700000000.5": time.Unix(1700000000, 5e8),
		"2h": now.Add(-2 * time.Hour), "500ms": now.Add(-time.Second / 2),
	} {
		if got, err := parseMoment(text, now); !got.Equal(want) || err != nil {
			t.Errorf("parseMoment(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-2h", "-5", "0", "NaN", "Inf", "1e300", "2026-02-30", "12:00"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("parseMoment(%q) = %v without an error", text, got)
		}
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30": 30 * time.Second, "0.5": 500 * time.Millisecond, "0": 0, "500ms": 500 * time.Millisecond, "2m": 2 * time.Minute,
	} {
		if got, err := parseSeconds(text); got != want || err != nil {
			t.Errorf("parseSeconds(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "-1s", "nan", "inf", "1e30", "x", "1 2"} {
		if got, err := parseSeconds(text); err == nil {
			t.Errorf("parseSeconds(%q) = %v without an error", text, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1500000": 1500000, "2GiB": 2 << 30, "512 MiB": 512 << 20, "1k": 1 << 10, "1KB": 1000, "0.5MiB": 1 << 19, "7b": 7,
	} {
		if got, err := parseBytes(text); got != want || err != nil {
			t.Errorf("parseBytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "GiB", "2QiB", "nan", "1e30", "9999999TiB"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("parseBytes(%q) = %d without an error", text, got)
		}
	}
}

func TestLogLevels(t *testing.T) {
	got, err := parseLogLevels("warning, store=DEBUG,worker=error")
	want := map[string]slog.Level{"": slog.LevelWarn, "store": slog.LevelDebug, "worker": slog.LevelError}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	var out bytes.Buffer
	l := &logs{levels: got, handler: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: nameWarning})}
	l.of("store").Debug("seen 1")
	l.of("worker").Warn("unseen")
	l.of("http").Info("unseen")
	l.of("http").With("a", 1).Warn("seen 2")
	if text := out.String(); strings.Contains(text, "unseen") || !strings.Contains(text, "seen 1") ||
		!strings.Contains(text, "level=WARNING msg=\"seen 2\"") {
		t.Errorf("logged:\n%s", text)
	}
}

func TestProgressLine(t *testing.T) {
	p := progress{
		total: 200, done: 50, running: 8, queued: 142, failed: 3, rewardSum: 24.69, rewards: 45, elapsed: 20 * time.Second,
	}
	const want = "[#####...............]  50/200 done  8 running  142 queued  3 failed  2.5/s  reward 0.5487  1m00s left"
	if got := p.line(0); got != want {
		t.Errorf("line is\n%s, want\n%s", got, want)
	}
	if got, want := p.line(90), want[24:]; got != want {
		t.Errorf("line of 90 columns is %q, want it without the bar", got)
	}
	if got, want := p.line(30), want[24:54]; got != want {
		t.Errorf("line of 30 columns is %q, want %q", got, want)
	}
	if got, want := (progress{queued: 3}).line(0), "0 done  0 running  3 queued  0 failed  0.0/s"; got != want {
		t.Errorf("line of an unknown total is %q, want %q", got, want)
	}
	if got := (progress{total: 3, done: 4, elapsed: time.Second}).line(0); !strings.HasPrefix(got, "[####################]  4/3") {
		t.Errorf("line beyond the total is %q", got)
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1500 * time.Millisecond: "1.5s", 59 * time.Second: "59s", 61 * time.Second: "1m01s",
		3*time.Hour + 5*time.Minute: "3h05m", 50 * time.Hour: "2d02h",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("shortDuration(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestScreenKeepsLineBelowText(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	io.WriteString(s, "a\n")
	s.show("half")
	io.WriteString(s, "b\n")
	s.show("")
	s.show("")
	const want = "a\n" + eraseLine + "half" + eraseLine + "b\nhalf" + eraseLine
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func parsed(t *testing.T, line string) queue.Request {
	t.Helper()
	req, err := parseTask([]byte(line), queue.Request{Mode: queue.ModeTest})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return req
}

func TestParseTask(t *testing.T) {
	id := "rs-1"
	want := queue.Request{
		Input: rawjson.Value(`{"q":1.0}`), Mode: queue.ModeVal, ResourcesID: &id, Metadata: rawjson.Value(`{"k":1}`),
		Config: &queue.Config{MaxAttempts: 3, RetryCondition: []queue.AttemptStatus{"failed"}},
	}
	got := parsed(t, `{"input":{"q":1.0},"mode":"val","resources_id":"rs-1","metadata":{"k":1},
		"config":{"max_attempts":3,"retry_condition":["failed"]}}`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{`"text"`, `{"question": "x", "mode": 7}`, `[1,2]`, `null`, `5`} {
		if got := parsed(t, line); got.Mode != queue.ModeTest || got.Input == nil {
			t.Errorf("%s: %+v", line, got)
		}
	}
	for _, line := range []string{
		`{`, `{"input":1,"mode":"x"}`, `{"input":1,"expected":2}`, `{"input":1,"config":{"max_attempts":0}}`,
		`{"input":1,"config":{"retries":2}}`, `{"input":1,"metadata":[]}`, `{"input":1,"resources_id":3}`, "\xff",
	} {
		if req, err := parseTask([]byte(line), queue.Request{}); err == nil {
			t.Errorf("%s: no error, %+v", line, req)
		}
	}
}

// TestTaskConfigIsItsOwn gives one task limits of its own: those of the options,
// which all other tasks share, must stay.
func TestTaskConfigIsItsOwn(t *testing.T) {
	timeout, silence := 60.0, 10.0
	config := queue.Config{
		TimeoutSeconds: &timeout, UnresponsiveSeconds: &silence, MaxAttempts: 3,
		RetryCondition: []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout},
	}
	const line = `{"input":1,"config":{"timeout_seconds":1,"unresponsive_seconds":null,"retry_condition":["unresponsive"]}}`
	req, err := parseTask([]byte(line), queue.Request{Config: &config})
	if err != nil {
		t.Fatal(err)
	}
	own := 1.0
	if diff := cmp.Diff(&queue.Config{
		TimeoutSeconds: &own, MaxAttempts: 3, RetryCondition: []queue.AttemptStatus{queue.AttemptUnresponsive},
	}, req.Config); diff != "" {
		t.Errorf("the task's config: %s", diff)
	}
	was, wasSilence := 60.0, 10.0
	if diff := cmp.Diff(queue.Config{
		TimeoutSeconds: &was, UnresponsiveSeconds: &wasSilence, MaxAttempts: 3,
		RetryCondition: []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout},
	}, config); diff != "" {
		t.Errorf("the config of the options has changed: %s", diff)
	}
}

type fakeQueue struct{ calls [][]queue.Request }

func (f *fakeQueue) Enqueue(_ context.Context, reqs []queue.Request) ([]queue.Rollout, error) {
	if len(f.calls) == 2 {
		return nil, errors.New("full")
	}
	f.calls = append(f.calls, append([]queue.Request(nil), reqs...))
	return make([]queue.Rollout, len(reqs)), nil
}

func TestEnqueueInBatches(t *testing.T) {
	text := strings.Repeat("1\n\n", 2*enqueueMost) + "2\n"
	file := taskFile{inputFile{name: "tasks", again: true, open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}}
	f, told := &fakeQueue{}, 0
	n, err := enqueue(t.Context(), f, file, queue.Request{}, func(r []queue.Rollout) error { told += len(r); return nil })
	if n != 2*enqueueMost || told != n || err == nil || len(f.calls) != 2 {
		t.Errorf("%d enqueued, %d told, %d calls, error %v", n, told, len(f.calls), err)
	}
	text = "1\n2\n{bad\n3\n"
	f = &fakeQueue{}
	n, err = enqueue(t.Context(), f, file, queue.Request{}, func([]queue.Rollout) error { return nil })
	if n != 2 || err == nil || !strings.Contains(err.Error(), "tasks:3:") {
		t.Errorf("%d enqueued, error %v", n, err)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"store", "worker", "run", "rollouts"}
	for name, want := range map[string]string{"stor": "store", "rolouts": "rollouts", "workre": "worker", "frob": "", "x": ""} {
		if got := nearest(name, words); got != want {
			t.Errorf("nearest(%s) = %q, want %q", name, got, want)
		}
	}
}
