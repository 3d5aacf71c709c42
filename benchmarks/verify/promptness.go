package verify

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// promptness is how soon a waiter is to be told, when nothing is broken: far
// more than it takes, and far less than waiters wait.
const promptness = 5 * time.Second

// calmFrom is the first time at or after t at which nothing is broken and
// nothing breaks within the time of promptness.
func (as *accounts) calmFrom(t int64) int64 {
	for moved := true; moved; {
		moved = false
		for _, f := range as.faults() {
			if f.Begin < t+int64(promptness) && f.End > t {
				t, moved = f.End, true
			}
		}
	}
	return t
}

func (as *accounts) faults() []Fault { return as.h.Faults }

// checkWaits: a wait returns when its rollouts have finished. What it returns is
// checked with the rollouts' lives.
func checkWaits(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "waits woken", Of: "waits", Against: fmt.Sprintf("a wait that goes on for more than %v of calm after its rollouts have finished", promptness)}
	for i := range as.h.Calls {
		call := &as.h.Calls[i]
		if call.Op != OpWait || (call.Outcome != Ok && !call.Ended) {
			continue
		}
		c.Count++
		if time.Duration(call.End-call.Begin) < promptness {
			continue
		}
		finished := call.Begin
		for _, id := range call.Rollouts {
			at := int64(forever)
			if a := as.byID[id]; a != nil {
				at = a.finishedBy()
			}
			finished = max(finished, at)
		}
		if finished > call.End {
			continue
		}
		if calm := as.calmFrom(finished); call.End > calm+int64(promptness) {
			out = append(out, Violation{Check: c.Name, Rollout: call.Rollouts[0], What: fmt.Sprintf(
				"%s waited for %v through store %d from %s to %s, though all had finished at %s and nothing was broken from %s on",
				call.Client, call.Rollouts, call.Store, as.at(call.Begin), as.at(call.End), as.at(finished), as.at(calm))})
		}
	}
	return c, out
}

// checkClaims: a waiting claim gets what is queued.
func checkClaims(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "claims woken", Of: "waiting claims", Against: fmt.Sprintf("a claim and a queued rollout that wait for more than %v of calm and do not meet", promptness)}
	var waiting []*Call
	for i := range as.h.Calls {
		call := &as.h.Calls[i]
		if call.Op == OpClaim && call.Outcome == Ok && call.Wait > 0 {
			c.Count++
			if time.Duration(call.End-call.Begin) >= promptness {
				waiting = append(waiting, call)
			}
		}
	}
	for _, a := range as.byID {
		queued, taken := a.queued()
		if taken-queued < int64(promptness) {
			continue
		}
		for _, w := range waiting {
			calm := as.calmFrom(max(queued, w.Begin))
			if until := calm + int64(promptness); until < taken && until < w.End {
				out = append(out, Violation{Check: c.Name, Rollout: a.id, What: fmt.Sprintf(
					"rollout %s was queued from %s to %s, and the claim of %s through store %d waited from %s to %s",
					a.id, as.at(queued), as.at(taken), w.Client, w.Store, as.at(w.Begin), as.at(w.End))})
				break
			}
		}
	}
	return c, out
}

// queued is from when until when a rollout surely waited in the queue for the
// first time; an empty time where that is not sure.
func (a *account) queued() (from, until int64) {
	if a.acked == forever || a.meddled {
		return 0, 0
	}
	for _, e := range a.entries {
		if claim, ok := e.event.(claimed); ok && claim.sequence == 1 && e.end != forever {
			return a.acked, e.end
		}
	}
	return 0, 0
}

// checkVerdicts: a worker that shows signs of life keeps what it holds.
func checkVerdicts(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "the living keep their attempts", Of: "heartbeats", Against: "an attempt found unresponsive sooner after a heartbeat than its limits allow"}
	if as.h.Meta.Lease < 0 {
		return c, nil
	}
	for _, a := range as.byID {
		limit := as.h.Meta.Lease
		if a.plan.Unresponsive > 0 {
			limit = min(limit, a.plan.Unresponsive)
		}
		beats := map[int][]entry{} // by attempt, answered: held
		for _, e := range a.entries {
			if h, ok := e.event.(held); ok && h.held {
				c.Count++
				beats[h.attempt] = append(beats[h.attempt], e)
			}
		}
		for _, e := range a.entries {
			for _, attempt := range unresponsiveIn(e.event) {
				last := slices.MaxFunc(append(beats[attempt], entry{}), func(x, y entry) int {
					return cmp.Compare(beforeOf(x, e), beforeOf(y, e))
				})
				since := float64(e.end-last.begin) / 1e9
				if last.end != 0 && last.end < e.begin && since < limit {
					out = append(out, Violation{Check: c.Name, Rollout: a.id, What: fmt.Sprintf(
						"attempt %s was found unresponsive %.3f s after the heartbeat at %s; its limit is %g s", a.attempts[attempt], since, as.at(last.begin), limit)})
				}
			}
		}
	}
	return c, out
}

// beforeOf orders heartbeats that had ended before e began by their time, and
// puts others first.
func beforeOf(beat, e entry) int64 {
	if beat.end >= e.begin {
		return 0
	}
	return beat.begin
}

// unresponsiveIn are the attempts that an event shows as unresponsive.
func unresponsiveIn(e event) []int {
	switch e := e.(type) {
	case looked:
		if e.latest == silent {
			return []int{e.attempt}
		}
	case *listed:
		var out []int
		for i, s := range e.standing {
			if s == silent {
				out = append(out, e.attempts[i])
			}
		}
		return out
	}
	return nil
}
