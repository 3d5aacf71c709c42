package verify

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/aglq/aglq/queue"
)

// forever is the end of a call of unknown outcome.
const forever = math.MaxInt64

// entry is an event in the history of one rollout.
type entry struct {
	begin, end int64
	call       *Call // nil for what was read at the end
	event      event
}

// account is all that the history says of one rollout.
type account struct {
	id       string
	mark     string
	plan     Plan
	final    *Final // nil when it was not there at the end
	entries  []entry
	attempts []string         // the table: by their numbers in the model
	numbers  map[string]int   // and back
	claims   map[string]*Call // the claim that made an attempt

	spanned map[int]bool // attempts that a span was sent of

	requeued bool  // a requeue was asked for
	meddled  bool  // a requeue or a cancel was asked for
	acked    int64 // when its enqueue was answered, forever if it was not
}

// attempt is the number of an attempt in the model.
func (a *account) attempt(id string) int {
	n, ok := a.numbers[id]
	if !ok {
		n = len(a.attempts)
		a.numbers[id] = n
		a.attempts = append(a.attempts, id)
	}
	return n
}

// accounts sorts a history by rollouts.
type accounts struct {
	h      *History
	byID   map[string]*account
	byMark map[string]string // the rollout of a mark, the first one
	// claimsOf are the claims of unknown outcome by worker; there is one at most.
	claimsOf map[string]*Call
	problems []Violation // what does not fit together at all
}

func accountsOf(h *History) *accounts {
	as := &accounts{h: h, byID: map[string]*account{}, byMark: map[string]string{}, claimsOf: map[string]*Call{}}
	as.meet()
	for i := range h.Calls {
		as.take(&h.Calls[i])
	}
	for i := range h.Finals {
		as.takeFinal(&h.Finals[i])
	}
	for _, a := range as.byID {
		as.unanswered(a)
		slices.SortStableFunc(a.entries, func(x, y entry) int { return cmp.Compare(x.begin, y.begin) })
	}
	return as
}

// meet opens an account for each rollout that was seen anywhere, and finds the
// call that enqueued it by the mark in its input.
func (as *accounts) meet() {
	tasks := map[string]*Call{}
	plans := map[string]Plan{}
	for i := range as.h.Calls {
		c := &as.h.Calls[i]
		if c.Op == OpClaim && c.Outcome == Unknown {
			as.claimsOf[c.Worker] = c
		}
		for _, t := range c.Tasks {
			tasks[t.Mark], plans[t.Mark] = c, t.Plan
		}
	}
	open := func(s Seen) {
		if s.Mark == "" {
			return
		}
		a := as.byID[s.Rollout]
		if a != nil {
			return
		}
		c := tasks[s.Mark]
		if c == nil {
			as.problem("origin", s.Rollout, "rollout %s was enqueued by nobody: its input has the mark %q", s.Rollout, s.Mark)
			return
		}
		a = &account{id: s.Rollout, mark: s.Mark, plan: plans[s.Mark], numbers: map[string]int{}, claims: map[string]*Call{}, acked: forever}
		as.byID[s.Rollout] = a
		switch first, twice := as.byMark[s.Mark]; {
		case twice:
			as.problem("created once", s.Rollout, "one request made two rollouts, %s and %s", first, s.Rollout)
		case c.Outcome == Refused:
			as.problem("created once", s.Rollout, "rollout %s was made by a call that was refused: %s", s.Rollout, c.Error)
		}
		as.byMark[s.Mark] = s.Rollout
		e := entry{begin: c.Begin, end: forever, call: c, event: created{}}
		if c.Outcome == Ok {
			e.end, a.acked = c.End, c.End
		}
		a.entries = append(a.entries, e)
	}
	for i := range as.h.Calls {
		for _, s := range as.h.Calls[i].Seen {
			open(s)
		}
	}
	for i := range as.h.Finals {
		open(Seen{Rollout: as.h.Finals[i].Rollout, Mark: as.h.Finals[i].Mark})
	}
}

func (as *accounts) problem(check, rollout, format string, args ...any) {
	as.problems = append(as.problems, Violation{Check: check, Rollout: rollout, What: fmt.Sprintf(format, args...)})
}

// take files a call with the rollouts that it concerns.
func (as *accounts) take(c *Call) {
	if c.Outcome == Refused {
		return
	}
	sure := c.Outcome == Ok
	switch c.Op {
	case OpClaim:
		for _, s := range c.Seen {
			as.claimed(c, s)
		}
	case OpSpan, OpExport:
		as.sent(c)
	case OpFinish, OpFail:
		as.ended(c)
	case OpCancel, OpRequeue:
		as.changed(c)
	case OpBeat:
		for i := range c.Held {
			ref := c.Attempts[i]
			as.add(ref.RolloutID, c, func(a *account) event {
				return held{a.attempt(ref.AttemptID), c.Held[i], standingOf(c.Seen[i].Status)}
			})
		}
	case OpWait:
		if sure {
			as.waited(c)
		}
	case OpRead:
		switch {
		case !sure:
		case c.NotFound:
			as.add(c.Rollouts[0], c, func(*account) event { return noRollout{} })
		default:
			as.add(c.Rollouts[0], c, func(a *account) event { return lookedAt(a, c.Seen[0]) })
		}
	case OpAttempts:
		if sure {
			as.add(c.Rollouts[0], c, func(a *account) event { return listedAs(a, c.Seen) })
		}
	}
}

// add files an event with a rollout. One that nobody enqueued is of others.
func (as *accounts) add(rollout string, c *Call, make func(a *account) event) {
	a := as.byID[rollout]
	if a == nil {
		return
	}
	e := entry{begin: c.Begin, end: c.End, call: c, event: make(a)}
	if c.Outcome == Unknown {
		e.end, e.event = forever, maybe{e.event}
	}
	a.entries = append(a.entries, e)
}

func (as *accounts) claimed(c *Call, s Seen) {
	if as.byID[s.Rollout] == nil {
		as.problem("origin", s.Rollout, "claim %d was given rollout %s, which is not of this run", c.ID, s.Rollout)
		return
	}
	as.add(s.Rollout, c, func(a *account) event {
		if first := a.claims[s.Attempt]; first != nil {
			as.problem("handed out once", s.Rollout, "attempt %s of rollout %s was handed to %s and to %s", s.Attempt, s.Rollout, first.Worker, c.Worker)
		}
		a.claims[s.Attempt] = c
		return claimed{a.attempt(s.Attempt), int(s.Sequence)}
	})
}

// sent files spans: the first one of an attempt is what matters for its life.
func (as *accounts) sent(c *Call) {
	ref := c.Attempts[0]
	if c.NotFound {
		as.add(ref.RolloutID, c, func(a *account) event { return noAttempt{a.attempt(ref.AttemptID)} })
		return
	}
	a := as.byID[ref.RolloutID]
	if a == nil {
		return
	}
	sent := spanSent{a.attempt(ref.AttemptID)}
	if a.spanned[sent.attempt] {
		return
	}
	if a.spanned == nil {
		a.spanned = map[int]bool{}
	}
	a.spanned[sent.attempt] = true
	// From now on it may bring the attempt back: that is all that follows.
	a.entries = append(a.entries, entry{begin: c.Begin, end: c.Begin + 1, call: c, event: sent})
}

func (as *accounts) ended(c *Call) {
	ref := c.Attempts[0]
	as.add(ref.RolloutID, c, func(a *account) event {
		n := a.attempt(ref.AttemptID)
		if c.NotFound {
			return noAttempt{n}
		}
		s := succeeded
		if c.Op == OpFail {
			s = failed
		}
		return ended{n, s}
	})
}

func (as *accounts) changed(c *Call) {
	as.add(c.Rollouts[0], c, func(a *account) event {
		a.meddled = true
		a.requeued = a.requeued || c.Op == OpRequeue
		switch {
		case c.NotFound:
			return noRollout{}
		case c.Op == OpRequeue:
			return set{requeuing}
		}
		return set{cancelled}
	})
}

func (as *accounts) waited(c *Call) {
	for _, id := range c.Rollouts {
		as.add(id, c, func(*account) event {
			for _, s := range c.Seen {
				if s.Rollout == id {
					return finishedAs{standingOf(s.Status)}
				}
			}
			return unfinished{}
		})
	}
}

func lookedAt(a *account, s Seen) event {
	e := looked{status: standingOf(s.Status), attempt: -1}
	if s.Attempt != "" {
		e.attempt, e.number, e.latest = a.attempt(s.Attempt), int(s.Sequence), attemptStanding(s.AttemptStatus)
	}
	return e
}

func listedAs(a *account, seen []Seen) event {
	e := listed{}
	for _, s := range seen {
		e.attempts = append(e.attempts, a.attempt(s.Attempt))
		e.standing = append(e.standing, attemptStanding(s.AttemptStatus))
	}
	return &e
}

// takeFinal files what was read at the end.
func (as *accounts) takeFinal(f *Final) {
	a := as.byID[f.Rollout]
	if a == nil {
		return
	}
	a.final = f
	last := Seen{Rollout: f.Rollout, Status: f.Status}
	if n := len(f.Attempts); n > 0 {
		last = f.Attempts[n-1]
		last.Status = f.Status
	}
	for _, e := range []event{lookedAt(a, last), listedAs(a, f.Attempts)} {
		a.entries = append(a.entries, entry{begin: f.Begin, end: f.End, event: e})
	}
}

// unanswered finds the attempts that no claim was told of: a worker's claim of
// unknown outcome made them.
func (as *accounts) unanswered(a *account) {
	workers := map[string]Seen{}
	note := func(seen []Seen) {
		for _, s := range seen {
			if s.Rollout == a.id && s.Attempt != "" {
				workers[s.Attempt] = s
			}
		}
	}
	for _, e := range a.entries {
		if e.call != nil {
			note(e.call.Seen)
		}
	}
	if a.final != nil {
		note(a.final.Attempts)
	}
	for id, s := range workers {
		if a.claims[id] != nil {
			continue
		}
		c := as.claimsOf[s.Worker]
		if c == nil {
			as.problem("handed out once", a.id, "attempt %s of rollout %s was made for %s, and no claim of it was answered so", id, a.id, cmp.Or(s.Worker, "nobody"))
			continue
		}
		a.claims[id] = c
		a.entries = append(a.entries, entry{begin: c.Begin, end: forever, call: c, event: claimed{a.attempt(id), int(s.Sequence)}})
	}
}

// finishedBy is when the rollout had surely finished, for good; forever when
// that cannot be told.
func (a *account) finishedBy() int64 {
	if a.requeued || a.final == nil {
		return forever
	}
	at := int64(forever)
	for _, e := range a.entries {
		switch v := e.event.(type) {
		case finishedAs:
			at = min(at, e.end)
		case set:
			at = min(at, e.end)
		case looked:
			if v.status.finished() && e.call != nil {
				at = min(at, e.end)
			}
		case ended:
			// The rollout succeeded by its last attempt: by this report, or before it.
			n := len(a.final.Attempts)
			if a.final.Status == queue.RolloutSucceeded && v.as == succeeded && n > 0 && a.final.Attempts[n-1].Attempt == a.attempts[v.attempt] {
				at = min(at, e.end)
			}
		}
	}
	return at
}
