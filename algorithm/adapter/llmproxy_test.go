package adapter_test

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// What aglq's own proxy records is read by every adapter.
func TestSpansOfOurProxy(t *testing.T) {
	s := filled(t, 0)
	upstream := httptest.NewServer(fakellm.New(fakellm.Echo))
	defer upstream.Close()
	models, err := llmproxy.ParseModels([]byte(fmt.Sprintf(
		`[{"model_name":"m","litellm_params":{"model":"hosted_vllm/real","api_base":%q}}]`, upstream.URL+"/v1")))
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := llmproxy.New(s.Store, llmproxy.Options{Models: models, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- proxy.Serve(ctx, l) }()

	r, err := s.Start(t.Context(), queue.Request{Input: rawjson.Null}, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &llmclient.Client{
		BaseURL: fmt.Sprintf("http://%s/rollout/%s/attempt/%s/v1", l.Addr(), r.RolloutID, r.Attempt.AttemptID), Model: "m",
		Parameters: rawjson.Value(`{"logprobs":true}`),
	}
	for i, onText := range []func(string) error{nil, func(string) error { return nil }} {
		text := fmt.Sprintf("call number %d", i)
		answer, err := client.Chat(t.Context(), llmclient.Request{Messages: []llmclient.Message{{Role: "user", Content: text}}, OnText: onText})
		if err != nil || answer.Text() != text {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := proxy.Close(context.Background()); err != nil { // it sends what it has
		t.Error(err)
	}
	reward, err := emit.RewardSpan([]semconv.Reward{{Name: "primary", Value: 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	reward.RolloutID, reward.AttemptID, reward.SpanID, reward.TraceID = r.RolloutID, r.Attempt.AttemptID, "r", "t"
	reward.SequenceID = queue.NumberOnArrival
	now := r.StartTime
	reward.StartTime, reward.EndTime = &now, &now // another machine's clock
	reward.FillIn()
	if _, err := s.AddSpans(t.Context(), []queue.Span{reward}); err != nil {
		t.Fatal(err)
	}
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: r.RolloutID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if err != nil {
		t.Fatal(err)
	}

	for name, a := range map[string]adapter.Adapter[adapter.Triplet]{
		"proxy":  adapter.ProxyTriplets{},
		"tracer": adapter.TracerTriplets{LLMCall: regexp.MustCompile("litellm_request"), Match: adapter.Sequence},
	} {
		got, err := a.Adapt(page.Items)
		if err != nil || len(got) != 2 {
			t.Fatalf("%s: %d triplets, %v", name, len(got), err)
		}
		for i, item := range got {
			text := fmt.Sprintf("call number %d", i)
			want := fmt.Sprintf(`[{"role":"user","content":%q}]`, text)
			if diff := cmp.Diff(want, string(item.Prompt.RawContent)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			n := 0
			for range item.Response.Logprobs.Elements() {
				n++
			}
			if len(item.Prompt.TokenIDs) == 0 || len(item.Response.TokenIDs) == 0 || n != len(item.Response.TokenIDs) {
				t.Errorf("%s: %d has %d and %d token ids and %d logprobs", name, i, len(item.Prompt.TokenIDs), len(item.Response.TokenIDs), n)
			}
		}
		if got[0].Reward != nil || got[1].Reward == nil || *got[1].Reward != 0.5 {
			t.Errorf("%s: the reward is not with the last call", name)
		}
	}
	conversations, err := adapter.Messages{}.Adapt(page.Items)
	if err != nil || len(conversations) != 2 {
		t.Fatalf("%d conversations, %v", len(conversations), err)
	}
	want := `{"messages":[{"content":"call number 1","role":"user"},{"role":"assistant","content":"call number 1"}],"tools":null}`
	if diff := cmp.Diff(want, string(conversations[1].AppendJSON(nil))); diff != "" {
		t.Error(diff)
	}
}
