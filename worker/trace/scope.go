package trace

import (
	"context"
	"crypto/rand"

	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Scope files spans under one attempt. Its methods are safe for concurrent use.
type Scope struct {
	sender  *Sender
	ref     queue.AttemptRef
	traceID oteltrace.TraceID

	// The sender's lock guards these.
	pending int           // spans that are not settled yet
	missing int           // spans that were given up
	closed  bool          // takes no more
	idle    chan struct{} // closed when pending comes to 0, nil when nobody waits
}

// Scope makes the scope of an attempt.
func (s *Sender) Scope(ref queue.AttemptRef) *Scope {
	sc := &Scope{sender: s, ref: ref}
	rand.Read(sc.traceID[:])
	return sc
}

// Attempt is what the scope files spans under.
func (sc *Scope) Attempt() queue.AttemptRef { return sc.ref }

type scopeKey struct{}

// WithScope gives a task's context its scope. What a caller's context says of
// OpenTelemetry's current span does not hold in it: a task's trace is its own.
func WithScope(ctx context.Context, sc *Scope) context.Context {
	ctx = oteltrace.ContextWithSpanContext(ctx, oteltrace.SpanContext{})
	return context.WithValue(ctx, scopeKey{}, sc)
}

// ScopeOf is the scope that ctx carries, nil for none.
func ScopeOf(ctx context.Context) *Scope {
	sc, _ := ctx.Value(scopeKey{}).(*Scope)
	return sc
}

// Send queues a span. What it leaves out is filled in: the ids, the number, the
// times (now), an unset status and empty collections. A span without a trace
// belongs to the current span of ctx, else to the attempt's own trace. It returns
// once the span is queued, which waits while the store is away and much is
// queued; the error says that the span will not be stored.
func (sc *Scope) Send(ctx context.Context, s queue.Span) error {
	s.RolloutID, s.AttemptID = sc.ref.RolloutID, sc.ref.AttemptID
	if s.SequenceID == 0 {
		s.SequenceID = sc.Number(ctx)
	}
	if s.TraceID == "" {
		trace, parent := sc.Parent(ctx)
		s.TraceID = trace.String()
		if parent.IsValid() && s.ParentID == nil {
			id := parent.String()
			s.ParentID = &id
		}
	}
	if s.SpanID == "" {
		s.SpanID = NewSpanID().String()
	}
	if s.EndTime == nil {
		now := queue.Seconds(sc.sender.opts.Now())
		s.EndTime = &now
	}
	if s.StartTime == nil {
		s.StartTime = s.EndTime
	}
	s.FillIn()
	if s.Context.IsNull() {
		s.Context = spanContext(s.TraceID, s.SpanID)
	}
	if s.Parent.IsNull() && s.ParentID != nil {
		s.Parent = spanContext(s.TraceID, *s.ParentID)
	}
	return sc.sender.add(ctx, sc, s)
}

// Number is the number of a span that begins now, see Options.NumberAtStart.
func (sc *Scope) Number(ctx context.Context) int64 {
	if !sc.sender.opts.NumberAtStart {
		return queue.NumberOnArrival
	}
	n, err := sc.sender.store.NextSequence(ctx, sc.ref.RolloutID, 1)
	sc.sender.heard(err)
	if err != nil {
		return queue.NumberOnArrival
	}
	return n
}

// Parent is the trace that a span made under ctx belongs to, and the span above
// it; that is invalid where there is none.
func (sc *Scope) Parent(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	if current := oteltrace.SpanContextFromContext(ctx); current.IsValid() {
		return current.TraceID(), current.SpanID()
	}
	return sc.traceID, oteltrace.SpanID{}
}

// Now is the time by the clock of spans, in Unix seconds.
func (sc *Scope) Now() float64 { return queue.Seconds(sc.sender.opts.Now()) }

// Flush waits until each span is stored, refused, or ctx ends, and tells how many
// are not stored. The scope takes no more.
func (sc *Scope) Flush(ctx context.Context) (missing int) { return sc.sender.flush(ctx, sc) }

// Drop forgets the spans that are not under way yet, and tells how many. The scope
// takes no more.
func (sc *Scope) Drop() (dropped int) { return sc.sender.drop(sc) }

// NewSpanID makes an id.
func NewSpanID() (id oteltrace.SpanID) {
	rand.Read(id[:])
	return id
}

func spanContext(traceID, spanID string) rawjson.Value {
	dst := rawjson.AppendString([]byte(`{"trace_id":`), traceID)
	dst = rawjson.AppendString(append(dst, `,"span_id":`...), spanID)
	return append(dst, `,"is_remote":false,"trace_state":{}}`...)
}
