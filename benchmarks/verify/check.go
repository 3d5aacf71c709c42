package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Violation is something that a queue that keeps its promises cannot have said
// or done.
type Violation struct {
	Check   string // the check that found it
	Rollout string // "" where it is not of one
	What    string
	// History is what is relevant of the rollout's history, a line each.
	History []string
}

// Checked is one check and how much it looked at.
type Checked struct {
	Name    string
	Of      string // what it looked at
	Count   int
	Against string // what would have been wrong
}

// Report is the outcome of a run.
type Report struct {
	Meta       Meta
	Calls      map[Operation]map[Outcome]int
	Faults     map[FaultKind]int // injected
	Skipped    map[FaultKind]int // could not be
	Rollouts   int
	Checks     []Checked
	Violations []Violation
	// Undecided are rollouts whose history was too entangled to be checked in
	// time.
	Undecided []string
}

// checkTimeout bounds the search for an order of the events of one rollout.
const checkTimeout = 20 * time.Second

// Check examines a history. It uses all processors.
func Check(ctx context.Context, h *History) (*Report, error) {
	as := accountsOf(h)
	r := &Report{
		Meta: h.Meta, Calls: map[Operation]map[Outcome]int{}, Faults: map[FaultKind]int{}, Skipped: map[FaultKind]int{},
		Rollouts: len(as.byID),
	}
	for i := range h.Calls {
		c := &h.Calls[i]
		if r.Calls[c.Op] == nil {
			r.Calls[c.Op] = map[Outcome]int{}
		}
		r.Calls[c.Op][c.Outcome]++
	}
	for _, f := range h.Faults {
		if f.Error != "" {
			r.Skipped[f.Kind]++
		} else {
			r.Faults[f.Kind]++
		}
	}
	r.Violations = as.problems
	for _, check := range []func(*accounts) (Checked, []Violation){
		checkStores, checkRefused, checkEnqueued, checkHandedOut, checkEnded, checkCounts, checkNumbers, checkSpans, checkWaits, checkClaims, checkVerdicts,
	} {
		done, found := check(as)
		r.Checks = append(r.Checks, done)
		r.Violations = append(r.Violations, found...)
	}
	r.checkLives(ctx, as)
	slices.SortStableFunc(r.Violations, func(a, b Violation) int { return cmp.Compare(a.Check, b.Check) })
	as.illustrate(r.Violations)
	return r, ctx.Err()
}

// checkLives looks for an order of the events of each rollout in which all
// answers are right.
func (r *Report) checkLives(ctx context.Context, as *accounts) {
	var mu sync.Mutex
	var group sync.WaitGroup
	events := 0
	work := make(chan *account)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for a := range work {
				verdict := as.rulesOf(a).judge(a.entries)
				mu.Lock()
				events += len(a.entries)
				switch verdict {
				case porcupine.Unknown:
					r.Undecided = append(r.Undecided, a.id)
				case porcupine.Illegal:
					mu.Unlock()
					v := as.explain(a)
					mu.Lock()
					r.Violations = append(r.Violations, v)
				}
				mu.Unlock()
			}
		})
	}
	for _, id := range slices.Sorted(maps.Keys(as.byID)) {
		if ctx.Err() != nil {
			break
		}
		work <- as.byID[id]
	}
	close(work)
	group.Wait()
	slices.Sort(r.Undecided)
	r.Checks = append(r.Checks, Checked{
		Name: checkLife, Of: "events of rollouts", Count: events,
		Against: "answers about a rollout that no order of its calls explains: an attempt handed out twice, a result changed by a fenced worker, an end undone",
	})
}

const checkLife = "linearizable"

func (as *accounts) rulesOf(a *account) rules {
	return rules{plan: a.plan, leased: as.h.Meta.Lease != 0}
}

func (r rules) judge(entries []entry) porcupine.CheckResult {
	ops := make([]porcupine.Operation, len(entries))
	for i, e := range entries {
		ops[i] = porcupine.Operation{ClientId: i, Input: e.event, Call: e.begin, Return: e.end}
	}
	return porcupine.CheckOperationsTimeout(r.model(), ops, checkTimeout)
}

// explain finds the shortest history of a rollout that is still wrong: up to the
// first answer that cannot be, and without what was only seen and does not
// matter.
func (as *accounts) explain(a *account) Violation {
	rules := as.rulesOf(a)
	wrong := func(entries []entry) bool { return rules.judge(entries) == porcupine.Illegal }

	ends := make([]int64, 0, len(a.entries))
	for _, e := range a.entries {
		ends = append(ends, e.end)
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	first, _ := slices.BinarySearchFunc(ends, true, func(end int64, _ bool) int {
		if wrong(until(a.entries, end)) {
			return 0
		}
		return -1
	})
	entries := a.entries
	if first < len(ends) {
		entries = until(a.entries, ends[first])
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if changes(entries[i].event) {
			if _, open := entries[i].event.(maybe); !open {
				continue
			}
		}
		if without := slices.Delete(slices.Clone(entries), i, i+1); wrong(without) {
			entries = without
		}
	}
	v := Violation{Check: checkLife, Rollout: a.id, What: fmt.Sprintf("no order of these calls explains what was answered about rollout %s (%s)", a.id, a.plan)}
	v.History = as.lines(a, entries)
	return v
}

// until is what had begun by then; what had not ended by then may not have taken
// effect.
func until(entries []entry, end int64) []entry {
	var out []entry
	for _, e := range entries {
		switch {
		case e.begin > end:
			continue
		case e.end > end && !changes(e.event):
			continue
		case e.end > end:
			if _, open := e.event.(maybe); !open {
				e.event = maybe{e.event}
			}
			e.end = forever
		}
		out = append(out, e)
	}
	return out
}

// lines writes entries for people: when, who, through which store, what.
func (as *accounts) lines(a *account, entries []entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, as.line(e))
	}
	for i, id := range a.attempts {
		at := "never answered"
		if c := a.claims[id]; c != nil {
			at = "claimed by " + c.Worker
		}
		out = append(out, fmt.Sprintf("  attempt %s is %s, %s", name(i), id, at))
	}
	return out
}

func (as *accounts) line(e entry) string {
	when := as.at(e.begin) + " to "
	if e.end == forever {
		when += "       ?"
	} else {
		when += as.at(e.end)
	}
	if e.call == nil {
		return fmt.Sprintf("  %s  %-34s %s", when, "read at the end", e.event)
	}
	return fmt.Sprintf("  %s  %-26s store %d %s", when, e.call.Client, e.call.Store, e.event)
}

// at is a time as seconds of the run.
func (as *accounts) at(t int64) string { return fmt.Sprintf("%8.3f", float64(t-as.h.Meta.Begin)/1e9) }

// illustrate gives violations that have none the history of their rollout.
func (as *accounts) illustrate(list []Violation) {
	for i := range list {
		v := &list[i]
		if a := as.byID[v.Rollout]; a != nil && v.History == nil {
			var relevant []entry
			for _, e := range a.entries {
				if changes(e.event) || e.call == nil {
					relevant = append(relevant, e)
				}
			}
			v.History = as.lines(a, relevant)
		}
	}
}

// String says what the plan allows.
func (p Plan) String() string {
	text := fmt.Sprintf("max_attempts %d, retry_condition %v", p.MaxAttempts, p.Retry)
	if p.Timeout > 0 {
		text += fmt.Sprintf(", timeout %g s", p.Timeout)
	}
	if p.Unresponsive > 0 {
		text += fmt.Sprintf(", unresponsive %g s", p.Unresponsive)
	}
	return text
}
