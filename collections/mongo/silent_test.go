package mongo_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	monitor "go.mongodb.org/mongo-driver/v2/event"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// tap is a proxy before mongod that can go silent, as a firewall does that forgets
// connections.
type tap struct {
	to      string
	silent  atomic.Bool // on all connections
	getMore atomic.Bool // on those that carry a getMore from now on

	mu    sync.Mutex
	conns []net.Conn
	pipes sync.WaitGroup
}

func (p *tap) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.pipes.Go(func() { p.forward(server, client) })
		p.pipes.Go(func() {
			_, _ = io.Copy(client, server)
			client.Close()
		})
	}
}

// forward passes on what the client sends, until it goes silent.
func (p *tap) forward(server, client net.Conn) {
	defer server.Close()
	silent := false
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		silent = silent || p.getMore.Load() && strings.Contains(string(buf[:n]), "getMore")
		if !silent && !p.silent.Load() {
			_, _ = server.Write(buf[:n])
		}
	}
}

// cut ends all connections.
func (p *tap) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

// tapped opens a backend through a tap.
func tapped(t *testing.T, o mongo.Options) (*mongo.Backend, *tap) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(mongotest.URI(t), "mongodb://"), "/")
	p := &tap{to: host}
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(l) })
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
		p.cut()
		p.pipes.Wait()
	})
	o.URI, o.Logger = "mongodb://"+l.Addr().String()+"/?directConnection=true", slog.New(slog.DiscardHandler)
	b, err := mongo.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

// within fails when call, which gets a context of a second, goes on far beyond it.
func within(t *testing.T, p *tap, call func(ctx context.Context) error) {
	t.Helper()
	const far = 30 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call(ctx) }()
	select {
	case err := <-done:
		t.Logf("ended with %v", err)
	case <-time.After(far):
		t.Errorf("a call with a second to do so has not ended after %v", far)
		p.cut()
		<-done
	}
}

// TestSilentServer has calls end though nothing answers any more.
func TestSilentServer(t *testing.T) {
	t.Run("close", func(t *testing.T) {
		t.Parallel()
		b, p := tapped(t, mongo.Options{Database: mongotest.Database(t)})
		p.silent.Store(true)
		within(t, p, b.Close)
	})
	t.Run("list", func(t *testing.T) {
		t.Parallel()
		b, p := tapped(t, mongo.Options{Database: mongotest.Database(t)})
		defer b.Close(context.Background())
		attemptWith(t, b, queue.AttemptRef{RolloutID: "ro-1", AttemptID: "at-1"}, 40, 1<<20)
		p.getMore.Store(true)
		within(t, p, func(ctx context.Context) error {
			_, err := b.QuerySpans(ctx, queue.SpanQuery{RolloutID: "ro-1", Paging: queue.All})
			p.cut() // so that Close need not wait
			return err
		})
	})
	t.Run("transaction", func(t *testing.T) {
		t.Parallel()
		var p *tap
		watch := &monitor.CommandMonitor{Started: func(_ context.Context, e *monitor.CommandStartedEvent) {
			if name, _ := e.Command.Lookup("insert").StringValueOK(); name == "spans" {
				p.silent.Store(true)
			}
		}}
		var b *mongo.Backend
		b, p = tapped(t, mongo.Options{Database: mongotest.Database(t), Commands: watch})
		within(t, p, func(ctx context.Context) error {
			_, err := b.InsertBigSpan(ctx, queue.Span{
				RolloutID: "ro-1", AttemptID: "at-1", SpanID: "1", Attributes: []byte(`"` + strings.Repeat("x", 100_000) + `"`),
			})
			return err
		})
		within(t, p, b.Close)
	})
}

// TestSilentChangeStream loses the one connection of the change stream without a
// reset: the stream is opened anew.
func TestSilentChangeStream(t *testing.T) {
	t.Parallel()
	database := mongotest.Database(t)
	other, err := mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	b, p := tapped(t, mongo.Options{Database: database})
	defer b.Close(context.Background())
	news := make(chan collections.News, 100)
	defer b.Watch(func(n collections.News) { news <- n })()
	enqueue := func(id string) {
		err := other.Atomic(t.Context(), func(tx collections.Tx) error {
			return tx.InsertRollouts([]*queue.Record{queue.NewRecord(id, queue.Request{}, true, 1)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	enqueue("r0")
	<-news
	p.getMore.Store(true)
	enqueue("r1") // ends a getMore that was under way
	select {
	case <-news:
	case <-time.After(2 * time.Second): // none was
	}
	enqueue("r2")
	select {
	case <-news:
	case <-time.After(time.Minute):
		t.Errorf("nothing is heard any more, though the server answers: ping %v", b.Ping(t.Context()))
	}
}
