package limit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/worker/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseRule(t *testing.T) {
	good := map[string]limit.Rule{
		"64":      {AtATime: 64},
		"5/s":     {Calls: 5, Per: time.Second},
		"100/m":   {Calls: 100, Per: time.Minute},
		"1000/h":  {Calls: 1000, Per: time.Hour},
		"10/30s":  {Calls: 10, Per: 30 * time.Second},
		"1/1m30s": {Calls: 1, Per: 90 * time.Second},
	}
	for text, want := range good {
		if got, err := limit.ParseRule(text); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "x", "1.5", "5/", "5/x", "5/-1s", "5/0s", "/s", "0/s", "5/s/s", "10000000", "9999999999999999999"} {
		if got, err := limit.ParseRule(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("llm=64")
	f.Add("tool:search=100/m")
	f.Add("a=1/999999h")
	f.Add("=/")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := limit.Parse([]string{text})
		if err != nil {
			return
		}
		for _, name := range s.Names() {
			leave, err := s.Group(name).Take(t.Context(), 0)
			if err != nil {
				t.Fatalf("the first call of %q: %v", text, err)
			}
			leave()
		}
	})
}

func TestParse(t *testing.T) {
	s, err := limit.Parse([]string{"llm=2", "llm=3", "tool:search=5/s", " x = 1"})
	if err != nil || strings.Join(s.Names(), " ") != "llm tool:search x" {
		t.Fatalf("%v, %v", s.Names(), err)
	}
	for i := range 3 { // the narrower rule holds
		if _, err := s.Group("llm").Take(t.Context(), 0); (err == nil) != (i < 2) {
			t.Errorf("slot %d of 2: %v", i, err)
		}
	}
	for _, text := range []string{"llm", "=1", "a b=1", "llm=", "llm=many", strings.Repeat("x", 101) + "=1"} {
		if _, err := limit.Parse([]string{text}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	var none *limit.Set
	if leave, err := none.Group("x").Take(t.Context(), 0); err != nil || len(none.Names()) > 0 {
		t.Errorf("no set: %v", err)
	} else {
		leave()
	}
}

// Whatever comes and goes, a gate keeps each of its rules, and refuses only what
// breaks one.
func TestGateKeepsItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []limit.Rule
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			rules = append(rules, limit.Rule{
				AtATime: rapid.IntRange(0, 4).Draw(t, "at a time"), Calls: rapid.IntRange(0, 4).Draw(t, "calls"),
				Per: time.Duration(rapid.IntRange(1, 10).Draw(t, "per")),
			})
		}
		gate := limit.NewGate(rules...)
		now := time.Unix(0, 0)
		inside := 0
		var entered []time.Time
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "time")))
			case 1:
				if inside > 0 {
					gate.Leave()
					inside--
				}
			case 2:
				full, wait := false, time.Duration(0)
				for _, r := range rules {
					full = full || r.AtATime > 0 && inside >= r.AtATime
					if r.Calls > 0 && len(entered) >= r.Calls {
						wait = max(wait, entered[len(entered)-r.Calls].Add(r.Per).Sub(now))
					}
				}
				again, ok := gate.Try(now)
				if ok != (!full && wait <= 0) || !ok && again != wait {
					t.Fatalf("let in: %v, again in %d; %d inside, wait %d by the rules %+v", ok, again, inside, wait, rules)
				}
				if ok {
					inside++
					entered = append(entered, now)
				}
			}
			if gate.Inside() != inside {
				t.Fatalf("%d inside, want %d", gate.Inside(), inside)
			}
		}
	})
}

func TestGroupKeepsItsBound(t *testing.T) {
	g := limit.NewGroup(limit.Rule{AtATime: 1})
	leave, err := g.Take(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var full *limit.Full
	if _, err := g.Take(t.Context(), 0); !errors.As(err, &full) {
		t.Errorf("a second one: %v", err)
	}
	var most, inside atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			leave, err := g.Take(t.Context(), limit.Forever)
			if err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			inside.Add(-1)
			leave()
			leave() // once more is no harm
		})
	}
	leave()
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d at a time", most.Load())
	}
}

func TestRateIsWaitedFor(t *testing.T) {
	g := limit.NewGroup(limit.Rule{Calls: 2, Per: 50 * time.Millisecond})
	began := time.Now()
	for range 5 {
		leave, err := g.Take(t.Context(), limit.Forever)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("5 calls in %s, 2 are allowed in 50 ms", took)
	}
	var full *limit.Full
	slow := limit.NewGroup(limit.Rule{Calls: 1, Per: time.Hour})
	_, _ = slow.Take(t.Context(), 0)
	if _, err := slow.Take(t.Context(), time.Minute); !errors.As(err, &full) || full.Again < 59*time.Minute {
		t.Errorf("a call that would wait longer than it may: %v", err)
	}
}

func set(t *testing.T, rules ...string) *limit.Set {
	t.Helper()
	s, err := limit.Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSession(t *testing.T) {
	s := set(t, "a=1")
	one, two := limit.NewSession(s), limit.NewSession(s)
	if _, err := one.Take(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for range 3 { // no bounds
		if _, err := one.Take(t.Context(), "unknown"); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := one.Take(t.Context(), "a")
		waiting <- err
	}()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	if _, err := two.Take(ctx, "a"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("waiting under a context that has ended: %v", err)
	}
	one.Close()
	if err := <-waiting; !errors.Is(err, limit.ErrClosed) {
		t.Errorf("waiting in a session that ends: %v", err)
	}
	leave, err := two.Take(t.Context(), "a") // what the first one held is back
	if err != nil {
		t.Fatal(err)
	}
	two.Close()
	leave()
	if _, err := two.Take(t.Context(), "a"); !errors.Is(err, limit.ErrClosed) {
		t.Errorf("a session that has ended: %v", err)
	}
	if n := s.Group("a"); n == nil {
		t.Error("no group")
	}
}

func call(ctx context.Context, t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func TestServer(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	server, err := limit.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	s := set(t, "tool:x=1")
	one, two := limit.NewSession(s), limit.NewSession(s)
	defer two.Close()
	url, end := server.Open(one)
	other, endOther := server.Open(two)
	defer endOther()
	ctx := t.Context()
	code, slot := call(ctx, t, http.MethodPost, url+"/tool:x")
	if code != 200 || slot != "1" {
		t.Fatalf("a slot: %d %s", code, slot)
	}
	// Who leaves the line gets nothing.
	leaving, leave := context.WithCancel(ctx)
	gone := make(chan string, 1)
	go func() {
		_, text := call(leaving, t, http.MethodPost, other+"/tool:x")
		gone <- text
	}()
	leave()
	if text := <-gone; !strings.Contains(text, "canceled") {
		t.Errorf("who has left: %s", text)
	}
	for path, want := range map[string]int{
		"/tool:x/2": 404, "/tool:x/x": 404, "/tool:x/" + fmt.Sprint(slot): 204,
	} {
		if code, text := call(ctx, t, http.MethodDelete, url+path); code != want {
			t.Errorf("returning %s: %d %s", path, code, text)
		}
	}
	if code, slot := call(ctx, t, http.MethodPost, other+"/tool:x"); code != 200 {
		t.Errorf("the slot that is back: %d %s", code, slot)
	}
	waiting := make(chan int, 1)
	go func() {
		code, _ := call(ctx, t, http.MethodPost, url+"/tool:x")
		waiting <- code
	}()
	one.Close()
	if code := <-waiting; code != 410 {
		t.Errorf("waiting in a session that ends: %d", code)
	}
	end()
	for _, u := range []string{url + "/tool:x", strings.TrimSuffix(url, url[len(url)-26:]) + "guess/tool:x"} {
		if code, _ := call(ctx, t, http.MethodPost, u); code != 404 {
			t.Errorf("%s: %d", u, code)
		}
	}
	if code, _ := call(ctx, t, http.MethodGet, other+"/tool:x"); code != 405 {
		t.Errorf("GET: %d", code)
	}
}
