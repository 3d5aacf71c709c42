package verify

import (
	"slices"

	"github.com/aglq/aglq/queue"
)

// life is what is known of one rollout at one moment, in the model. It is
// comparable.
//
// Preparing and running are one here: what makes the difference is a heartbeat,
// which a store may write a little later than it acknowledges the span.
type life struct {
	status standing
	// attempts has three bytes for each attempt, in order: its number in the
	// rollout's table of attempts, its standing, and whether a span was sent.
	attempts string
}

// standing is where a rollout or an attempt stands, in the model.
type standing byte

// Where a rollout or an attempt stands.
const (
	absent    standing = iota // no such rollout
	queuing                   // queued, never claimed
	requeuing                 // queued again
	active                    // a rollout that is held, an attempt that holds it or did so last
	succeeded                 // both
	failed                    // both
	cancelled                 // a rollout
	silent                    // an attempt: unresponsive
	lost                      // an attempt: unresponsive because its worker was; not charged
	outOfTime                 // an attempt: timeout
)

// String names the standing as the store would.
func (s standing) String() string {
	return [...]string{"absent", "queuing", "requeuing", "preparing or running", "succeeded", "failed", "cancelled",
		"unresponsive", "unresponsive (worker lost)", "timeout"}[s]
}

func (s standing) finished() bool { return s == succeeded || s == failed || s == cancelled }
func (s standing) queued() bool   { return s == queuing || s == requeuing }

// terminal tells of an attempt that can no longer change its rollout.
func (s standing) terminal() bool { return s == succeeded || s == failed || s == outOfTime }

func standingOf(s queue.RolloutStatus) standing {
	switch s {
	case queue.RolloutQueuing:
		return queuing
	case queue.RolloutRequeuing:
		return requeuing
	case queue.RolloutPreparing, queue.RolloutRunning:
		return active
	case queue.RolloutSucceeded:
		return succeeded
	case queue.RolloutFailed:
		return failed
	case queue.RolloutCancelled:
		return cancelled
	}
	return absent
}

// attemptStanding does not tell lost from silent: nor does the store.
func attemptStanding(s queue.AttemptStatus) standing {
	switch s {
	case queue.AttemptPreparing, queue.AttemptRunning:
		return active
	case queue.AttemptSucceeded:
		return succeeded
	case queue.AttemptFailed:
		return failed
	case queue.AttemptUnresponsive:
		return silent
	case queue.AttemptTimeout:
		return outOfTime
	}
	return absent
}

const perAttempt = 3 // bytes

func (l life) count() int { return len(l.attempts) / perAttempt }

// number is which attempt of the table is the i-th of the rollout.
func (l life) number(i int) int        { return int(l.attempts[i*perAttempt]) }
func (l life) standing(i int) standing { return standing(l.attempts[i*perAttempt+1]) }
func (l life) spanSent(i int) bool     { return l.attempts[i*perAttempt+2] != 0 }

// find is the place of an attempt of the table, -1 for none.
func (l life) find(number int) int {
	for i := range l.count() {
		if l.number(i) == number {
			return i
		}
	}
	return -1
}

// with is l with another standing of its i-th attempt.
func (l life) with(i int, s standing) life {
	b := []byte(l.attempts)
	b[i*perAttempt+1] = byte(s)
	l.attempts = string(b)
	return l
}

func (l life) withSpan(i int) life {
	b := []byte(l.attempts)
	b[i*perAttempt+2] = 1
	l.attempts = string(b)
	return l
}

// rules are what the life of one rollout depends on.
type rules struct {
	plan   Plan
	leased bool // the store may find its worker lost
}

// claimed is l with an attempt more, which holds it.
func (l life) claimed(number int) life {
	l.status = active
	l.attempts += string([]byte{byte(number), byte(active), 0})
	return l
}

// ended is l after its i-th attempt was reported as succeeded or failed. It
// reaches the rollout only from the latest attempt, only if that had not ended,
// and only while the rollout has not.
func (r rules) ended(l life, i int, s standing) life {
	fenced := i != l.count()-1 || l.standing(i).terminal() || l.status.finished()
	l = l.with(i, s)
	if fenced {
		return l
	}
	if s == succeeded {
		l.status = succeeded
		return l
	}
	return r.retried(l, queue.AttemptFailed)
}

// retried is l after its latest attempt came to a bad end.
func (r rules) retried(l life, end queue.AttemptStatus) life {
	charged := int64(l.count())
	for i := range l.count() {
		if l.standing(i) == lost {
			charged--
		}
	}
	l.status = failed
	if slices.Contains(r.plan.Retry, end) && charged < r.plan.MaxAttempts {
		l.status = requeuing
	}
	return l
}

// byItself lists what may happen to a rollout without a call: the watchdog's
// verdicts on the attempt that holds it, and what a span does that was sent
// earlier: it brings an unresponsive attempt back, and with the latest attempt
// its rollout.
func (r rules) byItself(l life) (out []life) {
	last := l.count() - 1
	if l.status == active && last >= 0 && l.standing(last) == active {
		if r.plan.Timeout > 0 {
			out = append(out, r.retried(l.with(last, outOfTime), queue.AttemptTimeout))
		}
		if r.plan.Unresponsive > 0 {
			out = append(out, r.retried(l.with(last, silent), queue.AttemptUnresponsive))
		}
		if r.leased {
			gone := l.with(last, lost)
			gone.status = requeuing
			out = append(out, gone)
		}
	}
	for i := range l.count() {
		if !l.spanSent(i) {
			continue
		}
		back := l
		if s := l.standing(i); s == silent || s == lost {
			back = l.with(i, active)
		}
		if i == last && back.standing(i) == active && back.status == requeuing {
			back.status = active
		}
		if back != l {
			out = append(out, back)
		}
	}
	return out
}

// reach lists l and everything that it may become by itself.
func (r rules) reach(l life) []life {
	out := []life{l}
	for i := 0; i < len(out); i++ {
		for _, next := range r.byItself(out[i]) {
			if !slices.Contains(out, next) {
				out = append(out, next)
			}
		}
	}
	return out
}
