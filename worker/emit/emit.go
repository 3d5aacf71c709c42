// Package emit makes the spans by which agents tell what happened: rewards,
// annotations, messages, objects, errors and operations.
//
// Functions that take a context send the span to the task that the context belongs
// to: the one a worker gives its handler, or one that carries a trace.Scope. The
// error is [ErrNoTask] where there is none. Functions whose names end in Span only
// build it.
//
// What attributes arguments have in common: each is an object (a map with text
// keys, a struct with json tags, JSON text as rawjson.Value, [Links], [Tags]) whose
// members become attributes. Nested ones get dotted keys, see semconv.Flatten; of
// a key that comes twice, the last value counts. Maps are taken in the order of
// their keys.
package emit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/trace"
)

// ErrNoTask means that the context belongs to no task, so that a span would be
// nobody's.
var ErrNoTask = errors.New("the context belongs to no task: use the one that the handler was given")

// Send sends a span, see trace.Scope.Send.
func Send(ctx context.Context, s queue.Span) error {
	sc := trace.ScopeOf(ctx)
	if sc == nil {
		return ErrNoTask
	}
	return sc.Send(ctx, s)
}

// sendBuilt sends a span unless it could not be built.
func sendBuilt(ctx context.Context, s queue.Span, err error) error {
	if err != nil {
		return err
	}
	return Send(ctx, s)
}

// Reward sends a reward of one dimension. It may be called any number of times:
// the last reward of a task counts.
func Reward(ctx context.Context, value float64, attributes ...any) error {
	s, err := RewardSpan([]semconv.Reward{{Name: semconv.PrimaryReward, Value: value}}, attributes...)
	return sendBuilt(ctx, s, err)
}

// Rewards sends a reward of several dimensions; primary must be one of them.
func Rewards(ctx context.Context, primary string, values map[string]float64, attributes ...any) error {
	rewards, err := Dimensions(primary, values)
	if err != nil {
		return err
	}
	s, err := RewardSpan(rewards, attributes...)
	return sendBuilt(ctx, s, err)
}

// Dimensions puts the primary dimension first and the others in order of their
// names. A primary one that is missing is an Invalid error.
func Dimensions(primary string, values map[string]float64) ([]semconv.Reward, error) {
	value, ok := values[primary]
	if !ok {
		return nil, queue.Errorf(queue.Invalid, "the primary reward %q is not among the rewards", primary)
	}
	rewards := []semconv.Reward{{Name: primary, Value: value}}
	for name, value := range values {
		if name != primary {
			rewards = append(rewards, semconv.Reward{Name: name, Value: value})
		}
	}
	slices.SortFunc(rewards[1:], func(a, b semconv.Reward) int { return strings.Compare(a.Name, b.Name) })
	return rewards, nil
}

// RewardSpan builds the span of a reward, the primary dimension first.
func RewardSpan(rewards []semconv.Reward, attributes ...any) (queue.Span, error) {
	list := []byte(`{"` + semconv.RewardPrefix + `":[`)
	for i, r := range rewards {
		if i > 0 {
			list = append(list, ',')
		}
		list = rawjson.AppendString(append(list, `{"name":`...), r.Name)
		list = semconv.AppendPythonFloat(append(list, `,"value":`...), r.Value)
		list = append(list, '}')
	}
	return AnnotationSpan(append([]any{rawjson.Value(append(list, ']', '}'))}, attributes...)...)
}

// Annotation sends what is to be noted of a task. Values must be texts, numbers,
// booleans or lists of one of these, nested or not: null is an Invalid error.
func Annotation(ctx context.Context, attributes ...any) error {
	s, err := AnnotationSpan(attributes...)
	return sendBuilt(ctx, s, err)
}

// AnnotationSpan builds the span of an annotation.
func AnnotationSpan(attributes ...any) (queue.Span, error) {
	flat, err := flatten(nil, attributes)
	if err != nil {
		return queue.Span{}, err
	}
	if err := semconv.Check(flat); err != nil {
		return queue.Span{}, err
	}
	return queue.Span{Name: semconv.AnnotationSpan, Attributes: semconv.Sanitize(flat), Status: semconv.StatusOK}, nil
}

// Message sends a text.
func Message(ctx context.Context, text string, attributes ...any) error {
	s, err := MessageSpan(text, attributes...)
	return sendBuilt(ctx, s, err)
}

// MessageSpan builds the span of a text.
func MessageSpan(text string, attributes ...any) (queue.Span, error) {
	flat, err := flatten(member(nil, semconv.MessageBody, text), attributes)
	return queue.Span{Name: semconv.MessageSpan, Attributes: semconv.Sanitize(flat)}, err
}

// Object sends a value: a scalar or bytes as text, all else as JSON. A value that
// has no JSON form is an Invalid error.
func Object(ctx context.Context, value any, attributes ...any) error {
	s, err := ObjectSpan(value, attributes...)
	return sendBuilt(ctx, s, err)
}

// ObjectSpan builds the span of a value.
func ObjectSpan(value any, attributes ...any) (queue.Span, error) {
	var own []byte
	if data, ok := value.([]byte); ok {
		own = member(member(nil, semconv.ObjectType, "bytes"), semconv.ObjectLiteral, base64.StdEncoding.EncodeToString(data))
	} else {
		v, err := encode(value)
		if err != nil {
			return queue.Span{}, err
		}
		own = object(v)
	}
	flat, err := flatten(own, attributes)
	return queue.Span{Name: semconv.ObjectSpan, Attributes: semconv.Sanitize(flat), Status: semconv.StatusOK}, err
}

// object writes the type and the text of a value. Types have Python's names, which
// is what readers of spans know.
func object(v rawjson.Value) []byte {
	kind, literal := "", ""
	switch v.Kind() {
	case rawjson.KindString:
		kind, literal = "str", v.Text()
	case rawjson.KindBool:
		kind, literal = "bool", "False"
		if v.Bool() {
			literal = "True"
		}
	case rawjson.KindInteger:
		kind, literal = "int", string(v)
	case rawjson.KindFloat, rawjson.KindNonFinite:
		f, _ := v.Float()
		kind, literal = "float", strings.ToLower(strings.Replace(string(semconv.AppendPythonFloat(nil, f)), "Infinity", "inf", 1))
	case rawjson.KindArray:
		kind = "list"
	case rawjson.KindObject:
		kind = "dict"
	default:
		kind = "NoneType"
	}
	dst := member(nil, semconv.ObjectType, kind)
	switch kind {
	case "list", "dict", "NoneType":
		return member(dst, semconv.ObjectJSON, string(semconv.AppendPythonJSON(nil, v)))
	}
	return member(dst, semconv.ObjectLiteral, literal)
}

// Failure is what an exception span says of an error.
type Failure struct {
	Type    string
	Message string
	Stack   string // left out when blank
}

// FailureOf is what there is to say of an error: the type of the innermost one, its
// text, and as a stack what %+v prints, where that is more than the text.
func FailureOf(err error) Failure {
	f := Failure{Type: TypeOf(err), Message: err.Error()}
	if full := fmt.Sprintf("%+v", err); full != f.Message {
		f.Stack = full
	}
	return f
}

// TypeOf names the type of the innermost error.
func TypeOf(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%T", err)
		}
		err = inner
	}
}

// Exception sends an error that does not end the task.
func Exception(ctx context.Context, err error, attributes ...any) error {
	s, buildErr := ExceptionSpan(FailureOf(err), attributes...)
	return sendBuilt(ctx, s, buildErr)
}

// ExceptionSpan builds the span of an error. Its status is OK: that the error was
// told is no error.
func ExceptionSpan(f Failure, attributes ...any) (queue.Span, error) {
	flat, err := flatten(exception(f), attributes)
	return queue.Span{Name: semconv.ExceptionSpan, Attributes: semconv.Sanitize(flat), Status: semconv.StatusOK}, err
}

// Mark makes a span one that failed, at a time in Unix seconds: its status says so,
// and an event tells the failure.
func (f Failure) Mark(s *queue.Span, at float64) {
	status := rawjson.AppendString([]byte(`{"status_code":"ERROR","description":`), f.Message)
	s.Status = append(status, '}')
	event := append([]byte(`[{"name":"exception","attributes":`), append(exception(f), '}')...)
	event = rawjson.AppendFloat(append(event, `,"timestamp":`...), at)
	s.Events = append(event, '}', ']')
}

// exception writes the attributes of an error, as an open object.
func exception(f Failure) []byte {
	dst := member(nil, semconv.ExceptionType, f.Type)
	dst = member(dst, semconv.ExceptionMessage, f.Message)
	dst = append(rawjson.AppendString(append(dst, ','), semconv.ExceptionEscaped), ":true"...)
	if strings.TrimSpace(f.Stack) != "" {
		dst = member(dst, semconv.ExceptionStacktrace, f.Stack)
	}
	return dst
}

// Links are attributes that point at spans by the values of their attributes, or
// by trace_id and span_id: all of them must match.
type Links map[string]string

// MarshalJSON implements json.Marshaler, in the order of keys.
func (l Links) MarshalJSON() ([]byte, error) {
	links := make([]semconv.Link, 0, len(l))
	for key, value := range l {
		links = append(links, semconv.Link{Key: key, Value: value})
	}
	slices.SortFunc(links, func(a, b semconv.Link) int { return strings.Compare(a.Key, b.Key) })
	return semconv.AppendLinks(nil, links), nil
}

// Tags are attributes that mark a span with texts.
type Tags []string

// MarshalJSON implements json.Marshaler.
func (t Tags) MarshalJSON() ([]byte, error) { return semconv.AppendTags(nil, t), nil }

// member adds a text to an open object; a nil dst begins one.
func member(dst []byte, key, text string) []byte {
	if dst == nil {
		dst = append(dst, '{')
	} else {
		dst = append(dst, ',')
	}
	dst = append(rawjson.AppendString(dst, key), ':')
	return rawjson.AppendString(dst, text)
}

// flatten adds attributes to an open object and closes it; a nil one begins it.
func flatten(open []byte, attributes []any) (rawjson.Value, error) {
	own := rawjson.EmptyObject
	if open != nil {
		own = append(open, '}')
	}
	for i, a := range attributes {
		v, err := encode(a)
		if err != nil {
			return rawjson.EmptyObject, err
		}
		if v.Kind() != rawjson.KindObject {
			return rawjson.EmptyObject, queue.Errorf(queue.Invalid, "attributes %d are %.80s; they must be an object", i, v)
		}
		own = merge(own, semconv.Flatten(v, false))
	}
	return own, nil
}

// merge adds the members of a flat object to another; of two with one key the
// later value stays, in the place of the earlier.
func merge(into, flat rawjson.Value) rawjson.Value {
	if len(flat) <= len("{}") {
		return into
	}
	if len(into) <= len("{}") {
		return flat
	}
	dst := append(slices.Clone(into[:len(into)-1]), ',')
	merged, _, err := rawjson.Compact(nil, append(dst, flat[1:]...))
	if err != nil { // both are JSON
		return into
	}
	return merged
}
