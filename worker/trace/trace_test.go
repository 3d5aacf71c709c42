package trace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

func begin(t *testing.T, s *store.Store, config *queue.Config) queue.AttemptRef {
	t.Helper()
	r, err := s.Start(t.Context(), queue.Request{Input: rawjson.Null, Config: config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return queue.AttemptRef{RolloutID: r.RolloutID, AttemptID: r.Attempt.AttemptID}
}

// run runs a sender; stop ends it and waits.
func run(s *trace.Sender) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

func spansOf(t *testing.T, s *store.Store, ref queue.AttemptRef) []queue.Span {
	t.Helper()
	page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: ref.RolloutID, AttemptID: &ref.AttemptID, Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	return page.Items
}

func names(spans []queue.Span) []string {
	var list []string
	for _, s := range spans {
		list = append(list, s.Name)
	}
	slices.Sort(list)
	return list
}

func TestOneProviderFilesSpansOfManyTasks(t *testing.T) {
	s := newStore(t)
	sender := trace.NewSender(s, trace.Options{Logger: quiet})
	defer run(sender)()
	tracer := trace.NewProvider(nil).Tracer("agent")
	_, nobody := tracer.Start(t.Context(), "outside")
	nobody.End()
	const tasks, each = 16, 25
	refs := make([]queue.AttemptRef, tasks)
	var running sync.WaitGroup
	for i := range tasks {
		refs[i] = begin(t, s, nil)
		running.Go(func() {
			sc := sender.Scope(refs[i])
			ctx, root := tracer.Start(trace.WithScope(t.Context(), sc), fmt.Sprintf("task %d", i))
			for j := range each {
				_, span := tracer.Start(ctx, fmt.Sprintf("step %d of %d", j, i))
				span.End()
			}
			root.End()
			if missing := sc.Flush(t.Context()); missing != 0 {
				t.Errorf("task %d misses %d spans", i, missing)
			}
		})
	}
	running.Wait()
	traces := map[string]bool{}
	for i, ref := range refs {
		spans := spansOf(t, s, ref)
		want := []string{fmt.Sprintf("task %d", i)}
		for j := range each {
			want = append(want, fmt.Sprintf("step %d of %d", j, i))
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, names(spans)); diff != "" {
			t.Errorf("task %d: %s", i, diff)
		}
		for _, s := range spans {
			if s.TraceID != spans[0].TraceID {
				t.Errorf("task %d has several traces", i)
			}
		}
		traces[spans[0].TraceID] = true
	}
	if len(traces) != tasks {
		t.Errorf("%d tasks share %d traces", tasks, len(traces))
	}
}

func TestOpenTelemetrysSpansAreConvertedWhole(t *testing.T) {
	s := newStore(t)
	sender := trace.NewSender(s, trace.Options{Logger: quiet})
	defer run(sender)()
	ref := begin(t, s, nil)
	sc := sender.Scope(ref)
	provider := trace.NewProvider(resource.NewWithAttributes("https://schema", attribute.String("service.name", "agent")))
	at := time.Unix(1_700_000_000, 500_000_000)
	ctx, parent := provider.Tracer("x").Start(trace.WithScope(t.Context(), sc), "parent", oteltrace.WithTimestamp(at))
	_, span := provider.Tracer("x").Start(ctx, "child", oteltrace.WithTimestamp(at),
		oteltrace.WithLinks(oteltrace.Link{SpanContext: parent.SpanContext(), Attributes: []attribute.KeyValue{attribute.Int("n", 1)}}))
	span.SetAttributes(
		attribute.Bool("bool", true), attribute.Int("int", 1), attribute.Float64("float", 1), attribute.Float64("nan", math.NaN()),
		attribute.String("text", "a \"b\""), attribute.BoolSlice("bools", []bool{true, false}), attribute.Int64Slice("ints", []int64{1, 2}),
		attribute.Float64Slice("floats", []float64{1, 0.5}), attribute.StringSlice("texts", []string{"a"}), attribute.StringSlice("none", nil),
	)
	for i := range 200 { // beyond the limit that OpenTelemetry has by default
		span.SetAttributes(attribute.Int(fmt.Sprintf("more.%03d", i), i))
	}
	span.AddEvent("event", oteltrace.WithTimestamp(at), oteltrace.WithAttributes(attribute.String("k", "v")))
	span.SetStatus(codes.Error, "no good")
	span.End(oteltrace.WithTimestamp(at.Add(time.Second)))
	parent.End()
	if missing := sc.Flush(t.Context()); missing != 0 {
		t.Fatalf("%d spans are missing", missing)
	}
	spans := spansOf(t, s, ref)
	i := slices.IndexFunc(spans, func(s queue.Span) bool { return s.Name == "child" })
	if i < 0 {
		t.Fatal("the child is not stored")
	}
	got := spans[i]
	want := `{"bool":true,"int":1,"float":1.0,"nan":"NaN","text":"a \"b\"","bools":[true,false],"ints":[1,2],"floats":[1.0,0.5],"texts":["a"],"none":[],"more.000":0`
	if text := string(got.Attributes); len(text) < len(want) || text[:len(want)] != want {
		t.Errorf("attributes %.300s", text)
	}
	if got.Attribute("more.199") == nil {
		t.Error("attributes are cut")
	}
	trace, above := parent.SpanContext().TraceID().String(), parent.SpanContext().SpanID().String()
	context := `{"trace_id":"` + trace + `","span_id":"` + above + `","is_remote":false,"trace_state":{}}`
	for what, pair := range map[string][2]string{
		"status":   {string(got.Status), `{"status_code":"ERROR","description":"no good"}`},
		"events":   {string(got.Events), `[{"name":"event","attributes":{"k":"v"},"timestamp":1700000000.5}]`},
		"links":    {string(got.Links), `[{"context":` + context + `,"attributes":{"n":1}}]`},
		"parent":   {string(got.Parent), context},
		"resource": {string(got.Resource), `{"attributes":{"service.name":"agent"},"schema_url":"https://schema"}`},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s %s\nwant %s", what, pair[0], pair[1])
		}
	}
	if got.ParentID == nil || *got.ParentID != above || got.TraceID != trace || *got.StartTime != 1_700_000_000.5 || *got.EndTime != 1_700_000_001.5 {
		t.Errorf("span %+v", got)
	}
}

func TestSpansMayBeNumberedAsTheyBegin(t *testing.T) {
	s := newStore(t)
	order := func(o trace.Options) string {
		sender := trace.NewSender(s, o)
		defer run(sender)()
		ref := begin(t, s, nil)
		sc := sender.Scope(ref)
		tracer := trace.NewProvider(nil).Tracer("x")
		ctx, outer := tracer.Start(trace.WithScope(t.Context(), sc), "outer")
		_, inner := tracer.Start(ctx, "inner")
		if err := sc.Send(ctx, queue.Span{Name: "point"}); err != nil {
			t.Fatal(err)
		}
		inner.End()
		outer.End()
		sc.Flush(t.Context())
		page, err := s.Spans(t.Context(), queue.SpanQuery{RolloutID: ref.RolloutID, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, s := range page.Items {
			list = append(list, fmt.Sprint(s.SequenceID, " ", s.Name))
		}
		return strings.Join(list, ", ")
	}
	if got, want := order(trace.Options{Logger: quiet}), "1 point, 2 inner, 3 outer"; got != want {
		t.Errorf("spans are numbered %s; want %s", got, want)
	}
	if got, want := order(trace.Options{Logger: quiet, NumberAtStart: true}), "1 outer, 2 inner, 3 point"; got != want {
		t.Errorf("spans are numbered %s; want %s", got, want)
	}
}

func TestALateSpanIsRefused(t *testing.T) {
	s := newStore(t)
	sender := trace.NewSender(s, trace.Options{Logger: quiet})
	defer run(sender)()
	ref := begin(t, s, nil)
	sc := sender.Scope(ref)
	_, late := trace.NewProvider(nil).Tracer("x").Start(trace.WithScope(t.Context(), sc), "late")
	sc.Flush(t.Context())
	late.End()
	if err := sc.Send(t.Context(), queue.Span{Name: "later"}); !errors.Is(err, trace.ErrClosed) {
		t.Errorf("a span after the end: %v", err)
	}
	if spans := spansOf(t, s, ref); len(spans) != 0 {
		t.Errorf("stored %v", names(spans))
	}
}

func TestAfterTheEndOfTheSenderNobodyWaits(t *testing.T) {
	s := newStore(t)
	sender := trace.NewSender(s, trace.Options{Logger: quiet})
	ref := begin(t, s, nil)
	sc := sender.Scope(ref)
	if err := sc.Send(t.Context(), queue.Span{Name: "in time"}); err != nil {
		t.Fatal(err)
	}
	run(sender)()
	if err := sc.Send(t.Context(), queue.Span{Name: "late"}); !errors.Is(err, trace.ErrClosed) {
		t.Errorf("a span after the end: %v", err)
	}
	if missing := sc.Flush(t.Context()); missing != 0 || len(spansOf(t, s, ref)) != 1 {
		t.Errorf("%d missing, stored %v", missing, names(spansOf(t, s, ref)))
	}
}

// gate is a store that is away until it is opened.
type gate struct {
	*store.Store
	open  atomic.Bool
	calls atomic.Int64
}

func (g *gate) AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error) {
	g.calls.Add(1)
	if !g.open.Load() {
		return queue.SpansAdded{}, queue.Errorf(queue.Unavailable, "away")
	}
	return g.Store.AddSpans(ctx, spans)
}

func TestWhoHasMoreToSendWaitsForRoom(t *testing.T) {
	s := newStore(t)
	g := &gate{Store: s}
	sender := trace.NewSender(g, trace.Options{Logger: quiet})
	defer run(sender)()
	ref := begin(t, s, nil)
	sc := sender.Scope(ref)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	big := rawjson.AppendString([]byte(`{"a":`), strings.Repeat("x", 2<<20))
	sent := 0
	var err error
	for sent < 1000 && err == nil {
		if err = sc.Send(ctx, queue.Span{Name: "big", Attributes: append(slices.Clone(big), '}')}); err == nil {
			sent++
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%d spans of 2 MB were taken while the store was away: %v", sent, err)
	}
	g.open.Store(true)
	// The store tells of a span that found no room, and has the others.
	if missing := sc.Flush(t.Context()); missing != 1 {
		t.Errorf("%d spans are missing", missing)
	}
	if n := len(spansOf(t, s, ref)); n != sent {
		t.Errorf("%d spans of %d are stored", n, sent)
	}
}

func TestSpansOutliveTheirProcess(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "spill")
	ref := begin(t, s, nil)

	dropped := 0
	first := trace.NewSender(&gate{Store: s}, trace.Options{Logger: quiet, SpillDir: dir, Dropped: func(n int, _ string) { dropped += n }})
	sc := first.Scope(ref)
	for i := range 700 { // more than one batch
		if err := sc.Send(t.Context(), queue.Span{Name: fmt.Sprintf("span %03d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	run(first)()
	files, _ := os.ReadDir(dir)
	if len(files) != 1 || dropped != 0 {
		t.Fatalf("%d files, %d spans dropped", len(files), dropped)
	}
	if n := len(spansOf(t, s, ref)); n != 0 {
		t.Fatalf("%d spans are stored", n)
	}

	second := trace.NewSender(s, trace.Options{Logger: quiet, SpillDir: dir})
	stop := run(second)
	defer stop()
	waitFor(t, func() bool { files, _ := os.ReadDir(dir); return len(files) == 0 })
	if n := len(spansOf(t, s, ref)); n != 700 {
		t.Errorf("%d spans are stored", n)
	}
}

func TestWithoutADirectorySpansAreGivenUpAndCounted(t *testing.T) {
	s := newStore(t)
	dropped := 0
	sender := trace.NewSender(&gate{Store: s}, trace.Options{Logger: quiet, Dropped: func(n int, reason string) {
		if reason == trace.Stopped {
			dropped += n
		}
	}})
	sc := sender.Scope(begin(t, s, nil))
	if err := sc.Send(t.Context(), queue.Span{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	run(sender)()
	if missing := sc.Flush(t.Context()); missing != 1 || dropped != 1 {
		t.Errorf("%d missing, %d dropped", missing, dropped)
	}
}

// A rollout that waits for its next attempt is not taken out of the queue by what a
// dead process had to say of the last one.
func TestSpilledSpansDoNotReviveAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now
		s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet, Now: now})
		defer s.Close(context.Background())
		unresponsive := 5.0
		ref := begin(t, s, &queue.Config{
			UnresponsiveSeconds: &unresponsive, MaxAttempts: 2, RetryCondition: []queue.AttemptStatus{queue.AttemptUnresponsive},
		})
		dir := t.TempDir()
		first := trace.NewSender(&gate{Store: s}, trace.Options{Logger: quiet, SpillDir: dir})
		if err := first.Scope(ref).Send(t.Context(), queue.Span{Name: "x"}); err != nil {
			t.Fatal(err)
		}
		run(first)()
		status := func() queue.RolloutStatus {
			r, err := s.Rollout(t.Context(), ref.RolloutID)
			if err != nil {
				t.Fatal(err)
			}
			return r.Status
		}
		time.Sleep(20 * time.Second)
		if got := status(); got != queue.RolloutRequeuing {
			t.Fatalf("the rollout is %s", got)
		}
		stop := run(trace.NewSender(s, trace.Options{Logger: quiet, SpillDir: dir}))
		defer stop()
		time.Sleep(time.Minute)
		if got := status(); got != queue.RolloutRequeuing || len(spansOf(t, s, ref)) != 0 {
			t.Fatalf("the rollout is %s, with %d spans", got, len(spansOf(t, s, ref)))
		}
		if got, err := s.Claim(t.Context(), queue.Claim{Limit: 1}); err != nil || len(got) != 1 {
			t.Fatalf("claimed %v, %v", got, err)
		}
		time.Sleep(time.Minute)
		if n := len(spansOf(t, s, ref)); n != 1 {
			t.Errorf("%d spans are stored once they do no harm", n)
		}
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come true in 10 s")
		}
	}
}
