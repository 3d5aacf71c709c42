package httpapi_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

const protobuf = "application/x-protobuf"

func TestPartialSuccess(t *testing.T) {
	b := newBench(t, 0)
	good, _ := b.otlpBody(t)
	bad := bytes.ReplaceAll(good, []byte(b.rollout), []byte("ro-none"+strings.Repeat("x", len(b.rollout)-7)))
	both := append(bytes.Clone(good), bad...) // repeated fields of one message
	reason := "Rollout ro-none" + strings.Repeat("x", len(b.rollout)-7) + " not found"
	inner := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8)
	inner = protowire.AppendString(protowire.AppendTag(inner, 2, protowire.BytesType), reason)
	want := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
	w := send(t, b, "POST", "/v1/traces", string(both), "Content-Type", protobuf)
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), want) || w.Header().Get("Content-Type") != protobuf {
		t.Errorf("%d %v\ngot  %q\nwant %q", w.Code, w.Header(), w.Body, want)
	}
	if w := send(t, b, "POST", "/v1/traces", string(good), "Content-Type", protobuf); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("spans that are stored already: %d %q", w.Code, w.Body)
	}
	inJSON := `{"resourceSpans":[{"resource":{"attributes":[{"key":"agentlightning.rollout_id","value":{"stringValue":"ro-none"}},` +
		`{"key":"agentlightning.attempt_id","value":{"stringValue":"at"}}]},"scopeSpans":[{"spans":[{"name":"n"}]}]}]}`
	w = send(t, b, "POST", "/v1/traces", inJSON, "Content-Type", "application/json")
	if got := w.Body.String(); w.Code != 200 || got != `{"partialSuccess":{"rejectedSpans":"1","errorMessage":"Rollout ro-none not found"}}` {
		t.Errorf("%d %s", w.Code, got)
	}
	page, err := b.store.Spans(context.Background(), queue.SpanQuery{RolloutID: b.rollout, Paging: queue.All})
	if err != nil || page.Total != 8 {
		t.Errorf("%d spans stored, %v; want 8", page.Total, err)
	}
}

// packed compresses text with a writer of the standard library.
func packed(t *testing.T, text []byte, open func(io.Writer) io.WriteCloser) string {
	t.Helper()
	var out bytes.Buffer
	w := open(&out)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCompressedBodies(t *testing.T) {
	asGzip := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	asZlib := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	asFlate := func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 9); return f } // the level is a valid one
	const limit = 1 << 20
	b := newBench(t, 0)
	h := httpapi.New(b.store, httpapi.Options{MaxBody: limit, Logger: slog.New(slog.DiscardHandler)})
	good, _ := b.otlpBody(t)
	bomb := make([]byte, 64*limit)
	whole := packed(t, good, asGzip)
	flipped := []byte(whole)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for _, tt := range []struct {
		name, encoding, body string
		status               int
	}{
		{"gzip", "gzip", whole, 200},
		{"zlib", "deflate", packed(t, good, asZlib), 200},
		{"bare deflate", "deflate", packed(t, good, asFlate), 200},
		{"gzip bomb", "gzip", packed(t, bomb, asGzip), 413},
		{"zlib bomb", "deflate", packed(t, bomb, asZlib), 413},
		{"bare deflate bomb", "deflate", packed(t, bomb, asFlate), 413},
		{"cut gzip", "gzip", whole[:len(whole)/2], 400},
		{"cut gzip header", "gzip", whole[:5], 400},
		{"wrong checksum", "gzip", string(flipped), 400},
		{"cut zlib", "deflate", packed(t, good, asZlib)[:40], 400},
		{"no gzip", "gzip", string(good), 400},
		{"no deflate", "deflate", "\xff\xff\xff", 400},
		{"nothing", "gzip", "", 200},
	} {
		w := send(t, h, "POST", "/v1/traces", tt.body, "Content-Type", protobuf, "Content-Encoding", tt.encoding)
		if w.Code != tt.status {
			t.Errorf("%s: %d %q, want %d", tt.name, w.Code, w.Body, tt.status)
		}
	}
}

// TestLargestBody enqueues as much as a request may hold, and a byte more.
func TestLargestBody(t *testing.T) {
	const frame = `{"rollouts":[{"input":""}]}`
	body := `{"rollouts":[{"input":"` + strings.Repeat("x", httpapi.DefaultMaxBody-len(frame)) + `"}]}`
	onMongo := func(t *testing.T) *store.Store {
		quiet := slog.New(slog.DiscardHandler)
		backend, err := mongo.Open(context.Background(), mongo.Options{
			URI: mongotest.URI(t), Database: "aglq-large", Partition: queue.RandomID("p-"), Logger: quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		s := store.New(backend, store.Options{Logger: quiet})
		t.Cleanup(func() {
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	for _, tt := range []struct {
		name   string
		store  func(t *testing.T) *store.Store
		status int
		stored int64
	}{
		{"memory", func(t *testing.T) *store.Store { return newStore(t) }, 201, 1},
		{"mongo", onMongo, 201, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.store(t)
			h := httpapi.New(s, httpapi.Options{Logger: slog.New(slog.DiscardHandler)})
			w := send(t, h, "POST", "/v1/agl/queues/rollouts/enqueue", body)
			if w.Code != tt.status {
				t.Errorf("%d %.200s", w.Code, w.Body)
			}
			if w := send(t, h, "POST", "/v1/agl/queues/rollouts/enqueue", body+" "); w.Code != 413 {
				t.Errorf("a byte more: %d %.200s", w.Code, w.Body)
			}
			if st, err := s.Statistics(context.Background()); err != nil || st.Rollouts != tt.stored {
				t.Errorf("%d rollouts stored, %v; want %d", st.Rollouts, err, tt.stored)
			}
		})
	}
}

// TestNonFiniteTimes sends what is no time where a time belongs.
func TestNonFiniteTimes(t *testing.T) {
	b := newBench(t, 0)
	path := "/v1/agl/rollouts/" + b.rollout + "/attempts/latest"
	before := send(t, b, "GET", path, "").Body.String()
	for _, body := range []string{`{"last_heartbeat_time":NaN}`, `{"last_heartbeat_time":-Infinity}`, `{"last_heartbeat_time":1e999}`} {
		if w := send(t, b, "POST", strings.TrimSuffix(path, "latest")+b.attempt, body); w.Code != 200 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		if got := send(t, b, "GET", path, "").Body.String(); !strings.Contains(got, `"last_heartbeat_time":null`) {
			t.Errorf("%s changed the attempt from %s\nto %s", body, before, got)
		}
	}
}
