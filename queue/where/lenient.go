package where

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm/runtime"
)

// The functions that stand in for operators where an operand may be nil or of any
// type. Their names have a space, so that no expression can call them.
const (
	compareName = "compare values"
	withinName  = "within list"
	memberName  = "member of"
	textName    = "is text"
	truthName   = "truth of"
)

var functions = []expr.Option{
	expr.Function(compareName, func(args ...any) (any, error) {
		return compare(args[0].(string), plain(args[1]), plain(args[2])), nil
	}, new(func(string, any, any) bool)),
	expr.Function(withinName, func(args ...any) (any, error) {
		return within(plain(args[0]), args[1]), nil
	}, new(func(any, any) bool)),
	expr.Function(memberName, func(args ...any) (any, error) {
		return member(args[0], args[1]), nil
	}, new(func(any, any) any)),
	expr.Function(textName, func(args ...any) (any, error) {
		_, ok := args[0].(string)
		return ok, nil
	}, new(func(any) bool)),
	expr.Function(truthName, func(args ...any) (any, error) {
		return truthOf(args[0])
	}, new(func(any) bool)),
}

// plain is what a pointer points at, nil for a nil one.
func plain(v any) any {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer {
		return v
	}
	if p.IsNil() {
		return nil
	}
	return p.Elem().Interface()
}

// compare orders two numbers or two texts; of anything else no order is true.
func compare(operator string, a, b any) bool {
	order := 0
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		if !ok {
			return false
		}
		order = strings.Compare(x, y)
	default:
		x1, ok1 := number(a)
		y1, ok2 := number(b)
		if !ok1 || !ok2 || x1 != x1 || y1 != y1 {
			return false
		}
		order = cmp.Compare(x1, y1)
	}
	switch operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func number(v any) (float64, bool) {
	n := reflect.ValueOf(v)
	switch {
	case n.CanInt():
		return float64(n.Int()), true
	case n.CanFloat():
		return n.Float(), true
	}
	return 0, false
}

// within reports whether a list has an element or an object a member.
func within(needle, in any) bool {
	switch in := in.(type) {
	case []any:
		for _, v := range in {
			if runtime.Equal(v, needle) {
				return true
			}
		}
	case map[string]any:
		key, ok := needle.(string)
		_, there := in[key]
		return ok && there
	}
	return false
}

// member is a member of an object or an element of a list, from the end when
// negative; nil when there is none.
func member(of, key any) any {
	switch of := of.(type) {
	case map[string]any:
		if name, ok := key.(string); ok {
			return of[name]
		}
	case []any:
		i, ok := key.(int)
		if i < 0 {
			i += len(of)
		}
		if ok && i >= 0 && i < len(of) {
			return of[i]
		}
	}
	return nil
}

// truthOf is a condition; nil is false.
func truthOf(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	}
	return false, fmt.Errorf("a condition is %.80v, which is neither true nor false", v)
}

// sayNil is what to do about a value that is not there.
const sayNil = "say what counts where there is none, as in (reward ?? 0)"

// numberOf makes a number of what an expression comes to.
func numberOf(v any) (float64, error) {
	var n float64
	switch v := v.(type) {
	case int:
		n = float64(v)
	case float64:
		n = v
	case *float64:
		if v == nil {
			return numberOf(nil)
		}
		n = *v
	case nil:
		return 0, errors.New("it has no value; " + sayNil)
	default:
		return 0, fmt.Errorf("it comes to %.80v, which is no number", v)
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("it comes to %v", n)
	}
	return n, nil
}

// names collects the names that an expression uses.
type names map[string]bool

// Visit implements ast.Visitor.
func (n names) Visit(node *ast.Node) {
	if name, ok := (*node).(*ast.IdentifierNode); ok {
		n[name.Value] = true
	}
}

// lenient makes operators ones that are false of nil, and of types that do not go
// together where only the values tell these. Where the types are known, a wrong
// one stays an error of the expression.
type lenient struct{}

// Visit implements ast.Visitor.
func (lenient) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BinaryNode:
		left, right := known(n.Left), known(n.Right)
		switch n.Operator {
		case "<", "<=", ">", ">=":
			if left == nil || right == nil || sortable(left) != "" && sortable(left) == sortable(right) {
				call(node, compareName, &ast.StringNode{Value: n.Operator}, n.Left, n.Right)
			}
		case "in":
			if right == nil || right.Kind() == reflect.Slice || right.Kind() == reflect.Map {
				call(node, withinName, n.Left, n.Right)
			}
		case "contains", "startsWith", "endsWith", "matches":
			var whole ast.Node = n
			for _, side := range []ast.Node{n.Right, n.Left} {
				if known(side) == nil {
					whole = &ast.BinaryNode{Operator: "&&", Left: callNode(textName, side), Right: whole}
				}
			}
			if whole != n {
				ast.Patch(node, whole)
			}
		}
	case *ast.MemberNode:
		if of := known(n.Node); of == nil || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			call(node, memberName, n.Node, n.Property)
		}
	}
}

// sortable is what kind of order a type has, "" for none.
func sortable(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	}
	return ""
}

// conditions makes nil false wherever a condition stands.
type conditions struct{}

// Visit implements ast.Visitor.
func (conditions) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "or", "&&", "||":
			truth(&n.Left)
			truth(&n.Right)
		}
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			truth(&n.Node)
		}
	case *ast.ConditionalNode:
		truth(&n.Cond)
	case *ast.BuiltinNode:
		switch n.Name {
		case "all", "none", "any", "one", "filter", "find", "findIndex", "findLast", "findLastIndex", "count":
			if len(n.Arguments) == 2 {
				if p, ok := n.Arguments[1].(*ast.PredicateNode); ok {
					truth(&p.Node)
				}
			}
		}
	}
}

// truth wraps what is not known to be a boolean.
func truth(node *ast.Node) {
	if known(*node) == nil {
		call(node, truthName, *node)
	}
}

// known is the type of a node, nil when only the values will tell. Pointers are
// what they point at.
func known(node ast.Node) reflect.Type {
	t := node.Type()
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() == reflect.Interface {
		return nil
	}
	return t
}

func call(node *ast.Node, name string, args ...ast.Node) {
	ast.Patch(node, callNode(name, args...))
}

func callNode(name string, args ...ast.Node) *ast.CallNode {
	return &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
}
