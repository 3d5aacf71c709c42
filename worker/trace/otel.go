package trace

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// NewProvider makes an OpenTelemetry provider for all tasks of the process: a span
// is filed by the scope that the context it was started with carries. Spans
// without one go nowhere. Attributes, events and links are not cut. A nil resource
// is OpenTelemetry's default one.
//
// With otel.SetTracerProvider, instrumented libraries report to the tasks that
// call them.
func NewProvider(r *resource.Resource) *sdk.TracerProvider {
	if r == nil {
		r = resource.Default()
	}
	unlimited := sdk.SpanLimits{
		AttributeValueLengthLimit: -1, AttributeCountLimit: -1, EventCountLimit: -1,
		LinkCountLimit: -1, AttributePerEventCountLimit: -1, AttributePerLinkCountLimit: -1,
	}
	return sdk.NewTracerProvider(
		sdk.WithResource(r), sdk.WithRawSpanLimits(unlimited), sdk.WithSampler(sdk.AlwaysSample()),
		sdk.WithIDGenerator(taskIDs{}), sdk.WithSpanProcessor(newFiler()),
	)
}

// taskIDs gives the spans of a task that have no parent the trace of the task.
type taskIDs struct{}

// NewIDs implements sdk.IDGenerator.
func (taskIDs) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	if sc := ScopeOf(ctx); sc != nil {
		return sc.traceID, NewSpanID()
	}
	var traceID oteltrace.TraceID
	high, low := NewSpanID(), NewSpanID()
	copy(traceID[:8], high[:])
	copy(traceID[8:], low[:])
	return traceID, NewSpanID()
}

// NewSpanID implements sdk.IDGenerator.
func (taskIDs) NewSpanID(context.Context, oteltrace.TraceID) oteltrace.SpanID { return NewSpanID() }

// filer sends each span to the scope it was started in.
type filer struct {
	mu    sync.Mutex
	open  map[oteltrace.SpanID]started
	sweep int // the size of open at which those of closed scopes are forgotten
}

// started is where a span was started. Its context bounds the wait at its end.
type started struct {
	ctx    context.Context
	scope  *Scope
	number int64
}

const firstSweep = 1024

func newFiler() *filer { return &filer{open: map[oteltrace.SpanID]started{}, sweep: firstSweep} }

// OnStart implements sdk.SpanProcessor.
func (f *filer) OnStart(ctx context.Context, s sdk.ReadWriteSpan) {
	sc := ScopeOf(ctx)
	if sc == nil {
		return
	}
	number := sc.Number(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.open) >= f.sweep {
		for id, s := range f.open {
			if s.scope.over() {
				delete(f.open, id)
			}
		}
		f.sweep = max(firstSweep, 2*len(f.open))
	}
	f.open[s.SpanContext().SpanID()] = started{ctx, sc, number}
}

// over reports whether the scope takes no more spans.
func (sc *Scope) over() bool {
	sc.sender.mu.Lock()
	defer sc.sender.mu.Unlock()
	return sc.closed
}

// OnEnd implements sdk.SpanProcessor.
func (f *filer) OnEnd(s sdk.ReadOnlySpan) {
	id := s.SpanContext().SpanID()
	f.mu.Lock()
	at, ok := f.open[id]
	delete(f.open, id)
	f.mu.Unlock()
	if !ok {
		return
	}
	span := fromOTel(s)
	span.SequenceID = at.number
	if sc := at.scope; sc.Send(at.ctx, span) != nil {
		sc.sender.log.Debug("a span came too late", "rollout_id", sc.ref.RolloutID, "attempt_id", sc.ref.AttemptID, "name", s.Name())
	}
}

// Shutdown implements sdk.SpanProcessor. Spans are the sender's.
func (f *filer) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor. Spans are the sender's.
func (f *filer) ForceFlush(context.Context) error { return nil }

// fromOTel converts a span that has ended.
func fromOTel(s sdk.ReadOnlySpan) queue.Span {
	context := s.SpanContext()
	start, end := queue.Seconds(s.StartTime()), queue.Seconds(s.EndTime())
	out := queue.Span{
		TraceID: context.TraceID().String(), SpanID: context.SpanID().String(), Name: s.Name(),
		Attributes: attributesOf(s.Attributes()), Events: eventsOf(s.Events()), Links: linksOf(s.Links()),
		StartTime: &start, EndTime: &end, Status: statusOf(s.Status()), Context: contextOf(context),
	}
	if parent := s.Parent(); parent.HasSpanID() {
		id := parent.SpanID().String()
		out.ParentID, out.Parent = &id, contextOf(parent)
	}
	dst := append([]byte(`{"attributes":`), attributesOf(s.Resource().Attributes())...)
	dst = rawjson.AppendString(append(dst, `,"schema_url":`...), s.Resource().SchemaURL())
	out.Resource = append(dst, '}')
	return out
}

func statusOf(s sdk.Status) rawjson.Value {
	code := "UNSET"
	switch s.Code {
	case codes.Ok:
		code = "OK"
	case codes.Error:
		code = "ERROR"
	}
	dst := append([]byte(`{"status_code":"`), code...)
	dst = append(dst, `","description":`...)
	if s.Description == "" {
		return append(dst, "null}"...)
	}
	return append(rawjson.AppendString(dst, s.Description), '}')
}

func contextOf(c oteltrace.SpanContext) rawjson.Value {
	dst := rawjson.AppendString([]byte(`{"trace_id":`), c.TraceID().String())
	dst = rawjson.AppendString(append(dst, `,"span_id":`...), c.SpanID().String())
	dst = append(dst, `,"is_remote":`...)
	if c.IsRemote() {
		dst = append(dst, "true"...)
	} else {
		dst = append(dst, "false"...)
	}
	var state []byte
	c.TraceState().Walk(func(key, value string) bool {
		quoted := rawjson.AppendString(nil, key)
		state = rawjson.AppendMember(state, quoted[1:len(quoted)-1], rawjson.AppendString(nil, value))
		return true
	})
	if state == nil {
		state = []byte{'{'}
	}
	dst = append(append(dst, `,"trace_state":`...), state...)
	return append(dst, '}', '}')
}

func eventsOf(events []sdk.Event) rawjson.Value {
	dst := []byte{'['}
	for i, e := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rawjson.AppendString(append(dst, `{"name":`...), e.Name)
		dst = append(append(dst, `,"attributes":`...), attributesOf(e.Attributes)...)
		dst = append(dst, `,"timestamp":`...)
		dst = rawjson.AppendFloat(dst, queue.Seconds(orNow(e.Time)))
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now()
	}
	return t
}

func linksOf(links []sdk.Link) rawjson.Value {
	dst := []byte{'['}
	for i, l := range links {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, `{"context":`...), contextOf(l.SpanContext)...)
		dst = append(append(dst, `,"attributes":`...), attributesOf(l.Attributes)...)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func attributesOf(list []attribute.KeyValue) rawjson.Value {
	var dst []byte
	for _, kv := range list {
		if !kv.Valid() {
			continue
		}
		key := rawjson.AppendString(nil, string(kv.Key))
		dst = rawjson.AppendMember(dst, key[1:len(key)-1], valueOf(kv.Value))
	}
	if dst == nil {
		return rawjson.EmptyObject
	}
	return append(dst, '}')
}

func valueOf(v attribute.Value) rawjson.Value {
	switch v.Type() {
	case attribute.BOOL:
		return appendBool(nil, v.AsBool())
	case attribute.INT64:
		return rawjson.AppendInt(nil, v.AsInt64())
	case attribute.FLOAT64:
		return appendFloat(nil, v.AsFloat64())
	case attribute.STRING:
		return rawjson.AppendString(nil, v.AsString())
	case attribute.BOOLSLICE:
		return list(v.AsBoolSlice(), appendBool)
	case attribute.INT64SLICE:
		return list(v.AsInt64Slice(), rawjson.AppendInt)
	case attribute.FLOAT64SLICE:
		return list(v.AsFloat64Slice(), appendFloat)
	case attribute.STRINGSLICE:
		return list(v.AsStringSlice(), rawjson.AppendString)
	}
	return rawjson.AppendString(nil, v.String())
}

func list[T any](items []T, write func([]byte, T) []byte) rawjson.Value {
	dst := []byte{'['}
	for i, item := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = write(dst, item)
	}
	return append(dst, ']')
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, "true"...)
	}
	return append(dst, "false"...)
}

// appendFloat writes what is no finite number as text: attributes have no null.
func appendFloat(dst []byte, f float64) []byte {
	text := semconv.AppendPythonFloat(nil, f)
	if c := text[len(text)-1]; c < '0' || c > '9' {
		return rawjson.AppendText(dst, text)
	}
	return rawjson.AppendFloat(dst, f)
}
