package verify

import (
	"strings"
	"testing"

	"github.com/aglq/aglq/queue"
)

const second = int64(1e9)

// story is a history as it ought to be, for tests to spoil: one rollout that
// is enqueued, claimed, traced, held and finished.
func story() *History {
	const ro, at, mark = "ro-1", "at-1", "v-1"
	ref := []queue.AttemptRef{{RolloutID: ro, AttemptID: at}}
	begun := Seen{Rollout: ro, Status: queue.RolloutPreparing, Mark: mark, Attempt: at, Sequence: 1, AttemptStatus: queue.AttemptPreparing, Worker: "w"}
	over := begun
	over.Status, over.AttemptStatus = queue.RolloutSucceeded, queue.AttemptSucceeded
	h := &History{
		Meta: Meta{Version: formatVersion, Lease: 2, Stores: 1, Backend: "memory"},
		Calls: []Call{
			{Op: OpEnqueue, Outcome: Ok, Tasks: []Task{{Mark: mark, Plan: Plan{MaxAttempts: 1}}}, Seen: []Seen{{Rollout: ro, Mark: mark}}},
			{Op: OpClaim, Outcome: Ok, Worker: "w", Wait: 1, Seen: []Seen{begun}},
			{Op: OpNumber, Outcome: Ok, Rollouts: []string{ro}, Number: 1},
			{Op: OpSpan, Outcome: Ok, Attempts: ref, Spans: []SpanMark{{ID: "s1", Number: 1}}},
			{Op: OpExport, Outcome: Ok, Attempts: ref, Spans: []SpanMark{{ID: "s2"}, {ID: "s3"}}},
			{Op: OpBeat, Outcome: Ok, Worker: "w", Attempts: ref, Held: []bool{true}, Seen: []Seen{{Rollout: ro, Status: queue.RolloutRunning}}},
			{Op: OpFinish, Outcome: Ok, Attempts: ref},
			{Op: OpWait, Outcome: Ok, Rollouts: []string{ro}, Wait: 12, Seen: []Seen{{Rollout: ro, Status: queue.RolloutSucceeded}}},
		},
		Finals: []Final{{
			Rollout: ro, Mark: mark, Status: queue.RolloutSucceeded, Attempts: []Seen{over}, Begin: 20 * second, End: 21 * second,
			Spans: []FinalSpan{
				{Attempt: at, SpanMark: SpanMark{ID: "s1", Number: 1}, Whole: true},
				{Attempt: at, SpanMark: SpanMark{ID: "s2", Number: 2}, Whole: true},
				{Attempt: at, SpanMark: SpanMark{ID: "s3", Number: 3}, Whole: true},
			},
		}},
	}
	for i := range h.Calls {
		c := &h.Calls[i]
		c.ID, c.Client = int64(i+1), "c"
		c.Begin, c.End = int64(i+1)*second, int64(i+1)*second+second/2
	}
	return h
}

// call is the call of that kind in the story.
func (h *History) call(op Operation) *Call {
	for i := range h.Calls {
		if h.Calls[i].Op == op {
			return &h.Calls[i]
		}
	}
	panic("the story has no " + string(op))
}

func TestChecks(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(h *History)
		check string // that finds it, "" for none
	}{
		{"nothing is wrong", func(*History) {}, ""},
		{"the rollout is gone", func(h *History) { h.Finals = nil; h.Calls = h.Calls[:2] }, "none lost"},
		{"half a batch", func(h *History) {
			c := h.call(OpEnqueue)
			c.Outcome = Unknown
			c.Tasks = append(c.Tasks, Task{Mark: "v-2", Plan: Plan{MaxAttempts: 1}})
		}, "none lost"},
		{"one request, two rollouts", func(h *History) {
			f := h.Finals[0]
			f.Rollout, f.Attempts, f.Spans, f.Status = "ro-2", nil, nil, queue.RolloutCancelled
			h.Finals = append(h.Finals, f)
		}, "created once"},
		{"refused and made", func(h *History) { h.call(OpEnqueue).Outcome = Refused }, "created once"},
		{"a claim is refused", func(h *History) {
			h.Calls = append(h.Calls, Call{Op: OpClaim, Outcome: Refused, Worker: "x", Error: "it is gone"})
		}, "right calls are taken"},
		{"handed to two", func(h *History) {
			c := *h.call(OpClaim)
			c.Worker = "x"
			h.Calls = append(h.Calls, c)
		}, "handed out once"},
		{"handed to nobody", func(h *History) { h.call(OpClaim).Seen = nil }, "handed out once"},
		{"handed to whom it is not known", func(h *History) {
			c := h.call(OpClaim)
			c.Outcome, c.Seen, c.End = Unknown, nil, 0
		}, ""},
		{"a rollout of others", func(h *History) { h.call(OpClaim).Seen[0] = Seen{Rollout: "ro-9", Attempt: "at-9", Sequence: 1} }, "origin"},
		{"it never ends", func(h *History) {
			h.Finals[0].Status, h.Stuck = queue.RolloutRunning, []string{"ro-1"}
		}, "all end"},
		{"the store counts wrong", func(h *History) { h.Counts = []Count{{Status: queue.RolloutQueuing, Listed: 1}} }, "counts"},
		{"a number twice", func(h *History) { h.Finals[0].Spans[1].Number = 1 }, "span numbers"},
		{"numbers go back", func(h *History) {
			h.call(OpNumber).Number, h.call(OpSpan).Spans[0].Number, h.Finals[0].Spans[0].Number = 9, 9, 9
		}, "span numbers"},
		{"a span is missing", func(h *History) { h.Finals[0].Spans = h.Finals[0].Spans[:2] }, "spans"},
		{"a span whose fate is not known is missing", func(h *History) {
			h.call(OpExport).Outcome, h.Finals[0].Spans = Unknown, h.Finals[0].Spans[:2]
		}, ""},
		{"a span is there twice", func(h *History) { h.Finals[0].Spans = append(h.Finals[0].Spans, h.Finals[0].Spans[0]) }, "spans"},
		{"a span has changed", func(h *History) { h.Finals[0].Spans[0].Whole = false }, "spans"},
		{"a span has another number", func(h *History) { h.call(OpSpan).Spans[0].Number = 7 }, "spans"},
		{"a span of nobody", func(h *History) { h.call(OpSpan).Spans = nil }, "spans"},
		{"a span was refused and is there", func(h *History) { h.call(OpSpan).Outcome = Refused }, "spans"},
		{"an attempt that is there is not found", func(h *History) {
			h.call(OpBeat).Op = OpFail
			c := h.call(OpFail)
			c.NotFound, c.Held, c.Seen = true, nil, nil
		}, checkLife},
		{"a result changes", func(h *History) { h.Finals[0].Status = queue.RolloutFailed }, checkLife},
		{"a wait is woken late", func(h *History) { h.call(OpWait).End += 10 * second }, "waits woken"},
		{"a wait is woken late, while something is broken", func(h *History) {
			h.call(OpWait).End += 10 * second
			h.Faults = []Fault{{Kind: StoreKill, Begin: 9 * second, End: 17 * second}}
		}, ""},
		{"a claim is woken late", func(h *History) {
			for i := range h.Calls[1:] {
				h.Calls[i+1].End += 10 * second
				if i > 0 {
					h.Calls[i+1].Begin += 10 * second
				}
			}
			h.Finals[0].Begin += 10 * second
			h.Finals[0].End += 10 * second
		}, "claims woken"},
		{"given up too soon", func(h *History) {
			h.Calls = append(h.Calls, Call{
				Op: OpRead, Outcome: Ok, Client: "c", Rollouts: []string{"ro-1"}, Begin: h.call(OpBeat).End + 1, End: h.call(OpBeat).End + second/10,
				Seen: []Seen{{Rollout: "ro-1", Status: queue.RolloutRequeuing, Attempt: "at-1", Sequence: 1, AttemptStatus: queue.AttemptUnresponsive, Worker: "w"}},
			})
		}, "the living keep their attempts"},
		{"a store crashes", func(h *History) { h.Crashes = []string{"store 0 ended by itself: exit status 2"} }, "stores stay up"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := story()
			test.spoil(h)
			r, err := Check(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, v := range r.Violations {
				found = found || v.Check == test.check
				if test.check == "" {
					t.Errorf("found (%s): %s\n%s", v.Check, v.What, strings.Join(v.History, "\n"))
				}
			}
			if test.check != "" && !found {
				t.Errorf("not found by %q, but %+v", test.check, r.Violations)
			}
			if len(r.Undecided) > 0 {
				t.Errorf("undecided: %v", r.Undecided)
			}
		})
	}
}

// TestShortest finds nothing in the history of a violation that does not matter
// for it.
func TestShortest(t *testing.T) {
	h := story()
	h.Finals[0].Status = queue.RolloutFailed
	r, err := Check(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	var life *Violation
	for i := range r.Violations {
		if r.Violations[i].Check == checkLife {
			life = &r.Violations[i]
		}
	}
	if life == nil {
		t.Fatalf("it is not found: %+v", r.Violations)
	}
	text := strings.Join(life.History, "\n")
	if strings.Contains(text, "heartbeat") || !strings.Contains(text, "attempt A reported as succeeded") {
		t.Errorf("the history is not the shortest:\n%s", text)
	}
	var out strings.Builder
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"VIOLATION (linearizable)", text, "1 store on memory"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out.String())
		}
	}
}
