package emit

import (
	"context"
	"slices"
	"strconv"
	"sync"

	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/trace"
)

// Op is an operation that is under way: a span with an input and an output, above
// the spans that are made meanwhile. Its methods are safe for concurrent use.
type Op struct {
	scope *trace.Scope
	ctx   context.Context // of its own span's parent

	mu         sync.Mutex
	span       queue.Span
	attributes rawjson.Value // flat
	ended      bool
}

// Operation runs fn as an operation of that name, and sends it with what fn
// recorded. An error of fn, which Operation returns, marks it; a panic does too, and
// goes on.
func Operation(ctx context.Context, name string, fn func(ctx context.Context, op *Op) error, attributes ...any) (err error) {
	named := rawjson.Value(append(member(nil, semconv.OperationName, name), '}'))
	ctx, op, err := begin(ctx, append([]any{named}, attributes...))
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned {
			op.fail(Failure{Type: "panic", Message: "the operation panicked"})
		}
		if endErr := op.End(); err == nil {
			err = endErr
		}
	}()
	err = fn(ctx, op)
	returned = true
	if err != nil {
		op.Fail(err)
	}
	return err
}

// Begin begins an operation; [Op.End] ends and sends it. Spans made under the
// context it returns are below the operation.
func Begin(ctx context.Context, name string, attributes ...any) (context.Context, *Op, error) {
	named := rawjson.Value(append(member(nil, semconv.OperationName, name), '}'))
	return begin(ctx, append(slices.Clone(attributes), named))
}

func begin(ctx context.Context, attributes []any) (context.Context, *Op, error) {
	sc := trace.ScopeOf(ctx)
	if sc == nil {
		return ctx, nil, ErrNoTask
	}
	flat, err := flatten(nil, attributes)
	if err != nil {
		return ctx, nil, err
	}
	traceID, parent := sc.Parent(ctx)
	id, now := trace.NewSpanID(), sc.Now()
	op := &Op{scope: sc, ctx: ctx, attributes: flat, span: queue.Span{
		Name: semconv.OperationSpan, TraceID: traceID.String(), SpanID: id.String(), StartTime: &now,
		SequenceID: sc.Number(ctx),
	}}
	if parent.IsValid() {
		above := parent.String()
		op.span.ParentID = &above
	}
	ctx = oteltrace.ContextWithSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
		TraceID: traceID, SpanID: id, TraceFlags: oteltrace.FlagsSampled,
	}))
	return ctx, op, nil
}

// Input records what the operation was given: an object, whose members are inputs
// by their names.
func (op *Op) Input(named any) error {
	v, err := encode(named)
	if err != nil {
		return err
	}
	if v.Kind() != rawjson.KindObject {
		return queue.Errorf(queue.Invalid, "the input of an operation is %.80s; it must be an object", v)
	}
	return op.record(semconv.OperationInput, v)
}

// Args records what the operation was given, by place.
func (op *Op) Args(args ...any) error {
	object := []byte{'{'}
	for i, arg := range args {
		v, err := encode(arg)
		if err != nil {
			return err
		}
		if i > 0 {
			object = append(object, ',')
		}
		object = append(rawjson.AppendString(object, strconv.Itoa(i)), ':')
		object = append(object, v...)
	}
	return op.record(semconv.OperationInput+".args", append(object, '}'))
}

// Output records what came of the operation.
func (op *Op) Output(value any) error {
	v, err := encode(value)
	if err != nil {
		return err
	}
	return op.record(semconv.OperationOutput, v)
}

// record adds a value under a key.
func (op *Op) record(key string, v rawjson.Value) error {
	object := append(rawjson.AppendString([]byte{'{'}, key), ':')
	flat := semconv.Flatten(append(append(object, v...), '}'), false)
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.ended {
		return trace.ErrClosed
	}
	op.attributes = merge(op.attributes, flat)
	return nil
}

// Fail records that the operation failed: its status says so, and an event tells
// the error.
func (op *Op) Fail(err error) { op.fail(FailureOf(err)) }

func (op *Op) fail(f Failure) {
	op.mu.Lock()
	defer op.mu.Unlock()
	f.Mark(&op.span, op.scope.Now())
}

// ID is the id of the operation's span, by which a reward may be linked to it.
func (op *Op) ID() string { return op.span.SpanID }

// End ends the operation and sends it. Only the first call does anything.
func (op *Op) End() error {
	op.mu.Lock()
	if op.ended {
		op.mu.Unlock()
		return nil
	}
	op.ended = true
	now := op.scope.Now()
	s := op.span
	s.EndTime, s.Attributes = &now, semconv.Sanitize(op.attributes)
	op.mu.Unlock()
	return op.scope.Send(op.ctx, s)
}
