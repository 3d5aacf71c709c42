package llmproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// needFiles wants room for the connections of a test: each stream has one to the
// proxy and one to the upstream, and both ends are in this process.
func needFiles(t *testing.T, streams int) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(4*streams + 500); limit.Cur < need {
		t.Fatalf("this process may open %d files and needs %d: raise the limit, as by ulimit -n %d", limit.Cur, need, need)
	}
}

// crowd opens streams through the proxy, all on behalf of the rig's attempt.
type crowd struct {
	rig     *rig
	client  *http.Client
	body    string
	running sync.WaitGroup
	first   atomic.Int64 // streams whose first event has come
	whole   atomic.Int64 // streams that came to their end
	failed  atomic.Int64
}

func newCrowd(r *rig, model string) *crowd {
	r.t.Helper()
	needFiles(r.t, manyStreams)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: manyStreams}}
	r.t.Cleanup(client.CloseIdleConnections)
	path := "/v1/chat/completions"
	body := fmt.Sprintf(`{"model":%q,"max_tokens":9,"messages":[{"role":"user","content":"hello"}],"stream":true}`, model)
	return &crowd{rig: r, client: client, body: path + " " + body}
}

// open starts a stream that is read to its end, or until ctx ends.
func (c *crowd) open(ctx context.Context) {
	c.running.Go(func() {
		path, body, _ := strings.Cut(c.body, " ")
		req := c.rig.request(ctx, "POST", c.rig.prefix()+path, body)
		resp, err := c.client.Do(req)
		if err != nil {
			c.failed.Add(1)
			return
		}
		defer resp.Body.Close()
		events, done := 0, false
		for lines := bufio.NewReader(resp.Body); ; {
			line, err := lines.ReadString('\n')
			if strings.HasPrefix(line, "data: ") {
				events++
				if events == 1 {
					c.first.Add(1)
				}
				done = done || strings.Contains(line, "[DONE]")
			}
			if err != nil {
				if err == io.EOF && done {
					c.whole.Add(1)
				}
				return
			}
		}
	})
}

// TestManyStreams holds streams open all at a time, forwarded and translated:
// each has heard its first word before any gets its second one. All must come to
// their ends, and be filed.
func TestManyStreams(t *testing.T) {
	for model, second := range map[string]int{"m": 3, "claude": 5} { // the piece with the second word
		t.Run(model, func(t *testing.T) {
			pass := make(chan struct{})
			var atOnce atomic.Int64
			r := newRig(t, say(fakellm.Answer{Text: "one two three", Wait: func(ctx context.Context, piece int) error {
				if piece != second {
					return nil
				}
				atOnce.Add(1)
				select {
				case <-pass:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}), nil)
			c := newCrowd(r, model)
			for range manyStreams {
				c.open(t.Context())
			}
			eventually(t, "all streams to be open", func() bool { return c.first.Load() == manyStreams && atOnce.Load() == manyStreams })
			close(pass)
			c.running.Wait()
			if c.whole.Load() != manyStreams {
				t.Errorf("%d of %d streams came to their end, %d failed", c.whole.Load(), manyStreams, c.failed.Load())
			}
			eventually(t, "the calls to be filed as good", func() bool {
				got := r.outcomes() // the client has its answer before the call is filed
				return got["ok"] == manyStreams && len(got) == 1
			})
		})
	}
}

// TestManyClientsVanish has all clients go away in the middle of their streams.
// The upstream's work must end, and each call be filed as what it was.
func TestManyClientsVanish(t *testing.T) {
	var working, observed atomic.Int64
	r := newRig(t, say(fakellm.Answer{Text: "one two three", Wait: func(ctx context.Context, piece int) error {
		if piece != 3 {
			return nil
		}
		working.Add(1)
		defer working.Add(-1)
		<-ctx.Done()
		return ctx.Err()
	}}), func(o *llmproxy.Options) {
		o.Observe = func(seen llmproxy.Observation) {
			if seen.Status == 499 && seen.Outcome == llmproxy.OutcomeCancelled {
				observed.Add(1)
			}
		}
	})
	c := newCrowd(r, "m")
	ctx, vanish := context.WithCancel(t.Context())
	for range manyStreams {
		c.open(ctx)
	}
	eventually(t, "all streams to be open", func() bool { return c.first.Load() == manyStreams && working.Load() == manyStreams })
	vanish()
	c.running.Wait()
	eventually(t, "the upstream to be left alone", func() bool { return working.Load() == 0 && observed.Load() == manyStreams })
	eventually(t, "the calls to be filed as cancelled", func() bool {
		got := r.outcomes() // calls are observed just before they are filed
		return got["cancelled"] == manyStreams && len(got) == 1
	})
	if got := r.call("/v1/chat/completions", hello+"}"); got.status != 200 {
		t.Errorf("afterwards: status %d: %s", got.status, got.text)
	}
}

// outcomes counts the calls of the rig's attempt by how they ended.
func (r *rig) outcomes() map[string]int {
	r.t.Helper()
	out := map[string]int{}
	for _, s := range r.spans() {
		if s.Name != "raw_gen_ai_request" {
			out[s.Attribute("aglq.llm.outcome").Text()]++
		}
	}
	return out
}
