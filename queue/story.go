package queue

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/aglq/aglq/queue/rawjson"
)

// AttemptStory is what became of one attempt.
type AttemptStory struct {
	Attempt
	// Lost means that its worker died; it is not charged to max_attempts.
	Lost bool `json:"lost"`
	// Spans counts what it has sent; nil where nobody looked.
	Spans *int `json:"spans"`
	// Error is what went wrong in it, nil where nothing is known.
	Error *AttemptError `json:"error"`
	// Text is the story in a sentence.
	Text string `json:"text"`
}

// AttemptError is what an attempt said went wrong.
type AttemptError struct {
	Type    string `json:"type"` // as exception.type, "" where not known
	Message string `json:"message"`
	// Source is where it was found: metadata, or the name of a span.
	Source string `json:"source"`
}

// Trace is what the spans of one attempt tell.
type Trace struct {
	Spans int // all of them
	// Error is nil where no span that was looked at tells of one.
	Error *AttemptError
}

// ExceptionSpan names the spans in which workers report an exception, here and
// in the reference.
const ExceptionSpan = "agentlightning.exception"

// maxErrorMessage bounds an error's text in an explanation, in bytes.
const maxErrorMessage = 2000

// NewTrace reads the spans of an attempt: there are n, and last are the last of
// them, in order.
func NewTrace(n int, last []Span) Trace {
	t := Trace{Spans: n}
	for i := range slices.Backward(last) {
		if e := exceptionOf(&last[i]); e != nil {
			t.Error = e
			return t
		}
	}
	for i := range slices.Backward(last) {
		s := &last[i]
		if s.StatusCode() == "ERROR" {
			t.Error = &AttemptError{Message: clipText(s.Status.Get("description").Text()), Source: s.Name}
			return t
		}
	}
	return t
}

// exceptionOf finds an exception in a span: the span itself is one, or an event
// of it is.
func exceptionOf(s *Span) *AttemptError {
	read := func(attributes rawjson.Value) *AttemptError {
		kind, message := attributes.Get("exception.type").Text(), attributes.Get("exception.message").Text()
		if kind == "" && message == "" {
			return nil
		}
		return &AttemptError{Type: clipText(kind), Message: clipText(message), Source: s.Name}
	}
	if s.Name == ExceptionSpan {
		return read(s.Attributes)
	}
	var last *AttemptError
	for event := range s.Events.Elements() {
		if event.Get("name").Text() == "exception" {
			if e := read(event.Get("attributes")); e != nil {
				last = e
			}
		}
	}
	return last
}

func clipText(s string) string {
	if len(s) <= maxErrorMessage {
		return s
	}
	end := maxErrorMessage
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

func (e Evidence) stories() []AttemptStory {
	out := make([]AttemptStory, len(e.Record.Attempts))
	for i, a := range e.Record.Attempts {
		s := AttemptStory{Attempt: a, Lost: a.Lost}
		if trace, ok := e.Traces[a.AttemptID]; ok {
			s.Spans, s.Error = &trace.Spans, trace.Error
		}
		// A worker's own last word is better than a guess from its spans.
		if told := a.Metadata.Get("error"); !told.IsNull() && (s.Error == nil || s.Error.Source != ExceptionSpan) {
			s.Error = &AttemptError{Message: clipText(textOf(told)), Source: "metadata"}
		}
		if a.Status == AttemptSucceeded {
			s.Error = nil // it got over it
		}
		s.Text = e.story(&a, s)
		out[i] = s
	}
	return out
}

func textOf(v rawjson.Value) string {
	if v.Kind() == rawjson.KindString {
		return v.Text()
	}
	return v.String()
}

func (e Evidence) story(a *Attempt, s AttemptStory) string {
	text := e.outcome(a)
	if s.Spans != nil {
		text += ", " + counted(*s.Spans, "span")
	}
	if s.Error == nil {
		return text
	}
	text += ": "
	if s.Error.Type != "" {
		text += s.Error.Type + ": "
	}
	return text + s.Error.Message
}

// outcome says how an attempt ended, or that it has not.
func (e Evidence) outcome(a *Attempt) string {
	r := e.Record
	latest := a.AttemptID == r.Latest().AttemptID
	switch a.Status {
	case AttemptSucceeded, AttemptFailed:
		if a.EndTime != nil {
			return fmt.Sprintf("%s after %s", a.Status, duration(*a.EndTime-a.StartTime))
		}
		return string(a.Status)
	case AttemptTimeout:
		return "ran longer than its limit"
	case AttemptUnresponsive:
		if a.Lost {
			return "its worker died; not charged to max_attempts"
		}
		return "silent for longer than its limit"
	}
	switch {
	case !latest:
		return "given up for the next one; what it still sends is kept with it"
	case r.Rollout.Status.Queued():
		return "left open: the rollout was put back into the queue"
	case r.Rollout.Status.Finished():
		return fmt.Sprintf("left open: the rollout is %s; its worker stops it with its next heartbeat", r.Rollout.Status)
	}
	return "at work for " + duration(e.Now-a.StartTime)
}
