package compat

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// startLLMProxy serves an LLM proxy over a store, before a model that echoes,
// until the test ends, and gives its URL.
func startLLMProxy(t *testing.T, storeURL string) string {
	t.Helper()
	upstream := httptest.NewServer(fakellm.New(nil))
	models, err := llmproxy.ParseModels(fmt.Appendf(nil, `[{"model_name": "m", "litellm_params": {"api_base": %q}}]`, upstream.URL))
	if err != nil {
		t.Fatal(err)
	}
	s := client.New(storeURL, client.Options{})
	proxy, err := llmproxy.New(s, llmproxy.Options{
		Models: models, Logprobs: true, SpanName: "openai.chat.completion", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(func() {
		front.Close()
		if err := proxy.Close(context.Background()); err != nil {
			t.Error(err)
		}
		upstream.Close()
		s.Close()
	})
	return front.URL
}
