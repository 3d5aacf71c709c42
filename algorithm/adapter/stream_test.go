package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		os.Exit(code)
	}))
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// counting is a store that counts what is asked of it.
type counting struct {
	*store.Store
	asked  atomic.Int64
	failAt int64 // the request for spans that fails
}

func (c *counting) Spans(ctx context.Context, q queue.SpanQuery) (queue.Page[queue.Span], error) {
	if c.asked.Add(1) == c.failAt {
		return queue.Page[queue.Span]{}, queue.Errorf(queue.Unavailable, "away")
	}
	return c.Store.Spans(ctx, q)
}

// filled makes a store of n rollouts; the i-th has a call with the token i, every
// tenth none, and the seventh a malformed reward.
func filled(t *testing.T, n int) *counting {
	t.Helper()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for i := range n {
		r, err := s.Start(t.Context(), queue.Request{Input: rawjson.Null}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			continue
		}
		at := float64(i)
		attributes := fmt.Sprintf(`{"prompt_token_ids":[%d]}`, i)
		if i == 7 {
			attributes = `{"agentlightning.reward.0.name":"p"}`
		}
		span := queue.Span{
			RolloutID: r.RolloutID, AttemptID: r.Attempt.AttemptID, SequenceID: queue.NumberOnArrival, TraceID: "t", SpanID: "s",
			Name: "openai.chat.completion", StartTime: &at, EndTime: &at, Attributes: rawjson.Value(attributes),
		}
		span.FillIn()
		if _, err := s.AddSpans(t.Context(), []queue.Span{span}); err != nil {
			t.Fatal(err)
		}
	}
	return &counting{Store: s}
}

func triplets(t *testing.T, src adapter.Source) iter.Seq2[adapter.Adapted[adapter.Triplet], error] {
	traces := src.Traces(t.Context(), src.Rollouts(t.Context(), queue.RolloutQuery{}))
	return adapter.Stream[adapter.Triplet](adapter.TracerTriplets{}, traces)
}

func TestStreamGoesThroughAllRolloutsInOrder(t *testing.T) {
	s := filled(t, 95)
	i := 0
	for got, err := range triplets(t, adapter.Source{Store: s, Page: 20, Ahead: 4}) {
		if got.Rollout.RolloutID == "" {
			t.Fatalf("%d has no rollout: %v", i, err)
		}
		switch {
		case i == 7:
			if queue.KindOf(err) != queue.Invalid || got.Items != nil {
				t.Errorf("a malformed trace gives %v, %v", got.Items, err)
			}
		case err != nil:
			t.Fatal(err)
		case i%10 == 9:
			if len(got.Items) != 0 {
				t.Errorf("%d has no spans, and gives %v", i, got.Items)
			}
		case len(got.Items) != 1 || got.Items[0].Prompt.TokenIDs[0] != int64(i):
			t.Errorf("%d gives %v", i, got.Items)
		}
		i++
		if ahead := s.asked.Load() - int64(i); ahead > 4 {
			t.Fatalf("%d rollouts are read ahead", ahead)
		}
	}
	if i != 95 {
		t.Errorf("%d rollouts", i)
	}
}

func TestStreamMayBeLeft(t *testing.T) {
	s := filled(t, 20)
	for range triplets(t, adapter.Source{Store: s}) {
		break
	}
	if n := s.asked.Load(); n > 9 {
		t.Errorf("%d rollouts were read for one", n)
	}
}

func TestStreamEndsWithAnErrorOfTheStore(t *testing.T) {
	s := filled(t, 20)
	s.failAt = 3
	n := 0
	var last error
	for _, err := range triplets(t, adapter.Source{Store: s, Ahead: 1}) {
		n++
		last = err
	}
	if n != 3 || queue.KindOf(last) != queue.Unavailable {
		t.Errorf("%d pairs, the last with %v", n, last)
	}
}

func TestStreamEndsWithItsContext(t *testing.T) {
	s := filled(t, 20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := adapter.Source{Store: s, Ahead: 1}
	n := 0
	var last error
	for _, err := range src.Traces(ctx, src.Rollouts(ctx, queue.RolloutQuery{})) {
		n++
		last = err
		cancel()
	}
	if n > 3 || !errors.Is(last, context.Canceled) {
		t.Errorf("%d pairs, the last with %v", n, last)
	}
}

func ExampleStream() {
	var s queue.Store // such as a client.Client
	if s == nil {
		return
	}
	ctx := context.Background()
	src := adapter.Source{Store: s}
	done := queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutSucceeded}}
	traces := src.Traces(ctx, src.Rollouts(ctx, done))
	for rollout, err := range adapter.Stream[adapter.Triplet](adapter.TracerTriplets{}, traces) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		for _, t := range rollout.Items {
			fmt.Println(string(t.AppendJSON(nil)))
		}
	}
}
