package llmproxy_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker/llmproxy"
	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// stubbornStore fails in the ways that tests ask for.
type stubbornStore struct {
	llmproxy.Store
	addSpans func(context.Context, []queue.Span) (queue.SpansAdded, error)
	next     func(context.Context) (int64, error)
}

func (s *stubbornStore) AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	return s.addSpans(ctx, spans)
}

func (s *stubbornStore) NextSequence(ctx context.Context, _ string, n int) (int64, error) {
	if s.next == nil {
		return 1, nil
	}
	return s.next(ctx)
}

// keeper is a store that keeps the numbers of spans.
type keeper struct {
	stubbornStore
	mu   sync.Mutex
	kept []int64
}

func newKeeper(next func(context.Context) (int64, error)) *keeper {
	k := &keeper{}
	k.next = next
	k.addSpans = func(_ context.Context, spans []queue.Span) (queue.SpansAdded, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, span := range spans {
			k.kept = append(k.kept, span.SequenceID)
		}
		return queue.SpansAdded{Stored: spans}, nil
	}
	return k
}

func (k *keeper) numbers() []int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept
}

// proxyOver serves a proxy over a store until the test ends, and gives its URL
// with the path of an attempt.
func proxyOver(t *testing.T, s llmproxy.Store, o llmproxy.Options) (*llmproxy.Proxy, *rig) {
	t.Helper()
	_, base := fake(t, nil)
	o.Models, o.Logger = entries(t, table(base)), cmp.Or(o.Logger, quiet)
	p, err := llmproxy.New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l) }()
	r := &rig{t: t, proxy: p, url: "http://" + l.Addr().String(), ref: queue.AttemptRef{RolloutID: "ro-1", AttemptID: "at-1"}, client: newClient(t)}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		<-served
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Close(gone) // these stores may never take the last spans
	})
	return p, r
}

// TestSpansNeverBlock makes more calls than the queue has room for while the
// store hangs: all are answered, and what does not fit is counted.
func TestSpansNeverBlock(t *testing.T) {
	var dropped atomic.Int64
	hung := make(chan struct{})
	s := &stubbornStore{
		addSpans: func(ctx context.Context, _ []queue.Span) (queue.SpansAdded, error) {
			select {
			case <-hung:
			case <-ctx.Done():
			}
			return queue.SpansAdded{}, ctx.Err()
		},
		next: func(ctx context.Context) (int64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		},
	}
	defer close(hung)
	said := make(logged, 100)
	_, r := proxyOver(t, s, llmproxy.Options{
		PendingSpans: 10, Dropped: func(n int) { dropped.Add(int64(n)) }, Logger: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if got := r.call("/v1/chat/completions", hello+"}"); got.status != 200 {
				t.Errorf("status %d: %s", got.status, got.text)
			}
		})
	}
	calls.Wait()
	// One batch may be on its way, of what had come till then; ten more wait.
	if n := dropped.Load(); n == 0 || n%2 != 0 || n > 40-10 {
		t.Errorf("%d spans dropped", n)
	}
	if line := <-said; !strings.Contains(line, `cause="the store does not keep up"`) || strings.Contains(line, "error=") {
		t.Errorf("said %s", line)
	}
}

// logged takes what a logger writes, as long as there is room.
type logged chan string

func (l logged) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// TestSpansOutlastTheStore are kept while the store is away, and only what it
// refuses is given up.
func TestSpansOutlastTheStore(t *testing.T) {
	var mu sync.Mutex
	var stored []string
	var dropped, failures atomic.Int64
	s := &stubbornStore{addSpans: func(_ context.Context, spans []queue.Span) (queue.SpansAdded, error) {
		if failures.Add(1) <= 2 {
			return queue.SpansAdded{}, queue.Errorf(queue.Unavailable, "away")
		}
		for _, span := range spans {
			if span.Attribute("llm.user").Text() == "bad" {
				return queue.SpansAdded{}, queue.Errorf(queue.TooLarge, "too large")
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, span := range spans {
			stored = append(stored, span.Name)
		}
		return queue.SpansAdded{Stored: spans}, nil
	}}
	p, r := proxyOver(t, s, llmproxy.Options{Dropped: func(n int) { dropped.Add(int64(n)) }})
	for _, user := range []string{"a", "bad", "c"} {
		if got := r.call("/v1/chat/completions", hello+fmt.Sprintf(`,"user":%q}`, user)); got.status != 200 {
			t.Fatalf("status %d: %s", got.status, got.text)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(stored) != 5 || dropped.Load() != 1 {
		t.Errorf("stored %v, dropped %d", stored, dropped.Load())
	}
}

// TestSickNumbers goes on without numbers.
func TestSickNumbers(t *testing.T) {
	s := newKeeper(func(context.Context) (int64, error) { return 0, queue.Errorf(queue.Unavailable, "away") })
	p, r := proxyOver(t, s, llmproxy.Options{})
	if got := r.call("/v1/chat/completions", hello+"}"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.text)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.numbers(); len(got) != 2 || got[0] != queue.NumberOnArrival || got[1] != queue.NumberOnArrival {
		t.Errorf("numbers %v", got)
	}
}

func TestSequenceBlock(t *testing.T) {
	r := newRig(t, nil, func(o *llmproxy.Options) { o.SequenceBlock = 4 })
	for range 5 {
		r.call("/v1/chat/completions", hello+"}")
	}
	var got []int64
	for _, s := range r.spans() {
		got = append(got, s.SequenceID)
	}
	if fmt.Sprint(got) != "[1 1 2 2 3 3 4 4 5 5]" {
		t.Errorf("numbers %v", got)
	}
	if next, err := r.store.NextSequence(t.Context(), r.ref.RolloutID, 1); err != nil || next != 9 {
		t.Errorf("the store's next number is %d, %v; two blocks of four were fetched", next, err)
	}
}

// TestShutdown lets a stream end that does so in time, and cuts one off that
// does not, which is recorded.
func TestShutdown(t *testing.T) {
	for _, c := range []struct {
		name    string
		drain   time.Duration
		outcome string
	}{{"drained", time.Minute, "ok"}, {"cut off", 20 * time.Millisecond, "shutdown"}} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate()
			s := newStore(t)
			started, err := s.Start(t.Context(), queue.Request{Input: mustParse(t, "1")}, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, base := fake(t, say(fakellm.Answer{Text: "one two three", Wait: func(ctx context.Context, piece int) error {
				if piece < 3 {
					return nil
				}
				return g.wait(ctx, piece)
			}}))
			p, err := llmproxy.New(s, llmproxy.Options{Models: entries(t, table(base)), Logger: quiet, DrainTimeout: c.drain})
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- p.Serve(ctx, l) }()
			r := &rig{
				t: t, store: s, proxy: p, url: "http://" + l.Addr().String(), client: newClient(t),
				ref: queue.AttemptRef{RolloutID: started.RolloutID, AttemptID: started.Attempt.AttemptID},
			}
			done := make(chan answer, 1)
			go func() { done <- r.call("/v1/chat/completions", hello+`,"stream":true}`) }()
			<-g.reached
			stop()
			if c.outcome == "ok" {
				eventually(t, "the port to close", func() bool {
					conn, err := net.Dial("tcp", l.Addr().String())
					if err == nil {
						conn.Close()
					}
					return err != nil
				})
				g.open()
			}
			got := <-done
			g.open()
			if (got.err == nil) != (c.outcome == "ok") {
				t.Errorf("status %d, %v: %s", got.status, got.err, got.text)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			conversation, _ := r.twoSpans()
			wantAttributes(t, conversation, map[string]string{"aglq.llm.outcome": `"` + c.outcome + `"`})
		})
	}
}

// TestWithoutStore forwards, and files nothing.
func TestWithoutStore(t *testing.T) {
	_, r := proxyOver(t, nil, llmproxy.Options{})
	if got := r.call("/v1/chat/completions", hello+"}"); got.status != 200 {
		t.Errorf("status %d: %s", got.status, got.text)
	}
}
