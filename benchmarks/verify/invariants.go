package verify

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/aglq/aglq/queue"
)

// The checks here each look at the whole history for one promise.

func checkStores(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "stores stay up", Of: "stores", Count: as.h.Meta.Stores, Against: "a store that ended without having been killed"}
	for _, crash := range as.h.Crashes {
		out = append(out, Violation{Check: c.Name, What: crash})
	}
	return c, out
}

// checkRefused: every call of the traffic is right, so none is to be turned away
// for good.
func checkRefused(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "right calls are taken", Of: "calls", Count: len(as.h.Calls), Against: "a call that is right and was refused as one that never can be"}
	for i := range as.h.Calls {
		if call := &as.h.Calls[i]; call.Outcome == Refused {
			out = append(out, Violation{Check: c.Name, What: fmt.Sprintf("%s of %s through store %d, at %s, was refused: %s",
				call.Op, call.Client, call.Store, as.at(call.Begin), call.Error)})
		}
	}
	return c, out
}

// checkEnqueued: what was acknowledged is there, and a batch is there whole or
// not at all.
func checkEnqueued(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "none lost", Of: "enqueued rollouts", Against: "a rollout that was acknowledged and is gone, or a batch of which a part is there"}
	there := map[string]bool{}
	for i := range as.h.Finals {
		there[as.h.Finals[i].Mark] = true
	}
	for i := range as.h.Calls {
		call := &as.h.Calls[i]
		if call.Op != OpEnqueue {
			continue
		}
		stored := 0
		for _, t := range call.Tasks {
			if there[t.Mark] {
				stored++
			}
		}
		c.Count += len(call.Tasks)
		switch {
		case call.Outcome == Ok && stored < len(call.Tasks):
			for _, s := range call.Seen {
				if !there[s.Mark] {
					out = append(out, Violation{Check: c.Name, Rollout: s.Rollout, What: fmt.Sprintf("rollout %s was enqueued and is not there at the end", s.Rollout)})
				}
			}
		case call.Outcome == Unknown && stored > 0 && stored < len(call.Tasks):
			out = append(out, Violation{Check: c.Name, What: fmt.Sprintf(
				"of a batch of %d rollouts, enqueued by %s with the outcome unknown, %d are there: all or none had to be", len(call.Tasks), call.Client, stored)})
		}
	}
	return c, out
}

// checkHandedOut: no attempt belongs to two claims. The accounts find those.
func checkHandedOut(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "handed out once", Of: "attempts", Against: "an attempt handed to two claimers, or to none"}
	for _, a := range as.byID {
		c.Count += len(a.claims)
	}
	return c, nil
}

// checkEnded: every rollout comes to its end once faults have stopped.
func checkEnded(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "all end", Of: "rollouts", Count: len(as.h.Finals), Against: "a rollout that is queued or held and never ends, though workers ask for work"}
	for _, id := range as.h.Stuck {
		status := queue.RolloutStatus("gone")
		if a := as.byID[id]; a != nil && a.final != nil {
			status = a.final.Status
		}
		out = append(out, Violation{Check: c.Name, Rollout: id, What: fmt.Sprintf("rollout %s is %s and does not end", id, status)})
	}
	return c, out
}

// checkCounts: what the store counts is what it lists.
func checkCounts(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "counts", Of: "statuses", Count: len(as.h.Counts), Against: "a count of rollouts that is not the length of their list"}
	for _, n := range as.h.Counts {
		if n.Listed != n.Counted {
			out = append(out, Violation{Check: c.Name, What: fmt.Sprintf("%d rollouts are %s, and the store counts %d", n.Listed, n.Status, n.Counted)})
		}
	}
	return c, out
}

// issued is a span number and the call that got it.
type issued struct {
	number, begin, end int64
	by                 string
}

// checkNumbers: the numbers of a rollout's spans are unique, and a later call
// gets a higher one.
func checkNumbers(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "span numbers", Of: "numbers", Against: "a number issued twice, or a later one that is not higher"}
	for id, list := range as.issued() {
		c.Count += len(list)
		slices.SortFunc(list, func(a, b issued) int { return cmp.Compare(a.begin, b.begin) })
		byNumber := map[int64]issued{}
		ended := slices.Clone(list)
		slices.SortFunc(ended, func(a, b issued) int { return cmp.Compare(a.end, b.end) })
		var highest issued
		for _, n := range list {
			if first, twice := byNumber[n.number]; twice {
				out = append(out, Violation{Check: c.Name, Rollout: id, What: fmt.Sprintf("number %d of rollout %s was issued twice: to %s and to %s", n.number, id, first.by, n.by)})
			}
			byNumber[n.number] = n
			for len(ended) > 0 && ended[0].end < n.begin {
				if ended[0].number > highest.number {
					highest = ended[0]
				}
				ended = ended[1:]
			}
			if n.number <= highest.number || n.number <= 0 {
				out = append(out, Violation{Check: c.Name, Rollout: id, What: fmt.Sprintf(
					"rollout %s: %s got number %d after %s had got %d", id, n.by, n.number, highest.by, highest.number)})
			}
		}
	}
	return c, out
}

// issued lists the numbers that the store gave out, by rollout: those asked for,
// and those of spans that came without.
func (as *accounts) issued() map[string][]issued {
	out := map[string][]issued{}
	stored := as.storedSpans()
	for i := range as.h.Calls {
		call := &as.h.Calls[i]
		by := fmt.Sprintf("%s of %s at %s", call.Op, call.Client, as.at(call.Begin))
		n := issued{begin: call.Begin, end: call.End, by: by}
		if call.Outcome != Ok {
			n.end = forever
		}
		switch {
		case call.Op == OpNumber && call.Outcome == Ok && !call.NotFound:
			n.number = call.Number
			out[call.Rollouts[0]] = append(out[call.Rollouts[0]], n)
		case call.Op == OpExport:
			for _, s := range call.Spans {
				if f := stored[spanKey{call.Attempts[0], s.ID}]; len(f) > 0 {
					n.number = f[0].Number
					out[call.Attempts[0].RolloutID] = append(out[call.Attempts[0].RolloutID], n)
				}
			}
		}
	}
	return out
}

type spanKey struct {
	queue.AttemptRef
	id string
}

func (as *accounts) storedSpans() map[spanKey][]FinalSpan {
	out := map[spanKey][]FinalSpan{}
	for i := range as.h.Finals {
		f := &as.h.Finals[i]
		for _, s := range f.Spans {
			k := spanKey{queue.AttemptRef{RolloutID: f.Rollout, AttemptID: s.Attempt}, s.ID}
			out[k] = append(out[k], s)
		}
	}
	return out
}

// checkSpans: every acknowledged span is there once and whole, and nothing else
// is.
func checkSpans(as *accounts) (c Checked, out []Violation) {
	c = Checked{Name: "spans", Of: "spans sent", Against: "an acknowledged span that is missing, doubled or changed, or one that nobody sent"}
	stored := as.storedSpans()
	wrong := func(k spanKey, format string, args ...any) {
		out = append(out, Violation{Check: c.Name, Rollout: k.RolloutID,
			What: fmt.Sprintf("span %s of attempt %s of rollout %s ", k.id, k.AttemptID, k.RolloutID) + fmt.Sprintf(format, args...)})
	}
	for i := range as.h.Calls {
		call := &as.h.Calls[i]
		for _, s := range call.Spans {
			c.Count++
			k := spanKey{call.Attempts[0], s.ID}
			found := stored[k]
			delete(stored, k)
			accepted := call.Outcome == Ok && !call.NotFound
			switch {
			case len(found) > 1:
				wrong(k, "is there %d times", len(found))
			case len(found) == 0 && accepted:
				wrong(k, "was acknowledged to %s at %s and is not there", call.Client, as.at(call.End))
			case len(found) == 1 && !accepted && call.Outcome != Unknown:
				wrong(k, "was refused and is there")
			case len(found) == 1 && !found[0].Whole:
				wrong(k, "is not what was sent")
			case len(found) == 1 && s.Number != 0 && found[0].Number != s.Number:
				wrong(k, "was sent with number %d and has %d", s.Number, found[0].Number)
			}
		}
	}
	for k := range stored {
		wrong(k, "was sent by nobody")
	}
	return c, out
}
