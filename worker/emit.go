package worker

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
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
	return t.scope.Send(ctx, s)
}

// Reward sends a reward of one dimension. It may be called any number of times:
// the last reward of a task counts.
func (t *Task) Reward(ctx context.Context, value float64) error {
	return t.reward(ctx, Reward(value).Rewards)
}

// Rewards sends a reward of several dimensions; primary must be one of them.
func (t *Task) Rewards(ctx context.Context, primary string, values map[string]float64) error {
	rewards, err := emit.Dimensions(primary, values)
	if err != nil {
		return err
	}
	return t.reward(ctx, rewards)
}

// Message sends a text.
func (t *Task) Message(ctx context.Context, text string) error {
	s, err := emit.MessageSpan(text)
	return t.sendBuilt(ctx, s, err)
}

// Exception sends an error that does not end the task.
func (t *Task) Exception(ctx context.Context, err error) error {
	s, buildErr := emit.ExceptionSpan(failureOf(err).told(err.Error()))
	return t.sendBuilt(ctx, s, buildErr)
}

// failureOf is the Failure in err's chain, or what there is to say of err.
func failureOf(err error) *Failure {
	var f *Failure
	if !errors.As(err, &f) {
		told := emit.FailureOf(err)
		f = &Failure{Type: told.Type, Message: told.Message, Stack: told.Stack}
	}
	return f
}

// told is what an exception span says of the failure, under a text.
func (f *Failure) told(text string) emit.Failure {
	kind := f.Type
	if kind == "" {
		kind = "error"
		if f.Err != nil {
			kind = emit.TypeOf(f.Err)
		}
	}
	return emit.Failure{Type: kind, Message: text, Stack: f.Stack}
}

func (t *Task) reward(ctx context.Context, rewards []semconv.Reward) error {
	for _, r := range rewards {
		if r.Name == "" {
			return queue.Errorf(queue.Invalid, "a reward without a name: the primary dimension must be one of the rewards")
		}
	}
	s, err := emit.RewardSpan(rewards)
	return t.sendBuilt(ctx, s, err)
}

// sendBuilt sends a span unless it could not be built.
func (t *Task) sendBuilt(ctx context.Context, s queue.Span, err error) error {
	if err != nil {
		return err
	}
	return t.scope.Send(ctx, s)
}

// object writes a JSON object.
type object struct{ buf []byte }

func (o *object) raw(key string, val rawjson.Value) {
	if o.buf == nil {
		o.buf = append(o.buf, '{')
	}
	o.buf = addMember(o.buf, key, val)
}

func (o *object) text(key, val string) { o.raw(key, rawjson.AppendString(nil, val)) }

func (o *object) int(key string, n int64) { o.raw(key, rawjson.AppendInt(nil, n)) }

func (o *object) close() rawjson.Value {
	if o.buf == nil {
		return rawjson.EmptyObject
	}
	return append(o.buf, '}')
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
