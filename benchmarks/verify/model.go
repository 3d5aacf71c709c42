package verify

import (
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/anishathalye/porcupine"
)

// event is the part of a call that concerns one rollout: what it does and what
// it was told. Its step in the model is a pure function.
type event interface {
	// step lists what l may be after the event; none where the event cannot have
	// happened as it was answered.
	step(r rules, l life) []life
	String() string
}

// changes reports whether an event may change a rollout; the others only say
// what was seen.
func changes(e event) bool {
	switch e.(type) {
	case created, claimed, spanSent, ended, set, maybe:
		return true
	}
	return false
}

// maybe is an event of a call of unknown outcome: it took effect or did not.
type maybe struct{ event }

func (e maybe) step(r rules, l life) []life { return append(e.event.step(r, l), l) }
func (e maybe) String() string              { return e.event.String() + ", outcome unknown" }

type (
	created  struct{}
	claimed  struct{ attempt, sequence int } // sequence 0 is not known
	spanSent struct{ attempt int }
	// ended is a report of an attempt's end.
	ended struct {
		attempt int
		as      standing
	}
	// set is a caller's change of the rollout's status.
	set struct{ to standing }

	// noAttempt is the answer that there is no such attempt.
	noAttempt struct{ attempt int }
	noRollout struct{}
	// held is a heartbeat's answer about an attempt.
	held struct {
		attempt int
		held    bool
		status  standing
	}
	// finishedAs is a wait that returned the rollout, unfinished one that did not.
	finishedAs struct{ status standing }
	unfinished struct{}
	// looked is a rollout with its latest attempt, -1 for none.
	looked struct {
		status, latest  standing
		attempt, number int
	}
	// listed is the attempts of the rollout, in order.
	listed struct {
		attempts []int
		standing []standing
	}
)

func only(l life, holds bool) []life {
	if holds {
		return []life{l}
	}
	return nil
}

func (created) step(_ rules, l life) []life {
	return only(life{status: queuing}, l.status == absent)
}

func (e claimed) step(_ rules, l life) []life {
	fits := e.sequence == 0 || e.sequence == l.count()+1
	if !l.status.queued() || l.find(e.attempt) >= 0 || !fits {
		return nil
	}
	return []life{l.claimed(e.attempt)}
}

func (e spanSent) step(_ rules, l life) []life {
	if i := l.find(e.attempt); i >= 0 {
		return []life{l.withSpan(i)}
	}
	return nil
}

func (e ended) step(r rules, l life) []life {
	if i := l.find(e.attempt); i >= 0 {
		return []life{r.ended(l, i, e.as)}
	}
	return nil
}

func (e set) step(_ rules, l life) []life {
	if l.status == absent {
		return nil
	}
	l.status = e.to
	return []life{l}
}

func (e noAttempt) step(_ rules, l life) []life { return only(l, l.find(e.attempt) < 0) }
func (noRollout) step(_ rules, l life) []life   { return only(l, l.status == absent) }

func (e held) step(_ rules, l life) []life {
	last := l.count() - 1
	holds := last >= 0 && l.number(last) == e.attempt && l.status == active && l.standing(last) == active
	return only(l, holds == e.held && l.status == e.status)
}

func (e finishedAs) step(_ rules, l life) []life { return only(l, l.status == e.status) }
func (unfinished) step(_ rules, l life) []life   { return only(l, !l.status.finished()) }

func (e looked) step(_ rules, l life) []life {
	last := l.count() - 1
	if l.status != e.status || (last < 0) != (e.attempt < 0) {
		return nil
	}
	return only(l, last < 0 || l.number(last) == e.attempt && e.number == last+1 && looksLike(l.standing(last), e.latest))
}

func (e listed) step(_ rules, l life) []life {
	if l.count() != len(e.attempts) {
		return nil
	}
	for i := range e.attempts {
		if l.number(i) != e.attempts[i] || !looksLike(l.standing(i), e.standing[i]) {
			return nil
		}
	}
	return []life{l}
}

// looksLike compares what is with what was seen.
func looksLike(is, seen standing) bool { return is == seen || is == lost && seen == silent }

func (created) String() string { return "enqueued" }
func (e claimed) String() string {
	return fmt.Sprintf("claimed, attempt %s (number %d)", name(e.attempt), e.sequence)
}
func (e spanSent) String() string { return "span of attempt " + name(e.attempt) }
func (e ended) String() string {
	return fmt.Sprintf("attempt %s reported as %s", name(e.attempt), e.as)
}
func (e set) String() string { return fmt.Sprintf("set to %s", e.to) }

func (e noAttempt) String() string {
	return fmt.Sprintf("told that there is no attempt %s", name(e.attempt))
}
func (noRollout) String() string    { return "told that there is no such rollout" }
func (e finishedAs) String() string { return fmt.Sprintf("wait: it is %s", e.status) }
func (unfinished) String() string   { return "wait: it has not finished" }

func (e held) String() string {
	if e.held {
		return fmt.Sprintf("heartbeat: attempt %s is held, rollout %s", name(e.attempt), e.status)
	}
	return fmt.Sprintf("heartbeat: attempt %s is not held, rollout %s", name(e.attempt), e.status)
}

func (e looked) String() string {
	if e.attempt < 0 {
		return fmt.Sprintf("seen %s, no attempt", e.status)
	}
	return fmt.Sprintf("seen %s, attempt %s (number %d) %s", e.status, name(e.attempt), e.number, e.latest)
}

func (e listed) String() string {
	if len(e.attempts) == 0 {
		return "attempts seen: none"
	}
	parts := make([]string, len(e.attempts))
	for i := range e.attempts {
		parts[i] = fmt.Sprintf("%s %s", name(e.attempts[i]), e.standing[i])
	}
	return "attempts seen: " + strings.Join(parts, ", ")
}

// name is a short name of an attempt: A, B … in the order of its table.
func name(attempt int) string {
	if attempt < 26 {
		return string(rune('A' + attempt))
	}
	return fmt.Sprintf("A%d", attempt)
}

var seed = maphash.MakeSeed()

// model is the life of one rollout for porcupine.
func (r rules) model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{life{}} },
		Step: func(state, input, _ any) []any {
			var out []any
			for _, l := range r.reach(state.(life)) {
				for _, next := range input.(event).step(r, l) {
					out = append(out, next)
				}
			}
			return out
		},
		Hash: func(state any) uint64 { return maphash.Comparable(seed, state.(life)) },
	}
	return m.ToModel()
}
