package semconv

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func TestNewTrace(t *testing.T) {
	reported := func(kind, message string) queue.Span {
		return queue.Span{Name: ExceptionSpan, Attributes: rawjson.Value(`{"exception.type":"` + kind + `","exception.message":"` + message + `"}`)}
	}
	failing := queue.Span{Name: "llm.call", Status: rawjson.Value(`{"status_code":"ERROR","description":"429"}`)}
	raising := queue.Span{Name: "tool", Status: failing.Status, Events: rawjson.Value(
		`[{"name":"log","attributes":{}},{"name":"exception","attributes":{"exception.type":"KeyError","exception.message":"'x'"}},{"name":"exception"}]`)}
	boom := &queue.AttemptError{Type: "ValueError", Message: "boom", Source: ExceptionSpan}
	tests := []struct {
		name               string
		spans              []queue.Span
		exception, failure *queue.AttemptError
	}{
		{"none", nil, nil, nil},
		{"a span that went well", []queue.Span{{Name: "step", Status: rawjson.Value(`{"status_code":"OK"}`)}}, nil, nil},
		{"the last exception", []queue.Span{reported("OSError", "gone"), reported("ValueError", "boom"), failing}, boom, nil},
		{"an exception without words", []queue.Span{reported("ValueError", "boom"), {Name: ExceptionSpan}}, boom, nil},
		{"an event", []queue.Span{raising, failing}, nil, &queue.AttemptError{Type: "KeyError", Message: "'x'", Source: "tool"}},
		{"a status", []queue.Span{failing}, nil, &queue.AttemptError{Message: "429", Source: "llm.call"}},
	}
	for _, tt := range tests {
		want := queue.Trace{Spans: 99, Exception: tt.exception, Failure: tt.failure}
		if diff := cmp.Diff(want, NewTrace(99, tt.spans)); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}
