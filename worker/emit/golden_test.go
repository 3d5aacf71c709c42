package emit_test

import (
	"context"
	"errors"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
)

// testdata/goldens.json holds what the reference's emitters make of the same
// calls; testdata/goldens.py writes it.

func goldens(t *testing.T) rawjson.Value {
	t.Helper()
	text, err := os.ReadFile("testdata/goldens.json")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t *testing.T, text string) rawjson.Value {
	t.Helper()
	v, err := rawjson.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

var nested = map[string]any{
	"a": map[string]any{"b": 1, "c": []int{2, 3}}, "d": []any{1, 2.5, "x"}, "e": []any{}, "f": map[string]any{},
	"g": []map[string]bool{{"h": true}, {"h": false}}, "i": []string{"x", "y"}, "j": 0.00001, "k": 1.0,
}

// loose has its keys in an order that no map has.
type loose struct {
	None   *int            `json:"none"`
	Nested map[string]*int `json:"nested"`
	Text   string          `json:"text"`
	Big    uint64          `json:"big"`
	List   []any           `json:"list"`
}

var someLoose = loose{Nested: map[string]*int{"none": nil}, Text: "é\n\"🎉\x7f", Big: 12345678901234567890, List: []any{1, nil}}

func reward(value float64, attributes ...any) (queue.Span, error) {
	return emit.RewardSpan([]semconv.Reward{{Name: semconv.PrimaryReward, Value: value}}, attributes...)
}

func TestSpansEqualTheReference(t *testing.T) {
	dimensions, err := emit.Dimensions("speed", map[string]float64{"z": -3, "speed": 0.25, "quality": 1})
	if err != nil {
		t.Fatal(err)
	}
	object := func(v any, attributes ...any) func() (queue.Span, error) {
		return func() (queue.Span, error) { return emit.ObjectSpan(v, attributes...) }
	}
	calls := map[string]func() (queue.Span, error){
		"reward":                   func() (queue.Span, error) { return reward(0.5) },
		"reward of an integer":     func() (queue.Span, error) { return reward(1) },
		"reward of a small number": func() (queue.Span, error) { return reward(0.00001) },
		"rewards":                  func() (queue.Span, error) { return emit.RewardSpan(dimensions) },
		"reward with a link": func() (queue.Span, error) {
			return reward(0.5, emit.Links{"span_id": "0102", "gen_ai.response.id": "x"})
		},
		"reward with tags":        func() (queue.Span, error) { return reward(0.5, emit.Tags{"fast", "good"}) },
		"reward with attributes":  func() (queue.Span, error) { return reward(0.5, nested) },
		"annotation":              func() (queue.Span, error) { return emit.AnnotationSpan(nested) },
		"annotation of null":      func() (queue.Span, error) { return emit.AnnotationSpan(someLoose) },
		"message":                 func() (queue.Span, error) { return emit.MessageSpan("hi é") },
		"message with attributes": func() (queue.Span, error) { return emit.MessageSpan("hi", someLoose) },
		"object: text":            object("hi"),
		"object: integer":         object(42),
		"object: float":           object(0.00001),
		"object: whole float":     object(3.0),
		"object: great float":     object(1e22),
		"object: infinity":        object(math.Inf(-1)),
		"object: boolean":         object(true),
		"object: bytes":           object([]byte{0, 0xff}),
		"object: list":            object([]any{1, 2.0, "é", nil}),
		"object: nested": object(map[string]any{
			"a": map[string]any{"b": []any{true, 1e-7, 1e16}}, "é": "\u2028\x01",
		}),
		"object: nothing":        object(nil),
		"object with attributes": object("hi", nested),
		"exception": func() (queue.Span, error) {
			f := emit.Failure{Type: "ValueError", Message: "no good", Stack: "ValueError: no good\n"}
			return emit.ExceptionSpan(f, rawjson.Value(`{"step":3,"where":{"line":null}}`))
		},
		"operation": func() (queue.Span, error) {
			return operation(t, func(ctx context.Context) {
				_, op, err := emit.Begin(ctx, "grade", rawjson.Value(`{"note":1,"nested":{"x":[1,2]}}`))
				must(t, err)
				must(t, op.Args(1, []string{"x", "y"}, map[string]float64{"z": 2}))
				must(t, op.Input(rawjson.Value(`{"question":{"text":"hi"},"limit":3}`)))
				must(t, op.Output([]any{map[string]float64{"score": 0.5}, nil}))
				must(t, op.End())
			}), nil
		},
		"operation of a function": func() (queue.Span, error) {
			return operation(t, func(ctx context.Context) {
				must(t, emit.Operation(ctx, "grade", func(_ context.Context, op *emit.Op) error {
					return errors.Join(op.Input(map[string]int{"a": 1, "b": 2}), op.Output(map[string]int{"sum": 3}))
				}, map[string]string{"category": "math"}))
			}), nil
		},
	}
	seen := 0
	for key, want := range goldens(t).Get("spans").Members() {
		name := rawjson.Unescape(key)
		seen++
		t.Run(name, func(t *testing.T) {
			call, ok := calls[name]
			if !ok {
				t.Fatal("the test does not make this call")
			}
			s, err := call()
			if want.Get("error") != nil {
				if queue.KindOf(err) != queue.Invalid {
					t.Fatalf("error %v; the reference has a %s", err, want.Get("error"))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Name != want.Get("name").Text() {
				t.Errorf("name %q", s.Name)
			}
			if diff := cmp.Diff(string(want.Get("attributes")), string(s.Attributes)); diff != "" {
				t.Error(diff)
			}
			// A message's status is left to the reference's tracer, which leaves it unset.
			if s.Name != semconv.MessageSpan && s.Name != semconv.OperationSpan && string(s.Status) != string(want.Get("status")) {
				t.Errorf("status %s", s.Status)
			}
		})
	}
	if seen != len(calls) {
		t.Errorf("the file has %d calls, the test %d", seen, len(calls))
	}
}

func TestFlattenEqualsTheReference(t *testing.T) {
	for item := range goldens(t).Get("flatten").Elements() {
		if got, want := string(semconv.Flatten(item.Get("from"), false)), string(item.Get("to")); got != want {
			t.Errorf("flatten %s\n got %s\nwant %s", item.Get("from"), got, want)
		}
		if got, want := string(semconv.Flatten(item.Get("from"), true)), string(item.Get("expanded")); got != want {
			t.Errorf("flatten and expand %s\n got %s\nwant %s", item.Get("from"), got, want)
		}
	}
}

func TestUnflattenEqualsTheReference(t *testing.T) {
	for item := range goldens(t).Get("unflatten").Elements() {
		got, err := semconv.Unflatten(item.Get("from"))
		if want := item.Get("to"); err != nil || string(got) != string(want) {
			t.Errorf("unflatten %s\n got %s, %v\nwant %s", item.Get("from"), got, err, want)
		}
	}
}

func TestSanitizeEqualsTheReference(t *testing.T) {
	for item := range goldens(t).Get("sanitize").Elements() {
		if got, want := string(semconv.Sanitize(item.Get("from"))), string(item.Get("to")); got != want {
			t.Errorf("sanitize %s\n got %s\nwant %s", item.Get("from"), got, want)
		}
	}
}
