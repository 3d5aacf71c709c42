package llmproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// before puts a rig before an upstream of the test's own.
func before(t *testing.T, h http.HandlerFunc, change func(*llmproxy.Options)) *rig {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return newRig(t, nil, func(o *llmproxy.Options) {
		o.Models = entries(t, table(server.URL+"/v1"))
		if change != nil {
			change(o)
		}
	})
}

// TestMalformedStreams forwards whatever bytes an upstream sends, and files them
// as what they amount to.
func TestMalformedStreams(t *testing.T) {
	const (
		one  = `data: {"id":"x","model":"r","choices":[{"index":0,"delta":{"content":"one"}}]}` + "\n\n"
		stop = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	)
	for name, c := range map[string]struct{ stream, outcome, text string }{
		"nothing":                  {"", "truncated", ""},
		"no JSON":                  {one + "data: {\"choices\":[\n\n" + stop, "ok", "one"},
		"no objects":               {one + "data: 1\n\ndata: [null]\n\ndata: \"x\"\n\ndata: null\n\n" + stop, "ok", "one"},
		"choices that are none":    {one + `data: {"choices":{"0":{}}}` + "\n\n" + `data: {"choices":[null,1,[]]}` + "\n\n" + stop, "ok", "one"},
		"numbers without bounds":   {one + `data: {"choices":[{"index":-1,"delta":{"content":"x"}},{"index":9e18,"delta":{"content":"x"}},{"index":"0","delta":{"tool_calls":[{"index":99999999}]}}]}` + "\n\n" + stop, "ok", "one"},
		"other members":            {"id: 7\nretry: 1\n: comment\nnonsense\n" + one + stop, "ok", "one"},
		"no space, CR and no end":  {"data:" + strings.TrimPrefix(strings.TrimSpace(one), "data: ") + "\r\r" + "data:" + strings.TrimPrefix(strings.TrimSpace(stop), "data: "), "ok", "one"},
		"a byte that is no UTF-8":  {strings.Replace(one, "one", "o\xffe", 1) + stop, "ok", "o\uFFFDe"},
		"half a surrogate":         {strings.Replace(one, "one", `o\ud800e`, 1) + stop, "ok", "o\uFFFDe"},
		"a zero byte":              {strings.Replace(one, "one", `o\u0000e`, 1) + stop, "ok", "o\x00e"},
		"an error that is no text": {one + `data: {"error":{"a":[1]}}` + "\n\n", "upstream_error", ""},
		"too deep":                 {one + "data: " + strings.Repeat("[", 100_000) + "\n\n" + stop, "ok", "one"},
		"a mark and nothing else":  {"data: [DONE]\n\n", "ok", ""},
		"another protocol":         {`data: {"type":"message_start","message":{"id":"x"}}` + "\n\n", "truncated", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := before(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
				_, _ = io.WriteString(w, c.stream)
			}, nil)
			got := r.call("/v1/chat/completions", hello+`,"stream":true}`)
			if got.text != c.stream {
				t.Errorf("the client got %.200q", got.text)
			}
			conversation, _ := r.twoSpans()
			wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": fmt.Sprintf("%q", c.outcome)})
			if text := conversation.Attribute("gen_ai.completion.0.content").Text(); text != c.text {
				t.Errorf("filed as %q, want %q", text, c.text)
			}
			for _, way := range everyWay { // translated, nothing may break
				body := model(helloClaude, way.model)
				if way.path == "/v1/responses" {
					body = `{"model":"` + way.model + `","input":"x"`
				}
				if got := r.call(way.path, body+`,"stream":true}`); got.status != 200 {
					t.Errorf("%s to %s: status %d: %s", way.path, way.model, got.status, got.text)
				}
			}
		})
	}
}

// TestMalformedAnswers does the same with answers that are no streams.
func TestMalformedAnswers(t *testing.T) {
	for _, body := range []string{
		"", "<html>", "null", "[]", `"text"`, `{"choices":1}`, `{"choices":[]}`, `{"choices":[{"message":null}]}`, `{"output":[null,{"type":"message","content":"x"}]}`,
		`{"content":[{"type":"tool_use","input":"no object"}]}`, "{\"id\":\"\xff\"}", strings.Repeat(`{"a":`, 5000) + strings.Repeat("}", 5000),
	} {
		r := before(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		}, nil)
		for _, way := range everyWay {
			ask := model(helloClaude, way.model)
			if way.path == "/v1/responses" {
				ask = `{"model":"` + way.model + `","input":"x"`
			}
			if got := r.call(way.path, ask+"}"); got.status != 200 && got.status != 502 || got.status == 502 && got.json(t).Get("error") == nil {
				t.Errorf("%.40q, %s to %s: status %d: %.200s", body, way.path, way.model, got.status, got.text)
			}
		}
		if n := len(r.spans()); n != 2*len(everyWay) {
			t.Errorf("%.40q: %d spans", body, n)
		}
	}
}

// TestHugePrompt files ten megabytes, whole, in a store behind HTTP.
func TestHugePrompt(t *testing.T) {
	s := newStore(t)
	api := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: quiet}))
	defer api.Close()
	c := client.New(api.URL, client.Options{})
	defer c.Close()
	started, err := s.Start(t.Context(), queue.Request{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, r := proxyOver(t, c, llmproxy.Options{})
	r.ref = queue.AttemptRef{RolloutID: started.RolloutID, AttemptID: started.Attempt.AttemptID}
	prompt := strings.Repeat(strings.Repeat("long", 250)+" word ", 10_000)
	if got := r.call("/v1/chat/completions", fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":%q},{"role":"user","content":"and?"}]}`, prompt)); got.status != 200 {
		t.Fatalf("status %d: %.200s", got.status, got.text)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: r.ref.RolloutID, Paging: queue.All})
	if err != nil || len(page.Items) != 2 {
		t.Fatalf("%d spans: %v", len(page.Items), err)
	}
	for _, span := range page.Items {
		if span.Name != "raw_gen_ai_request" && span.Attribute("gen_ai.prompt.0.content").Text() != prompt {
			t.Error("the prompt was not filed whole")
		}
	}
}

// TestPathTricks lets no path say what it does not say plainly.
func TestPathTricks(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.Keys = []string{"secret"} })
	long := strings.Repeat("x", 3000)
	for path, status := range map[string]int{
		r.prefix() + "/v1/chat/completions/":                        200,
		r.prefix() + "/v1/../v1/chat/completions":                   404,
		r.prefix() + "/v1//chat/completions":                        404,
		r.prefix() + "/v1/v1/chat/completions":                      404,
		r.prefix() + "/v1/chat%2Fcompletions":                       404,
		"/rollout//attempt/a/v1/chat/completions":                   404,
		"/rollout/r/attempt//v1/chat/completions":                   404,
		"/rollout/r/v1/chat/completions":                            404,
		"/rollout/r/attempt/a/rollout/x/attempt/y/chat/completions": 404,
		"//rollout/r/attempt/a/v1/chat/completions":                 404,
		"/rollout/" + long + "/attempt/a/v1/chat/completions":       400,
		"/rollout/r/attempt/" + long + "/v1/chat/completions":       400,
		"/rollout/r%00/attempt/a/v1/chat/completions":               400,
		"/rollout/r%0d%0aX-Evil:%201/attempt/a/v1/chat/completions": 400,
		"/rollout/%ff%fe/attempt/a/v1/chat/completions":             400,
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		body := hello + "}"
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.80s: %v", path, err)
		}
		text, _ := io.ReadAll(resp.Body)
		conn.Close()
		if resp.StatusCode != status {
			t.Errorf("%.80s: status %d, want %d: %s", path, resp.StatusCode, status, text)
		}
	}
	for _, headers := range [][]string{
		{"X-Rollout-Id", "a\tb", "X-Attempt-Id", "c"}, {"X-Rollout-Id", "r", "X-Attempt-Id", long},
		{"X-Api-Key", "agl-r\xff-at-x.secret"},
	} {
		if got := r.do("POST", "/v1/chat/completions", hello+"}", append(headers, "Authorization", "Bearer secret")...); got.status != 400 {
			t.Errorf("%.80q: status %d: %s", headers, got.status, got.text)
		}
	}
	if n := len(r.upstream.Requests()); n != 1 {
		t.Errorf("%d calls went through, want 1", n)
	}
}

// TestHeadersThatDoNotPass keeps what is the client's from the upstream, and the
// other way round.
func TestHeadersThatDoNotPass(t *testing.T) {
	r := newRig(t, say(fakellm.Answer{Text: "x", Header: http.Header{
		"Set-Cookie": {"a=b"}, "Location": {"http://evil"}, "X-Request-Id": {"req-1"}, "Access-Control-Allow-Origin": {"*"}, "X-Aglq-Cache": {"hit"},
	}}), func(o *llmproxy.Options) { o.Keys = []string{"secret"} })
	for _, more := range []string{"}", `,"stream":true}`} {
		got := r.call("/v1/chat/completions", hello+more, "Authorization", "Bearer secret", "Cookie", "c=d", "X-Forwarded-For", "1.2.3.4",
			"X-Rollout-Id", "ro-other", "Proxy-Authorization", "Basic x")
		if got.status != 200 {
			t.Fatalf("status %d: %s", got.status, got.text)
		}
		for _, name := range []string{"Set-Cookie", "Location", "Access-Control-Allow-Origin", "X-Aglq-Cache"} {
			if got.header.Get(name) != "" {
				t.Errorf("the upstream's %s reached the client", name)
			}
		}
		if got.header.Get("X-Request-Id") != "req-1" {
			t.Errorf("headers %v", got.header)
		}
	}
	for _, sent := range r.upstream.Requests() {
		for name, values := range sent.Header {
			if text := strings.Join(values, " "); strings.Contains(text, "secret") || name == "Cookie" || name == "X-Forwarded-For" ||
				strings.HasPrefix(name, "X-Rollout") || name == "Proxy-Authorization" {
				t.Errorf("the upstream was sent %s: %s", name, text)
			}
		}
	}
}

// TestAWrongRolloutHurtsNobody gives calls their numbers though others name
// rollouts that are not there.
func TestAWrongRolloutHurtsNobody(t *testing.T) {
	release := make(chan struct{})
	var asked atomic.Int64
	s := newKeeper(func(context.Context) (int64, error) {
		if asked.Add(1) == 1 {
			return 0, queue.ErrNoRollout("ro-wrong")
		}
		<-release
		return 7, nil
	})
	p, r := proxyOver(t, s, llmproxy.Options{})
	if got := r.call("/v1/chat/completions", hello+"}"); got.status != 200 { // the wrong one
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	time.AfterFunc(20*time.Millisecond, func() { close(release) }) // later than the model, which takes no time
	if got := r.call("/v1/chat/completions", hello+"}"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.numbers(); len(got) != 4 || got[2] != 7 || got[3] != 7 {
		t.Errorf("numbers %v, want the last two to be 7", got)
	}
}

// TestSlowClientIsNotTheUpstreamsFault has a client that reads nothing for longer
// than an upstream may be silent.
func TestSlowClientIsNotTheUpstreamsFault(t *testing.T) {
	t.Parallel()
	const silence = time.Second
	r := before(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3000 { // more than the sockets take
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", strings.Repeat("x", 4096))
		}
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}, func(o *llmproxy.Options) { o.RequestTimeout = silence })
	resp, err := r.client.Do(r.request(t.Context(), "POST", r.prefix()+"/v1/chat/completions", hello+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-time.After(2 * silence) // the time must pass
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	conversation, _ := r.twoSpans()
	wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": `"ok"`})
}

// TestEndlessAnswers cuts off what would not end.
func TestEndlessAnswers(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "application/json"} {
		r := before(t, func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", kind)
			for req.Context().Err() == nil {
				if _, err := io.WriteString(w, `data: {"choices":[{"index":0,"delta":{"content":"more"}}]}`+"\n\n"); err != nil {
					return
				}
			}
		}, func(o *llmproxy.Options) { o.MaxAnswer, o.Retries = 1<<20, -1 })
		got := r.call("/v1/chat/completions", hello+`,"stream":true}`)
		if kind == "application/json" && got.status != 502 || kind != "application/json" && got.err == nil {
			t.Errorf("%s: status %d, %v", kind, got.status, got.err)
		}
		conversation, _ := r.twoSpans()
		wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": `"truncated"`})
		if why := conversation.Attribute("error.message").Text(); !strings.Contains(why, "larger than 1048576 bytes") {
			t.Errorf("%s: error.message is %q", kind, why)
		}
	}
}
