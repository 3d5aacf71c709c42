package dashboard

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser finds a Chromium: AGLQ_CHROMIUM, else one on PATH, else "".
func browser(t *testing.T) string {
	t.Helper()
	if name := os.Getenv("AGLQ_CHROMIUM"); name != "" {
		found, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("AGLQ_CHROMIUM: %v", err)
		}
		return found
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	return ""
}

// api answers from testdata, under the addresses of a store, and serves the
// dashboard. It records the requests it gets.
type api struct {
	*httptest.Server

	mu       sync.Mutex
	requests []string
}

func newAPI(t *testing.T, answers map[string]http.Handler) *api {
	t.Helper()
	a := &api{}
	mux := http.NewServeMux()
	for path, name := range map[string]string{
		"/v1/agl/health":                            "health",
		"/v1/agl/statistics":                        "statistics",
		"/v1/agl/rollouts":                          "rollouts",
		"/v1/agl/rollouts/ro-000000000001/attempts": "attempts",
		"/v1/agl/spans":                             "spans",
		"/v1/agl/resources":                         "resources",
		"/v1/agl/workers":                           "workers",
	} {
		answer := answers[path]
		if answer == nil {
			body, err := os.ReadFile("testdata/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			answer = answerWith(http.StatusOK, string(body))
		}
		mux.Handle(path, answer)
	}
	mux.HandleFunc("/v1/", http.NotFound)
	mux.Handle("/assets/", http.FileServerFS(FS()))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "index.html", time.Time{}, bytes.NewReader(versioned().page))
	})
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.Method+" "+r.URL.String())
		a.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func answerWith(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // a browser that went away needs no answer
	})
}

// asked reports whether a request was made whose path is path and whose query has all of params.
func (a *api) asked(path string, params url.Values) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, line := range a.requests {
		u, err := url.Parse(strings.TrimPrefix(line, "GET "))
		if err != nil || u.Path != path {
			continue
		}
		matches := true
		for name, values := range params {
			matches = matches && strings.Join(u.Query()[name], ",") == strings.Join(values, ",")
		}
		if matches {
			return true
		}
	}
	return false
}

// dump opens address and returns the document as it stands after the
// requests and three virtual seconds.
func dump(t *testing.T, chromium, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	profile := t.TempDir()
	var output, trouble bytes.Buffer
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--window-size=1280,800", "--virtual-time-budget=3000", "--dump-dom", address)
	cmd.Stdout, cmd.Stderr = &output, &trouble
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", chromium, err, trouble.String())
	}
	return output.String()
}

const (
	hostile = "<img src=x onerror"     // in the recorded answers, in every field that takes text
	escaped = "&lt;img src=x onerror=" // the same as a serialized text node
)

var failing = answerWith(http.StatusBadRequest, `{"detail":"the reason <img src=x onerror=alert(1)>"}`)

func TestInBrowser(t *testing.T) {
	chromium := browser(t)
	if chromium == "" {
		t.Log("no Chromium found: checked the static parts only; set AGLQ_CHROMIUM or put chromium on PATH to run the dashboard")
		return
	}
	const list = "/v1/agl/rollouts"
	tests := []struct {
		name    string
		address string
		answers map[string]http.Handler
		want    []string // in the document
		without []string // not in the document
		path    string   // with params: a request that must have been made
		params  url.Values
	}{
		{
			name: "root shows rollouts", address: "/",
			want: []string{
				"ro-000000000001", "ro-000000000002", "ro-000000000003", `data-status="requeuing"`, `data-status="preparing"`, `data-status="queuing"`,
				"1–3 of 3", "Store is up", "<title>Rollouts · aglq</title>", `aria-sort="descending"`, `href="/traces?rolloutId=ro-000000000001"`,
			},
			path: list, params: url.Values{"limit": {"100"}, "offset": {"0"}, "sort_by": {"start_time"}, "sort_order": {"desc"}},
		},
		{
			name: "expanded rollout", address: "/rollouts?open=ro-000000000001",
			want: []string{
				"at-00000001", "Traceback " + escaped, escaped, `<span class="j-number">1.0</span>`, "9007199254740993",
				"Attempt metadata", `href="/traces?rolloutId=ro-000000000001&amp;attemptId=at-00000001"`, `aria-expanded="true"`,
			},
			path: list + "/ro-000000000001/attempts", params: url.Values{"sort_by": {"sequence_id"}, "sort_order": {"desc"}, "limit": {"100"}},
		},
		{
			name: "filters from the address", address: "/rollouts?status_in=failed&status_in=running&mode_in=train&search=ro-0&sort=-status&page=2",
			path: list,
			params: url.Values{
				"status_in": {"failed", "running"}, "mode_in": {"train"}, "rollout_id_contains": {"ro-0"},
				"sort_by": {"status"}, "sort_order": {"desc"}, "offset": {"100"},
			},
		},
		{
			name: "traces", address: "/traces?rolloutId=ro-000000000001&attemptId=at-00000001&span=at-00000001/0000000000000002",
			want: []string{
				"agent " + escaped, "model call", "agentlightning.annotation", "3 spans in 4.0 s", "1 with errors",
				`class="reward"`, " 0.75", "style 1", `left: 25%; width: 50%`, `padding-left: 16px`, `class="selected"`, escaped, "extra",
			},
			path: "/v1/agl/spans", params: url.Values{"rollout_id": {"ro-000000000001"}, "attempt_id": {"at-00000001"}},
		},
		{
			name: "span search", address: "/traces?rolloutId=ro-000000000001&search=model",
			path: "/v1/agl/spans", params: url.Values{"name_contains": {"model"}, "span_id_contains": {"model"}, "trace_id_contains": {"model"}, "filter_logic": {"or"}},
		},
		{name: "trace picker", address: "/traces", want: []string{"Choose a rollout", `href="/traces?rolloutId=ro-000000000003"`}},
		{
			name: "resources", address: "/resources?open=rs-000000000001", want: []string{"Answer {question} " + escaped, "prompt_template", "top_p", "main " + escaped},
			path: "/v1/agl/resources", params: url.Values{"limit": {"50"}, "sort_by": {"update_time"}},
		},
		{
			name: "runners", address: "/runners?open=beating", want: []string{"beating", "96 %", "40 %", "worker " + escaped, "gpus"},
			path: "/v1/agl/workers", params: url.Values{"limit": {"50"}, "sort_by": {"last_heartbeat_time"}},
		},
		{name: "settings", address: "/settings", want: []string{"Store address", "Access token", "Refresh every", "Theme"}},
		{name: "unknown view", address: "/nowhere/" + url.PathEscape(hostile), want: []string{"There is no view", "Go to the rollouts"}},
		{
			name: "error is shown", address: "/rollouts", answers: map[string]http.Handler{list: failing},
			want: []string{"the reason &lt;img", "status 400", `role="alert"`}, without: []string{"ro-000000000001"},
		},
		{
			name: "missing token", address: "/runners", answers: map[string]http.Handler{"/v1/agl/workers": answerWith(http.StatusUnauthorized, `{"detail":"a token is needed"}`)},
			want: []string{"a token is needed", "Enter the access token under Settings"},
		},
		{
			name: "not a store", address: "/resources", answers: map[string]http.Handler{"/v1/agl/resources": answerWith(http.StatusOK, "<html>")},
			want: []string{"Is it a store?"},
		},
		{
			name: "store is unwell", address: "/rollouts", answers: map[string]http.Handler{"/v1/agl/health": answerWith(http.StatusServiceUnavailable, `{"detail":"x"}`)},
			want: []string{"Store is not well", `data-state="down"`},
		},
		{
			name: "empty store", address: "/rollouts", answers: map[string]http.Handler{list: answerWith(http.StatusOK, `{"items":[],"limit":100,"offset":0,"total":0}`)},
			want: []string{"No rollouts yet", "0 of 0"},
		},
		{
			name: "nothing matches", address: "/rollouts?status_in=failed", answers: map[string]http.Handler{list: answerWith(http.StatusOK, `{"items":[],"limit":100,"offset":0,"total":0}`)},
			want: []string{"Nothing matches"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := newAPI(t, test.answers)
			document := dump(t, chromium, server.URL+test.address)
			for _, want := range test.want {
				if !strings.Contains(document, want) {
					t.Errorf("the document does not show %q", want)
				}
			}
			for _, without := range append(test.without, "broken · ", "<title>broken") {
				if strings.Contains(document, without) {
					t.Errorf("the document shows %q", without)
				}
			}
			if markup := inText(document); strings.Contains(markup, hostile) {
				t.Errorf("text of the server became markup")
			}
			if test.path != "" && !server.asked(test.path, test.params) {
				t.Errorf("no request %s with %v; there were %q", test.path, test.params, server.requests)
			}
			if t.Failed() {
				t.Logf("the document:\n%s", document)
			}
		})
	}
}

// inText is the document without quoted attribute values, where < needs no escape.
func inText(document string) string {
	var out strings.Builder
	tag, quoted := false, false
	for _, c := range document {
		switch {
		case quoted:
			quoted = c != '"'
			continue
		case tag && c == '"':
			quoted = true
		case c == '<':
			tag = true
		case c == '>':
			tag = false
		}
		out.WriteRune(c)
	}
	return out.String()
}
