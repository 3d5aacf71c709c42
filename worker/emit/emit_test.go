package emit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.uber.org/goleak"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
	"github.com/aglq/aglq/worker/internal/tracetest"
	"github.com/aglq/aglq/worker/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// operation runs a task that makes one operation, and returns its span.
func operation(t *testing.T, task func(ctx context.Context)) queue.Span {
	t.Helper()
	spans := tracetest.Spans(t, task)
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	return spans[0]
}

func TestNothingIsSentOutsideATask(t *testing.T) {
	ctx := t.Context()
	_, _, begun := emit.Begin(ctx, "x")
	for name, err := range map[string]error{
		"reward": emit.Reward(ctx, 1), "rewards": emit.Rewards(ctx, "a", map[string]float64{"a": 1}),
		"annotation": emit.Annotation(ctx, nested), "message": emit.Message(ctx, "x"), "object": emit.Object(ctx, 1),
		"exception": emit.Exception(ctx, errors.New("x")), "begin": begun,
		"operation": emit.Operation(ctx, "x", func(context.Context, *emit.Op) error { t.Error("it ran"); return nil }),
	} {
		if !errors.Is(err, emit.ErrNoTask) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEachEmitterSends(t *testing.T) {
	spans := tracetest.Spans(t, func(ctx context.Context) {
		must(t, emit.Reward(ctx, math.NaN()))
		must(t, emit.Rewards(ctx, "a", map[string]float64{"b": 2, "a": 1}))
		must(t, emit.Annotation(ctx, map[string]any{"note": "x"}))
		must(t, emit.Message(ctx, "hello"))
		must(t, emit.Object(ctx, 5))
		must(t, emit.Exception(ctx, fmt.Errorf("outer: %w", errors.New("inner"))))
	})
	want := []string{
		`agentlightning.annotation {"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":"NaN"}`,
		`agentlightning.annotation {"agentlightning.reward.0.name":"a","agentlightning.reward.0.value":1.0,"agentlightning.reward.1.name":"b","agentlightning.reward.1.value":2.0}`,
		`agentlightning.annotation {"note":"x"}`,
		`agentlightning.message {"agentlightning.message.body":"hello"}`,
		`agentlightning.object {"agentlightning.object.type":"int","agentlightning.object.literal":"5"}`,
		`agentlightning.exception {"exception.type":"*errors.errorString","exception.message":"outer: inner","exception.escaped":true}`,
	}
	var got []string
	for _, s := range spans {
		got = append(got, s.Name+" "+string(s.Attributes))
		if s.RolloutID != "ro-1" || s.AttemptID != "at-1" || s.TraceID != spans[0].TraceID || s.ParentID != nil {
			t.Errorf("%s is filed wrongly", s.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsMadeWithinAnOperationIsBelowIt(t *testing.T) {
	provider := trace.NewProvider(nil)
	spans := tracetest.Spans(t, func(ctx context.Context) {
		must(t, emit.Operation(ctx, "outer", func(ctx context.Context, _ *emit.Op) error {
			ctx, span := provider.Tracer("test").Start(ctx, "otel")
			defer span.End()
			return emit.Operation(ctx, "inner", func(ctx context.Context, _ *emit.Op) error {
				return emit.Reward(ctx, 1)
			})
		}))
	})
	parents := map[string]string{}
	names := map[string]string{}
	for _, s := range spans {
		name := s.Name
		if op := s.Attribute(semconv.OperationName).Text(); op != "" {
			name = op
		}
		names[s.SpanID] = name
	}
	for _, s := range spans {
		if s.TraceID != spans[0].TraceID {
			t.Errorf("%s is in another trace", s.Name)
		}
		if s.ParentID != nil {
			parents[names[s.SpanID]] = names[*s.ParentID]
		}
	}
	want := map[string]string{"agentlightning.annotation": "inner", "inner": "otel", "otel": "outer"}
	if diff := cmp.Diff(want, parents); diff != "" {
		t.Error(diff)
	}
}

func TestAFailedOperationSaysSo(t *testing.T) {
	failure := errors.New("no good")
	s := operation(t, func(ctx context.Context) {
		err := emit.Operation(ctx, "grade", func(context.Context, *emit.Op) error { return failure })
		if err != failure {
			t.Errorf("error %v", err)
		}
	})
	if s.StatusCode() != "ERROR" || s.Status.Get("description").Text() != "no good" {
		t.Errorf("status %s", s.Status)
	}
	if event := firstOf(s.Events); event.Get("name").Text() != "exception" ||
		event.Get("attributes").Get(semconv.ExceptionMessage).Text() != "no good" {
		t.Errorf("events %s", s.Events)
	}
}

func TestAnOperationThatPanicsIsSent(t *testing.T) {
	s := operation(t, func(ctx context.Context) {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not go on")
			}
		}()
		_ = emit.Operation(ctx, "grade", func(context.Context, *emit.Op) error { panic("bad") })
	})
	if s.StatusCode() != codes.Error.String() && s.StatusCode() != "ERROR" {
		t.Errorf("status %s", s.Status)
	}
}

func TestAnOperationEndsOnce(t *testing.T) {
	operation(t, func(ctx context.Context) {
		_, op, err := emit.Begin(ctx, "x")
		must(t, err)
		must(t, op.End())
		must(t, op.End())
		if err := op.Output(1); !errors.Is(err, trace.ErrClosed) {
			t.Errorf("an output after the end: %v", err)
		}
	})
}

func firstOf(list rawjson.Value) rawjson.Value {
	for item := range list.Elements() {
		return item
	}
	return nil
}

type base struct {
	ID   int    `json:"id"`
	Skip string `json:"-"`
}

type record struct {
	base
	Ratio  float32        `json:"ratio"`
	Empty  string         `json:"empty,omitempty"`
	Deep   *record        `json:"deep,omitempty"`
	Any    any            `json:"any"`
	Data   []byte         `json:"data"`
	Counts map[string]int `json:"counts"`
	Error  error          `json:"error,omitempty"`
	hidden int
}

func TestValuesAreWrittenAsJSONWithFloatsToldApart(t *testing.T) {
	s, err := emit.MessageSpan("x", record{
		base: base{ID: 7, Skip: "s"}, Ratio: 0.1, Any: 2.0, Data: []byte("hi"), Counts: map[string]int{"b": 1, "a": 2},
		Deep: &record{Ratio: 1}, hidden: 1,
	})
	must(t, err)
	want := `{"agentlightning.message.body":"x","id":7,"ratio":0.1,"deep.id":0,"deep.ratio":1.0,"deep.any":"null","deep.data":"null","deep.counts":"null","any":2.0,"data":"aGk=","counts.a":2,"counts.b":1}`
	if diff := cmp.Diff(want, string(s.Attributes)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoAttributeIsRefused(t *testing.T) {
	cycle := map[string]any{}
	cycle["self"] = cycle
	for name, bad := range map[string]any{
		"a list": []int{1}, "a number": 5, "a function": map[string]any{"f": func() {}}, "keys that are no texts": map[int]int{1: 1},
		"a cycle": cycle, "text that is no JSON": rawjson.Value("{"),
	} {
		if _, err := emit.MessageSpan("x", bad); queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := emit.Dimensions("c", map[string]float64{"a": 1}); queue.KindOf(err) != queue.Invalid {
		t.Errorf("a missing primary reward: %v", err)
	}
	if _, err := emit.ObjectSpan(make(chan int)); queue.KindOf(err) != queue.Invalid {
		t.Errorf("an object without a JSON form: %v", err)
	}
}
