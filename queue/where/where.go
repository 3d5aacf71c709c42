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
package where

import (
	"errors"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/aglq/aglq/queue"
)

// Filter is a compiled expression. It is safe for concurrent use.
type Filter struct {
	text    string
	program *vm.Program
	names   map[string]bool // that the expression speaks of
}

// Compile reads an expression. What is wrong with it is an Invalid error that
// shows the place.
func Compile(text string) (*Filter, error) {
	// The operators that stand in are lax about types: the first pass is not.
	if _, err := expr.Compile(text, expr.Env(Subject{}), expr.AsBool()); err != nil {
		return nil, queue.Errorf(queue.Invalid, "the filter is wrong: %s", explain(err))
	}
	f := &Filter{text: text, names: map[string]bool{}}
	program, err := expr.Compile(text, append([]expr.Option{
		expr.Env(Subject{}), expr.Patch(names(f.names)), expr.Patch(lenient{}), expr.Patch(conditions{}),
	}, functions...)...)
	if err != nil {
		return nil, queue.Errorf(queue.Invalid, "the filter is wrong: %s", explain(err))
	}
	if f.names["$env"] {
		return nil, queue.Errorf(queue.Invalid, "the filter is wrong: $env is not to be had; name the fields")
	}
	f.program = program
	return f, nil
}

// String is the text that f was compiled from.
func (f *Filter) String() string { return f.text }

// NeedsSpans reports whether the expression speaks of what only the spans of the
// latest attempt tell: reward, rewards, tags.
func (f *Filter) NeedsSpans() bool {
	return f.names["reward"] || f.names["rewards"] || f.names["tags"]
}

// Match reports whether the filter is true of a rollout. Spans are those of its
// latest attempt, by sequence number; nil will do where [Filter.NeedsSpans] is
// false. An error is Invalid: the expression asks for what the values cannot do,
// such as to add a text to a number.
func (f *Filter) Match(r *queue.AttemptedRollout, spans []queue.Span) (bool, error) {
	out, err := expr.Run(f.program, f.subject(r, spans))
	if err != nil {
		return false, queue.Errorf(queue.Invalid, "the filter cannot be applied to rollout %s: %s", r.RolloutID, explain(err))
	}
	met, err := truthOf(out)
	if err != nil {
		return false, queue.Errorf(queue.Invalid, "the filter cannot be applied to rollout %s: %s", r.RolloutID, err)
	}
	return met.(bool), nil
}

// explain says what the library says: the fault and its place.
func explain(err error) string {
	var located *file.Error
	if errors.As(err, &located) {
		return located.Error()
	}
	return err.Error()
}
