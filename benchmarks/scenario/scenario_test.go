package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startStore serves a store on memory, behind a handler if there is one.
func startStore(t *testing.T, behind func(http.Handler) http.Handler) (url string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: log}), store.Options{Logger: log})
	var handler http.Handler = httpapi.New(s, httpapi.Options{Logger: log})
	if behind != nil {
		handler = behind(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		s.EndWaits()
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server.URL
}

// small is a scenario of a few tasks.
func small(url string) Options {
	return Options{
		StoreURL: url, TotalTasks: 30, BatchSize: 12, RemainingTasks: 5, Concurrency: 6, Runners: 4, MaxRounds: 2,
		Sleep: time.Millisecond, Poll: 10 * time.Millisecond, Limit: 30 * time.Second,
	}
}

func TestModes(t *testing.T) {
	for _, client := range Clients {
		for _, mode := range Modes {
			t.Run(fmt.Sprint(client, mode), func(t *testing.T) {
				o := small(startStore(t, nil))
				o.Mode, o.Client = mode, client
				sum, err := Run(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				if sum.RolloutsPerSecond <= 0 || sum.Wait.Count != o.TotalTasks || sum.Lost+sum.Doubled != 0 {
					t.Errorf("summary %+v", sum)
				}
				calls := map[string]int{}
				for _, l := range sum.Calls {
					calls[l.Call] = l.Count
				}
				spans := int(sum.Spans*float64(o.TotalTasks) + 0.5)
				if calls["finish"] != o.TotalTasks || calls["query spans"] != o.TotalTasks || (client == PythonLike) != (calls["spans"] == spans) {
					t.Errorf("%d spans, calls %v", spans, calls)
				}
				if len(sum.Timeline) == 0 {
					t.Error("there is no timeline")
				}
			})
		}
	}
}

// TestEveryEndIsAnswered holds the answer to one attempt's end back until the
// rollout has been checked: the algorithm is done before that runner is.
func TestEveryEndIsAnswered(t *testing.T) {
	const held = 100 * time.Millisecond
	var checked atomic.Int64
	var holding atomic.Bool
	allChecked := make(chan struct{})
	o := small(startStore(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			switch {
			case strings.HasSuffix(r.URL.Path, "/spans/search"):
				if checked.Add(1) == 30 {
					close(allChecked)
				}
			case strings.Contains(r.URL.Path, "/attempts/") && holding.CompareAndSwap(false, true):
				<-allChecked
				select {
				case <-r.Context().Done(): // the run has not waited
				case <-time.After(held):
				}
			}
		})
	}))
	sum, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range sum.Calls {
		if l.Call == "finish" && l.Count != o.TotalTasks {
			t.Errorf("%d of %d ends are counted", l.Count, o.TotalTasks)
		}
	}
}

func TestJSONSpans(t *testing.T) {
	o := small(startStore(t, nil))
	o.JSONSpans = true
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// TestScenarioFindsFaults puts a fault between the driver and a good store.
func TestScenarioFindsFaults(t *testing.T) {
	for _, test := range []struct {
		name, path, want string
		change           func(body string) string
	}{
		{"a lost span", "/v1/agl/spans/search", "were sent", func(s string) string {
			var page struct{ Total int }
			_ = json.Unmarshal([]byte(s), &page)
			return strings.Replace(s, fmt.Sprintf(`"total":%d`, page.Total), fmt.Sprintf(`"total":%d`, page.Total-1), 1)
		}},
		{"a lost task", "/v1/agl/spans/search", "no span carries", func(s string) string { return strings.ReplaceAll(s, `"task":`, `"tusk":`) }},
		{"a wrong reward", "/v1/agl/spans/search", "the last reward is", func(s string) string {
			at := strings.LastIndex(s, rewardKey) + len(rewardKey) + 2
			return s[:at] + "9" + s[at+1:]
		}},
		{"a failed rollout", "/v1/agl/waits/rollouts", "has failed", func(s string) string {
			return strings.ReplaceAll(s, `"status":"succeeded"`, `"status":"failed"`)
		}},
		{"a doubled rollout", "/v1/agl/queues/rollouts/dequeue", "was doubled", func(s string) string {
			return strings.ReplaceAll(s, `"sequence_id":1`, `"sequence_id":2`)
		}},
		{"a refused end", "/attempts/", "answered 500", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := small(startStore(t, func(h http.Handler) http.Handler { return spoil(h, test.path, test.change) }))
			_, err := Run(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

// spoil changes the answers to a path; a nil change makes them a 500.
func spoil(h http.Handler, path string, change func(string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, path) {
			h.ServeHTTP(w, r)
			return
		}
		if change == nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answer := httptest.NewRecorder()
		h.ServeHTTP(deadlines{answer}, r)
		body := change(answer.Body.String())
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.Code)
		_, _ = w.Write([]byte(body))
	})
}

// deadlines is a recorder that a handler may set deadlines on.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error  { return nil }
func (deadlines) SetWriteDeadline(time.Time) error { return nil }
func (deadlines) EnableFullDuplex() error          { return nil }

func TestStallEndsTheRun(t *testing.T) {
	o := small(startStore(t, func(h http.Handler) http.Handler {
		return spoil(h, "/v1/agl/queues/rollouts/dequeue", func(string) string { return "[]" })
	}))
	o.Stall = 300 * time.Millisecond
	_, err := Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "nothing has finished") || !strings.Contains(err.Error(), "ro-") {
		t.Errorf("error is %v", err)
	}
}

func TestLimitEndsTheRun(t *testing.T) {
	o := small(startStore(t, nil))
	o.Sleep, o.Limit = time.Minute, 200*time.Millisecond
	_, err := Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "took more than") {
		t.Errorf("error is %v", err)
	}
}

// TestAttributesAreAsLargeAsTheReferences holds what was measured of the
// reference's generator: 27.6 keys and 5.3 KB on average.
func TestAttributesAreAsLargeAsTheReferences(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	keys, bytes := 0, 0
	const n = 1000
	for range n {
		text := randomAttributes(rng)
		var object map[string]string
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		keys += len(object)
		bytes += len(text)
	}
	if k := float64(keys) / n; k < 25 || k > 31 {
		t.Errorf("%.1f keys, want about 27.6", k)
	}
	if b := float64(bytes) / n; b < 4500 || b > 6500 {
		t.Errorf("%.0f bytes, want about 5300", b)
	}
}

func TestScaleAndCeiling(t *testing.T) {
	for _, p := range Presets {
		o := p.Options
		o.Scale = 0.1
		scaled, err := o.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := scaled.TotalTasks, o.TotalTasks/10; got < want || got > want+1 {
			t.Errorf("%s: %d tasks, want %d", p.Name, got, want)
		}
	}
	heavy := Options{Runners: 512, MaxRounds: 20, Sleep: time.Second}
	if got := heavy.Ceiling(); got < 46.5 || got > 46.6 { // 512 runners, 11 s each
		t.Errorf("ceiling %v, want 46.5", got)
	}
	if _, err := (Options{Scale: -1}).withDefaults(); err == nil {
		t.Error("a negative scale is taken")
	}
}

func TestSeedRepeatsTheAgents(t *testing.T) {
	spans := func(seed uint64) float64 {
		o := small(startStore(t, nil))
		o.Seed, o.Client = seed, Native
		sum, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return sum.Spans
	}
	if a, b := spans(7), spans(7); a != b {
		t.Errorf("%v and %v spans with one seed", a, b)
	}
}
