package verify

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// mostShown is how many violations of one check a report shows whole.
const mostShown = 5

// Write prints the report for people.
func (r *Report) Write(w io.Writer) error {
	out := &strings.Builder{}
	m := r.Meta
	fmt.Fprintf(out, "aglq verify: %s, seed %d\n\n", m.where(), m.Seed)
	r.writeCalls(out)
	r.writeFaults(out)
	r.writeChecks(out)
	r.writeViolations(out)
	_, err := io.WriteString(w, out.String())
	return err
}

// where says what was verified.
func (m Meta) where() string {
	var text string
	switch {
	case m.Backend == "":
		text = several(m.Stores, "running store")
	case m.Members > 0:
		text = several(m.Stores, "store") + " on a MongoDB of " + several(m.Members, "member")
	default:
		text = several(m.Stores, "store") + " on " + m.Backend
	}
	length := time.Duration(m.Phases[PhaseDrain] - m.Phases[PhaseTraffic]).Round(100 * time.Millisecond)
	drain := time.Duration(m.Phases[PhaseRead] - m.Phases[PhaseDrain]).Round(100 * time.Millisecond)
	return fmt.Sprintf("%s, %d clients, %v of traffic, %v to end", text, m.Clients, length, drain)
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (r *Report) writeCalls(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "call\t")
	for _, o := range Outcomes {
		fmt.Fprintf(t, "%s\t", o)
	}
	fmt.Fprintln(t)
	sums := map[Outcome]int{}
	row := func(name string, counts map[Outcome]int) {
		fmt.Fprintf(t, "%s\t", name)
		for _, o := range Outcomes {
			fmt.Fprintf(t, "%d\t", counts[o])
		}
		fmt.Fprintln(t)
	}
	for _, op := range Operations {
		for o, n := range r.Calls[op] {
			sums[o] += n
		}
		row(string(op), r.Calls[op])
	}
	row("all", sums)
	t.Flush() // to a strings.Builder
	fmt.Fprintln(w)
}

func (r *Report) writeFaults(w io.Writer) {
	var parts []string
	total := 0
	for _, kind := range FaultKinds {
		n, skipped := r.Faults[kind], r.Skipped[kind]
		total += n
		switch {
		case skipped > 0:
			parts = append(parts, fmt.Sprintf("%s %d (%d more not possible at the time)", kind, n, skipped))
		case n > 0:
			parts = append(parts, fmt.Sprintf("%s %d", kind, n))
		}
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	fmt.Fprintf(w, "faults: %d\n  %s\n\n", total, strings.Join(parts, ", "))
}

func (r *Report) writeChecks(w io.Writer) {
	found := map[string]int{}
	for _, v := range r.Violations {
		found[v.Check]++
	}
	fmt.Fprintf(w, "checks, on %d rollouts\n", r.Rollouts)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		verdict := "ok"
		if n := found[c.Name]; n > 0 {
			verdict = fmt.Sprintf("VIOLATED %d times", n)
		}
		delete(found, c.Name)
		fmt.Fprintf(t, "  %s\t%d %s\t%s\n", c.Name, c.Count, c.Of, verdict)
	}
	for name, n := range found {
		fmt.Fprintf(t, "  %s\t\tVIOLATED %d times\n", name, n)
	}
	t.Flush()
	if len(r.Undecided) > 0 {
		fmt.Fprintf(w, "  undecided: the histories of %d rollouts are too entangled to be checked in %v each: %s\n",
			len(r.Undecided), checkTimeout, strings.Join(r.Undecided[:min(mostShown, len(r.Undecided))], " "))
	}
	fmt.Fprintln(w)
}

func (r *Report) writeViolations(w io.Writer) {
	if len(r.Violations) == 0 {
		fmt.Fprintln(w, "no violation")
		return
	}
	shown := map[string]int{}
	for _, v := range r.Violations {
		if shown[v.Check]++; shown[v.Check] > mostShown {
			continue
		}
		fmt.Fprintf(w, "VIOLATION (%s): %s\n", v.Check, v.What)
		for _, line := range v.History {
			fmt.Fprintln(w, line)
		}
		fmt.Fprintln(w)
	}
	for _, c := range r.Checks {
		if n := shown[c.Name] - mostShown; n > 0 {
			fmt.Fprintf(w, "and %d more of %q, which is: %s\n", n, c.Name, c.Against)
		}
	}
	fmt.Fprintf(w, "%d violations\n", len(r.Violations))
}
