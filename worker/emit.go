package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Names of the spans that workers make, and of their attributes, as every reader
// of the reference's spans knows them.
const (
	annotationSpan = "agentlightning.annotation"
	messageSpan    = "agentlightning.message"
	exceptionSpan  = "agentlightning.exception"

	rewardPrefix = "agentlightning.reward."
	messageBody  = "agentlightning.message.body"

	statusOK = `{"status_code":"OK","description":null}`
)

// Span sends a span of the task. What it leaves out is filled in: the ids, the
// number, the times (now), an unset status and empty collections; a span without
// a trace belongs to the task's own. It returns once the span is queued, which
// waits while the store is away and much is queued; the error says that the span
// will not be stored.
func (t *Task) Span(ctx context.Context, s queue.Span) error {
	if s.Name == "" {
		return queue.Errorf(queue.Invalid, "a span without a name")
	}
	return t.send(ctx, s)
}

// Reward sends a reward of one dimension. It may be called any number of times:
// the last reward of a task counts.
func (t *Task) Reward(ctx context.Context, value float64) error {
	return t.reward(ctx, Reward(value).Rewards)
}

// Rewards sends a reward of several dimensions; primary must be one of them.
func (t *Task) Rewards(ctx context.Context, primary string, values map[string]float64) error {
	return t.reward(ctx, dimensions(primary, values))
}

// Message sends a text.
func (t *Task) Message(ctx context.Context, text string) error {
	var a attributes
	a.text(messageBody, text)
	return t.send(ctx, queue.Span{Name: messageSpan, Attributes: a.close()})
}

// Exception sends an error that does not end the task.
func (t *Task) Exception(ctx context.Context, err error) error {
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{Type: typeOf(err), Message: err.Error(), Stack: fmt.Sprintf("%+v", err)}
	}
	return t.exception(ctx, f, err.Error())
}

func (t *Task) exception(ctx context.Context, f *Failure, text string) error {
	var a attributes
	kind := f.Type
	if kind == "" {
		kind = "error"
		if f.Err != nil {
			kind = typeOf(f.Err)
		}
	}
	a.text("exception.type", kind)
	a.text("exception.message", text)
	a.raw("exception.escaped", "true")
	a.text("exception.stacktrace", f.Stack)
	return t.send(ctx, queue.Span{Name: exceptionSpan, Attributes: a.close(), Status: rawjson.Value(statusOK)})
}

// dimensions puts the primary dimension first and the others in order of their
// names. A primary one that is missing has no name, which reward refuses.
func dimensions(primary string, values map[string]float64) []RewardDimension {
	out := []RewardDimension{{}}
	for name, value := range values {
		if name == primary {
			out[0] = RewardDimension{name, value}
			continue
		}
		out = append(out, RewardDimension{name, value})
	}
	slices.SortFunc(out[1:], func(a, b RewardDimension) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (t *Task) reward(ctx context.Context, rewards []RewardDimension) error {
	var a attributes
	for i, r := range rewards {
		if r.Name == "" {
			return queue.Errorf(queue.Invalid, "a reward without a name: the primary dimension must be one of the rewards")
		}
		entry := rewardPrefix + strconv.Itoa(i)
		a.text(entry+".name", r.Name)
		a.float(entry+".value", r.Value)
	}
	return t.send(ctx, queue.Span{Name: annotationSpan, Attributes: a.close(), Status: rawjson.Value(statusOK)})
}

// send fills a span in and queues it.
func (t *Task) send(ctx context.Context, s queue.Span) error {
	now := queue.Seconds(t.worker.opts.Now())
	s.RolloutID, s.AttemptID = t.ref.RolloutID, t.ref.AttemptID
	if s.SequenceID == 0 {
		s.SequenceID = queue.NumberOnArrival
	}
	if s.TraceID == "" {
		s.TraceID = t.traceID
	}
	if s.SpanID == "" {
		s.SpanID = randomHex(8)
	}
	if s.EndTime == nil {
		s.EndTime = &now
	}
	if s.StartTime == nil {
		s.StartTime = s.EndTime
	}
	s.FillIn()
	if s.Context.IsNull() {
		s.Context = spanContext(s.TraceID, s.SpanID)
	}
	return t.worker.spans.add(ctx, &t.out, s)
}

func spanContext(traceID, spanID string) rawjson.Value {
	dst := rawjson.AppendString([]byte(`{"trace_id":`), traceID)
	dst = rawjson.AppendString(append(dst, `,"span_id":`...), spanID)
	return append(dst, `,"is_remote":false,"trace_state":{}}`...)
}

// attributes writes an object of span attributes.
type attributes struct{ buf []byte }

func (a *attributes) raw(key, val string) {
	if a.buf == nil {
		a.buf = append(a.buf, '{')
	}
	a.buf = addMember(a.buf, key, rawjson.Value(val))
}

func (a *attributes) text(key, val string) { a.raw(key, string(rawjson.AppendString(nil, val))) }

func (a *attributes) int(key string, n int64) { a.raw(key, strconv.FormatInt(n, 10)) }

// float writes what is no number as text: attributes have no null.
func (a *attributes) float(key string, f float64) {
	switch {
	case math.IsNaN(f):
		a.text(key, "NaN")
	case math.IsInf(f, 1):
		a.text(key, "Infinity")
	case math.IsInf(f, -1):
		a.text(key, "-Infinity")
	default:
		a.raw(key, string(rawjson.AppendFloat(nil, f)))
	}
}

func (a *attributes) close() rawjson.Value {
	if a.buf == nil {
		return rawjson.EmptyObject
	}
	return append(a.buf, '}')
}

// clip cuts a text to at most n bytes, at the end of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
