package semconv

import (
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// NewTrace reads what the spans of an attempt tell of its end: there are n, and
// last are the last of them, in order.
func NewTrace(n int, last []queue.Span) queue.Trace {
	t := queue.Trace{Spans: n}
	var failed, raised *queue.AttemptError // by status, by an event
	for i := range slices.Backward(last) {
		s := &last[i]
		if s.Name == ExceptionSpan {
			if t.Exception = exception(s, s.Attributes); t.Exception != nil {
				return t
			}
		}
		if raised == nil {
			raised = exceptionEvent(s)
		}
		if failed == nil && s.StatusCode() == "ERROR" {
			failed = &queue.AttemptError{Message: s.Status.Get("description").Text(), Source: s.Name}
		}
	}
	if t.Failure = raised; raised == nil {
		t.Failure = failed
	}
	return t
}

// exception reads the attributes of an exception, nil where they say nothing.
func exception(s *queue.Span, attributes rawjson.Value) *queue.AttemptError {
	kind, message := attributes.Get(ExceptionType).Text(), attributes.Get(ExceptionMessage).Text()
	if kind == "" && message == "" {
		return nil
	}
	return &queue.AttemptError{Type: kind, Message: message, Source: s.Name}
}

// exceptionEvent is the last exception that OpenTelemetry recorded in a span.
func exceptionEvent(s *queue.Span) (last *queue.AttemptError) {
	for event := range s.Events.Elements() {
		if event.Get("name").Text() != "exception" {
			continue
		}
		if e := exception(s, event.Get("attributes")); e != nil {
			last = e
		}
	}
	return last
}
