package queue

import (
	"cmp"
	"fmt"
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
	// Exception is the last one reported as such, Failure what else looks like
	// the reason of an end; nil where no span that was looked at tells of one.
	Exception, Failure *AttemptError
}

// maxErrorMessage bounds an error's text in an explanation, in bytes.
const maxErrorMessage = 2000

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
			s.Spans = &trace.Spans
		}
		if a.Status != AttemptSucceeded { // that one got over it
			s.Error = e.errorOf(&a)
		}
		s.Text = e.story(&a, s)
		out[i] = s
	}
	return out
}

// errorOf finds the best word on what went wrong: a reported exception, the
// attempt's metadata, a guess from its spans.
func (e Evidence) errorOf(a *Attempt) *AttemptError {
	trace := e.Traces[a.AttemptID]
	found := trace.Exception
	if told := a.Metadata.Get("error"); found == nil && !told.IsNull() {
		found = &AttemptError{Message: textOf(told), Source: "metadata"}
	}
	if found = cmp.Or(found, trace.Failure); found == nil {
		return nil
	}
	return &AttemptError{Type: clipText(found.Type), Message: clipText(found.Message), Source: clipText(found.Source)}
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
