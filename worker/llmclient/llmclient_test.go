package llmclient_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/internal/tracetest"
	"github.com/aglq/aglq/worker/llmclient"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		os.Exit(code)
	}))
}

// upstream is a model that answers as the one in adapter/testdata/goldens.py does.
func upstream(t *testing.T) string {
	var answers atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body := rawjson.Value(text)
		if strings.Contains(string(text), "please fail") {
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error":{"message":"slow down"}}`)
			return
		}
		n := answers.Add(1)
		message := fmt.Sprintf(`"role":"assistant","content":"answer %d"`, n)
		deltas := []string{`"role":"assistant","content":""`, `"content":"answer "`, fmt.Sprintf(`"content":"%d"`, n)}
		finish, choice, top := "stop", "", ""
		if body.Get("tools") != nil && !strings.Contains(string(text), `"role":"tool"`) {
			finish = "tool_calls"
			message = fmt.Sprintf(`"role":"assistant","content":null,"tool_calls":[{"id":"call_%d","type":"function","function":{"name":"add","arguments":"{\"a\": 1}"}}]`, n)
			deltas = []string{
				fmt.Sprintf(`"role":"assistant","tool_calls":[{"index":0,"id":"call_%d","type":"function","function":{"name":"add","arguments":""}}]`, n),
				`"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]`, `"tool_calls":[{"index":0,"function":{"arguments":": 1}"}}]`,
			}
		}
		if body.Get("return_token_ids").Bool() {
			choice, top = `,"token_ids":[7,8,9]`, `,"prompt_token_ids":[1,2,3,4]`
		}
		if body.Get("logprobs").Bool() {
			choice += `,"logprobs":{"content":[{"token":"a","logprob":-0.5}],"refusal":null}`
		}
		head := fmt.Sprintf(`"id":"chatcmpl-%d","created":1700000000,"model":%s`, n, body.Get("model"))
		if !body.Get("stream").Bool() {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{%s,"object":"chat.completion","choices":[{"index":0,"message":{%s},"finish_reason":%q%s}],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}%s}`, head, message, finish, choice, top)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for i, delta := range deltas {
			if i > 0 {
				top = ""
			}
			fmt.Fprintf(w, "data: {%s,\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":null}]%s}\n\n", head, delta, top)
		}
		if strings.Contains(string(text), "please break") {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "data: {%s,\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":%q%s}]}\n\ndata: [DONE]\n\n", head, finish, choice)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1"
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func user(text string) []llmclient.Message {
	return []llmclient.Message{{Role: "user", Content: text}}
}

var add = []llmclient.Tool{{
	Name: "add", Description: "adds", Parameters: rawjson.Value(`{"type":"object","properties":{"a":{"type":"integer"}}}`),
}}

// talk makes the calls of adapter/testdata/goldens.py.
func talk(t *testing.T, ctx context.Context, url string) {
	c := &llmclient.Client{BaseURL: url, Model: "m", APIKey: "x"}
	first, err := c.Chat(ctx, llmclient.Request{
		Messages: user("hi"), Parameters: rawjson.Value(`{"return_token_ids":true,"logprobs":true,"temperature":0.5}`),
	})
	must(t, err)
	must(t, emit.Reward(ctx, 0.5))
	image := []llmclient.Part{{Type: "text", Text: "see"}, {Type: "image_url", ImageURL: &llmclient.ImageURL{URL: "http://example.com/i.png"}}}
	second, err := c.Chat(ctx, llmclient.Request{
		Messages: []llmclient.Message{{Role: "system", Content: "s"}, {Role: "user", Parts: image}}, Tools: add,
	})
	must(t, err)
	called := second.Choices[0].Message
	_, err = c.Chat(ctx, llmclient.Request{
		Messages: append(user("hi"), called, llmclient.Message{Role: "tool", ToolCallID: called.ToolCalls[0].ID, Content: "3"}), Tools: add,
	})
	must(t, err)
	must(t, emit.Operation(ctx, semconv.RewardOperation, func(ctx context.Context, op *emit.Op) error {
		text := ""
		r, err := c.Chat(ctx, llmclient.Request{Messages: user("grade"), OnText: func(s string) error { text += s; return nil }})
		if err == nil && (text != "answer 4" || r.Text() != text) {
			t.Errorf("streamed %q, and in all %q", text, r.Text())
		}
		return err
	}))
	_, err = c.Chat(ctx, llmclient.Request{Messages: user("use a tool"), Tools: add, OnText: func(string) error { return nil }})
	must(t, err)
	must(t, emit.Rewards(ctx, "b", map[string]float64{"a": 1, "b": 0.25}, emit.Links{semconv.GenAIResponseID: first.ID}))
}

// recorded are the calls among the spans of the reference's own tracer.
func recorded(t *testing.T) []queue.Span {
	t.Helper()
	f, err := os.Open("../../algorithm/adapter/testdata/recorded.jsonl.gz")
	must(t, err)
	defer f.Close()
	r, err := gzip.NewReader(f)
	must(t, err)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	lines.Scan()
	v, err := rawjson.Parse(lines.Bytes())
	must(t, err)
	var spans []queue.Span
	for s := range v.Get("spans").Elements() {
		spans = append(spans, queue.DecodeSpan(s))
	}
	return spans
}

func named(spans []queue.Span, name string) []queue.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s queue.Span) bool { return s.Name != name })
}

func TestCallsAreRecordedAsTheReferenceRecordsThem(t *testing.T) {
	url := upstream(t)
	spans := tracetest.Spans(t, func(ctx context.Context) { talk(t, ctx, url) })
	for _, name := range []string{semconv.ChatSpan, "tool_call.add"} {
		got, want := named(spans, name), named(recorded(t), name)
		if len(got) != len(want) {
			t.Fatalf("%d spans %s; the reference has %d", len(got), name, len(want))
		}
		for i := range want {
			for key, val := range want[i].Attributes.Members() {
				k, g := string(key), got[i].Attribute(string(key))
				switch {
				case strings.HasPrefix(k, "gen_ai.streaming."), strings.HasPrefix(k, "llm.openai.stream."), k == "agentops.span.kind":
					continue // times, and what is the tracer's own
				case k == semconv.LogprobsContent: // the two models' probabilities differ
					val = rawjson.Value(`"[{\"token\": \"a\", \"logprob\": -0.5}]"`)
				case k == semconv.GenAICompletion+".0.content": // the other model streams a space more
					val = rawjson.AppendString(nil, strings.TrimSpace(val.Text()))
				}
				if string(g) != string(val) {
					t.Errorf("%s %d: %s is %s; the reference has %s", name, i, key, g, val)
				}
			}
		}
	}
}

func TestCallsBecomeTriplets(t *testing.T) {
	url := upstream(t)
	spans := tracetest.Spans(t, func(ctx context.Context) { talk(t, ctx, url) })
	triplets, err := adapter.TracerTriplets{}.Adapt(spans)
	must(t, err)
	if len(triplets) != 4 { // the fifth call is a grader's
		t.Fatalf("%d triplets", len(triplets))
	}
	first := triplets[0]
	if diff := cmp.Diff([][]int64{{1, 2, 3, 4}, {7, 8, 9}}, [][]int64{first.Prompt.TokenIDs, first.Response.TokenIDs}); diff != "" {
		t.Error(diff)
	}
	if first.Reward == nil || *first.Reward != 0.5 || string(first.Response.Logprobs) != `[{"token":"a","logprob":-0.5}]` {
		t.Errorf("reward %v, logprobs %s", first.Reward, first.Response.Logprobs)
	}
	if urls := triplets[1].Prompt.ImageURLs; len(urls) != 1 || urls[0].Text() != "http://example.com/i.png" {
		t.Errorf("images %s", urls)
	}
}

func TestCallsBecomeConversations(t *testing.T) {
	url := upstream(t)
	spans := tracetest.Spans(t, func(ctx context.Context) { talk(t, ctx, url) })
	conversations, err := adapter.Messages{Parts: true}.Adapt(spans)
	must(t, err)
	var got []string
	for _, c := range conversations {
		got = append(got, string(c.AppendJSON(nil)))
	}
	tools := `"tools":[{"type":"function","function":{"name":"add","description":"adds","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}]}`
	call := func(n int) string {
		return fmt.Sprintf(`"tool_calls":[{"id":"call_%d","type":"function","function":{"name":"add","arguments":"{\"a\": 1}"}}]}`, n)
	}
	want := []string{
		`{"messages":[{"content":"hi","role":"user"},{"role":"assistant","content":"answer 1"}],"tools":null}`,
		`{"messages":[{"content":"s","role":"system"},{"content":[{"text":"see","type":"text"},{"image_url":{"url":"http://example.com/i.png"},"type":"image_url"}],"role":"user"},` +
			`{"role":"assistant","content":null,` + call(2) + `],` + tools,
		`{"messages":[{"content":"hi","role":"user"},{"role":"assistant","content":null,` + call(2) +
			`,{"content":"3","role":"tool","tool_call_id":"call_2"},{"role":"assistant","content":"answer 3"}],` + tools,
		`{"messages":[{"content":"grade","role":"user"},{"role":"assistant","content":"answer 4"}],"tools":null}`,
		`{"messages":[{"content":"use a tool","role":"user"},{"role":"assistant","content":null,` + call(5) + `],` + tools,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOutsideATaskNothingIsRecordedAndCallsWork(t *testing.T) {
	c := &llmclient.Client{BaseURL: upstream(t), Model: "m"}
	r, err := c.Chat(t.Context(), llmclient.Request{Messages: user("hi")})
	if err != nil || r.Text() != "answer 1" || r.Usage.TotalTokens != 7 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestFailuresAreRecordedAsWhatTheyAre(t *testing.T) {
	url := upstream(t)
	stop := errors.New("enough")
	for name, test := range map[string]struct {
		url, text string
		onText    func(string) error
		status    string // what the span's status begins with
		check     func(error) bool
	}{
		"an error of the server": {
			url: url, text: "please fail", status: "429 Too Many Requests: slow down",
			check: func(err error) bool { var e *llmclient.StatusError; return errors.As(err, &e) && e.Status == 429 },
		},
		"no server": {
			url: "http://127.0.0.1:1", text: "hi", status: "dial tcp", check: func(err error) bool { return err != nil },
		},
		"a stream that breaks": {
			url: url, text: "please break", status: "unexpected EOF", onText: func(string) error { return nil },
			check: func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
		},
		"a reader that leaves": {
			url: url, text: "hi", status: "", onText: func(string) error { return stop }, check: func(err error) bool { return errors.Is(err, stop) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			spans := tracetest.Spans(t, func(ctx context.Context) {
				c := &llmclient.Client{BaseURL: test.url, Model: "m"}
				_, err := c.Chat(ctx, llmclient.Request{Messages: user(test.text), OnText: test.onText})
				if !test.check(err) {
					t.Errorf("error %v", err)
				}
			})
			if len(spans) != 1 || spans[0].Attribute(semconv.GenAIPrompt+".0.content").Text() != test.text {
				t.Fatalf("spans %v", spans)
			}
			s := spans[0]
			if test.status != "" && (s.StatusCode() != "ERROR" || !strings.HasPrefix(s.Status.Get("description").Text(), test.status)) {
				t.Errorf("status %s", s.Status)
			}
			if test.text == "please break" && s.Attribute(semconv.GenAICompletion+".0.content") == nil {
				t.Error("what came before the break is not recorded")
			}
		})
	}
}

func TestTheTransportLeavesOtherClientsTheirAnswers(t *testing.T) {
	url := upstream(t)
	client := &http.Client{Transport: &llmclient.Transport{}}
	body := `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	plain, err := http.Post(upstream(t)+"/chat/completions", "application/json", strings.NewReader(body))
	must(t, err)
	want, _ := io.ReadAll(plain.Body)
	plain.Body.Close()
	spans := tracetest.Spans(t, func(ctx context.Context) {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/chat/completions", strings.NewReader(body))
		res, err := client.Do(req)
		must(t, err)
		got, err := io.ReadAll(res.Body)
		must(t, errors.Join(err, res.Body.Close()))
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Error(diff)
		}
		other, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/models", nil)
		res, err = client.Do(other)
		must(t, err)
		res.Body.Close()
	})
	if len(spans) != 1 || spans[0].StatusCode() != "OK" {
		t.Errorf("%d spans", len(spans))
	}
}

func TestMessagesReadBackAsTheyAreWritten(t *testing.T) {
	for _, m := range []llmclient.Message{
		{Role: "user", Content: "hi"}, {Role: "assistant", ToolCalls: []llmclient.ToolCall{{ID: "c", Type: "function"}}},
		{Role: "user", Parts: []llmclient.Part{{Type: "text", Text: "x"}}}, {Role: "tool", ToolCallID: "c", Content: "3"},
	} {
		text, err := json.Marshal(m)
		must(t, err)
		var back llmclient.Message
		must(t, json.Unmarshal(text, &back))
		if diff := cmp.Diff(m, back); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}
