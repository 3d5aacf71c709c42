package react

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/emit"
)

// parallelCalls bounds how many calls of one step run at a time.
const parallelCalls = 16

// result is what came of a call.
type result struct {
	id     string // of the call that was made
	text   string
	failed bool
}

// act gives each call of a step its result. Calls that differ run at the same
// time. The error is why ctx ended, or that a recording lacks a call.
func (r *run) act(ctx context.Context, turn, number int, step *Step) error {
	results := make([]result, len(step.Calls))
	first := map[string]int{} // the step's first call of each key
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(parallelCalls)
	keys := make([]string, len(step.Calls))
	for i, c := range step.Calls {
		keys[i] = callKey(c.Name, c.Arguments)
		if known, ok := r.seen[keys[i]]; ok {
			results[i] = known
			continue
		}
		if _, ok := first[keys[i]]; ok {
			continue
		}
		first[keys[i]] = i
		group.Go(func() (err error) {
			results[i], err = r.observe(within, about{Category: "tool", Turn: turn, Step: number, CallID: c.ID}, c)
			return err
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	for i := range step.Calls {
		if at, ok := first[keys[i]]; ok {
			results[i] = results[at]
		}
		step.Calls[i].settle(results[i])
		if !results[i].failed && r.opts.Duplicates != WithinStep {
			r.seen[keys[i]] = results[i]
		}
		if step.Calls[i].DuplicateOf != "" {
			r.noteDuplicate(ctx, turn, number, step.Calls[i])
		}
	}
	return nil
}

// settle files a result under a call.
func (c *ToolCall) settle(res result) {
	c.Result, c.Failed = res.text, res.failed
	if res.id != c.ID {
		c.DuplicateOf = res.id
	}
}

// noteDuplicate sends the operation of a call that was not made.
func (r *run) noteDuplicate(ctx context.Context, turn, number int, c ToolCall) {
	_ = operation(ctx, spanName(c.Name), about{Category: "tool", Turn: turn, Step: number, CallID: c.ID},
		func(_ context.Context, op *emit.Op) error {
			return errors.Join(inputOf(op, c.Arguments), op.Output(map[string]string{"duplicate_of": c.DuplicateOf}))
		})
}

// observe makes a call as an operation. What goes wrong with it is its result; the
// error is that a recording lacks it.
func (r *run) observe(ctx context.Context, a about, c ToolCall) (result, error) {
	res := result{id: c.ID}
	var lacking error
	err := operation(ctx, spanName(c.Name), a, func(ctx context.Context, op *emit.Op) error {
		_ = inputOf(op, c.Arguments)
		text, err := r.execute(ctx, c)
		if errors.Is(err, ErrNotRecorded) {
			lacking = err
		}
		limit := DefaultMaxResult
		if t := r.tools.byName[c.Name]; t != nil {
			limit = t.MaxResult
		}
		if err != nil {
			text = "Error: " + err.Error()
		}
		res.text, res.failed = clip(text, limit), err != nil
		_ = op.Output(res.text)
		return err
	})
	if lacking == nil && errors.Is(err, emit.ErrNoTask) {
		lacking = err
	}
	return res, lacking
}

// inputOf records the arguments of a call by their names, or the text that is none.
func inputOf(op *emit.Op, arguments string) error {
	if v, err := rawjson.Parse([]byte(arguments)); err == nil && v.Kind() == rawjson.KindObject {
		return op.Input(v)
	}
	return op.Input(map[string]string{"arguments": arguments})
}

// spanName is the name of a call's operation: what the model invents must not be
// taken for a name with a meaning.
func spanName(tool string) string {
	if toolName.MatchString(tool) {
		return tool
	}
	return "unknown_tool"
}

// execute runs a call, or takes its result from a recording. A panic, of the tool or
// of the check of its arguments, is an error.
func (r *run) execute(ctx context.Context, c ToolCall) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			text, err = "", fmt.Errorf("the tool panicked: %v", p)
		}
	}()
	t := r.tools.byName[c.Name]
	if t == nil {
		return "", r.unknown(c.Name)
	}
	arguments, err := t.arguments(c.Arguments)
	if err != nil {
		return "", err
	}
	run := func() (string, error) {
		leave, err := r.task.Limit(ctx, limitTool+c.Name)
		if err != nil {
			return "", err
		}
		defer leave()
		return t.call(ctx, Call{ID: c.ID, Tool: c.Name, Arguments: arguments, Session: r.conv.Session})
	}
	if r.opts.Tape == nil {
		return run()
	}
	key, what := r.history(c)
	return r.opts.Tape.tool(ctx, key, what, run)
}

func (r *run) unknown(name string) error {
	names := make([]string, 0, len(r.tools.list))
	for _, t := range r.tools.list {
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("there is no tool %.100q, and no other one", name)
	}
	return fmt.Errorf("there is no tool %.100q; the tools are %s", name, strings.Join(names, ", "))
}

// callKey is the same for calls of one tool with the same arguments. Arguments that
// are no JSON are the same only as they stand.
func callKey(name, arguments string) string {
	if strings.TrimSpace(arguments) == "" {
		arguments = "{}"
	}
	key := append([]byte(name), 0)
	v, err := rawjson.Parse([]byte(arguments))
	if err != nil {
		return string(append(key, arguments...))
	}
	return string(appendSorted(key, v))
}

// appendSorted writes a value with the members of its objects in the order of their
// names.
func appendSorted(dst []byte, v rawjson.Value) []byte {
	switch v.Kind() {
	case rawjson.KindObject:
		type member struct {
			key []byte
			val rawjson.Value
		}
		var members []member
		for key, val := range v.Members() {
			members = append(members, member{rawjson.AppendString(nil, rawjson.Unescape(key)), val})
		}
		slices.SortFunc(members, func(a, b member) int { return bytes.Compare(a.key, b.key) })
		dst = append(dst, '{')
		for i, m := range members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendSorted(append(append(dst, m.key...), ':'), m.val)
		}
		return append(dst, '}')
	case rawjson.KindArray:
		dst = append(dst, '[')
		first := true
		for item := range v.Elements() {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = appendSorted(dst, item)
		}
		return append(dst, ']')
	case rawjson.KindString:
		return rawjson.AppendString(dst, v.Text())
	}
	return append(dst, v...)
}
