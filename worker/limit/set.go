package limit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Group is a gate with a line before it. A nil Group lets everybody in.
type Group struct {
	gate *Gate
	line Line
}

// NewGroup makes a group that keeps all of some rules.
func NewGroup(rules ...Rule) *Group { return &Group{gate: NewGate(rules...)} }

// Take enters, after a wait of at most patience, and gives what leaves again;
// calls of that after the first have no effect. The errors are those of
// [Line.Wait].
func (g *Group) Take(ctx context.Context, patience time.Duration) (leave func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	if err := g.line.Wait(ctx, patience, g.gate.Try); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		g.gate.Leave()
		g.line.Next()
	}), nil
}

// Set is groups by their names. A nil Set has none.
type Set struct {
	groups map[string]*Group
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,100}$`)

// Parse makes a set of texts like "llm=64" and "tool:search=100/m". A group keeps
// all the rules that are given for its name, which is letters, digits, "_", ".",
// ":" and "-".
func Parse(texts []string) (*Set, error) {
	rules := map[string][]Rule{}
	for _, text := range texts {
		name, number, ok := strings.Cut(text, "=")
		if name = strings.TrimSpace(name); !ok || !nameForm.MatchString(name) {
			return nil, fmt.Errorf("%q must be a name and a limit, as llm=64 or tool:search=100/m", text)
		}
		r, err := ParseRule(strings.TrimSpace(number))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rules[name] = append(rules[name], r)
	}
	s := &Set{groups: map[string]*Group{}}
	for name, list := range rules {
		s.groups[name] = NewGroup(list...)
	}
	return s, nil
}

// Group is the group of a name, nil where there is none.
func (s *Set) Group(name string) *Group {
	if s == nil {
		return nil
	}
	return s.groups[name]
}

// Names are those of the groups, in order.
func (s *Set) Names() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.groups))
}

// ErrClosed means that a session has ended: its task is over.
var ErrClosed = errors.New("the task is over: it gets no more slots")

// Session is what one task holds of a set. Its methods are safe for concurrent
// use.
type Session struct {
	set  *Set
	open context.Context
	end  context.CancelCauseFunc

	mu   sync.Mutex
	held map[int]func()
	next int
}

// NewSession makes a session of a set, nil for none; its end is Close.
func NewSession(s *Set) *Session {
	x := &Session{set: s, held: map[int]func(){}}
	x.open, x.end = context.WithCancelCause(context.Background())
	return x
}

// Take waits for a slot of a group, as long as ctx and the session last, and gives
// what returns it; a group that the set does not have is without bounds.
func (x *Session) Take(ctx context.Context, group string) (leave func(), err error) {
	slot, err := x.take(ctx, group)
	if err != nil {
		return nil, err
	}
	return func() { x.leave(slot) }, nil
}

// take is Take with a number in place of a function.
func (x *Session) take(ctx context.Context, group string) (slot int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	unlink := context.AfterFunc(x.open, func() { cancel(ErrClosed) })
	defer unlink()
	leave, err := x.set.Group(group).Take(ctx, Forever)
	if err != nil {
		return 0, fmt.Errorf("waiting for a slot of %s: %w", group, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.held == nil {
		leave()
		return 0, ErrClosed
	}
	x.next++
	x.held[x.next] = leave
	return x.next, nil
}

// leave returns a slot; false when it was returned already.
func (x *Session) leave(slot int) bool {
	x.mu.Lock()
	leave := x.held[slot]
	delete(x.held, slot)
	x.mu.Unlock()
	if leave == nil {
		return false
	}
	leave()
	return true
}

// Close returns all that the session holds; who waits for more gets [ErrClosed].
func (x *Session) Close() {
	x.end(ErrClosed)
	x.mu.Lock()
	held := x.held
	x.held = nil
	x.mu.Unlock()
	for _, leave := range held {
		leave()
	}
}
