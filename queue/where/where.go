// Package where is the filter language of rollouts: an expression that is true
// or false of a finished or unfinished rollout, as
//
//	reward < 0.5 or status == "failed"
//	metadata.project == "x" and "hard" in tags
//
// The grammar and the functions are those of [github.com/expr-lang/expr]; the
// names are the fields of [Subject]. What a rollout does not have, such as the
// reward of one that was never claimed or a member of metadata that is not there,
// is nil. Here a filter never fails on nil: a comparison with it by <, <=, >, >=,
// in, contains, startsWith, endsWith or matches is false, so is nil itself as a
// condition, and a member of nil is nil. Only == and != see it: reward == nil.
// Nor does a comparison of a text with a number fail, where the caller's own data
// decides the types: it is false.
//
// An expression of a number, a [Number], is written in the same language:
//
//	max(0, 4 - 4 * (reward ?? 0))
package where

import (
	"errors"
	"reflect"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/aglq/aglq/queue"
)

// Filter is a compiled condition. It is safe for concurrent use.
type Filter struct{ expression }

// Compile reads a condition. What is wrong with it is an Invalid error that
// shows the place.
func Compile(text string) (*Filter, error) {
	e, err := compile(text, "filter", expr.AsBool())
	if err != nil {
		return nil, err
	}
	return &Filter{e}, nil
}

// Match reports whether the filter is true of a rollout. Spans are those of its
// latest attempt, by sequence number; nil will do where NeedsSpans is false. An
// error is Invalid: the expression asks for what the values cannot do, such as to
// add a text to a number.
func (f *Filter) Match(r *queue.AttemptedRollout, spans []queue.Span) (bool, error) {
	out, err := f.run(r, spans)
	if err == nil {
		out, err = truthOf(out)
	}
	if err != nil {
		return false, f.inapplicable(r, err)
	}
	return out.(bool), nil
}

// Number is a compiled expression of a number, in the same language. It is safe
// for concurrent use.
type Number struct{ expression }

// CompileNumber reads an expression of a number. What is wrong with it is an
// Invalid error that shows the place.
func CompileNumber(text string) (*Number, error) {
	e, err := compile(text, "number", expr.AsAny())
	if err != nil {
		return nil, err
	}
	if t := known(e.program.Node()); t != nil && t.Kind() != reflect.Int && t.Kind() != reflect.Float64 {
		return nil, queue.Errorf(queue.Invalid, "the number is wrong: it is of type %s", t)
	}
	return &Number{e}, nil
}

// Of is the number for a rollout, whose spans are as in [Filter.Match]. It is
// finite. An error is Invalid: the expression asks for what the values cannot do,
// or what it comes to is no number, as that of a value which the rollout does not
// have.
func (n *Number) Of(r *queue.AttemptedRollout, spans []queue.Span) (float64, error) {
	out, err := n.run(r, spans)
	if err == nil {
		var v float64
		if v, err = numberOf(out); err == nil {
			return v, nil
		}
	}
	if text := err.Error(); strings.Contains(text, "<nil>") { // arithmetic with what is not there
		err = errors.New(text + "; " + sayNil)
	}
	return 0, n.inapplicable(r, err)
}

// expression is one of the language.
type expression struct {
	text    string
	what    string // it is, to its writer
	program *vm.Program
	names   map[string]bool // that the expression speaks of
}

// compile reads an expression of a kind.
func compile(text, what string, kind expr.Option) (expression, error) {
	e := expression{text: text, what: what, names: map[string]bool{}}
	wrong := func(why string) error { return queue.Errorf(queue.Invalid, "the %s is wrong: %s", what, why) }
	// The operators that stand in are lax about types: the first pass is not.
	if _, err := expr.Compile(text, expr.Env(Subject{}), kind); err != nil {
		return e, wrong(explain(err))
	}
	program, err := expr.Compile(text, append([]expr.Option{
		expr.Env(Subject{}), expr.Patch(names(e.names)), expr.Patch(lenient{}), expr.Patch(conditions{}),
	}, functions...)...)
	if err != nil {
		return e, wrong(explain(err))
	}
	if e.names["$env"] {
		return e, wrong("$env is not to be had; name the fields")
	}
	e.program = program
	return e, nil
}

// String is the text that e was compiled from.
func (e *expression) String() string { return e.text }

// NeedsSpans reports whether the expression speaks of what only the spans of the
// latest attempt tell: reward, rewards, tags.
func (e *expression) NeedsSpans() bool {
	return e.names["reward"] || e.names["rewards"] || e.names["tags"]
}

func (e *expression) run(r *queue.AttemptedRollout, spans []queue.Span) (any, error) {
	return expr.Run(e.program, e.subject(r, spans))
}

func (e *expression) inapplicable(r *queue.AttemptedRollout, err error) error {
	return queue.Errorf(queue.Invalid, "the %s cannot be applied to rollout %s: %s", e.what, r.RolloutID, explain(err))
}

// explain says what the library says: the fault and its place.
func explain(err error) string {
	var located *file.Error
	if errors.As(err, &located) {
		return located.Error()
	}
	return err.Error()
}
