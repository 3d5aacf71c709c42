package llmproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker/llmproxy"
)

// canned is an upstream that costs as little as one can: it sends a fixed chat,
// or its stream a chunk every interval.
type canned struct {
	chunks   int
	interval time.Duration
	open     atomic.Int64
	most     atomic.Int64
}

const (
	cannedChat  = `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"real","choices":[{"index":0,"message":{"role":"assistant","content":"a short answer of some words"},"finish_reason":"stop","token_ids":[1,2,3,4,5,6]}],"usage":{"prompt_tokens":40,"completion_tokens":6,"total_tokens":46},"prompt_token_ids":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]}`
	cannedChunk = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"real","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null,"token_ids":[7]}]}` + "\n\n"
	cannedEnd   = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"real","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
)

func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if c.chunks == 0 {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, cannedChat)
		return
	}
	n := c.open.Add(1)
	defer c.open.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	ticks := time.NewTicker(c.interval)
	defer ticks.Stop()
	for range c.chunks {
		if _, err := io.WriteString(w, cannedChunk); err != nil {
			return
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-ticks.C:
		case <-r.Context().Done():
			return
		}
	}
	_, _ = io.WriteString(w, cannedEnd)
}

// benchRig is a proxy over a store, in the process or over HTTP, between b and an
// upstream.
func benchRig(b *testing.B, upstream http.Handler, overHTTP bool) (direct, proxied string, dropped *atomic.Int64) {
	b.Helper()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	var spans llmproxy.Store = s
	if overHTTP {
		api := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: quiet}))
		c := client.New(api.URL, client.Options{})
		spans = c
		b.Cleanup(func() {
			c.Close()
			api.Close()
		})
	}
	up := httptest.NewServer(upstream)
	models, err := llmproxy.ParseModels(fmt.Appendf(nil, `[{"model_name":"m","litellm_params":{"model":"hosted_vllm/real","api_base":%q}}]`, up.URL+"/v1"))
	if err != nil {
		b.Fatal(err)
	}
	dropped = new(atomic.Int64)
	p, err := llmproxy.New(spans, llmproxy.Options{Models: models, Logger: quiet, Dropped: func(n int) { dropped.Add(int64(n)) }})
	if err != nil {
		b.Fatal(err)
	}
	front := httptest.NewServer(p)
	started, err := s.Start(b.Context(), queue.Request{Input: rawjson.Value("1")}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		front.Close()
		if err := p.Close(context.Background()); err != nil {
			b.Error(err)
		}
		up.Close()
		_ = s.Close(context.Background()) // it is of no more use
	})
	return up.URL, front.URL + "/rollout/" + started.RolloutID + "/attempt/" + started.Attempt.AttemptID, dropped
}

const benchBody = `{"model":"m","messages":[{"role":"system","content":"You are a careful assistant who answers in few words."},{"role":"user","content":"What is the capital of France, and how many people live there?"}],"temperature":0.7,"max_tokens":64`

// BenchmarkCall compares a call with one that goes through the proxy, by turns.
// The metrics are microseconds; added-p50 is what the proxy adds.
func BenchmarkCall(b *testing.B) {
	b.Run("store=here", func(b *testing.B) { benchmarkCall(b, false) })
	b.Run("store=http", func(b *testing.B) { benchmarkCall(b, true) })
}

func benchmarkCall(b *testing.B, overHTTP bool) {
	direct, proxied, _ := benchRig(b, &canned{}, overHTTP)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	call := func(base string) time.Duration {
		began := time.Now()
		resp, err := client.Post(base+"/v1/chat/completions", "application/json", bytes.NewReader([]byte(benchBody+"}")))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatalf("status %d", resp.StatusCode)
		}
		return time.Since(began)
	}
	for range 100 {
		call(direct)
		call(proxied)
	}
	var without, with []time.Duration
	for b.Loop() {
		for range 200 { // so that one iteration has quantiles
			without = append(without, call(direct))
			with = append(with, call(proxied))
		}
	}
	report := func(name string, d time.Duration) { b.ReportMetric(float64(d.Nanoseconds())/1e3, name) }
	report("direct-p50-µs", quantile(without, 0.5))
	report("direct-p99-µs", quantile(without, 0.99))
	report("proxy-p50-µs", quantile(with, 0.5))
	report("proxy-p99-µs", quantile(with, 0.99))
	report("added-p50-µs", quantile(with, 0.5)-quantile(without, 0.5))
}

func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

// BenchmarkStreams holds 2,000 streams open at a time, directly and through the
// proxy, each 8 chunks half a second apart. It reports how long the chunks of
// a stream came apart, and what came of the spans.
func BenchmarkStreams(b *testing.B) {
	const streams = 2000
	up := &canned{chunks: 8, interval: 500 * time.Millisecond}
	direct, proxied, dropped := benchRig(b, up, false)
	for _, way := range []struct{ name, base string }{{"direct", direct}, {"proxy", proxied}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				up.most.Store(0)
				client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: streams}}
				var mu sync.Mutex
				var gaps []time.Duration
				var failed atomic.Int64
				var running sync.WaitGroup
				for range streams {
					running.Go(func() {
						own, err := readStream(client, way.base)
						if err != nil {
							failed.Add(1)
							return
						}
						mu.Lock()
						gaps = append(gaps, own...)
						mu.Unlock()
					})
				}
				running.Wait()
				client.CloseIdleConnections()
				if n := failed.Load(); n > 0 {
					b.Fatalf("%d of %d streams failed", n, streams)
				}
				b.ReportMetric(float64(up.most.Load()), "streams-at-once")
				b.ReportMetric(quantile(gaps, 0.5).Seconds()*1e3, "gap-p50-ms")
				b.ReportMetric(quantile(gaps, 0.99).Seconds()*1e3, "gap-p99-ms")
				b.ReportMetric(float64(dropped.Load()), "spans-dropped")
			}
		})
	}
}

// readStream gives the times between the chunks of one stream.
func readStream(client *http.Client, base string) ([]time.Duration, error) {
	resp, err := client.Post(base+"/v1/chat/completions", "application/json", bytes.NewReader([]byte(benchBody+`,"stream":true}`)))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var gaps []time.Duration
	var last time.Time
	lines := bufio.NewScanner(resp.Body)
	done := false
	for lines.Scan() {
		if line := lines.Bytes(); len(line) > 0 {
			if now := time.Now(); !last.IsZero() {
				gaps = append(gaps, now.Sub(last))
				last = now
			} else {
				last = now
			}
			done = bytes.Contains(line, []byte("[DONE]"))
		}
	}
	if !done {
		return nil, fmt.Errorf("the stream has no end: %w", lines.Err())
	}
	return gaps, nil
}
